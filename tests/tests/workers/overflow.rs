//! What happens when more is written than the store takes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kvsync::envelope::State;
use kvsync::report::{Outcome, Report};

use crate::rig::*;

/// A pipeline with little room and a store that is down.
fn full(block: Duration, bytes: usize) -> Rig {
    let rig = Rig::with(TestStore::new(false), |config| {
        config.queue_bytes = bytes;
        config.overflow_block = block;
    });
    rig.store.down();
    rig
}

#[test]
fn what_has_no_room_is_read_again() {
    let rig = full(Duration::ZERO, 400 << 10);
    for id in 0..800 {
        rig.database.insert(user(id, &format!("{id}@x"), "of the database"));
        rig.publish([put(1, user(id, &format!("{id}@x"), "of the commit"))]);
    }
    let health = rig.pipeline.health();
    assert!(health.stores[0].unsettled > 0, "{health:?}");
    assert_eq!(health.dirty, []);
    rig.store.heal();
    rig.flush();
    let count = |name: &str| {
        (0..800)
            .filter(|id| rig.store.get(&format!("user:email:{id}@x")) == Some(user(*id, &format!("{id}@x"), name)))
            .count()
    };
    let (queued, deferred) = (count("of the commit"), count("of the database"));
    assert_eq!(queued + deferred, 800);
    assert!(queued > 100 && deferred > 100, "{queued} {deferred}");
    assert_eq!(rig.database.asked.load(Ordering::SeqCst), deferred, "one reading a row");
}

#[test]
fn a_deferred_row_is_masked_before_it_is_read() {
    let rig = full(Duration::ZERO, 400 << 10);
    rig.store.heal();
    rig.write([put(1, user(799, "799@x", "Ann"))]);
    rig.store.down();
    rig.database.fail(|_| Some(down()));
    for id in 0..800 {
        rig.publish([put(2, user(id, &format!("{id}@x"), "x"))]);
    }
    rig.store.heal();
    until("masked", || rig.store.state("user:email:799@x") == Some(State::Unknown));
    rig.database.heal();
    rig.flush();
    assert_eq!(rig.store.state("user:email:799@x"), Some(State::Tombstone), "the database does not have it");
}

#[test]
fn a_publisher_waits_for_room_and_then_no_longer() {
    let rig = full(Duration::from_secs(1), 128 << 10);
    let began = std::time::Instant::now();
    for id in 0..600 {
        rig.publish([put(1, user(id, "", "x"))]);
    }
    // Below what 200 publishers waiting for a second each would take.
    assert!(began.elapsed() < Duration::from_secs(150));
    assert!(rig.pipeline.health().stores[0].unsettled > 0);
}

#[test]
fn a_publisher_that_waits_goes_on_when_there_is_room() {
    let rig = full(LONG, 128 << 10);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            for id in 0..600 {
                rig.publish([put(1, user(id, "", "x"))]);
            }
        });
        until("full", || rig.pipeline.health().stores[0].queued.bytes > 95 << 10);
        rig.store.heal();
        publishing.join().unwrap();
    });
    rig.flush();
    assert_eq!(rig.database.asked.load(Ordering::SeqCst), 0, "nothing was deferred");
    assert_eq!(rig.store.memory.len(), 600);
}

#[test]
fn one_row_that_is_written_again_and_again_takes_no_more_room() {
    let rig = full(Duration::ZERO, 128 << 10);
    rig.database.insert(user(1, "a@x", "the last"));
    for version in 0..10_000 {
        rig.publish([put(version, user(1, "a@x", "x"))]);
    }
    let health = rig.pipeline.health();
    assert_eq!((health.stores[0].unsettled, health.dirty.len()), (1, 0));
    rig.store.heal();
    rig.flush();
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "the last")));
}

#[test]
fn when_there_is_no_room_at_all_the_table_is_dirty_once() {
    let rig = full(Duration::ZERO, 128 << 10);
    let tokens: Vec<_> = (0..3000).map(|id| rig.publish([put(1, user(id, "", "x"))])).collect();
    let dirty = rig.pipeline.dirty_tables();
    assert_eq!(dirty.len(), 1);
    assert_eq!(dirty[0].table.as_deref(), Some("users"));
    assert!(dirty[0].lost > 1000);
    assert!(rig.pipeline.wait(tokens.last().unwrap(), LONG).is_err(), "its row was let go of");
    rig.store.heal();
    rig.flush();
    let reports = rig.ended();
    assert_eq!(reports.iter().filter(|report| matches!(report, Report::Dirty(_))).count(), 1);
    assert!(reports.iter().any(|report| matches!(report, Report::Key(key) if key.outcome == Outcome::Deferred)));
}

#[test]
fn rows_without_a_record_keep_their_keys_when_they_are_deferred() {
    let rig = full(Duration::ZERO, 400 << 10);
    rig.store.heal();
    for id in 0..800 {
        rig.write([put(1, Session { id, token: format!("t{id}") })]);
    }
    rig.store.down();
    // The row of 799 is deleted, and another one has its token by the time it is read again.
    for id in 0..800 {
        rig.publish([delete(5, Session { id, token: format!("t{id}") })]);
    }
    assert!(rig.pipeline.health().stores[0].unsettled > 0);
    rig.store.heal();
    let tenant = Session { id: 1000, token: "t799".into() };
    rig.database.insert(tenant.clone());
    rig.write([put(7, tenant.clone())]);
    rig.flush();
    assert_eq!(rig.store.get("session:token:t799"), Some(tenant));
    for id in 0..800 {
        assert_eq!(rig.store.state(&format!("session:id:{id}")), Some(State::Tombstone), "{id}");
    }
    assert_eq!(rig.store.state("session:token:t798"), Some(State::Tombstone));
}

#[test]
fn a_commit_larger_than_the_queue_is_taken() {
    let rig = full(Duration::ZERO, 400 << 10);
    rig.store.heal();
    for id in 0..2000 {
        rig.database.insert(user(id, "", "x"));
    }
    rig.pipeline.publisher().publish(set((0..900).map(|id| put(1, user(id, "", "x")))));
    rig.flush();
    assert_eq!(rig.store.memory.len(), 900);
}
