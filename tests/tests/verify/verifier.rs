//! The verifier that never ends: what it measures, and that it ends all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvsync_tests::Tested;
use kvsync_tests::wait::{LONG, until};

use crate::rig::{On, Rig};

#[test]
fn it_measures_what_is_right_and_follows_what_is_wrong() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    let (fresh, old) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (new, aged) = (Arc::clone(&fresh), Arc::clone(&old));
    let verifier = rig
        .kv
        .verifier()
        .rate(1_000_000)
        .in_flight(Duration::from_millis(5))
        .ages([Duration::from_millis(1), Duration::from_millis(2)])
        .on_difference(move |_, age| {
            (if age.is_zero() { &new } else { &aged }).fetch_add(1, Ordering::SeqCst);
        })
        .start()?;
    until("a round", || verifier.report().rounds > 0);
    let report = verifier.report();
    assert!(report.accused == 0 && report.checked > 0 && report.rows > 0, "{report:?}");
    assert!((report.consistent - 1.0).abs() < f64::EPSILON && report.at_least < 1.0, "{report:?}");
    let health = rig.kv.health(Duration::MAX);
    assert!(health.verifiers.len() == 1 && health.verifiers[0].checked >= report.checked, "{health:?}");

    rig.quietly("UPDATE users SET name = 'Quiet' WHERE id = 1");
    until("found, and told of at both ages", || {
        fresh.load(Ordering::SeqCst) >= 2 && verifier.report().ages.iter().all(|(_, count)| *count > 0)
    });
    assert!(old.load(Ordering::SeqCst) >= 2);
    let report = verifier.report();
    assert!(report.accused >= 2 && report.consistent < 1.0 && report.at_least < report.consistent, "{report:?}");

    let ended = rig.kv.shutdown(LONG);
    assert_eq!(ended.threads, 0, "its thread is joined");
    Ok(())
}

#[test]
fn it_ends_when_it_is_dropped_and_outlives_failures() -> Tested {
    let rig = Rig::filled(On::SqliteMemory);
    let verifier = rig.kv.verifier().rate(1_000_000).in_flight(Duration::from_millis(1)).start()?;
    rig.quietly("ALTER TABLE users RENAME TO gone");
    until("the failure is told", || verifier.report().last_error.is_some());
    assert_eq!(rig.kv.health(LONG).verifiers.len(), 1);
    drop(verifier);
    assert_eq!(rig.kv.health(LONG).verifiers.len(), 0);
    rig.quietly("ALTER TABLE gone RENAME TO users");
    let ended = rig.kv.shutdown(LONG);
    assert_eq!(ended.threads, 0);
    Ok(())
}
