//! How changes are grouped on their way.

use std::sync::atomic::Ordering;

use crate::rig::*;

#[test]
fn what_has_gathered_is_written_in_one_call() {
    let rig = Rig::with(TestStore::new(true), |config| config.workers = 1);
    let (answer, wait) = std::sync::mpsc::channel::<()>();
    rig.store.fail(move |_| {
        let _ = wait.recv();
        None
    });
    rig.publish([put(1, user(0, "", "x"))]);
    until("the worker has the first row in its hands", || rig.store.steps.load(Ordering::SeqCst) > 0);
    // The others wait, and come together.
    for id in 1..50 {
        rig.publish([put(1, user(id, "", "x"))]);
    }
    drop(answer);
    rig.flush();
    assert!(rig.store.largest.load(Ordering::SeqCst) > 10);
}

#[test]
fn no_call_is_larger_than_the_store_likes() {
    let rig = Rig::with(TestStore::new(false), |config| config.workers = 1);
    let rows = (0..500).map(|id| put(1, user(id, &format!("{id}@x"), "x")));
    rig.write(rows);
    assert!(rig.store.largest.load(Ordering::SeqCst) <= 64);
    assert_eq!(rig.store.get("user:email:499@x"), Some(user(499, "499@x", "x")));
}

#[test]
fn a_large_commit_is_cut_and_done_when_all_of_it_is() {
    let rig = Rig::with(TestStore::new(true), |config| {
        config.batch.rows = 10;
        config.workers = 4;
    });
    let token = rig.publish((0..1000).map(|id| put(1, user(id, "", "x"))));
    rig.pipeline.wait(&token, LONG).unwrap();
    assert_eq!(rig.store.memory.len(), 1000);
    assert_eq!(rig.pipeline.health().written, 1000);
}

#[test]
fn an_empty_commit_is_done_at_once() {
    let rig = Rig::new();
    rig.store.down();
    rig.write([]);
    rig.flush();
}
