//! Redis evicts while it is written: what strict fetches answer is never wrong, and all comes back.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use kvsync::{ErrorKind, KvSync, Lookup};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Redis, RedisOptions};

use crate::rig::*;

const ROWS: i32 = 120;
/// Values that rows can have; a third of them is free.
const VALUES: i32 = ROWS + ROWS / 2;
const GENERATIONS: i32 = 4;
/// What the server may use beside what it uses empty: less than the rows need.
const ROOM: u64 = 500 << 10;

/// A row in a generation: all rows pass their unique values on at once.
fn row(id: i32, n: i32) -> User {
    let email = Some(format!("e{}", (id + n * 7) % VALUES));
    User { id, email, handle: format!("h{id}"), n, pad: format!("{n}").repeat(3000) }
}

/// The row that stands under a value in a generation.
fn owner(value: i32, n: i32) -> Option<User> {
    let id = (value - n * 7).rem_euclid(VALUES);
    (id < ROWS).then(|| row(id, n))
}

/// Brings all rows into this generation, in one transaction.
fn write(app: &mut App, n: i32) {
    let insert = n == 0;
    app.conn
        .transaction(|conn| {
            if !insert {
                diesel::update(users::table).set(users::email.eq(None::<String>)).execute(conn)?;
            }
            for id in 0..ROWS {
                let row = row(id, n);
                if insert {
                    diesel::insert_into(users::table).values(&row).execute(conn)?;
                } else {
                    let change = (users::email.eq(row.email), users::n.eq(n), users::pad.eq(row.pad));
                    diesel::update(users::table.find(id)).set(change).execute(conn)?;
                }
            }
            Ok::<_, diesel::result::Error>(())
        })
        .unwrap();
}

fn limit(server: &Redis, policy: &str) -> Tested {
    let used = number(server, "used_memory")?;
    let limit = (used + ROOM).to_string();
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", &limit, "maxmemory-policy", policy])?, "OK");
    Ok(())
}

fn number(server: &Redis, name: &str) -> Tested<u64> {
    let info = server.cli(&["INFO"])?;
    let value = info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    Ok(value.ok_or("INFO does not say")?.parse()?)
}

/// A strict fetch by each key of a row, or of the value of that number.
fn strict(kv: &KvSync, number: i32) -> [kvsync::Result<Option<User>>; 3] {
    [
        User::fetch_strict_by_email(kv, &format!("e{number}")),
        User::fetch_strict_by_handle(kv, &format!("h{number}")),
        User::fetch_strict_by_id(kv, number),
    ]
}

/// Fetches until told to stop: whatever is found is a row as it was committed, of the generation that was
/// flushed last or the one that is being written.
fn read(kv: &KvSync, flushed: &AtomicI32, over: &AtomicBool) -> u64 {
    let mut found = 0;
    for number in (0..VALUES).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let from = flushed.load(Ordering::SeqCst);
        for (by, answer) in strict(kv, number).into_iter().enumerate() {
            let Some(user) = answer.unwrap() else { continue };
            found += 1;
            assert_eq!(user, row(user.id, user.n), "no such row was committed");
            assert!((from..=flushed.load(Ordering::SeqCst) + 1).contains(&user.n), "{from}: {}", user.n);
            let id = if by == 0 { owner(number, user.n).map(|owner| owner.id) } else { Some(number) };
            assert_eq!(id, Some(user.id));
        }
    }
    found
}

fn survives(policy: &str) -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    // Where only what has an end is evicted, everything has.
    let ends = policy.starts_with("volatile-");
    let mut app =
        App::new(
            redis(&server.url()),
            |builder| {
                if ends { builder.expiration(Duration::from_hours(1)) } else { builder }
            },
        );
    limit(&server, policy)?;
    write(&mut app, 0);
    app.flush();
    let (flushed, over) = (AtomicI32::new(0), AtomicBool::new(false));
    let reader = KvSync::builder().store(redis(&server.url())).build()?;
    let mut left = 0;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&reader, &flushed, &over));
        for n in 1..=GENERATIONS {
            write(&mut app, n);
            app.flush();
            flushed.store(n, Ordering::SeqCst);
            for number in 0..VALUES {
                let by_id = (number < ROWS).then(|| row(number, n));
                let truth = [owner(number, n), by_id.clone(), by_id];
                for (truth, found) in truth.iter().zip(strict(&app.kv, number)) {
                    let found = found.unwrap();
                    assert!(found.is_none() || found == *truth, "{policy}: {found:?}, {truth:?}");
                }
                if let Lookup::Found(found) = User::lookup_by_email(&app.kv, &format!("e{number}")).unwrap() {
                    left += u32::from(Some(found) != truth[0]);
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        println!("{policy}: {} strict answers, {left} plain ones of rows that had left", reading.join().unwrap());
    });
    assert!(number(&server, "evicted_keys")? > 0, "{policy} evicted nothing");
    let details = app.kv.health(LONG).details;
    assert!(details.iter().any(|detail| detail.contains("has evicted keys")), "{details:?}");
    // With room again, everything is brought back, and what was left behind is found. To a repair, what has
    // an end and is missing may have ended.
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"])?, "OK");
    app.kv.backfill::<User>().run()?;
    app.kv.repair_all().run()?;
    is_the_database(&app)
}

/// Every key answers what the database holds.
fn is_the_database(app: &App) -> Tested {
    for number in 0..VALUES {
        let truth = owner(number, GENERATIONS);
        let email = format!("e{number}");
        assert_eq!(User::fetch_strict_by_email(&app.kv, &email)?, truth, "{email}");
        assert_eq!(User::fetch_by_email(&app.kv, &email)?, truth, "{email}");
        let Some(truth) = truth else { continue };
        assert_eq!(User::fetch_by_handle(&app.kv, &truth.handle)?.as_ref(), Some(&truth));
        assert_eq!(User::fetch_by_id(&app.kv, truth.id)?, Some(truth));
    }
    Ok(())
}

#[test]
fn strict_fetches_survive_the_eviction_of_any_key() -> Tested {
    ["allkeys-lru", "allkeys-lfu", "allkeys-random"].into_iter().try_for_each(survives)
}

#[test]
fn strict_fetches_survive_the_eviction_of_keys_with_an_end() -> Tested {
    ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"].into_iter().try_for_each(survives)
}

#[test]
fn a_server_that_evicts_nothing_refuses_and_the_application_goes_on() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let mut app = App::new(redis(&server.url()), |builder| builder);
    limit(&server, "noeviction")?;
    for n in 0..=GENERATIONS {
        write(&mut app, n);
    }
    until("the server refuses", || app.kv.health(LONG).details.iter().any(|detail| detail.contains("out of memory")));
    assert_eq!(app.kv.flush(Duration::from_millis(1)).unwrap_err().kind(), ErrorKind::Deadline);
    for number in 0..ROWS {
        for found in strict(&app.kv, number) {
            assert!(found?.is_none_or(|user| user == row(user.id, user.n)), "what was refused left nothing wrong");
        }
    }
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"])?, "OK");
    app.flush();
    assert_eq!((number(&server, "evicted_keys")?, app.dirty()), (0, vec![]));
    is_the_database(&app)
}
