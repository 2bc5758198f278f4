//! A transaction that writes more rows than memory was given for.

use std::env;
use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::store::memory::MemoryStore;

use crate::rig::*;

const CHILD: &str = "KVSYNC_TEST_HUGE_ROWS";

#[test]
fn a_savepoint_takes_back_what_was_lost_in_it() {
    let on = Lite::new();
    let kv = built(
        KvSync::builder().store(MemoryStore::new()).auto_backfill(0),
        on.declared().model::<Account>().max_transaction_bytes(1000),
    );
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.transaction(|conn| {
        diesel::insert_into(accounts::table).values(account(0, "kept", 0)).execute(conn)?;
        let failed = conn.transaction::<(), _, _>(|conn| {
            for id in 1..50 {
                diesel::insert_into(accounts::table).values(account(id, "", 0)).execute(conn)?;
            }
            Err(diesel::result::Error::RollbackTransaction)
        });
        assert!(failed.is_err());
        QueryResult::Ok(())
    })
    .unwrap();
    kv.flush(LONG).unwrap();
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
    assert_eq!(Account::fetch_by_email(&kv, "kept").unwrap(), Some(account(0, "kept", 0)));
}

#[test]
fn what_a_huge_transaction_wrote_is_filled_in() {
    let on = Lite::new();
    let kv = built(
        KvSync::builder().store(MemoryStore::new()).auto_backfill(1_000_000),
        on.declared().model::<Account>().max_transaction_bytes(10_000),
    );
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(
        "INSERT INTO accounts (id, email, amount) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 1999) SELECT i, 'e' || i, i FROM n",
    )
    .unwrap();
    let token = conn.last_commit().unwrap().clone();
    let error = kv.wait(&token, LONG).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("max_transaction_bytes"), "{error:?}");
    until("it is filled in", || kv.health(LONG).pipeline.dirty.is_empty());
    kv.flush(LONG).unwrap();
    let rows = accounts::table.select(Account::as_select()).load(&mut on.plain()).unwrap();
    let emails: Vec<String> = (0..2000).map(|id| format!("e{id}")).collect();
    assert_eq!(differences(&kv, &rows, 0..2000, &emails), [""; 0]);
}

/// A process of its own updates so many rows in one transaction and says how far its memory grew.
fn grown(rows: u32) -> u64 {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "huge::child", "--nocapture"])
        .env(CHILD, rows.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    said.split("grown ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_rows_of_a_transaction() {
    let rows = env::var("KVSYNC_HUGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(120_000);
    let (some, many) = (grown(rows / 3), grown(rows));
    println!("{} KiB for {}, {many} KiB for {rows} rows", some, rows / 3);
    // Held whole, a row takes some 300 bytes; SQLite keeps what RETURNING returns in a file of its own.
    let held = u64::from(rows - rows / 3) * 300 / 1024;
    assert!(many < some + held / 4, "{some} KiB, then {many} KiB");
}

#[test]
fn child() {
    let Ok(rows) = env::var(CHILD) else { return };
    let rows: u32 = rows.parse().unwrap();
    let on = Lite::new();
    on.plain()
        .batch_execute(&format!(
            "INSERT INTO accounts (id, email, amount) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < {rows}) SELECT i, NULL, i FROM n"
        ))
        .unwrap();
    let kv = built(
        KvSync::builder().store(MemoryStore::new()).auto_backfill(0),
        on.declared().model::<Account>().max_transaction_bytes(1 << 20),
    );
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    let before = resident("VmRSS:");
    let count = diesel::update(accounts::table).set(accounts::amount.eq(-1)).execute(&mut conn).unwrap();
    let after = resident("VmHWM:");
    assert_eq!(count, usize::try_from(rows).unwrap());
    assert_eq!(kv.health(LONG).pipeline.dirty.len(), 1);
    println!("grown {} KiB", after.saturating_sub(before));
}

fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
