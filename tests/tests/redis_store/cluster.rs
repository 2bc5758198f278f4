//! What happens to a cluster, and to nobody's answer.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::redis::{Builder, RedisStore};
use kvsync::store::{Step, SyncStore};
use kvsync::{ErrorKind, Key};
use kvsync_tests::Tested;
use kvsync_tests::redis::{connected, patient};
use kvsync_tests::servers::RedisCluster;
use kvsync_tests::wait::{LONG, until};

use super::{belongs, done, put, stands, terms, write};

fn builder(cluster: &RedisCluster) -> Builder {
    patient(cluster.urls()).retry_for(LONG)
}

/// Keys of every node.
fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key:{number}")).collect()
}

/// Reads these keys; whatever is answered belongs to its key.
fn read(store: &dyn SyncStore, keys: &[String]) -> kvsync::Result<Vec<Option<u64>>> {
    let found = store.get_many(&keys.iter().map(|key| Key::new(key.as_str())).collect::<Vec<_>>())?;
    assert_eq!(found.len(), keys.len());
    Ok(keys.iter().zip(&found).map(|(key, found)| belongs(key, found.as_ref())).collect())
}

fn writes(keys: &[String], at: u64) -> Vec<Step> {
    keys.iter().map(|key| write(key, at)).collect()
}

/// Merges of rows, and what each answers belongs to its row.
fn merge(store: &dyn SyncStore, keys: &[String], at: u64) -> usize {
    let steps: Vec<Step> = keys.iter().map(|key| Step::Merge(put(&format!("row of {key}"), at, &[]))).collect();
    let answers = store.execute(&steps, &terms());
    assert_eq!(answers.len(), keys.len());
    let mut failed = 0;
    for (answer, key) in answers.into_iter().zip(keys) {
        match answer {
            Ok(kvsync::store::Outcome::Merged { record, .. }) => {
                let home = format!("row of {key}");
                assert_eq!(record.value, super::value_of(&home, record.version.sequence()), "{home}");
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error}");
                failed += 1;
            }
        }
    }
    failed
}

/// Runs readers and writers while `events` happen. They are told how many calls failed so far and how many did not; how
/// many failed in the end is returned.
fn under_traffic(store: &RedisStore, keys: &[String], events: impl FnOnce(&AtomicUsize, &AtomicUsize)) -> usize {
    let (over, at) = (AtomicBool::new(false), AtomicU64::new(2));
    let (failed, worked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = |calls: usize| if calls > 0 { &failed } else { &worked }.fetch_add(1, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for lane in 0..3 {
            let (over, at, count) = (&over, &at, &count);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match lane {
                        0 => count(usize::from(read(store, keys).is_err())),
                        1 => count(merge(store, keys, at.fetch_add(1, Ordering::Relaxed))),
                        _ => {
                            let answers = store.execute(&writes(keys, at.fetch_add(1, Ordering::Relaxed)), &terms());
                            count(answers.iter().filter(|answer| answer.is_err()).count())
                        }
                    };
                }
            });
        }
        events(&failed, &worked);
        over.store(true, Ordering::Relaxed);
    });
    failed.into_inner()
}

#[test]
fn no_answer_goes_to_another_key_when_nodes_die() -> Tested {
    let cluster = RedisCluster::start(3, 0)?;
    // Nothing is waited for, so that calls fail in the middle and connections are left in every state.
    let store =
        connected(&builder(&cluster).retry_for(Duration::from_millis(20)).command_timeout(Duration::from_millis(200)))?;
    let keys = keys(60);
    done(&builder(&cluster).cluster()?, &writes(&keys, 1));
    under_traffic(&store, &keys, |failed, worked| {
        for round in 0..150 {
            let node = cluster.node(round % 3).unwrap();
            match round % 10 {
                3 => {
                    node.pause().unwrap();
                    // Until somebody gave up on it.
                    while read(&store, &keys).is_ok() {}
                    node.resume().unwrap();
                }
                7 => {
                    node.kill().unwrap();
                    node.restart().unwrap();
                }
                _ => drop(node.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
            }
        }
        until("calls failed, and others did not", || {
            failed.load(Ordering::Relaxed) > 0 && worked.load(Ordering::Relaxed) > 0
        });
    });
    cluster.wait_until_ready()?;
    let store = builder(&cluster).cluster()?;
    done(&store, &writes(&keys, 1_000_000));
    assert_eq!(read(&store, &keys)?, vec![Some(1_000_000); keys.len()]);
    Ok(())
}

#[test]
fn slots_that_move_are_followed() -> Tested {
    let cluster = RedisCluster::start(3, 0)?;
    let store = builder(&cluster).cluster()?;
    // Many keys of one slot, and others.
    let mut keys: Vec<String> = (0..40).map(|number| format!("{{moving}}:{number}")).collect();
    keys.extend(self::keys(40));
    done(&store, &writes(&keys, 1));
    let slot = cluster.slot_of("kvsync:{moving}:1")?;
    let from = cluster.master_of(slot)?;
    let to = (from + 1) % 3;
    let failed = under_traffic(&store, &keys, |_, _| {
        for round in 0..6 {
            let (from, to) = if round % 2 == 0 { (from, to) } else { (to, from) };
            cluster.begin_migration(slot, from, to).unwrap();
            // Some of the keys stand here, some there, and new ones are made there.
            read(&store, &keys).unwrap();
            done(&store, &[write(&format!("{{moving}}:new {round}"), 1)]);
            cluster.move_keys(slot, from, to).unwrap();
            read(&store, &keys).unwrap();
            assert!(store.scan("", None, 10).unwrap_err().is_retryable(), "a scan could miss keys now");
            cluster.finish_migration(slot, to).unwrap();
            read(&store, &keys).unwrap();
        }
    });
    assert_eq!(failed, 0, "calls failed although every node was there");
    done(&store, &writes(&keys, 1_000_000));
    assert_eq!(read(&store, &keys)?, vec![Some(1_000_000); keys.len()]);
    for round in 0..6 {
        assert_eq!(stands(&store, &format!("{{moving}}:new {round}")), Some(1));
    }
    Ok(())
}

#[test]
fn an_old_map_is_corrected() -> Tested {
    let cluster = RedisCluster::start(3, 0)?;
    let store = builder(&cluster).retry_for(Duration::ZERO).cluster()?;
    let keys = keys(100);
    done(&store, &writes(&keys, 1));
    for key in &keys[..10] {
        let slot = cluster.slot_of(&format!("kvsync:{key}"))?;
        let from = cluster.master_of(slot)?;
        cluster.migrate_slot(slot, from, (from + 2) % 3)?;
    }
    // Neither needs patience: a redirection is not a failure.
    assert_eq!(read(&store, &keys)?, vec![Some(1); keys.len()]);
    let slot = cluster.slot_of("kvsync:key:50")?;
    let from = cluster.master_of(slot)?;
    cluster.migrate_slot(slot, from, (from + 1) % 3)?;
    done(&store, &writes(&keys, 2));
    assert_eq!(read(&store, &keys)?, vec![Some(2); keys.len()]);
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let page = store.scan("key:", next, 10)?;
        found.extend(page.keys);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), keys.len());
    Ok(())
}

#[test]
fn a_replica_that_takes_over_is_found() -> Tested {
    let cluster = RedisCluster::start(3, 1)?;
    let store = builder(&cluster).cluster()?;
    let reader = builder(&cluster).cluster()?;
    let keys = keys(60);
    done(&store, &writes(&keys, 1));
    assert_eq!(read(&reader, &keys)?, vec![Some(1); keys.len()]);
    let roles = |index: usize| cluster.node(index).and_then(|node| node.cli(&["INFO", "replication"]));
    under_traffic(&store, &keys, |_, _| {
        cluster.take_for_dead_after(Duration::from_secs(2)).unwrap();
        cluster.node(0).unwrap().kill().unwrap();
        until("a replica takes over", || {
            (3..6).any(|index| roles(index).is_ok_and(|info| info.contains("role:master")))
        });
        cluster.take_for_dead_after(LONG).unwrap();
    });
    // Whoever waits is served by the new primary.
    done(&store, &writes(&keys, 1_000_000));
    assert_eq!(read(&store, &keys)?, vec![Some(1_000_000); keys.len()]);
    // Who only reads never waits, and finds it all the same.
    until("it is found", || read(&reader, &keys).is_ok());
    assert_eq!(read(&reader, &keys)?, vec![Some(1_000_000); keys.len()]);
    // The old one comes back as a replica, which serves nobody.
    cluster.node(0)?.restart()?;
    cluster.wait_until_ready()?;
    done(&store, &writes(&keys, 2_000_000));
    assert_eq!(read(&store, &keys)?, vec![Some(2_000_000); keys.len()]);
    Ok(())
}

#[test]
fn a_cluster_speaks_tls_among_itself_and_to_us() -> Tested {
    let cluster = RedisCluster::start_tls(3, 0)?;
    let ca = cluster.node(0)?.ca().ok_or("no certificate")?;
    let error = builder(&cluster).cluster().expect_err("nobody that is trusted signed it");
    assert!(error.to_string().contains("`ca_file`"), "{error}");
    let store = builder(&cluster).ca_file(ca).cluster()?;
    let keys = keys(60);
    done(&store, &writes(&keys, 1));
    assert_eq!(read(&store, &keys)?, vec![Some(1); keys.len()]);
    // A node that a redirection names is reached in the same way.
    let slot = cluster.slot_of(&format!("kvsync:{}", keys[0]))?;
    let from = cluster.master_of(slot)?;
    cluster.migrate_slot(slot, from, (from + 1) % 3)?;
    done(&store, &writes(&keys, 2));
    assert_eq!(read(&store, &keys)?, vec![Some(2); keys.len()]);
    Ok(())
}
