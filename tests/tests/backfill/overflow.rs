//! What there was no room for is filled in from the table, once the store is well again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::SyncConnection;
use kvsync::record::Terms;
use kvsync::store::memory::MemoryStore;
use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use kvsync::{Builder, Error, ErrorKind, Key, KvSync, Result};

use crate::rig::*;

/// A store that can be switched off.
#[derive(Debug, Clone)]
struct Switched {
    memory: MemoryStore,
    on: Arc<AtomicBool>,
}

impl Switched {
    fn new() -> Self {
        Self { memory: MemoryStore::new(), on: Arc::new(AtomicBool::new(true)) }
    }

    fn switch(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
    }

    fn asked(&self) -> Result<()> {
        let down = || Error::new(ErrorKind::Unavailable, "switched off");
        self.on.load(Ordering::SeqCst).then_some(()).ok_or_else(down)
    }
}

impl Store for Switched {
    fn name(&self) -> &'static str {
        "switched"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.memory.health(deadline)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for Switched {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        match self.asked() {
            Ok(()) => self.memory.execute(steps, terms),
            Err(error) => steps.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.memory.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.memory.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.asked()?;
        self.memory.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.memory.raise_epoch(epoch)
    }
}

/// As little room as can be.
fn kv(on: &Lite, store: &Switched, configure: impl FnOnce(Builder) -> Builder) -> KvSync {
    let builder = KvSync::builder().store(store.clone()).queue_bytes(1 << 16).overflow_block(Duration::ZERO);
    built(configure(builder), on.declared().model::<Account>())
}

/// More than there is room for.
const ROWS: i32 = 3000;

fn emails() -> Vec<String> {
    (0..ROWS).flat_map(|id| [format!("e{id}"), format!("f{id}")]).collect()
}

fn insert(ids: std::ops::Range<i32>) -> String {
    format!(
        "INSERT INTO accounts (id, email, amount) WITH RECURSIVE n (i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n \
         WHERE i < {}) SELECT i, 'e' || i, i FROM n",
        ids.start,
        ids.end - 1
    )
}

fn truth(on: &Lite) -> Vec<Account> {
    accounts::table.filter(accounts::closed.eq(false)).select(Account::as_select()).load(&mut on.plain()).unwrap()
}

/// Ten rows are in the store; for most of the others there was no room, once it was switched off.
fn overflowed(on: &Lite, store: &Switched) -> (KvSync, SyncConnection<SqliteConnection>) {
    let kv = kv(on, store, |builder| builder.auto_backfill(100_000));
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(&insert(0..10)).unwrap();
    kv.flush(LONG).unwrap();
    store.switch(false);
    conn.batch_execute(&insert(10..ROWS)).unwrap();
    (kv, conn)
}

/// Once the store is switched on, the table is clean after a while, and the store equal to it.
fn mends_itself(on: &Lite, store: &Switched, kv: &KvSync) {
    store.switch(true);
    until("clean", || kv.health(LONG).pipeline.dirty.is_empty());
    kv.flush(LONG).unwrap();
    assert_eq!(differences(kv, &truth(on), 0..ROWS, &emails()), [""; 0]);
}

#[test]
fn a_table_that_lost_changes_is_filled_in_by_itself() {
    let (on, store) = (Lite::new(), Switched::new());
    let (kv, mut conn) = overflowed(&on, &store);
    conn.batch_execute("UPDATE accounts SET email = 'f' || id, amount = -1 WHERE id < 5").unwrap();
    conn.batch_execute("UPDATE accounts SET closed = true WHERE id = 6").unwrap();
    let health = kv.health(LONG);
    assert!(health.pipeline.dirty.iter().any(|table| table.table.as_deref() == Some("accounts")), "{health:?}");
    assert!(!differences(&kv, &truth(&on), 0..ROWS, &emails()).is_empty());
    mends_itself(&on, &store, &kv);
}

#[test]
fn a_lost_deletion_is_found_in_the_store() {
    let (on, store) = (Lite::new(), Switched::new());
    let (kv, mut conn) = overflowed(&on, &store);
    conn.batch_execute("DELETE FROM accounts WHERE id = 7").unwrap();
    assert_eq!(Account::fetch_by_email(&kv, "e7").unwrap(), Some(account(7, "e7", 7)));
    assert!(kv.health(LONG).pipeline.dirty[0].deletes);
    mends_itself(&on, &store, &kv);
}

#[test]
fn without_it_the_table_waits_to_be_filled_in() {
    let (on, store) = (Lite::new(), Switched::new());
    let kv = kv(&on, &store, |builder| builder.auto_backfill(0));
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    store.switch(false);
    conn.batch_execute(&insert(0..ROWS)).unwrap();
    store.switch(true);
    kv.flush(LONG).unwrap();
    assert!(!kv.health(LONG).pipeline.dirty.is_empty());
    let done = kv.backfill_dirty(|backfill| backfill.rows_per_page(100)).unwrap();
    assert_eq!((done.len(), done[0].rows), (1, u64::try_from(ROWS).unwrap()));
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
    assert_eq!(differences(&kv, &truth(&on), 0..ROWS, &emails()), [""; 0]);
    // A statement that was not captured may have deleted.
    conn.batch_execute("UPDATE accounts SET amount = 0; DELETE FROM accounts WHERE id = 1").unwrap();
    kv.backfill_dirty(|backfill| backfill).unwrap();
    let dirty = kv.health(LONG).pipeline.dirty;
    assert!(dirty[0].deletes && dirty[0].filled, "{dirty:?}");
    assert_eq!(Account::fetch_by_id(&kv, 2).unwrap().unwrap().amount, 0);
    assert_eq!(Account::fetch_by_id(&kv, 1).unwrap(), Some(account(1, "e1", 1)), "what a backfill cannot see");
    assert!(kv.repair::<Account>().run().unwrap().is_clean());
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
    assert_eq!(Account::fetch_by_id(&kv, 1).unwrap(), None);
}
