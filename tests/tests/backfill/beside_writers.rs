//! Backfills run again and again beside writers whose transactions stay open for a while. At rest the store
//! is the database's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Inner, SyncConnection, Unattached};
use kvsync::change::{Action, Change, Row};
use kvsync::store::memory::MemoryStore;
use kvsync::worker::{Pipeline, PipelineConfig};
use kvsync::{KvSync, Scope, Syncable, Version};
use kvsync_tests::servers;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::rig::*;

const IDS: i32 = 24;
const WRITERS: u64 = 4;
const TRANSACTIONS: usize = 120;

fn emails() -> Vec<String> {
    ('a'..='h').map(String::from).collect()
}

/// A transaction of a few statements, which may fail: two writers want the same email, or each other's row.
fn transaction<C: Inner>(
    conn: &mut SyncConnection<C>,
    random: &mut StdRng,
    begin: impl Fn(&mut SyncConnection<C>, &mut dyn FnMut(&mut SyncConnection<C>) -> QueryResult<()>) -> QueryResult<()>,
) {
    let statements: Vec<String> = (0..random.random_range(1..4))
        .map(|_| {
            let id = random.random_range(0..IDS);
            let email = char::from(b'a' + random.random_range(0..8));
            match random.random_range(0..8) {
                0 | 1 => format!("INSERT INTO accounts (id, email, amount) VALUES ({id}, '{email}', 1)"),
                2 => format!("DELETE FROM accounts WHERE id = {id}"),
                3 => format!("UPDATE accounts SET email = '{email}' WHERE id = {id}"),
                4 => format!("UPDATE accounts SET email = NULL, amount = 0 WHERE id = {id}"),
                5 => format!("UPDATE accounts SET closed = NOT closed WHERE id = {id}"),
                _ => format!("UPDATE accounts SET amount = amount + 1 WHERE id = {id}"),
            }
        })
        .collect();
    let (pause, fail) = (random.random_range(0..3), random.random_bool(0.1));
    // A transaction that fails changes nothing, and that is what the store is compared with.
    let _ = begin(conn, &mut |conn| {
        for statement in &statements {
            conn.batch_execute(statement)?;
            for _ in 0..pause * 40 {
                thread::yield_now();
            }
        }
        if fail { Err(diesel::result::Error::RollbackTransaction) } else { Ok(()) }
    });
}

/// Lets writers and backfills run beside each other until the writers have done their part.
fn run<C: Inner>(
    kv: &KvSync,
    connect: impl Fn() -> SyncConnection<C> + Sync,
    begin: impl Fn(&mut SyncConnection<C>, &mut dyn FnMut(&mut SyncConnection<C>) -> QueryResult<()>) -> QueryResult<()>
    + Sync,
) -> usize {
    let (done, fills) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let filling = scope.spawn(|| {
            // One at least, and as many as the writers let through: SQLite's lock is not fair.
            loop {
                kv.backfill::<Account>().rows_per_page(5).run().unwrap();
                fills.fetch_add(1, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (connect, begin) = (&connect, &begin);
                scope.spawn(move || {
                    let (mut conn, mut random) = (connect(), StdRng::seed_from_u64(writer));
                    for _ in 0..TRANSACTIONS {
                        transaction(&mut conn, &mut random, begin);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        filling.join().unwrap();
    });
    kv.flush(LONG).unwrap();
    fills.load(Ordering::SeqCst)
}

#[test]
fn the_store_is_the_databases_at_rest_on_postgres() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    let fills = run(&kv, || kv.connect::<Pg>("main").unwrap(), |conn, work| conn.transaction(|conn| work(conn)));
    let rows =
        accounts::table.filter(accounts::closed.eq(false)).select(Account::as_select()).load(&mut on.plain()).unwrap();
    assert_eq!(differences(&kv, &rows, 0..IDS, &emails()), [""; 0], "after {fills} backfills");
    assert!(!rows.is_empty());
}

#[test]
fn the_store_is_the_databases_at_rest_on_sqlite() {
    let on = Lite::new();
    let kv = on.kv(&MemoryStore::new());
    let fills =
        run(&kv, || kv.connect::<Sqlite>("main").unwrap(), |conn, work| conn.immediate_transaction(|conn| work(conn)));
    let rows =
        accounts::table.filter(accounts::closed.eq(false)).select(Account::as_select()).load(&mut on.plain()).unwrap();
    assert_eq!(differences(&kv, &rows, 0..IDS, &emails()), [""; 0], "after {fills} backfills");
    assert!(!rows.is_empty());
}

#[test]
fn what_nobody_captured_is_filled_in_beside_writers() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    on.plain()
        .batch_execute("INSERT INTO accounts SELECT 100 + i, 'x' || i, i, false FROM generate_series(1, 60) i")
        .unwrap();
    run(&kv, || kv.connect::<Pg>("main").unwrap(), |conn, work| conn.transaction(|conn| work(conn)));
    on.plain()
        .batch_execute("UPDATE accounts SET amount = amount + 1000, email = email || '.com' WHERE id > 100")
        .unwrap();
    assert!(kv.backfill::<Account>().rows_per_page(9).run().unwrap().is_complete());
    let rows =
        accounts::table.filter(accounts::closed.eq(false)).select(Account::as_select()).load(&mut on.plain()).unwrap();
    let emails: Vec<String> = (1..=60).flat_map(|i| [format!("x{i}"), format!("x{i}.com")]).chain(emails()).collect();
    assert_eq!(differences(&kv, &rows, 0..161, &emails), [""; 0]);
}

/// Why the barrier: a version that is read first and waits for nobody gives an old row a new version.
#[test]
fn the_naive_order_leaves_a_stale_row_and_the_barrier_does_not() {
    let on = Postgres::new();
    let store = MemoryStore::new();
    let pipeline = Pipeline::start(PipelineConfig::new(vec![std::sync::Arc::new(store.clone())])).unwrap();
    let attached = Box::new(on.declared().model::<Account>()).attach(pipeline.publisher()).unwrap();
    let source = attached.source();
    pipeline.set_sources(vec![source.clone()]);
    let reader = KvSync::builder().store(store).build().unwrap();
    let mut conn = attached.downcast::<Pg>().unwrap().connect().unwrap();
    diesel::insert_into(accounts::table).values(account(1, "a", 1)).execute(&mut conn).unwrap();
    // What a page of now says, at this version.
    let fill = |version: Version| {
        let page = source.page(Account::SCHEMA, &Scope::NONE, None, 10, LONG).unwrap();
        let change = |row: kvsync::model::Scanned| Change {
            schema: Account::SCHEMA,
            database: "main".into(),
            scope: Scope::NONE,
            action: Action::Reread,
            version,
            captured_at: SystemTime::now(),
            row: Row::Live(row.row.unwrap().unwrap()),
            size: 0,
        };
        let changes: Vec<Change> = page.rows.into_iter().map(change).collect();
        pipeline.apply_now(&changes).unwrap();
    };
    let (mut naive, timeline) = (on.plain(), source.barrier(LONG).unwrap().timeline());
    for (amount, stale) in [(2, true), (3, false)] {
        conn.transaction(|conn| {
            diesel::update(accounts::table).set(accounts::amount.eq(amount)).execute(conn)?;
            if stale {
                let now = sql::<BigInt>("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8");
                let now = now.get_result::<i64>(&mut naive)?.unsigned_abs();
                fill(Version::new(0, timeline, now));
            } else {
                // The barrier does not give a version while the writer is at it.
                source.barrier(std::time::Duration::from_millis(20)).unwrap_err();
            }
            QueryResult::Ok(())
        })
        .unwrap();
        if !stale {
            fill(source.barrier(LONG).unwrap());
        }
        pipeline.flush(LONG).unwrap();
        let said = Account::fetch_by_id(&reader, 1).unwrap().unwrap().amount;
        assert_eq!(said == amount, !stale, "the store says {said}, the database {amount}");
    }
}

/// The version of a barrier must not be given again after a crash: then the change that got it would lose to
/// an older row.
#[test]
fn a_crash_does_not_take_the_version_of_a_barrier_back() {
    // The WAL writer would flush by itself what is to be lost.
    let server = servers::Postgres::start_with(&[("wal_writer_delay", "10000"), ("wal_buffers", "64MB")]).unwrap();
    let url = server.create_database("app").unwrap();
    let mut conn = PgConnection::establish(&url).unwrap();
    conn.batch_execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT, amount INTEGER NOT NULL, closed BOOLEAN NOT NULL DEFAULT false)")
        .unwrap();
    let open = url.clone();
    let declared = kvsync::capture::Database::<Pg>::new("main", move || PgConnection::establish(&open));
    let recorder = kvsync_tests::recorder::Recorder::new();
    let attached = Box::new(declared.model::<Account>()).attach(recorder).unwrap();
    let source = attached.source();
    source.barrier(LONG).unwrap();
    // A megabyte of WAL that nobody waits for; the barrier's version stands behind it.
    conn.batch_execute(
        "CHECKPOINT; SET synchronous_commit = off; \
         INSERT INTO accounts SELECT i, 'e', i, false FROM generate_series(1, 10000) i",
    )
    .unwrap();
    let version = source.barrier(LONG).unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    let mut conn = PgConnection::establish(&url).unwrap();
    let now = sql::<BigInt>("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8");
    let now = now.get_result::<i64>(&mut conn).unwrap().unsigned_abs();
    assert!(now > version.sequence(), "{now} is given again after {version}");
}
