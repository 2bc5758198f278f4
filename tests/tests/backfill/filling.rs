//! A backfill writes every row of a table into the store, and nothing over what is newer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Inner, SyncConnection};
use kvsync::store::memory::MemoryStore;
use kvsync::upkeep::Checkpoint;
use kvsync::{ErrorKind, KvSync, Lookup, Syncable};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::rig::*;

const HUNDRED: &str = "INSERT INTO accounts (id, email, amount, closed) \
                       WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) \
                       SELECT i, 'e' || i, i, i = 50 FROM n";

fn hundred() -> Vec<Account> {
    (0..100).filter(|id| *id != 50).map(|id| account(id, &format!("e{id}"), id)).collect()
}

fn emails() -> Vec<String> {
    (0..100).map(|id| format!("e{id}")).collect()
}

#[test]
fn every_row_stands_under_every_key_on_both_databases() {
    let (lite, postgres) = (Lite::new(), Postgres::new());
    lite.plain().batch_execute(HUNDRED).unwrap();
    postgres.plain().batch_execute(HUNDRED).unwrap();
    for kv in [lite.kv(&MemoryStore::new()), postgres.kv(&MemoryStore::new())] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let summary = kv
            .backfill::<Account>()
            .rows_per_page(7)
            .on_progress(move |progress| {
                told.lock().push((progress.rows, progress.estimate, progress.next.is_some()));
                ControlFlow::Continue(())
            })
            .run()
            .unwrap();
        assert!(summary.is_complete(), "{summary}");
        assert_eq!((summary.rows, summary.written, summary.masked, summary.superseded), (100, 100, 0, 0), "{summary}");
        assert_eq!(differences(&kv, &hundred(), 0..100, &emails()), [""; 0]);
        assert_eq!(Account::lookup_by_id(&kv, 50).unwrap(), Lookup::Absent);
        let seen = seen.lock();
        assert_eq!(seen.len(), 15);
        assert_eq!(seen[0], (7, Some(100), true));
        assert_eq!(seen[14], (100, Some(100), false));
        // A second time, by name: nothing is newer, and all is written at a newer version.
        assert_eq!(kv.backfill_model("Account").run().unwrap().written, 100);
    }
}

#[test]
fn what_is_written_meanwhile_stays_on_sqlite() {
    let on = Lite::new();
    on.plain().batch_execute(HUNDRED).unwrap();
    let kv = on.kv(&MemoryStore::new());
    written_meanwhile(&kv, kv.connect::<Sqlite>("main").unwrap());
}

#[test]
fn what_is_written_meanwhile_stays_on_postgres() {
    let on = Postgres::new();
    on.plain().batch_execute(HUNDRED).unwrap();
    let kv = on.kv(&MemoryStore::new());
    written_meanwhile(&kv, kv.connect::<Pg>("main").unwrap());
}

fn written_meanwhile<C: Inner + Send>(kv: &KvSync, mut conn: SyncConnection<C>)
where
    SyncConnection<C>: Send,
{
    let (handle, mut pages) = (kv.clone(), 0);
    let summary = kv
        .backfill::<Account>()
        .rows_per_page(50)
        .on_progress(move |_| {
            pages += 1;
            if pages == 1 {
                // Behind and before the position: changed, moved, deleted and inserted.
                for sql in [
                    "UPDATE accounts SET amount = -1 WHERE id IN (1, 99)",
                    "UPDATE accounts SET email = 'moved' WHERE id = 2",
                    "UPDATE accounts SET email = 'e2' WHERE id = 98",
                    "DELETE FROM accounts WHERE id IN (3, 97)",
                    "INSERT INTO accounts (id, email, amount) VALUES (-5, 'e3', 0), (1000, 'e97', 0)",
                ] {
                    conn.batch_execute(sql).unwrap();
                }
                handle.flush(LONG).unwrap();
            }
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert!(summary.superseded > 0, "{summary}");
    let mut rows = hundred();
    rows.retain(|row| row.id != 3 && row.id != 97);
    for row in &mut rows {
        match row.id {
            1 | 99 => row.amount = -1,
            2 => row.email = Some("moved".into()),
            98 => row.email = Some("e2".into()),
            _ => {}
        }
    }
    rows.extend([account(-5, "e3", 0), account(1000, "e97", 0)]);
    let emails: Vec<String> = emails().into_iter().chain(["moved".to_owned()]).collect();
    assert_eq!(differences(kv, &rows, -5..1001, &emails), [""; 0]);
}

#[test]
fn another_process_goes_on_where_one_ended() {
    let lite = Lite::new();
    lite.plain().batch_execute(HUNDRED).unwrap();
    let store = MemoryStore::new();
    let mut pages = 0;
    let stopped = lite
        .kv(&store)
        .backfill::<Account>()
        .rows_per_page(20)
        .on_progress(move |_| {
            pages += 1;
            if pages == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .run()
        .unwrap();
    assert_eq!((stopped.rows, stopped.is_complete()), (40, false), "{stopped}");
    let text = serde_json::to_string(&stopped.next.unwrap()).unwrap();
    let kv = lite.kv(&store);
    assert_eq!(Account::fetch_by_id(&kv, 40).unwrap(), None);
    let from: Checkpoint = serde_json::from_str(&text).unwrap();
    assert_eq!(from.rows, 40);
    let rest = kv.backfill::<Account>().resume(from).run().unwrap();
    assert_eq!((rest.rows, rest.is_complete()), (60, true));
    assert!(rest.version > stopped.version);
    assert_eq!(differences(&kv, &hundred(), 0..100, &emails()), [""; 0]);
}

#[test]
fn rows_that_cannot_be_read_are_masked_and_hold_up_no_others() {
    let lite = Lite::new();
    lite.plain().batch_execute(HUNDRED).unwrap();
    let kv = lite.kv(&MemoryStore::new());
    kv.backfill::<Account>().run().unwrap();
    lite.plain().batch_execute("UPDATE accounts SET amount = NULL WHERE id = 7").unwrap_err();
    lite.plain()
        .batch_execute(
            "PRAGMA writable_schema = ON; \
             UPDATE sqlite_master SET sql = replace(sql, 'amount INTEGER NOT NULL', 'amount INTEGER') WHERE name = 'accounts'; \
             PRAGMA writable_schema = RESET",
        )
        .unwrap();
    lite.plain().batch_execute("UPDATE accounts SET amount = NULL WHERE id IN (7, 50)").unwrap();
    let summary = kv.backfill::<Account>().rows_per_page(10).run().unwrap();
    assert_eq!((summary.rows, summary.written, summary.masked), (100, 99, 1), "{summary}");
    assert!(matches!(Account::lookup_by_id(&kv, 7).unwrap(), Lookup::Unknown(_)));
    assert!(matches!(Account::lookup_by_email(&kv, "e7").unwrap(), Lookup::Unknown(_)));
    assert_eq!(Account::lookup_by_id(&kv, 50).unwrap(), Lookup::Absent);
    let others: Vec<Account> = hundred().into_iter().filter(|row| row.id != 7).collect();
    assert_eq!(differences(&kv, &others, 0..100, &emails()), [""; 0]);
}

/// The same keys, and one field less: what an older binary knew.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync(live_if = "NOT closed")]
struct Older {
    id: i32,
    email: Option<String>,
}

#[test]
fn entries_of_an_older_form_are_replaced() {
    let lite = Lite::new();
    lite.plain().batch_execute(HUNDRED).unwrap();
    let store = MemoryStore::new();
    built(KvSync::builder().store(store.clone()), lite.declared().model::<Older>()).backfill::<Older>().run().unwrap();
    let kv = lite.kv(&store);
    assert!(matches!(Account::lookup_by_id(&kv, 1).unwrap(), Lookup::Unknown(_)));
    assert_eq!(kv.backfill::<Account>().run().unwrap().written, 100);
    assert_eq!(differences(&kv, &hundred(), 0..100, &emails()), [""; 0]);
}

#[test]
fn rows_come_no_faster_than_the_rate() {
    let lite = Lite::new();
    lite.plain().batch_execute(HUNDRED).unwrap();
    let kv = lite.kv(&MemoryStore::new());
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pages);
    let summary = kv
        .backfill::<Account>()
        .rows_per_page(10)
        .rows_per_second(200)
        .on_progress(move |progress| {
            counted.fetch_add(1, Ordering::SeqCst);
            // The last page needs no wait: 90 rows were due after 0.4 s at 200 a second, with one page ahead.
            assert!(progress.rows < 30 || progress.rate < 400.0, "{progress}");
            ControlFlow::Continue(())
        })
        .run()
        .unwrap();
    assert_eq!((summary.rows, pages.load(Ordering::SeqCst)), (100, 11));
}

#[test]
fn what_cannot_be_filled_is_told() {
    let lite = Lite::new();
    let kv = lite.kv(&MemoryStore::new());
    let error = kv.backfill_model("Nobody").run().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("Account"), "{error}");
    let strange = Checkpoint { position: "elsewhere/i1".to_owned().into(), rows: 0 };
    let error = kv.backfill::<Account>().resume(strange).run().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Config, "{error}");
    let error = kv.backfill::<Older>().run().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Config, "{error}");
    kv.shutdown(LONG);
    lite.plain().batch_execute(HUNDRED).unwrap();
    let error = kv.backfill::<Account>().run().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Closed, "{error}");
}
