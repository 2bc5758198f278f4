//! The database is restored to an earlier state, the epoch raised, and processes go on.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use kvsync::capture::{Database, SyncConnection};
use kvsync::{KvSync, Lookup, Miss};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Postgres, Redis, RedisOptions};

use crate::rig::*;

fn process(database: &Postgres, store: &Redis) -> Tested<KvSync> {
    let url = database.url();
    let database = Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<User>();
    let every = Duration::from_millis(5);
    Ok(KvSync::builder().store(redis(&store.url())).database(database).upkeep_every(every).build()?)
}

fn put(conn: &mut SyncConnection<PgConnection>, user: &User) -> QueryResult<usize> {
    let values = (users::email.eq(&user.email), users::handle.eq(&user.handle), users::n.eq(user.n));
    diesel::insert_into(users::table).values(user).on_conflict(users::id).do_update().set(values).execute(conn)
}

fn copy(from: &Path, to: &Path) -> Tested {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err("the folder of the database could not be copied".into()) }
}

/// Every email that any row ever had.
fn emails() -> impl Iterator<Item = (i32, String)> {
    (1..=11).flat_map(|id| ["a", "b", "c"].map(|what| (id, format!("{what}{id}"))))
}

#[test]
fn after_a_restore_and_a_raised_epoch_nothing_of_before_shows_and_new_writes_win() -> Tested {
    let (database, store) = (Postgres::start()?, Redis::start(RedisOptions::default())?);
    let data = database.sql("postgres", "SHOW data_directory")?;
    let (data, backup) = (Path::new(&data).to_owned(), Path::new(&data).with_extension("backup"));
    PgConnection::establish(&database.url())?.batch_execute(TABLES)?;
    let (one, other) = (process(&database, &store)?, process(&database, &store)?);
    let mut conn = one.connect::<Pg>("main")?;
    for id in 1..=10 {
        put(&mut conn, &user(id, &format!("a{id}"), 1))?;
    }
    one.flush(LONG)?;
    database.stop()?;
    copy(&data, &backup)?;
    database.restart()?;
    // What the restore takes back: rows that are changed, moved, inserted and deleted.
    let mut conn = one.connect::<Pg>("main")?;
    for id in 1..=5 {
        put(&mut conn, &user(id, &format!("b{id}"), 2))?;
    }
    put(&mut conn, &user(11, "a11", 2))?;
    diesel::delete(users::table.find(10)).execute(&mut conn)?;
    one.flush(LONG)?;
    database.stop()?;
    std::fs::remove_dir_all(&data)?;
    copy(&backup, &data)?;
    database.restart()?;

    // Until the epoch is raised, what was taken back stands, and refuses what is written now.
    let mut conn = one.connect::<Pg>("main")?;
    put(&mut conn, &user(1, "c1", 3))?;
    one.flush(LONG)?;
    assert_eq!(User::fetch_by_id(&one, 1)?, Some(user(1, "b1", 2)), "a restore without a raised epoch is noticed");
    assert_eq!(User::fetch_by_id(&one, 11)?, Some(user(11, "a11", 2)));

    let (written, over) = (AtomicI32::new(10), AtomicBool::new(false));
    std::thread::scope(|scope| -> Tested {
        let writer = scope.spawn(|| -> Tested {
            // The other process goes on all the while, and is not told.
            let mut conn = other.connect::<Pg>("main")?;
            while !over.load(Ordering::SeqCst) {
                let n = written.load(Ordering::SeqCst) + 1;
                put(&mut conn, &user(6, if n % 2 == 0 { "c6" } else { "a6" }, n))?;
                put(&mut conn, &user(7, "a7", n))?;
                written.store(n, Ordering::SeqCst);
            }
            Ok(())
        });
        assert_eq!(one.raise_epoch()?, 1);
        // Whoever raised it sees nothing of before at once.
        for (id, email) in emails() {
            if let Some(found) = User::fetch_by_email(&one, &email)? {
                assert!((6..=7).contains(&id) && found.n > 10, "{found:?}");
            }
        }
        for id in [1, 2, 8, 10, 11] {
            assert_eq!(User::lookup_by_id(&one, id)?, Lookup::Unknown(Miss::OldEpoch), "{id}");
        }
        // The other follows at its next upkeep.
        until("the other process follows", || {
            User::lookup_by_id(&other, 11).is_ok_and(|found| found == Lookup::Unknown(Miss::OldEpoch))
        });
        let n = written.load(Ordering::SeqCst);
        until("it writes on", || written.load(Ordering::SeqCst) > n + 3);
        over.store(true, Ordering::SeqCst);
        writer.join().expect("the writer")
    })?;
    other.flush(LONG)?;
    let n = written.load(Ordering::SeqCst);
    for kv in [&one, &other] {
        assert_eq!(User::fetch_by_id(kv, 7)?.map(|user| user.n), Some(n), "what is written now wins");
        assert_eq!(User::fetch_strict_by_email(kv, "a7")?.map(|user| user.n), Some(n));
        assert_eq!(User::fetch_by_email(kv, if n % 2 == 0 { "a6" } else { "c6" })?, None);
    }
    // A process that starts now knows at once.
    let next = process(&database, &store)?;
    assert_eq!(User::fetch_by_id(&next, 11)?, None);
    let mut rows = PgConnection::establish(&database.url())?;
    let rows: Vec<User> = users::table.order(users::id).select(User::as_select()).load(&mut rows)?;
    assert_eq!(rows.iter().map(|user| user.id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    for user in &rows {
        next.sync(user)?;
    }
    for (id, email) in emails() {
        let truth = rows.iter().find(|user| user.email.as_ref() == Some(&email));
        for kv in [&one, &other, &next] {
            assert_eq!(User::fetch_by_email(kv, &email)?.as_ref(), truth, "{id}");
            assert_eq!(User::fetch_strict_by_email(kv, &email)?.as_ref(), truth);
            assert_eq!(User::fetch_by_id(kv, id)?.as_ref(), rows.iter().find(|user| user.id == id));
        }
    }
    Ok(())
}
