//! What time does to changes and entries.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use kvsync::Key;
use kvsync::change::Change;
use kvsync::clock::{Clock, ManualClock, millis};
use kvsync::envelope::State;
use kvsync::model::Ttl;
use kvsync::record::Terms;
use kvsync::store::{Capabilities, Step, SyncStore};
use kvsync::worker::Retention;

use crate::rig::*;

const HOUR: Duration = Duration::from_hours(1);

fn clocked(store: Arc<TestStore>) -> (Rig, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let own = Arc::clone(&clock);
    (Rig::with(store, |config| config.clock = own), clock)
}

#[test]
fn a_change_that_is_too_old_is_read_again_and_not_written() {
    let (rig, clock) = clocked(TestStore::new(false));
    rig.store.down();
    rig.database.insert(user(1, "b@x", "of the database"));
    rig.publish([Change { captured_at: clock.now(), ..put(1, user(1, "a@x", "old")) }]);
    rig.publish([Change { captured_at: clock.now() - 85 * HOUR, ..put(1, user(2, "c@x", "too old")) }]);
    rig.store.heal();
    rig.flush();
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "old")), "half of seven days have not passed");
    assert_eq!(rig.store.state("user:id:2"), Some(State::Tombstone), "the database does not have it");
    assert_eq!(rig.store.state("user:email:c@x"), None);
    assert_eq!(rig.database.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn the_age_rule_cuts_at_half_of_d() {
    let (rig, clock) = clocked(TestStore::new(false));
    let half = Duration::from_hours(84);
    let aged = |id: i32, age: Duration| Change { captured_at: clock.now() - age, ..put(1, user(id, "", "captured")) };
    rig.write([aged(1, half), aged(2, half + Duration::from_millis(1))]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "", "captured")));
    assert_eq!(rig.store.state("user:id:2"), Some(State::Tombstone), "it was read again, and is not there");
    // A row without a record, too.
    let session = |id: i32| Session { id, token: format!("t{id}") };
    let aged = |id: i32, age: Duration| Change { captured_at: clock.now() - age, ..put(1, session(id)) };
    rig.write([aged(1, half), aged(2, half + Duration::from_millis(1))]);
    assert_eq!(rig.store.get("session:token:t1"), Some(session(1)));
    assert_eq!(rig.store.state("session:id:2"), Some(State::Tombstone));
    assert_eq!(rig.store.get::<Session>("session:token:t2"), None);
}

#[test]
fn a_change_that_became_too_old_while_a_worker_held_it_is_read_again() {
    for whole in [false, true] {
        let (rig, clock) = clocked(TestStore::new(whole));
        rig.store.down();
        let session = |token: &str| Session { id: 2, token: token.into() };
        let now = clock.now();
        let at = |change: Change| Change { captured_at: now, ..change };
        rig.publish([at(put(1, user(1, "a@x", "held"))), at(put(1, session("held")))]);
        until("a worker holds it", || rig.store.steps.load(Ordering::SeqCst) > 4);
        // By now the record of a later deletion would have come and gone.
        clock.advance(85 * HOUR);
        rig.database.insert(user(1, "b@x", "of the database"));
        rig.store.heal();
        rig.flush();
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "of the database")));
        assert_eq!(rig.store.state("user:email:a@x"), None, "what it held was never written");
        assert_eq!(rig.store.state("session:id:2"), Some(State::Tombstone));
        assert_eq!(rig.store.get::<Session>("session:token:held"), None);
        assert_eq!(rig.database.asked.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_deleted_row_does_not_come_back_after_its_record_has_gone() {
    let (rig, clock) = clocked(TestStore::new(false));
    let inserted = clock.now();
    rig.write([delete(2, user(1, "a@x", "Ann")), delete(2, Session { id: 1, token: "t".into() })]);
    clock.advance(8 * 24 * HOUR);
    let terms = Terms { now: millis(clock.now()), left: 600_000, dead: 604_800_000 };
    let keys = ["user:id:1", "user:email:a@x", "session:id:1", "session:token:t"];
    rig.store.memory.execute(&keys.map(|key| Step::Sweep(Key::new(key))), &terms);
    assert!(rig.store.memory.is_empty(), "nothing is left that could refuse it");
    let late = [put(1, user(1, "a@x", "Ann")), put(1, Session { id: 1, token: "t".into() })];
    rig.write(late.map(|change| Change { captured_at: inserted, ..change }));
    assert_eq!(rig.store.get::<User>("user:id:1"), None);
    assert_eq!(rig.store.get::<User>("user:email:a@x"), None);
    assert_eq!(rig.store.get::<Session>("session:id:1"), None);
    assert_eq!(rig.store.get::<Session>("session:token:t"), None);
}

#[test]
fn with_a_short_d_a_change_is_read_again_that_may_be_as_old_as_a_lost_record() {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let own = Arc::clone(&clock);
    let retention = Retention { left: Duration::from_mins(1), dead: Duration::from_mins(2) };
    let rig = Rig::with(TestStore::new(true), |config| (config.clock, config.retention) = (own, retention));
    let captured = clock.now();
    clock.advance(Duration::from_secs(61));
    // The newest change of the row came in time, its record was evicted, and an older change is late.
    rig.database.insert(user(1, "b@x", "newest"));
    rig.write([Change { captured_at: clock.now(), ..put(2, user(1, "b@x", "newest")) }]);
    let home = Key::new("user:id:1");
    let stands = rig.store.memory.get_many(std::slice::from_ref(&home)).unwrap().remove(0).unwrap();
    let terms = Terms { now: millis(clock.now()), left: 60_000, dead: 120_000 };
    rig.store.memory.execute(&[Step::Remove { key: home, stands }], &terms).remove(0).unwrap();
    rig.write([Change { captured_at: captured, ..put(1, user(1, "a@x", "older")) }]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "newest")));
    assert_eq!(rig.store.get("user:email:b@x"), Some(user(1, "b@x", "newest")));
    assert_eq!(rig.store.get::<User>("user:email:a@x"), None);
}

#[test]
fn masks_end_after_w_and_the_mark_of_a_row_stays() {
    let (rig, clock) = clocked(TestStore::new(false));
    rig.write([put(1, user(1, "a@x", "Ann")), put(1, Session { id: 1, token: "t".into() })]);
    rig.database.fail(|_| Some(down()));
    rig.publish([in_doubt(2, &user(1, "a@x", "Ann"))]);
    until("it is masked", || rig.store.state("user:email:a@x") == Some(State::Unknown));
    let mask = rig.store.envelope("user:email:a@x").unwrap().head;
    assert_eq!((mask.version, mask.expires_at), (v(1), millis(clock.now() + Duration::from_mins(10))));
    let marked = rig.store.record("user:id:1").unwrap();
    assert_eq!((marked.is_known(), marked.expires_at), (false, 0), "its keys are needed when it is settled");
    // A row of which nothing else was heard is kept for as long as a late change may need it.
    rig.publish([in_doubt(2, &user(2, "b@x", "Bob"))]);
    until("it is marked", || rig.store.record("user:id:2").is_some());
    assert_eq!(rig.store.record("user:id:2").unwrap().expires_at, millis(clock.now() + 7 * 24 * HOUR));
    rig.database.heal();
}

#[test]
fn a_merge_that_is_old_is_not_believed() {
    let (rig, clock) = clocked(TestStore::new(false));
    let (mut merges, time) = (0, Arc::clone(&clock));
    rig.store.fail(move |step| match step {
        Step::Merge(_) => {
            merges += 1;
            // The first answer reaches the worker after more than half of W.
            if merges == 1 {
                time.advance(Duration::from_mins(6));
            }
            None
        }
        Step::Write(_) => {
            assert_eq!(merges, 2, "it was merged again before it was written");
            None
        }
        _ => None,
    });
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
    assert_eq!(rig.pipeline.health().restarts, 0);
}

#[test]
fn tombstones_of_left_keys_and_records_of_dead_rows_end() {
    let (rig, clock) = clocked(TestStore::new(false));
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.write([put(2, user(1, "b@x", "Ann"))]);
    let at = |hours: u32| millis(clock.now() + hours * HOUR);
    assert_eq!(
        rig.store.envelope("user:email:a@x").unwrap().head.expires_at,
        millis(clock.now() + Duration::from_mins(10))
    );
    rig.write([delete(3, user(1, "b@x", "Ann"))]);
    assert_eq!(rig.store.envelope("user:id:1").unwrap().head.expires_at, at(7 * 24));
    rig.write([put(1, Session { id: 1, token: "t".into() })]);
    rig.write([delete(2, Session { id: 1, token: "t".into() })]);
    assert_eq!(rig.store.envelope("session:token:t").unwrap().head.expires_at, at(7 * 24));
}

#[test]
fn a_record_and_its_copies_end_together_and_other_rows_at_other_times() {
    let (rig, clock) = clocked(TestStore::new(false));
    let post = |id: i32| Post { id, slug: format!("s{id}"), hash: format!("h{id}") };
    rig.write((0..20).map(|id| Change { captured_at: clock.now(), ..put(1, post(id)) }));
    let end = |key: String| rig.store.envelope(&key).unwrap().head.expires_at;
    let ends: Vec<u64> = (0..20).map(|id| end(format!("post:slug:s{id}"))).collect();
    for (id, at) in ends.iter().enumerate() {
        assert_eq!(end(format!("post:hash:h{id}")), *at);
        assert!(*at > millis(clock.now() + HOUR / 2) && *at <= millis(clock.now() + HOUR));
    }
    assert!(ends.iter().any(|at| *at != ends[0]));
}

#[test]
fn the_default_end_is_for_models_that_name_none() {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let own = Arc::clone(&clock);
    let rig = Rig::with(TestStore::new(true), |config| {
        config.clock = own;
        config.default_ttl = Some(Ttl { lifetime: 2 * HOUR, jitter: 0.0 });
    });
    rig.write([Change { captured_at: clock.now(), ..put(1, user(1, "a@x", "Ann")) }]);
    assert_eq!(rig.store.envelope("user:email:a@x").unwrap().head.expires_at, millis(clock.now() + 2 * HOUR));
}

#[test]
fn expired_entries_are_swept_from_a_store_that_keeps_them() {
    for expires in [false, true] {
        let capabilities = Capabilities::new(1024, 1 << 20, 64).with_whole_changes();
        let store = TestStore::with(if expires { capabilities.with_expiry() } else { capabilities });
        let clock = Arc::new(ManualClock::at(SystemTime::now()));
        let own = Arc::clone(&clock);
        let rig = Rig::with(store, |config| {
            config.clock = own;
            config.upkeep_every = Duration::from_millis(1);
        });
        for id in 0..300 {
            rig.write([put(1, user(id, &format!("{id}@x"), "Ann"))]);
        }
        rig.write((1..300).map(|id| delete(2, user(id, &format!("{id}@x"), "Ann"))));
        assert_eq!(rig.store.memory.len(), 600);
        clock.advance(HOUR);
        if expires {
            // It does so by itself; here it does not, and nobody does it for it.
            rig.write([put(1, user(1000, "", "x"))]);
            assert_eq!(rig.store.memory.len(), 601);
            continue;
        }
        until("the tombstones are swept", || rig.store.memory.len() == 301);
        assert_eq!(rig.store.state("user:id:7"), Some(State::Tombstone), "the record is kept");
        clock.advance(8 * 24 * HOUR);
        until("the records are swept", || rig.store.memory.len() == 2);
        assert_eq!(rig.store.get("user:email:0@x"), Some(user(0, "0@x", "Ann")));
    }
}
