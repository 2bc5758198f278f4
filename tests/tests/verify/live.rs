//! Beside live traffic nothing is accused falsely, and nothing newer is overwritten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvsync::upkeep::DifferenceKind::Stale;
use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::models::*;
use crate::rig::{Conn, On, Rig, everywhere};

/// Writes at random until it is told to stop.
fn write(mut conn: Conn, seed: u64, stop: &AtomicBool) -> usize {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let (id, other, word) = (dice.random_range(1..40), dice.random_range(1..40), dice.random_range(0..30));
        let sql = match dice.random_range(0..10) {
            0 | 1 => format!("INSERT INTO users VALUES ({id}, 'e{word}@x', 'n{word}')"),
            2 => format!("DELETE FROM users WHERE id = {id}"),
            3 | 4 => format!("UPDATE users SET email = 'e{word}@x' WHERE id = {id}"),
            5 => format!("UPDATE users SET email = NULL WHERE id IN ({id}, {other})"),
            6 => format!("UPDATE users SET name = 'm{word}' WHERE id IN ({id}, {other})"),
            7 => format!("INSERT INTO posts VALUES ({id}, 's{word}', 'h{word}', NULL)"),
            8 => format!("UPDATE posts SET slug = 's{word}', hash = 'h{word}' WHERE id = {id}"),
            _ => format!("UPDATE posts SET deleted_at = CASE WHEN deleted_at IS NULL THEN 'x' END WHERE id = {id}"),
        };
        // Unique constraints refuse many of them.
        written += conn.run(&sql).unwrap_or(0);
    }
    written
}

#[test]
fn nobody_is_accused_falsely_under_load() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let (conn, stop) = (rig.connect(), Arc::clone(&stop));
                thread::spawn(move || write(conn, seed, &stop))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(2);
        let mut compared = 0;
        while Instant::now() < until || compared < 30 {
            let found = rig.kv.verify_all().page(7).in_flight(Duration::from_millis(300)).run().unwrap();
            assert!(found.is_clean(), "{found}: {:#?}", found.differences);
            compared += found.rows;
        }
        stop.store(true, Ordering::Relaxed);
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert!(written > 50, "{written} written, {compared} compared");
        rig.flush();
        rig.is_clean();
    })
}

#[test]
fn a_repair_beside_live_traffic_leaves_what_is_newer() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..2)
            .map(|seed| {
                let (conn, stop) = (rig.connect(), Arc::clone(&stop));
                thread::spawn(move || write(conn, seed, &stop))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(1);
        let mut number = 0;
        while Instant::now() < until {
            number += 1;
            rig.quietly(&format!("UPDATE users SET name = 'q{number}' WHERE id < 20"));
            let repaired = rig.kv.repair_all().page(7).in_flight(Duration::from_millis(100)).run().unwrap();
            assert!(repaired.is_clean(), "{repaired}: {:?}", repaired.reasons);
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        rig.flush();
        rig.repair();
        rig.is_clean();
    })
}

#[test]
fn a_write_between_the_finding_and_its_repair_survives() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.quietly("UPDATE users SET name = 'Anna' WHERE id = 1");
        let mut conn = rig.connect();
        let kv = rig.kv.clone();
        let mut raced = false;
        let repair = rig.kv.repair::<User>().in_flight(Duration::from_millis(1)).on_difference(move |difference| {
            assert_eq!(difference.kind, Stale);
            if !std::mem::replace(&mut raced, true) {
                conn.run("UPDATE users SET name = 'Newer', email = 'newer@x' WHERE id = 1").unwrap();
                kv.flush(LONG).unwrap();
            }
        });
        let repaired = repair.run().unwrap();
        assert!(repaired.is_clean() && repaired.mended == 2, "{repaired}");
        assert_eq!(User::fetch_by_id(&rig.kv, 1).unwrap().unwrap().name, "Newer");
        assert_eq!(User::fetch_by_email(&rig.kv, "newer@x").unwrap().unwrap().name, "Newer");
        rig.is_clean();
    })
}

#[test]
fn what_is_newer_than_a_mistaken_orphan_is_not_released() -> Tested {
    // A row comes back under its key between the finding and the repair.
    let rig = Rig::filled(On::SqliteMemory);
    rig.quietly("DELETE FROM users WHERE id = 1");
    let mut conn = rig.connect();
    let kv = rig.kv.clone();
    let mut raced = false;
    let repair = rig.kv.repair::<User>().in_flight(Duration::from_millis(1)).on_difference(move |_| {
        if !std::mem::replace(&mut raced, true) {
            conn.run("INSERT INTO users VALUES (1, 'ann@x', 'Back')").unwrap();
            kv.flush(LONG).unwrap();
        }
    });
    assert!(repair.run()?.is_clean());
    assert_eq!(User::fetch_by_email(&rig.kv, "ann@x")?.unwrap().name, "Back");
    rig.is_clean();
    Ok(())
}
