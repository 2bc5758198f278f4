//! Beside live traffic nothing is accused falsely, and nothing newer is overwritten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvsync::upkeep::DifferenceKind::Stale;
use kvsync_tests::Tested;
use kvsync_tests::wait::{LONG, until};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::models::*;
use crate::rig::{Conn, On, Rig, everywhere};

/// How long a change may take from its statement into the store before it is accused.
const IN_FLIGHT: Duration = Duration::from_millis(300);

/// What writers have done.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    rows: AtomicUsize,
    /// The longest that a statement took.
    slowest: Mutex<Duration>,
}

/// Writes at random until it is told to stop.
fn write(mut conn: Conn, seed: u64, traffic: &Traffic) {
    let mut dice = StdRng::seed_from_u64(seed);
    while !traffic.stop.load(Ordering::Relaxed) {
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
        let began = Instant::now();
        // Unique constraints refuse many of them.
        let rows = conn.run(&sql).unwrap_or(0);
        let mut slowest = traffic.slowest.lock();
        *slowest = slowest.max(began.elapsed());
        traffic.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// So many writers beside whatever comes next.
fn writers(rig: &Rig, count: u64) -> (Arc<Traffic>, Vec<JoinHandle<()>>) {
    let traffic = Arc::new(Traffic::default());
    let start = |seed| {
        let (conn, traffic) = (rig.connect(), Arc::clone(&traffic));
        thread::spawn(move || write(conn, seed, &traffic))
    };
    let writers = (0..count).map(start).collect();
    (traffic, writers)
}

fn end(traffic: &Traffic, writers: Vec<JoinHandle<()>>) {
    traffic.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn nobody_is_accused_falsely_under_load() -> Tested {
    // What a busy machine holds up for longer than it may take is accused rightly: then once more.
    everywhere(|on| until("no change is held up", || accuses_nobody(on)))
}

/// Compares beside writers; whether nothing was accused. If something was, then some change took too long.
fn accuses_nobody(on: On) -> bool {
    let rig = Rig::filled(on);
    let (traffic, writers) = writers(&rig, 3);
    let began = Instant::now();
    let (mut compared, mut accused) = (0, None);
    let is_enough = |compared: u64| {
        began.elapsed() > Duration::from_secs(2) && compared >= 30 && traffic.rows.load(Ordering::Relaxed) > 50
    };
    while accused.is_none() && !is_enough(compared) {
        let found = rig.kv.verify_all().page(7).in_flight(IN_FLIGHT).run().unwrap();
        compared += found.rows;
        accused = Some(found).filter(|found| !found.is_clean());
    }
    end(&traffic, writers);
    rig.flush();
    let Some(found) = accused else {
        rig.is_clean();
        return true;
    };
    let slowest = *traffic.slowest.lock() + rig.slowest();
    assert!(slowest >= IN_FLIGHT, "{found}, and no change took longer than {slowest:?}: {:#?}", found.differences);
    false
}

#[test]
fn a_repair_beside_live_traffic_leaves_what_is_newer() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        let (traffic, writers) = writers(&rig, 2);
        let until = Instant::now() + Duration::from_secs(1);
        let mut number = 0;
        while number == 0 || Instant::now() < until {
            number += 1;
            rig.quietly(&format!("UPDATE users SET name = 'q{number}' WHERE id < 20"));
            let repaired = rig.kv.repair_all().page(7).in_flight(Duration::from_millis(100)).run().unwrap();
            assert!(repaired.is_clean(), "{repaired}: {:?}", repaired.reasons);
        }
        end(&traffic, writers);
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
