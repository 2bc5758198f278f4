//! Several connections write at random; then the store holds what the database holds.

use std::thread;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DbError;
use diesel::sql_query;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::store::memory::MemoryStore;
use kvsync_tests::postgres::fresh_database;
use kvsync_tests::wait::LONG;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const IDS: i32 = 8;
const EMAILS: i32 = 6;
const ROUNDS: usize = 60;

/// Some statements: what fails takes its transaction with it, and that is fine.
macro_rules! write_at_random {
    ($conn:expr, $random:expr, $moves:expr) => {{
        let (conn, random) = (&mut $conn, &mut $random);
        let id = random.random_range(1..=IDS);
        let other = random.random_range(1..=IDS);
        let email = (random.random_range(0..4) > 0).then(|| format!("e{}", random.random_range(0..EMAILS)));
        let name = format!("n{}", random.random::<u32>());
        let row = (users::id.eq(id), users::email.eq(email.clone()), users::name.eq(name.clone()));
        match random.random_range(0..if $moves { 9 } else { 7 }) {
            0 | 1 => diesel::insert_into(users::table).values(row).execute(conn),
            2 => diesel::update(users::table.find(id)).set(users::email.eq(email)).execute(conn),
            3 => diesel::delete(users::table.find(id)).execute(conn),
            4 => diesel::insert_into(users::table)
                .values(row)
                .on_conflict(users::id)
                .do_update()
                .set(users::name.eq(name))
                .execute(conn),
            5 => conn.transaction(|conn| {
                // Two rows swap a value by way of NULL.
                let held: Vec<Option<String>> = users::table.find(id).select(users::email).load(conn)?;
                diesel::update(users::table.find(id)).set(users::email.eq(None::<String>)).execute(conn)?;
                diesel::update(users::table.find(other))
                    .set(users::email.eq(held.into_iter().next().flatten()))
                    .execute(conn)
            }),
            6 => conn.transaction(|conn| {
                diesel::update(users::table.find(id)).set(users::name.eq("kept")).execute(conn)?;
                let _ = conn.transaction(|conn| {
                    diesel::delete(users::table).execute(conn)?;
                    Err::<(), _>(DbError::RollbackTransaction)
                });
                diesel::insert_into(users::table).values(row).execute(conn)
            }),
            7 => sql_query(format!("UPDATE users SET id = {other} WHERE id = {id}")).execute(conn),
            _ => sql_query(format!("INSERT INTO teams VALUES ({id}); UPDATE users SET team = {id} WHERE id = {other}"))
                .execute(conn)
                .and_then(|_| sql_query(format!("DELETE FROM teams WHERE id = {id}")).execute(conn)),
        }
    }};
}

macro_rules! run {
    ($backend:ty, $open:expr, $moves:expr, |$database:ident| $configured:expr) => {{
        let open = $open;
        let $database = Database::<$backend>::new("main", {
            let open = open.clone();
            move || open()
        });
        let kv = KvSync::builder().store(MemoryStore::new()).database($configured).build().unwrap();
        if $moves {
            kv.connect::<$backend>("main").unwrap().install_triggers().unwrap();
        }
        thread::scope(|scope| {
            for seed in 0..3 {
                let mut conn = kv.connect::<$backend>("main").unwrap();
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed);
                    for _ in 0..ROUNDS {
                        let _ = write_at_random!(conn, random, $moves);
                    }
                });
            }
            if $moves {
                // Someone who does not know of kvsync.
                let mut conn = open().unwrap();
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(99);
                    for _ in 0..ROUNDS {
                        let _ = write_at_random!(conn, random, $moves);
                    }
                });
            }
        });
        let mut conn = kv.connect::<$backend>("main").unwrap();
        diesel::insert_into(users::table).values(user(1000, "last", "last")).execute(&mut conn).unwrap();
        kv.wait(conn.last_commit().unwrap(), LONG).unwrap();
        assert!(User::fetch_by_id(&kv, 1000).unwrap().is_some());
        kv.flush(LONG).unwrap();
        let rows: Vec<User> = users::table.select(User::as_select()).load(&mut conn).unwrap();
        for id in 1..=IDS {
            let row = rows.iter().find(|row| row.id == id);
            assert_eq!(User::fetch_by_id(&kv, id).unwrap().as_ref(), row, "{id}");
        }
        for email in (0..EMAILS).map(|number| format!("e{number}")) {
            let row = rows.iter().find(|row| row.email.as_ref() == Some(&email));
            assert_eq!(User::fetch_by_email(&kv, &email).unwrap().as_ref(), row, "{email}");
        }
        let depth = kv.outbox("main").unwrap().depth().unwrap();
        assert_eq!((depth.pending, depth.dead), (0, 0));
        assert!(depth.delivered > 50, "{depth:?}");
        // What the foreign keys change here without triggers, no model reads.
        let health = kv.health(LONG);
        assert!(health.pipeline.dirty.is_empty(), "{:?}", health.pipeline.dirty);
        (kv, conn)
    }};
}

fn sqlite(path: &std::path::Path) -> impl Fn() -> ConnectionResult<SqliteConnection> + Clone + Send + 'static {
    let path = path.to_str().unwrap().to_owned();
    let open = move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL")
            .unwrap();
        Ok(conn)
    };
    open().unwrap().batch_execute(&format!("{SQLITE_OUTBOX}{TABLES}")).unwrap();
    open
}

#[test]
fn the_outbox_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    run!(Sqlite, sqlite(&directory.path().join("db")), false, |database| database.model::<User>().outbox());
}

#[test]
fn triggers_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    run!(Sqlite, sqlite(&directory.path().join("db")), true, |database| database.triggers::<User>());
}

#[test]
fn the_outbox_on_postgres() {
    let database = fresh_database().unwrap();
    database.connect().unwrap().batch_execute(&format!("{POSTGRES_OUTBOX}{TABLES}")).unwrap();
    let url = database.url();
    let open = move || PgConnection::establish(&url);
    run!(Pg, open, false, |database| database.model::<User>().outbox());
}

#[test]
fn triggers_on_postgres() {
    let database = fresh_database().unwrap();
    database.connect().unwrap().batch_execute(&format!("{POSTGRES_OUTBOX}{TABLES}")).unwrap();
    let url = database.url();
    let open = move || PgConnection::establish(&url);
    let (kv, mut conn) = run!(Pg, open, true, |database| database.triggers::<User>());
    // All at once, by a statement that shows no row.
    sql_query("TRUNCATE users").execute(&mut conn).unwrap();
    kv.wait(conn.last_commit().unwrap(), LONG).unwrap();
    assert!((1..=IDS).chain([1000]).all(|id| User::fetch_by_id(&kv, id).unwrap().is_none()));
    assert!(User::fetch_by_email(&kv, "last").unwrap().is_none());
}
