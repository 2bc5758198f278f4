//! What stands in the store once changes are written.

use kvsync::Key;
use kvsync::envelope::{Head, State, Value};
use kvsync::record::{Order, Terms, Write};
use kvsync::store::{Step, SyncStore};

use crate::rig::*;

#[test]
fn a_row_stands_under_all_its_keys() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Ann")));
        assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
    }
}

#[test]
fn a_left_key_is_a_tombstone_at_the_version_that_was_listed_there() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.write([put(5, user(1, "b@x", "Ann"))]);
        let left = rig.store.envelope("user:email:a@x").unwrap().head;
        assert_eq!((left.state, left.version), (State::Tombstone, v(1)));
        assert_eq!(rig.store.get("user:email:b@x"), Some(user(1, "b@x", "Ann")));
    }
}

#[test]
fn a_confirmed_key_is_dropped_from_the_record() {
    let rig = Rig::new();
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.write([put(5, user(1, "b@x", "Ann"))]);
    until("the release is confirmed", || rig.store.record("user:id:1").unwrap().dirty.is_empty());
}

#[test]
fn an_older_change_heals_and_does_not_replace() {
    let rig = Rig::new();
    rig.write([put(5, user(1, "b@x", "new"))]);
    rig.write([put(1, user(1, "a@x", "old"))]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "new")));
    assert_eq!(rig.store.get::<User>("user:email:a@x"), None);
}

#[test]
fn a_deleted_row_answers_under_none_of_its_keys() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.write([delete(2, user(1, "a@x", "Ann"))]);
        assert_eq!(rig.store.state("user:id:1"), Some(State::Tombstone));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
    }
}

#[test]
fn a_delete_releases_keys_that_the_record_does_not_list() {
    for whole in [false, true] {
        for apart in [false, true] {
            let rig = Rig::with(TestStore::new(whole), |_| {});
            // A copy whose record the store has evicted.
            let head = Head { version: v(1), state: State::Value, expires_at: 0 };
            let write = Write { key: Key::new("user:email:a@x"), head, value: Value::none(), order: Order::Slot };
            rig.store.memory.execute(&[Step::Write(write)], &Terms { now: 1, left: 1, dead: 1 });
            let (old, new) = (user(1, "a@x", "Ann"), user(1, "b@x", "Ann"));
            if apart {
                rig.write([delete(2, old)]);
                rig.write([put(3, new)]);
            } else {
                rig.write([delete(2, old), put(3, new)]);
            }
            assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
            assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "Ann")));
        }
    }
}
