//! What a store that fails does to changes: nothing is lost, and only what failed is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::envelope::State;
use kvsync::record::Content;
use kvsync::report::{Outcome, Report};
use kvsync::store::{Capabilities, Step};
use kvsync::{Error, ErrorKind};

use crate::rig::*;

fn key_of(step: &Step) -> &str {
    match step {
        Step::Apply(delta) | Step::Merge(delta) => delta.home.as_str(),
        Step::Write(write) => write.key.as_str(),
        Step::Confirm { home: key, .. } | Step::Sweep(key) | Step::Remove { key, .. } => key.as_str(),
    }
}

#[test]
fn a_store_that_comes_back_gets_everything() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.store.down();
        let token = rig.publish([put(1, user(1, "a@x", "Ann")), put(2, user(2, "b@x", "Bob"))]);
        assert_eq!(rig.pipeline.wait(&token, SHORT).unwrap_err().kind(), ErrorKind::Deadline);
        rig.store.heal();
        rig.pipeline.wait(&token, LONG).unwrap();
        assert_eq!(rig.store.get("user:email:b@x"), Some(user(2, "b@x", "Bob")));
        assert_eq!(rig.database.asked.load(Ordering::SeqCst), 0, "nothing had to be read again");
    }
}

#[test]
fn only_the_steps_that_failed_are_asked_again() {
    let rig = Rig::with(TestStore::new(false), |config| config.workers = 1);
    let seen = Arc::new(AtomicUsize::new(0));
    let others = Arc::clone(&seen);
    let mut failures = 5;
    rig.store.fail(move |step| match (step, key_of(step)) {
        (Step::Write(_), "user:email:a@x") if failures > 0 => {
            failures -= 1;
            Some(down())
        }
        (Step::Merge(_), _) | (_, "user:email:b@x") => {
            others.fetch_add(1, Ordering::SeqCst);
            None
        }
        _ => None,
    });
    rig.write([put(1, user(1, "a@x", "Ann")), put(2, user(2, "b@x", "Bob"))]);
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
    assert_eq!(seen.load(Ordering::SeqCst), 3, "two merges and the write of b");
}

#[test]
fn a_row_that_fails_holds_up_no_other_row() {
    let rig = Rig::with(TestStore::new(false), |config| config.workers = 1);
    rig.store.fail(|step| (key_of(step) == "user:id:1").then(down));
    let stuck = rig.publish([put(1, user(1, "a@x", "Ann"))]);
    for id in 2..20 {
        rig.write([put(id, user(i32::try_from(id).unwrap(), "", "x"))]);
    }
    assert!(rig.pipeline.wait(&stuck, SHORT).is_err());
    rig.store.heal();
    rig.pipeline.wait(&stuck, LONG).unwrap();
}

#[test]
fn a_part_of_a_store_that_stays_down_does_not_fill_the_workers() {
    let rig = Rig::with(TestStore::new(false), |config| {
        config.workers = 1;
        config.batch.rows = 4;
    });
    let dead = |key: &str| key.strip_prefix("user:id:").is_some_and(|id| id.parse::<i32>().unwrap() % 2 == 0);
    rig.store.fail(move |step| dead(key_of(step)).then(down));
    for id in 0..300 {
        rig.database.insert(user(id, "", "of the database"));
        let token = rig.publish([put(1, user(id, "", "x"))]);
        if id % 2 == 1 {
            rig.pipeline.wait(&token, LONG).unwrap();
        }
    }
    rig.store.heal();
    rig.flush();
    for id in 0..300 {
        assert!(rig.store.get::<User>(&format!("user:id:{id}")).is_some(), "{id}");
    }
}

#[test]
fn a_store_that_is_down_is_asked_once_a_round() {
    let rig = Rig::with(TestStore::new(true), |config| {
        config.workers = 1;
        config.backoff.min = std::time::Duration::from_mins(1);
        config.backoff.max = std::time::Duration::from_mins(1);
    });
    rig.store.down();
    rig.publish((0..200).map(|id| put(1, user(id, "", "x"))));
    until("tried", || rig.pipeline.health().stores[0].last_error.is_some());
    assert_eq!(rig.store.steps.load(Ordering::SeqCst), 64, "the first of four calls");
}

#[test]
fn a_write_cut_off_is_repeated() {
    let rig = Rig::new();
    let mut first = true;
    rig.store.fail(move |step| {
        (matches!(step, Step::Merge(_)) && std::mem::take(&mut first))
            .then(|| Error::new(ErrorKind::UnknownOutcome, "cut off"))
    });
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Ann")));
}

#[test]
fn a_value_too_large_sends_readers_to_the_database() {
    for whole in [false, true] {
        let capabilities = Capabilities::new(1024, 1000, 64);
        let store = TestStore::with(if whole { capabilities.with_whole_changes() } else { capabilities });
        let rig = Rig::with(store, |_| {});
        let large = "x".repeat(2000);
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.database.insert(user(1, "b@x", &large));
        let token = rig.publish([put(2, user(1, "b@x", &large))]);
        let error = rig.pipeline.wait(&token, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert_eq!(rig.store.state("user:id:1"), Some(State::Unknown));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Unknown));
        rig.flush();
        rig.write([put(2_000_000, user(1, "b@x", "Ann"))]);
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "Ann")));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
    }
}

#[test]
fn a_key_too_long_is_left_out_and_the_others_stand() {
    let rig = Rig::with(TestStore::with(Capabilities::new(40, 1 << 20, 64)), |_| {});
    let row = user(1, &"x".repeat(50), "Ann");
    rig.write([put(1, row.clone())]);
    assert_eq!(rig.store.get("user:id:1"), Some(row));
    assert_eq!(rig.store.record("user:id:1").unwrap().live, []);
}

#[test]
fn a_change_that_is_refused_is_written_as_unknown() {
    let rig = Rig::new();
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    let mut refusals = 0;
    rig.store.fail(move |step| match step {
        Step::Merge(delta) if matches!(delta.content, kvsync::record::Content::Put { .. }) && refusals < 1 => {
            refusals += 1;
            Some(refused())
        }
        _ => None,
    });
    rig.database.fail(|_| Some(down()));
    rig.publish([put(2, user(1, "a@x", "Bob"))]);
    until("masked", || rig.store.state("user:email:a@x") == Some(State::Unknown));
    assert_eq!(rig.store.record("user:id:1").unwrap().mark, v(2));
    rig.database.insert(user(1, "a@x", "Bob"));
    rig.database.heal();
    rig.flush();
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Bob")));
}

#[test]
fn a_copy_that_is_refused_is_masked() {
    let rig = Rig::new();
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.store.fail(|step| match step {
        Step::Write(write) if write.head.state == State::Value => Some(refused()),
        _ => None,
    });
    rig.write([put(2, user(1, "a@x", "Bob"))]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Bob")));
    assert_eq!(rig.store.state("user:email:a@x"), Some(State::Unknown));
}

#[test]
fn a_row_that_is_refused_altogether_is_written_once_the_cause_is_gone() {
    let rig = Rig::new();
    rig.store.fail(|step| (key_of(step) == "user:id:1").then(refused));
    rig.database.insert(user(1, "a@x", "Ann"));
    let token = rig.publish([put(1, user(1, "a@x", "Ann"))]);
    assert_eq!(rig.pipeline.wait(&token, LONG).unwrap_err().kind(), ErrorKind::Rejected);
    rig.flush();
    rig.store.heal();
    until("written", || rig.store.get("user:id:1") == Some(user(1, "a@x", "Ann")));
}

#[test]
fn a_row_that_is_refused_for_ever_is_let_go_of_and_its_table_is_dirty() {
    let rig = Rig::new();
    rig.store.fail(|step| (key_of(step) == "user:id:1").then(refused));
    rig.publish([put(1, user(1, "a@x", "Ann")), put(2, user(2, "b@x", "Bob"))]);
    until("dirty", || !rig.pipeline.dirty_tables().is_empty());
    let dirty = rig.pipeline.dirty_tables();
    assert_eq!(dirty[0].table.as_deref(), Some("users"));
    assert_eq!(rig.store.get("user:id:2"), Some(user(2, "b@x", "Bob")));
    until("let go", || rig.pipeline.health().stores[0].unsettled == 0);
    rig.pipeline.clear_dirty("main", Some("users"));
    assert!(rig.pipeline.dirty_tables().is_empty());
}

/// The store leaves alone what stands under this key.
fn leave_alone(store: &TestStore, strange: &'static str) {
    store.fail(move |step| {
        let listed = match step {
            Step::Apply(delta) => match &delta.content {
                Content::Put { keys, .. } => keys.iter().any(|listed| listed.key.as_str() == strange),
                _ => false,
            },
            _ => false,
        };
        (listed || key_of(step) == strange).then(|| Error::new(ErrorKind::Corrupt, "it is not ours"))
    });
}

#[test]
fn a_key_under_which_something_strange_stands_fails_alone_and_its_table_is_dirty() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        leave_alone(&rig.store, "user:email:b@x");
        rig.database.insert(user(1, "b@x", "Bob"));
        let token = rig.publish([put(2, user(1, "b@x", "Bob"))]);
        assert_eq!(rig.pipeline.wait(&token, LONG).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "Bob")));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
        until("dirty", || !rig.pipeline.dirty_tables().is_empty());
        let failed = rig.ended().into_iter().filter_map(|report| match report {
            Report::Key(told) if told.outcome == Outcome::Failed => Some(told),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        assert_eq!((failed[0].key.as_str(), failed[0].version), ("user:email:b@x", v(2)));
        assert_eq!(failed[0].error.as_ref().unwrap().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn where_the_record_is_strange_nothing_old_shows_under_the_other_keys() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        leave_alone(&rig.store, "user:id:1");
        rig.database.insert(user(1, "a@x", "Bob"));
        let token = rig.publish([put(2, user(1, "a@x", "Bob"))]);
        assert_eq!(rig.pipeline.wait(&token, LONG).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Unknown));
        rig.store.heal();
        until("written", || rig.store.get("user:email:a@x") == Some(user(1, "a@x", "Bob")));
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Bob")));
    }
}

#[test]
fn a_store_that_is_down_does_not_hold_up_another() {
    let (up, dead) = (TestStore::new(true), TestStore::new(false));
    dead.down();
    let other = Arc::clone(&dead);
    let rig = Rig::with(up, move |config| config.stores.push(other));
    let token = rig.publish([put(1, user(1, "a@x", "Ann"))]);
    until("written", || rig.store.get("user:id:1") == Some(user(1, "a@x", "Ann")));
    assert!(rig.pipeline.wait(&token, SHORT).is_err());
    dead.heal();
    rig.pipeline.wait(&token, LONG).unwrap();
    assert_eq!(dead.get("user:id:1"), Some(user(1, "a@x", "Ann")));
}

#[test]
fn a_change_written_by_hand_returns_the_error() {
    let rig = Rig::new();
    rig.pipeline.apply_now(&[put(1, user(1, "a@x", "Ann"))]).unwrap();
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
    let broken = rig.pipeline.apply_now(&[put(2, user(1, "a@x", "error"))]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::Codec);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Ann")));
    rig.store.down();
    assert_eq!(rig.pipeline.apply_now(&[put(3, user(1, "a@x", "Bob"))]).unwrap_err().kind(), ErrorKind::Unavailable);
    rig.store.fail(|_| Some(refused()));
    assert_eq!(rig.pipeline.apply_now(&[put(3, user(1, "a@x", "Bob"))]).unwrap_err().kind(), ErrorKind::Rejected);
}

#[test]
fn a_key_too_long_leaves_nothing_behind_when_its_row_is_deleted() {
    for whole in [false, true] {
        let capabilities = Capabilities::new(40, 1 << 20, 64);
        let rig =
            Rig::with(TestStore::with(if whole { capabilities.with_whole_changes() } else { capabilities }), |_| {});
        rig.store.fail(|step| (key_of(step).len() > 40).then(refused));
        let long = "x".repeat(50);
        rig.write([put(1, user(1, &long, "Ann")), put(2, Session { id: 1, token: long.clone() })]);
        rig.write([delete(3, user(1, &long, "Ann")), delete(4, Session { id: 1, token: long })]);
        let record = rig.store.record("user:id:1").unwrap();
        assert!(!record.alive && record.dirty.is_empty(), "{record:?}");
        assert_eq!(rig.store.state("session:id:1"), Some(State::Tombstone));
        assert!(rig.pipeline.dirty_tables().is_empty());
        rig.ended();
    }
}

#[test]
fn a_ledger_that_lists_a_key_too_long_is_mended() {
    let store = TestStore::with(Capabilities::new(40, 1 << 20, 64));
    let gone = vec![(kvsync::Key::new("x".repeat(50)), v(1))];
    let delta =
        kvsync::record::Delta { home: kvsync::Key::new("user:id:1"), version: v(1), content: Content::Delete, gone };
    let terms = kvsync::record::Terms { now: 1, left: 1_000_000, dead: 1_000_000 };
    kvsync::store::SyncStore::execute(&store.memory, &[Step::Merge(delta.into())], &terms).remove(0).unwrap();
    assert_eq!(store.record("user:id:1").unwrap().dirty.len(), 1);
    let rig = Rig::with(store, |_| {});
    rig.store.fail(|step| (key_of(step).len() > 40).then(refused));
    rig.write([put(2, user(1, "a@x", "Ann"))]);
    // What was released is confirmed when a worker has nothing else to do.
    until("confirmed", || rig.store.record("user:id:1").unwrap().dirty.is_empty());
    rig.ended();
}

#[test]
fn a_row_whose_own_key_is_too_long_sends_readers_to_the_database_and_holds_nothing_up() {
    let rig = Rig::with(TestStore::with(Capabilities::new(12, 1 << 20, 64)), |_| {});
    rig.store.fail(|step| (key_of(step).len() > 12).then(refused));
    let (short, long) = (user(7, "e", "Ann"), user(1_234_567, "e", "Ann"));
    rig.write([put(1, short.clone())]);
    rig.database.insert(long.clone());
    let token = rig.publish([delete(2, short.clone()), put(3, long.clone())]);
    let error = rig.pipeline.wait(&token, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    until("masked", || rig.store.state("user:email:e") == Some(State::Unknown));
    until("let go of", || rig.pipeline.health().stores[0].unsettled == 0);
    // What was read again has a version of the database's.
    rig.write([delete(2_000_000, long), put(2_000_001, short.clone())]);
    assert_eq!(rig.store.get("user:email:e"), Some(short));
    assert!(rig.pipeline.dirty_tables().is_empty());
    rig.ended();
}
