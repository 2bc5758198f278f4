//! What is written in a bulk is not captured, and is in the store when the bulk has ended.

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Inner, SyncConnection};
use kvsync::store::memory::MemoryStore;
use kvsync::{ErrorKind, KvSync};

use crate::rig::*;

type Failure = Box<dyn std::error::Error>;

fn emails() -> Vec<String> {
    (1..=30).flat_map(|id| [format!("e{id}"), format!("f{id}")]).collect()
}

fn written_in_a_bulk<C: Inner>(kv: &KvSync, mut conn: SyncConnection<C>) {
    for id in 1..=20 {
        conn.batch_execute(&format!("INSERT INTO accounts (id, email, amount) VALUES ({id}, 'e{id}', {id})")).unwrap();
    }
    kv.flush(LONG).unwrap();
    let token = conn.last_commit().cloned();
    let counted = kv
        .bulk::<Account, _, _, Failure>(&mut conn, |conn| {
            assert_eq!(kv.health(LONG).pipeline.dirty.len(), 1);
            conn.batch_execute(
                "UPDATE accounts SET amount = -1, email = 'f' || id WHERE id > 10; \
                 DELETE FROM accounts WHERE id <= 5; \
                 INSERT INTO accounts (id, email, amount) VALUES (30, 'e1', 0)",
            )?;
            Ok(7)
        })
        .unwrap();
    assert_eq!(counted, 7);
    assert_eq!(conn.last_commit().cloned(), token, "nothing was captured");
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
    let mut rows: Vec<Account> = (6..=10).map(|id| account(id, &format!("e{id}"), id)).collect();
    rows.extend((11..=20).map(|id| account(id, &format!("f{id}"), -1)));
    rows.push(account(30, "e1", 0));
    assert_eq!(differences(kv, &rows, 0..31, &emails()), [""; 0]);
    // A bulk that fails may have written: what stands in the database stands in the store.
    let failed = kv.bulk::<Account, _, (), Failure>(&mut conn, |conn| {
        conn.batch_execute("UPDATE accounts SET amount = 100 WHERE id = 30")?;
        Err("enough".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "enough");
    rows.pop();
    rows.push(account(30, "e1", 100));
    assert_eq!(differences(kv, &rows, 0..31, &emails()), [""; 0]);
    let nested = conn.transaction::<(), Failure, _>(|conn| kv.bulk::<Account, _, _, Failure>(conn, |_| Ok(())));
    let nested = nested.unwrap_err();
    let refused = nested.downcast_ref::<kvsync::Error>().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
}

#[test]
fn on_sqlite() {
    let on = Lite::new();
    let kv = on.kv(&MemoryStore::new());
    written_in_a_bulk(&kv, kv.connect::<Sqlite>("main").unwrap());
}

#[test]
fn on_postgres() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    written_in_a_bulk(&kv, kv.connect::<Pg>("main").unwrap());
}
