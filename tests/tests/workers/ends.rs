//! How a pipeline ends.

use std::sync::Arc;
use std::time::Duration;

use kvsync::report::Report;
use parking_lot::Mutex;

use crate::rig::*;

#[test]
fn a_shutdown_writes_what_is_queued_and_says_so() {
    let rig = Rig::new();
    rig.publish((0..300).map(|id| put(1, user(id, "", "x"))));
    let ended = rig.pipeline.shutdown(LONG);
    assert!(ended.is_clean(), "{ended:?}");
    assert_eq!(ended.written, 300);
    assert_eq!(rig.store.memory.len(), 300);
    assert_eq!(rig.pipeline.shutdown(LONG).written, 300, "the second call says the same");
}

#[test]
fn a_shutdown_with_a_dead_store_ends_at_its_deadline_and_says_what_is_left() {
    // A thread that was woken has a moment to end, which a busy machine may take from it: then once more.
    until("a worker that waits for a store is woken", || {
        let rig = Rig::with(TestStore::new(true), |config| {
            config.backoff.min = Duration::from_hours(1);
            config.backoff.max = Duration::from_hours(10);
        });
        rig.store.down();
        rig.publish((0..300).map(|id| put(1, user(id, "", "x"))));
        rig.publish([in_doubt(1, &user(1000, "", ""))]);
        until("tried", || rig.pipeline.health().stores[0].last_error.is_some());
        let ended = rig.pipeline.shutdown(SHORT);
        assert_eq!((ended.written, ended.left), (0, 301));
        assert_eq!(ended.errors[0].to_string(), "unavailable: the store is down");
        ended.threads == 0
    });
}

#[test]
fn a_store_that_never_answers_does_not_hold_up_the_end() {
    let rig = Rig::with(TestStore::new(true), |config| config.workers = 2);
    let (answer, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    rig.store.fail(move |_| {
        let _ = wait.lock().recv();
        None
    });
    rig.publish([put(1, user(1, "", "x"))]);
    until("asked", || rig.store.steps.load(std::sync::atomic::Ordering::SeqCst) > 0);
    let ended = rig.pipeline.shutdown(SHORT);
    assert_eq!((ended.left, ended.threads > 0), (1, true));
    drop(rig);
    drop(answer);
}

#[test]
fn what_is_committed_after_the_end_makes_its_table_dirty() {
    let rig = Rig::new();
    let publisher = rig.pipeline.publisher();
    assert!(rig.pipeline.shutdown(LONG).is_clean());
    publisher.publish(set([put(1, user(1, "", "x"))]));
    assert_eq!(rig.pipeline.dirty_tables()[0].table.as_deref(), Some("users"));
}

#[test]
fn every_report_is_told_before_the_end() {
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    let rig = Rig::with(TestStore::new(true), |config| {
        config.on_report = Some(Box::new(move |report| {
            std::thread::yield_now();
            *count.lock() += usize::from(matches!(report, Report::Key(_)));
        }));
    });
    rig.publish((0..1000).map(|id| put(1, user(id, "", "x"))));
    assert!(rig.pipeline.shutdown(LONG).is_clean());
    assert_eq!(*told.lock(), 1000);
}

#[test]
fn a_callback_that_hangs_costs_reports_and_not_writes() {
    // The workers have a moment to end, which a busy machine may take from them: then once more.
    until("only the callback is busy", || {
        let (answer, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let rig = Rig::with(TestStore::new(true), |config| {
            config.on_report = Some(Box::new(move |_| {
                let _ = wait.lock().recv();
            }));
        });
        rig.write((0..10_000).map(|id| put(1, user(id, "", "x"))));
        assert!(rig.pipeline.health().dropped_reports > 1000);
        let busy = rig.pipeline.shutdown(SHORT).threads;
        drop(answer);
        assert!(busy >= 1, "the callback hangs");
        busy == 1
    });
}
