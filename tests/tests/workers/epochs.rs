//! What a raised epoch does to changes that were stamped before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvsync::change::Change;
use kvsync::store::SyncStore;
use kvsync::{ErrorKind, Version};

use crate::rig::*;

fn of_epoch(epoch: u32, change: Change) -> Change {
    Change { version: Version::new(epoch, 0, change.version.sequence()), ..change }
}

#[test]
fn a_change_that_loses_to_a_higher_epoch_is_read_again() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        // Another process raised the epoch and filled the store in; this one does not know yet.
        rig.store.memory.raise_epoch(4).unwrap();
        let session = |token: &str| Session { id: 1, token: token.into() };
        rig.write([of_epoch(4, put(100, user(1, "a@x", "filled in"))), of_epoch(4, put(100, session("t")))]);
        assert_eq!(rig.pipeline.epoch().load(Ordering::SeqCst), 0);
        rig.database.insert(user(1, "a@x", "newest"));
        rig.write([put(200, user(1, "a@x", "newest"))]);
        assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "newest")));
        assert_eq!(rig.pipeline.epoch().load(Ordering::SeqCst), 4);
        assert_eq!(
            rig.pipeline.apply_now(&[put(300, user(1, "a@x", "x"))]).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
}

#[test]
fn a_row_without_a_record_that_loses_to_a_higher_epoch_is_read_again() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.store.memory.raise_epoch(4).unwrap();
        let session = |id: i32, token: &str| Session { id, token: token.into() };
        rig.write([of_epoch(4, put(100, session(1, "s"))), of_epoch(4, put(100, session(2, "t")))]);
        rig.write([delete(200, session(1, "s"))]);
        assert_eq!(rig.store.get::<Session>("session:id:1"), None);
        assert_eq!(rig.store.get::<Session>("session:token:s"), None);
        assert_eq!(rig.store.get("session:token:t"), Some(session(2, "t")));
    }
}

#[test]
fn a_fair_loss_costs_no_reading() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(5, user(1, "b@x", "new"))]);
        rig.write([put(1, user(1, "a@x", "old"))]);
        rig.flush();
        assert_eq!(rig.database.asked.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn nothing_is_written_before_the_epoch_is_known() {
    let store = TestStore::new(true);
    store.memory.raise_epoch(3).unwrap();
    store.epoch_up.store(false, Ordering::SeqCst);
    let rig = Rig::with(Arc::clone(&store), |_| {});
    assert_eq!(rig.pipeline.publisher().epoch(), 0);
    rig.database.insert(user(1, "a@x", "Ann"));
    let token = rig.publish([put(200, user(1, "a@x", "Ann"))]);
    assert!(rig.pipeline.wait(&token, SHORT).is_err());
    assert_eq!(store.steps.load(Ordering::SeqCst), 0);
    store.epoch_up.store(true, Ordering::SeqCst);
    rig.pipeline.wait(&token, LONG).unwrap();
    assert_eq!(store.record("user:id:1").unwrap().version.epoch(), 3);
    assert_eq!(store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
}

#[test]
fn the_epoch_of_the_store_is_everyones() {
    let store = TestStore::new(true);
    store.memory.raise_epoch(3).unwrap();
    let (lagging, other) = (TestStore::new(true), Arc::clone(&store));
    let rig = Rig::with(Arc::clone(&lagging), |config| {
        config.stores.push(other);
        config.upkeep_every = std::time::Duration::from_millis(1);
    });
    assert_eq!(rig.pipeline.publisher().epoch(), 3);
    assert_eq!(lagging.memory.epoch().unwrap(), 3, "the other store was told");
    assert_eq!(rig.pipeline.raise_epoch().unwrap(), 4);
    assert_eq!((lagging.memory.epoch().unwrap(), store.memory.epoch().unwrap()), (4, 4));
    assert_eq!(rig.pipeline.publisher().epoch(), 4);
    store.memory.raise_epoch(9).unwrap();
    until("another process raised it", || rig.pipeline.publisher().epoch() == 9);
}
