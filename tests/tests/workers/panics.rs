//! Code of others may panic: what it was about is reported, and everything else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::ErrorKind;
use kvsync::envelope::State;
use kvsync::report::{Outcome, Report};
use kvsync::store::Step;

use crate::rig::*;

#[test]
fn a_model_that_cannot_be_encoded_is_unknown_and_the_others_stand() {
    for text in ["panic", "error"] {
        let rig = Rig::new();
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.database.insert(user(1, "a@x", text));
        let token = rig.publish([put(2, user(1, "a@x", text)), put(3, user(2, "b@x", "Bob"))]);
        assert_eq!(rig.pipeline.wait(&token, LONG).unwrap_err().kind(), ErrorKind::Codec);
        assert_eq!(rig.store.get("user:id:2"), Some(user(2, "b@x", "Bob")));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Unknown));
        rig.write([put(2_000_000, user(1, "a@x", "Cid"))]);
        assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Cid")));
    }
}

#[test]
fn a_model_that_could_not_be_encoded_once_is_read_again() {
    let rig = Rig::new();
    rig.database.insert(user(1, "a@x", "Ann"));
    rig.write([put(2, user(1, "a@x", "error"))]);
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
}

#[test]
fn a_worker_that_panics_goes_on_and_what_it_held_is_written() {
    let rig = Rig::with(TestStore::new(true), |config| config.workers = 1);
    let mut panics = 2;
    rig.store.fail(move |_| {
        if panics > 0 {
            panics -= 1;
            panic!("a bug in the store");
        }
        None
    });
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    assert_eq!(rig.store.get("user:id:1"), Some(user(1, "a@x", "Ann")));
    assert_eq!(rig.pipeline.health().restarts, 2);
    let reports = rig.ended();
    assert!(
        reports
            .iter()
            .any(|report| matches!(report, Report::Panicked { message, .. } if message == "a bug in the store"))
    );
}

#[test]
fn a_row_on_which_workers_panic_is_let_go_of_and_the_others_stand() {
    let rig = Rig::with(TestStore::new(true), |config| config.workers = 2);
    rig.store.fail(|step| {
        if let Step::Apply(delta) = step {
            assert_ne!(delta.home.as_str(), "user:id:7", "poison");
        }
        None
    });
    let token = rig.publish((0..20).map(|id| put(1, user(id, "", "x"))));
    assert!(rig.pipeline.wait(&token, LONG).is_err());
    for id in (0..20).filter(|id| *id != 7) {
        assert!(rig.store.get::<User>(&format!("user:id:{id}")).is_some(), "{id}");
    }
    assert_eq!(rig.pipeline.dirty_tables()[0].table.as_deref(), Some("users"));
    rig.flush();
    let reports = rig.ended();
    let failed = reports.iter().filter(|report| matches!(report, Report::Key(key) if key.outcome == Outcome::Failed));
    assert_eq!(failed.count(), 1);
}

#[test]
fn a_callback_that_panics_is_called_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let rig = Rig::with(TestStore::new(true), |config| {
        config.on_report = Some(Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("the callback would rather not");
        }));
    });
    rig.write([put(1, user(1, "", "x"))]);
    rig.write([put(2, user(1, "", "y"))]);
    assert!(rig.pipeline.shutdown(LONG).is_clean());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_source_that_panics_costs_its_row_only() {
    let rig = Rig::new();
    rig.database.insert(user(2, "b@x", "Bob"));
    rig.database.fail(|wanted| {
        assert!(wanted.iter().all(|row| row.primary_key.home().as_str() != "user:id:1"), "poison");
        None
    });
    rig.publish([in_doubt(1, &user(1, "", "")), in_doubt(1, &user(2, "", ""))]);
    until("the other row is settled", || rig.store.get("user:id:2") == Some(user(2, "b@x", "Bob")));
    until("the poison is let go of", || rig.pipeline.health().stores[0].unsettled == 0);
    assert_eq!(rig.pipeline.dirty_tables().len(), 1);
}
