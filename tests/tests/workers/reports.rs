//! What is told of each key of each change.

use std::sync::Arc;
use std::time::Duration;

use kvsync::change::{Action, Missed};
use kvsync::report::{KeyReport, Outcome, Report};
use kvsync::store::Capabilities;

use crate::rig::*;

fn keys(reports: Vec<Report>) -> Vec<KeyReport> {
    reports.into_iter().filter_map(|report| if let Report::Key(key) = report { Some(key) } else { None }).collect()
}

fn told(reports: &[KeyReport]) -> Vec<(Option<&str>, &str, Outcome)> {
    let mut told: Vec<_> =
        reports.iter().map(|report| (report.key_name, report.key.as_str(), report.outcome)).collect();
    told.sort_by_key(|(_, key, outcome)| (key.to_string(), outcome.to_string()));
    told
}

#[test]
fn each_key_of_a_change_is_told() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        let reports = keys(rig.ended());
        assert_eq!(
            told(&reports),
            [(Some("email"), "user:email:a@x", Outcome::Written), (Some("id"), "user:id:1", Outcome::Written)]
        );
        let report = &reports[0];
        assert_eq!((&*report.store, report.model, report.table, &*report.database), ("test", "User", "users", "main"));
        assert_eq!((report.action, report.version, report.attempts), (Action::Update, v(1), 1));
        assert!(report.error.is_none() && report.writing > Duration::ZERO);
    }
}

#[test]
fn a_left_key_is_told_as_released() {
    let rig = Rig::new();
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.write([put(2, user(1, "b@x", "Ann"))]);
    let reports: Vec<KeyReport> = keys(rig.ended()).into_iter().filter(|report| report.version == v(2)).collect();
    assert_eq!(
        told(&reports),
        [
            (None, "user:email:a@x", Outcome::Released),
            (Some("email"), "user:email:b@x", Outcome::Written),
            (Some("id"), "user:id:1", Outcome::Written),
        ]
    );
}

#[test]
fn a_deleted_row_is_told_under_all_its_keys() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.write([delete(2, user(1, "a@x", "Ann"))]);
        let reports: Vec<KeyReport> = keys(rig.ended()).into_iter().filter(|report| report.version == v(2)).collect();
        assert_eq!(
            told(&reports),
            [(Some("email"), "user:email:a@x", Outcome::Released), (Some("id"), "user:id:1", Outcome::Written)]
        );
    }
}

#[test]
fn what_came_too_late_is_told_as_superseded() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(5, user(1, "b@x", "new"))]);
        rig.write([put(1, user(1, "a@x", "old"))]);
        // In one batch as well.
        rig.write([put(6, user(2, "c@x", "x")), put(7, user(2, "c@x", "y"))]);
        let reports = keys(rig.ended());
        let late = reports.iter().filter(|report| report.version == v(1) || report.version == v(6));
        assert!(late.clone().count() >= 4);
        for report in late.filter(|report| report.key_name.is_some()) {
            assert_eq!(report.outcome, Outcome::Superseded, "{report:?}");
        }
    }
}

#[test]
fn a_row_in_doubt_is_told_as_masked_and_then_as_read_again() {
    let rig = Rig::new();
    rig.database.insert(user(1, "a@x", "Ann"));
    rig.write([in_doubt(5, &user(1, "", ""))]);
    let reports = keys(rig.ended());
    assert!(reports.iter().any(|report| report.outcome == Outcome::Masked && report.version == v(5)));
    let again: Vec<KeyReport> = reports.into_iter().filter(|report| report.action == Action::Reread).collect();
    assert_eq!(
        told(&again),
        [(Some("email"), "user:email:a@x", Outcome::Written), (Some("id"), "user:id:1", Outcome::Written)]
    );
}

#[test]
fn attempts_are_counted() {
    let rig = Rig::new();
    let mut failures = 3;
    rig.store.fail(move |_| {
        failures -= 1;
        (failures >= 0).then(down)
    });
    rig.write([put(1, user(1, "", "x"))]);
    assert_eq!(keys(rig.ended())[0].attempts, 4);
}

#[test]
fn a_key_that_the_store_cannot_hold_is_told_with_the_reason() {
    let rig = Rig::with(TestStore::with(Capabilities::new(40, 1 << 20, 64)), |_| {});
    rig.write([put(1, user(1, &"x".repeat(50), "Ann"))]);
    let reports = keys(rig.ended());
    let failed = reports.iter().find(|report| report.outcome == Outcome::Failed).unwrap();
    assert_eq!(failed.key_name, Some("email"));
    assert!(failed.error.as_ref().unwrap().to_string().contains("holds at most 40"));
}

#[test]
fn a_write_that_was_not_captured_makes_its_table_dirty() {
    let rig = Rig::new();
    let missed = || Missed::new(Arc::from("main"), Some("users".into()), "COPY is not captured", "COPY users FROM ..");
    rig.pipeline.publisher().missed(missed());
    rig.pipeline.publisher().missed(missed());
    let dirty = rig.pipeline.health().dirty;
    assert_eq!((dirty.len(), dirty[0].lost), (1, 2));
    let reports = rig.ended();
    assert_eq!(reports.iter().filter(|report| matches!(report, Report::Dirty(_))).count(), 1);
    assert_eq!(reports.iter().filter(|report| matches!(report, Report::Missed(_))).count(), 2);
}
