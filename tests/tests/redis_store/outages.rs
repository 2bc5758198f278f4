//! Failures of one server and of the way to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvsync::store::redis::{Builder, RedisStore};
use kvsync::store::{Outcome, Status, Step, Store, SyncStore};
use kvsync::{ErrorKind, Key};
use kvsync_tests::redis::{connected, patient};
use kvsync_tests::servers::{Fault, Proxy, Redis, RedisOptions, Side};
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, env};

use super::{belongs, done, prefix, put, stands, terms, write};

fn builder(url: &str) -> Builder {
    patient([url]).retry_for(LONG)
}

/// For servers that do not answer. One that does is asked until it does so in time.
fn hasty(url: &str) -> RedisStore {
    connected(&builder(url).command_timeout(Duration::from_secs(2)).retry_for(Duration::from_millis(500))).unwrap()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key:{number}")).collect()
}

fn writes(keys: &[String], at: u64) -> Vec<Step> {
    keys.iter().map(|key| write(key, at)).collect()
}

/// Reads these keys; whatever is answered belongs to its key.
fn read(store: &dyn SyncStore, keys: &[String]) -> kvsync::Result<Vec<Option<u64>>> {
    let found = store.get_many(&keys.iter().map(|key| Key::new(key.as_str())).collect::<Vec<_>>())?;
    assert_eq!(found.len(), keys.len());
    Ok(keys.iter().zip(&found).map(|(key, found)| belongs(key, found.as_ref())).collect())
}

/// Writes until all of it is done, as workers do.
fn wrote(store: &dyn SyncStore, steps: &[Step]) {
    until("it is written in time", || {
        let answers = store.execute(steps, &terms());
        let done = |answer: &kvsync::Result<Outcome>| matches!(answer, Ok(Outcome::Written | Outcome::Superseded));
        assert!(answers.iter().all(|answer| done(answer) || answer.as_ref().is_err_and(kvsync::Error::is_retryable)));
        answers.iter().all(done)
    });
}

/// The same for a reader.
fn found(store: &dyn SyncStore, keys: &[String]) -> Vec<Option<u64>> {
    let mut answer = Vec::new();
    until("it is read in time", || read(store, keys).map(|found| answer = found).is_ok());
    answer
}

#[test]
fn a_flushed_script_cache_is_filled_again() -> Tested {
    let store = builder(&env::redis_url()?).prefix(prefix("flush")).connect()?;
    let mut admin = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let keys = keys(200);
    let (flush, flushes) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || flushes.iter().for_each(|()| redis::cmd("SCRIPT").arg("FLUSH").exec(&mut admin).unwrap()));
        for at in 1..200 {
            flush.send(()).unwrap();
            let mut steps = writes(&keys, at);
            steps.push(Step::Merge(put("home", at, &["slot"])));
            steps.push(Step::Apply(put("home 2", at, &["slot 2"])));
            done(&store, &steps);
            assert_eq!(read(&store, &keys).unwrap(), vec![Some(at); keys.len()]);
        }
        drop(flush);
    });
    Ok(())
}

#[test]
fn a_restarted_server_is_found_again() -> Tested {
    let server = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
    let store = builder(&server.url()).connect()?;
    let keys = keys(100);
    done(&store, &writes(&keys, 1));
    // Connections that waited are closed now, and no call notices.
    server.restart()?;
    assert_eq!(read(&store, &keys)?, vec![Some(1); keys.len()]);
    server.restart()?;
    done(&store, &writes(&keys, 2));
    // A write that finds the server down waits for it.
    server.kill()?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| done(&store, &writes(&keys, 3)));
        server.restart().unwrap();
        writer.join().unwrap();
    });
    assert_eq!(read(&store, &keys)?, vec![Some(3); keys.len()]);
    Ok(())
}

#[test]
fn a_kill_in_mid_traffic_loses_nothing_that_was_acknowledged() -> Tested {
    let server = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
    let store = builder(&server.url()).retry_for(Duration::from_millis(50)).connect()?;
    let keys = keys(50);
    for round in 0..5_u64 {
        let over = AtomicBool::new(false);
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|lane| {
                    let (store, keys, over) = (&store, &keys, &over);
                    scope.spawn(move || {
                        let mut last = 0;
                        let mut at = round * 100_000 + 1;
                        while !over.load(Ordering::Relaxed) {
                            let own: Vec<_> = keys.iter().skip(lane).step_by(2).cloned().collect();
                            let answers = store.execute(&writes(&own, at), &terms());
                            for answer in &answers {
                                if let Err(error) = answer {
                                    let kind = error.kind();
                                    assert!(
                                        matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
                                        "{error}"
                                    );
                                }
                            }
                            if answers.iter().all(Result::is_ok) {
                                last = at;
                            }
                            at += 1;
                        }
                        last
                    })
                })
                .collect();
            // Until something was written in this round.
            while read(&store, &keys).unwrap_or_default().first().copied().flatten() < Some(round * 100_000 + 10) {}
            server.kill().unwrap();
            over.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        server.restart()?;
        for (index, found) in read(&builder(&server.url()).connect()?, &keys)?.into_iter().enumerate() {
            assert!(found >= Some(acknowledged[index % 2]), "round {round}: {index}: {found:?}, {acknowledged:?}");
        }
    }
    Ok(())
}

#[test]
fn a_server_that_hangs_ends_every_call() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = hasty(&server.url());
    let keys = keys(20);
    // After that it has a connection that works.
    wrote(&store, &writes(&keys, 1));
    server.pause()?;
    for answer in store.execute(&writes(&keys, 2), &terms()) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
        assert!(error.is_retryable());
    }
    let error = read(&store, &keys).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.epoch().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.raise_epoch(1).unwrap_err().kind(), ErrorKind::Unavailable, "it was never sent");
    assert_eq!(store.scan("", None, 10).unwrap_err().kind(), ErrorKind::Unavailable);
    let health = store.health(Duration::from_millis(300));
    assert_eq!(health.status, Status::Down);
    assert!(!health.details.is_empty());
    server.resume()?;
    // What was cut off may have happened or not; nobody else's answer comes.
    for found in found(&store, &keys) {
        assert!(matches!(found, Some(1 | 2)), "{found:?}");
    }
    wrote(&store, &writes(&keys, 2));
    assert_eq!(found(&store, &keys), vec![Some(2); keys.len()]);
    Ok(())
}

#[test]
fn a_deadline_that_has_almost_passed_holds_as_any_other() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let proxy = Proxy::start(server.port().unwrap())?;
    let store = builder(&proxy.url(&server.url())).retry_for(Duration::ZERO).connect()?;
    proxy.set(Fault::Hold);
    for left in [0, 1, 5, 15] {
        // Every connection is new: none has a timeout from before.
        assert_eq!(store.health(Duration::from_millis(left)).status, Status::Down, "{left} ms");
    }
    Ok(())
}

#[test]
fn answers_cut_anywhere_go_to_nobody_else() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let proxy = Proxy::start(server.port().unwrap())?;
    let store = builder(&proxy.url(&server.url())).connect()?;
    // Few keys, so that each cut is somewhere else in the answers, and different lengths.
    let keys: Vec<String> = (0..12).map(|number| format!("key:{}{number}", "-".repeat(number * 3))).collect();
    let direct = builder(&server.url()).connect()?;
    done(&direct, &writes(&keys, 1));
    let mut cuts = 0;
    for bytes in (0..2_000).step_by(7) {
        proxy.set(Fault::CutAfter(Side::FromServer, bytes));
        for _ in 0..2 {
            match read(&store, &keys) {
                Ok(found) => assert_eq!(found, vec![Some(1); keys.len()]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    cuts += 1;
                }
            }
        }
        proxy.heal();
        assert_eq!(read(&store, &keys)?, vec![Some(1); keys.len()], "after a cut at {bytes}");
        // Singly, as fetch does.
        assert_eq!(stands(&store, &keys[bytes % 12]), Some(1));
    }
    assert!(cuts > 50, "only {cuts} cuts hit an answer");
    Ok(())
}

#[test]
fn writes_cut_anywhere_are_in_doubt_or_done() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let proxy = Proxy::start(server.port().unwrap())?;
    let hasty = builder(&proxy.url(&server.url())).retry_for(Duration::ZERO).connect()?;
    let patient = builder(&proxy.url(&server.url())).connect()?;
    let direct = builder(&server.url()).connect()?;
    let (mut at, mut doubts) = (0, 0);
    for side in [Side::ToServer, Side::FromServer] {
        for bytes in (0..3_000).step_by(97) {
            at += 1;
            proxy.set(Fault::CutAfter(side, bytes));
            // Merges are one request each, so that a cut parts those that were answered from the others.
            let steps: Vec<Step> = (0..8).map(|row| Step::Merge(put(&format!("row {row}"), at, &[]))).collect();
            for (answer, row) in hasty.execute(&steps, &terms()).into_iter().zip(0..) {
                let found = stands(&direct, &format!("row {row}"));
                match answer {
                    Ok(Outcome::Merged { record, .. }) => {
                        assert_eq!(record.version, super::version(at));
                        assert_eq!(record.value, super::value_of(&format!("row {row}"), at));
                        assert_eq!(found, Some(at));
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => {
                        let doubt = error.kind() == ErrorKind::UnknownOutcome;
                        assert!(doubt || error.kind() == ErrorKind::Unavailable, "{error}");
                        assert!(doubt || found != Some(at), "a write that was said not to be sent was done");
                        doubts += usize::from(doubt);
                    }
                }
            }
            // Who waits is served once the network works again.
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| done(&patient, &steps));
                proxy.heal();
                writer.join().unwrap();
            });
            assert_eq!(stands(&direct, "row 7"), Some(at));
        }
    }
    assert!(doubts > 50, "only {doubts} writes were in doubt");
    Ok(())
}

#[test]
fn a_network_that_fails_in_other_ways() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let proxy = Proxy::start(server.port().unwrap())?;
    let store = hasty(&proxy.url(&server.url()));
    let keys = keys(10);
    wrote(&store, &writes(&keys, 1));
    for fault in [Fault::Hold, Fault::HalfOpen, Fault::Refuse] {
        proxy.set(fault);
        assert_eq!(read(&store, &keys).unwrap_err().kind(), ErrorKind::Unavailable, "{fault:?}");
        for answer in store.execute(&writes(&keys, 2), &terms()) {
            assert!(answer.unwrap_err().is_retryable(), "{fault:?}");
        }
        assert_eq!(store.health(Duration::from_millis(300)).status, Status::Down, "{fault:?}");
        proxy.heal();
        found(&store, &keys);
        wrote(&store, &writes(&keys, 1));
    }
    proxy.set(Fault::Delay(Duration::from_millis(30)));
    wrote(&store, &writes(&keys, 3));
    assert_eq!(found(&store, &keys), vec![Some(3); keys.len()]);
    Ok(())
}

#[test]
fn a_full_server_says_so_and_reads_on() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = builder(&server.url()).connect()?;
    done(&store, &[write("first", 1)]);
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "100kb", "maxmemory-policy", "noeviction"])?, "OK");
    for answer in store.execute(&writes(&keys(10), 1), &terms()) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("maxmemory"), "{error}");
    }
    for step in [Step::Merge(put("home", 1, &[])), Step::Apply(put("home", 1, &[])), write("one", 1)] {
        let error = store.execute(&[step], &terms()).remove(0).unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("maxmemory"), "{error}");
    }
    assert_eq!(stands(&store, "first"), Some(1));
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"])?, "OK");
    done(&store, &[write("first", 2), write("one", 1)]);
    assert_eq!(stands(&store, "first"), Some(2));
    Ok(())
}

#[test]
fn connections_that_the_server_closed_are_replaced() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = builder(&server.url()).retry_for(Duration::ZERO).connect()?;
    let keys = keys(10);
    for at in 1..20 {
        done(&store, &writes(&keys, at));
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"])?;
        assert_eq!(read(&store, &keys)?, vec![Some(at); keys.len()]);
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"])?;
        assert_eq!(store.epoch()?, 0);
    }
    Ok(())
}

#[test]
fn no_more_connections_are_kept_than_asked_for() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = builder(&server.url()).connections(2).client_name("counted").connect()?;
    let keys = keys(50);
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let (store, keys) = (&store, &keys);
            scope.spawn(move || (1..50).for_each(|at| drop(store.execute(&writes(keys, at * 8 + lane), &terms()))));
        }
    });
    // The server sees a little later that one was closed.
    until("two connections are left", || {
        let clients = server.cli(&["CLIENT", "LIST"]).unwrap();
        (1..=2).contains(&clients.lines().filter(|line| line.contains("name=counted")).count())
    });
    store.close()?;
    assert_eq!(store.epoch().unwrap_err().kind(), ErrorKind::Closed);
    assert!(store.execute(&writes(&keys, 9), &terms()).into_iter().all(|answer| answer.is_err()));
    Ok(())
}
