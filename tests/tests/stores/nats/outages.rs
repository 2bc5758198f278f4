//! Servers that fail, and clients that are in each other's way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::record::{Order, Terms, Write};
use kvsync::store::data::DataCommands;
use kvsync::store::nats::{Builder, NatsStore};
use kvsync::store::{Outcome, Status, Step, Store, SyncStore};
use kvsync::{ErrorKind, Key, Version};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::{LONG, until};

/// For servers that come back.
fn patient(server: &Nats) -> Builder {
    NatsStore::builder([server.url()]).connect_timeout(LONG).command_timeout(LONG).retry_for(LONG)
}

fn terms() -> Terms {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Terms { now: u64::try_from(now.as_millis()).unwrap(), left: 600_000, dead: 604_800_000 }
}

fn writes(keys: &[String], at: u64) -> Vec<Step> {
    let head = Head { version: Version::new(0, 1, at), state: State::Value, expires_at: 0 };
    let write = |key: &String| {
        let value = Value::model(1, &[1], key.as_bytes());
        Step::Write(Write { key: Key::new(key.as_str()), head, value, order: Order::Slot })
    };
    keys.iter().map(write).collect()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key:{number}")).collect()
}

/// The versions that stand under these keys, each with the value of its own key.
fn read(store: &NatsStore, keys: &[String]) -> kvsync::Result<Vec<Option<u64>>> {
    let found = store.get_many(&keys.iter().map(|key| Key::new(key.as_str())).collect::<Vec<_>>())?;
    let version = |(key, found): (&String, Option<bytes::Bytes>)| {
        let envelope = Envelope::parse(&found?).unwrap();
        assert_eq!(envelope.value, Value::model(1, &[1], key.as_bytes()), "another's value stands under {key}");
        Some(envelope.head.version.sequence())
    };
    Ok(keys.iter().zip(found).map(version).collect())
}

pub(super) fn a_kill_in_mid_traffic_loses_nothing_that_was_acknowledged() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = patient(&server).retry_for(Duration::from_millis(50)).connect()?;
    let keys = keys(20);
    for round in 0..3_u64 {
        let over = AtomicBool::new(false);
        let acknowledged = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut last, mut at) = (BTreeMap::new(), round * 100_000 + 1);
                while !over.load(Ordering::Relaxed) {
                    for (key, answer) in keys.iter().zip(store.execute(&writes(&keys, at), &terms())) {
                        match answer {
                            Ok(_) => drop(last.insert(key, at)),
                            Err(error) => assert!(error.is_retryable(), "{error}"),
                        }
                    }
                    at += 1;
                }
                last
            });
            until("something is written in this round", || {
                read(&store, &keys).is_ok_and(|found| found[0] > Some(round * 100_000 + 5))
            });
            server.kill().unwrap();
            over.store(true, Ordering::Relaxed);
            // Who is in the middle of a write waits for the server.
            server.restart().unwrap();
            writer.join().unwrap()
        });
        for (key, found) in keys.iter().zip(read(&store, &keys)?) {
            assert!(found >= acknowledged.get(key).copied(), "round {round}: {key}: {found:?}, {acknowledged:?}");
        }
    }
    Ok(())
}

pub(super) fn an_increment_that_was_cut_off_is_told_and_not_repeated() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = patient(&server).connect()?;
    let over = AtomicBool::new(false);
    let (done, doubtful) = std::thread::scope(|scope| {
        let counting: Vec<_> = (0..4)
            .map(|lane| {
                let (store, over) = (&store, &over);
                scope.spawn(move || {
                    let (mut done, mut doubtful) = (0_i64, 0_i64);
                    while !over.load(Ordering::Relaxed) {
                        match store.incr_by(format!("counter:{}", lane % 2), 1) {
                            Ok(_) => done += 1,
                            Err(error) if error.kind() == ErrorKind::UnknownOutcome => doubtful += 1,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    (done, doubtful)
                })
            })
            .collect();
        for round in 1..=3 {
            until("the counters move", || store.incr_by("counter:0", 0).is_ok_and(|counted| counted > round * 20));
            server.kill().unwrap();
            server.restart().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        counting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    let counted = store.incr_by("counter:0", 0)? + store.incr_by("counter:1", 0)?;
    assert!(counted >= done && counted <= done + doubtful, "{counted} counted, {done} done, {doubtful} in doubt");
    Ok(())
}

pub(super) fn a_server_that_hangs_ends_every_call() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let direct = patient(&server).connect()?;
    let keys = keys(20);
    let hasty = patient(&server).command_timeout(Duration::from_millis(500)).retry_for(Duration::from_millis(200));
    let store = hasty.connect()?;
    assert!(direct.execute(&writes(&keys, 1), &terms()).iter().all(Result::is_ok));
    server.pause()?;
    for answer in store.execute(&writes(&keys, 2), &terms()) {
        let error = answer.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    assert_eq!(read(&store, &keys).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.epoch().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.raise_epoch(1).unwrap_err().kind(), ErrorKind::Unavailable, "it was never sent");
    assert_eq!(store.scan("", None, 10).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.incr_by("counter", 1).unwrap_err().kind(), ErrorKind::Unavailable, "it was never sent");
    assert_eq!(store.health(Duration::from_millis(300)).status, Status::Down);
    assert_eq!(store.health(Duration::ZERO).status, Status::Down);
    server.resume()?;
    until("the server answers again", || read(&store, &keys).is_ok());
    for outcome in direct.execute(&writes(&keys, 3), &terms()) {
        assert_eq!(outcome?, Outcome::Written);
    }
    assert_eq!(read(&direct, &keys)?, vec![Some(3); keys.len()]);
    Ok(())
}

pub(super) fn a_server_that_comes_back_is_found_by_who_waits() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = patient(&server).connect()?;
    let keys = keys(50);
    assert!(store.execute(&writes(&keys, 1), &terms()).iter().all(Result::is_ok));
    server.restart()?;
    assert_eq!(read(&store, &keys)?, vec![Some(1); keys.len()]);
    server.kill()?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.execute(&writes(&keys, 2), &terms()));
        server.restart().unwrap();
        assert!(writer.join().unwrap().iter().all(Result::is_ok));
    });
    assert_eq!(read(&store, &keys)?, vec![Some(2); keys.len()]);
    store.close()?;
    assert_eq!(store.epoch().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.get("key").unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

/// Within one store writers of a key take turns, so that only stores of their own can be in each other's way.
pub(super) fn clients_that_race_lose_nothing() -> Tested {
    const EACH: i64 = 60;
    let server = Nats::start(&NatsOptions::default())?;
    let clients: Vec<Arc<NatsStore>> =
        (0..4).map(|_| patient(&server).connect().map(Arc::new)).collect::<Result<_, _>>()?;
    let (taken, freed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (number, store) in clients.iter().enumerate() {
            let (taken, freed) = (&taken, &freed);
            scope.spawn(move || {
                for round in 0..EACH {
                    store.incr_by("counter", 1).unwrap();
                    store.sadd("set", [format!("{number}:{round}")]).unwrap();
                    // Now and then the entry is gone in between, and with it the revision. Who frees what is taken
                    // frees nothing that was taken since.
                    let took = store.set_if_absent("passing", "x").unwrap();
                    taken.fetch_add(u64::from(took), Ordering::Relaxed);
                    freed.fetch_add(u64::from(store.delete("passing").unwrap()), Ordering::Relaxed);
                }
            });
        }
    });
    let store = &clients[0];
    assert_eq!(store.incr_by("counter", 0)?, EACH * 4);
    assert_eq!(store.smembers("set")?.len(), usize::try_from(EACH * 4)?);
    assert_eq!(store.get("passing")?, None, "each was freed by somebody");
    assert_eq!(taken.into_inner(), freed.into_inner());
    Ok(())
}
