//! What is written in a bulk is not captured, and is in the store when the bulk has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, Inner, SyncConnection};
use kvsync::store::memory::MemoryStore;
use kvsync::transport::{MemoryBroker, Subscription};
use kvsync::{ErrorKind, KvSync, Syncable};
use serde::{Deserialize, Serialize};

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
fn what_consumers_keep_of_rows_deleted_in_a_bulk_keeps_the_table_dirty() {
    let (on, broker) = (Lite::new(), MemoryBroker::new());
    let queue = broker.queue("all");
    let builder = KvSync::builder().store(MemoryStore::new()).broker(broker);
    let kv = built(builder, on.declared().model::<Account>());
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute("INSERT INTO accounts (id, email, amount) VALUES (1, 'e1', 1)").unwrap();
    kv.bulk::<Account, _, _, Failure>(&mut conn, |conn| Ok(conn.batch_execute("DELETE FROM accounts")?)).unwrap();
    assert_eq!(Account::fetch_by_id(&kv, 1).unwrap(), None);
    assert_eq!(queue.backlog().unwrap().waiting, 1, "nobody was told of the deletion");
    let dirty = kv.health(LONG).pipeline.dirty;
    assert!(dirty.len() == 1 && dirty[0].deletes && dirty[0].filled, "{dirty:?}");
}

#[test]
fn on_postgres() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    written_in_a_bulk(&kv, kv.connect::<Pg>("main").unwrap());
}

/// A panic in a bulk is to the stores what an error is.
fn panicking_in_a_bulk<C: Inner>(kv: &KvSync, mut conn: SyncConnection<C>) {
    conn.batch_execute("INSERT INTO accounts (id, email, amount) VALUES (1, 'e1', 1)").unwrap();
    conn.batch_execute("INSERT INTO accounts (id, email, amount) VALUES (2, 'e2', 2)").unwrap();
    kv.flush(LONG).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        kv.bulk::<Account, _, (), Failure>(&mut conn, |conn| {
            conn.batch_execute("UPDATE accounts SET amount = 3 WHERE id = 1")?;
            conn.transaction(|conn| {
                conn.batch_execute("UPDATE accounts SET amount = 4 WHERE id = 2")?;
                panic!("enough")
            })
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"enough"));
    assert!(kv.health(LONG).pipeline.dirty.is_empty(), "{:?}", kv.health(LONG).details);
    let rows = [account(1, "e1", 3), account(2, "e2", 2)];
    assert_eq!(differences(kv, &rows, 0..3, &emails()), [""; 0]);
    // The transaction was rolled back, and capture goes on.
    conn.batch_execute("UPDATE accounts SET amount = 5 WHERE id = 2").unwrap();
    kv.flush(LONG).unwrap();
    assert_eq!(differences(kv, &[account(1, "e1", 3), account(2, "e2", 5)], 0..3, &emails()), [""; 0]);
    // Outside of a bulk nobody rolls back what a panic left open, and a bulk says so.
    catch_unwind(AssertUnwindSafe(|| conn.transaction::<(), Failure, _>(|_| panic!("enough")))).unwrap_err();
    let refused = kv.bulk::<Account, _, (), Failure>(&mut conn, |_| unreachable!()).unwrap_err().to_string();
    assert!(refused.contains("a transaction is open on the connection; commit it or roll it back"), "{refused}");
}

#[test]
fn a_panic_on_sqlite() {
    let on = Lite::new();
    let kv = on.kv(&MemoryStore::new());
    panicking_in_a_bulk(&kv, kv.connect::<Sqlite>("main").unwrap());
}

#[test]
fn a_panic_on_postgres() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    panicking_in_a_bulk(&kv, kv.connect::<Pg>("main").unwrap());
}

#[test]
fn a_broken_connection_is_told_from_one_in_a_transaction() {
    let on = Postgres::new();
    let kv = on.kv(&MemoryStore::new());
    let mut conn = kv.connect::<Pg>("main").unwrap();
    let broken = conn.transaction::<(), Failure, _>(|conn| {
        conn.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")?;
        Ok(())
    });
    broken.unwrap_err();
    let refused = kv.bulk::<Account, _, (), Failure>(&mut conn, |_| unreachable!()).unwrap_err().to_string();
    assert!(refused.contains("the connection is broken"), "{refused}");
}

diesel::table! {
    notes (id) {
        id -> Integer,
        account -> Nullable<Integer>,
        text -> Text,
    }
}

diesel::table! {
    log (id) {
        id -> Integer,
        text -> Text,
    }
}

diesel::table! {
    tags (id) {
        id -> Integer,
        text -> Text,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = tags)]
#[sync_key(name = "id", fmt = "tag:<id>")]
struct Tag {
    id: i32,
    text: String,
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = notes)]
#[sync_key(name = "id", fmt = "note:<id>")]
struct Note {
    id: i32,
    text: String,
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = log)]
#[sync_key(name = "id", fmt = "log:<id>")]
struct Log {
    id: i32,
    text: String,
}

const OTHERS: &str = "
    CREATE TABLE notes (id INTEGER PRIMARY KEY, account INTEGER REFERENCES accounts ON DELETE CASCADE, text TEXT NOT NULL);
    CREATE TABLE tags (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT NOT NULL);";

/// Writes of other tables in a bulk: by name, by a cascade, by a trigger.
fn others_are_filled_in<C: Inner>(kv: &KvSync, mut conn: SyncConnection<C>) {
    conn.batch_execute("INSERT INTO accounts (id, email, amount) VALUES (1, 'a', 1)").unwrap();
    conn.batch_execute("INSERT INTO accounts (id, email, amount) VALUES (2, 'b', 2)").unwrap();
    conn.batch_execute("INSERT INTO notes VALUES (1, 1, 'of 1')").unwrap();
    conn.batch_execute("INSERT INTO tags VALUES (1, 'old')").unwrap();
    conn.batch_execute("INSERT INTO log VALUES (1, 'old')").unwrap();
    kv.flush(LONG).unwrap();
    let written = "UPDATE tags SET text = 'new'; DELETE FROM accounts WHERE id = 1; UPDATE accounts SET amount = 3";
    kv.bulk::<Account, _, _, Failure>(&mut conn, |conn| Ok(conn.batch_execute(written)?)).unwrap();
    assert!(kv.health(LONG).pipeline.dirty.is_empty(), "{:?}", kv.health(LONG).details);
    assert_eq!(Tag::fetch_by_id(kv, 1).unwrap().map(|tag| tag.text), Some("new".to_owned()));
    assert_eq!(Note::fetch_by_id(kv, 1).unwrap(), None, "the foreign key deleted it");
    assert_eq!(Log::fetch_by_id(kv, 1).unwrap().map(|log| log.text), Some("of a trigger".to_owned()));
}

#[test]
fn other_tables_on_sqlite() {
    let on = Lite::new();
    let trigger = "CREATE TRIGGER logs AFTER UPDATE ON accounts BEGIN UPDATE log SET text = 'of a trigger'; END";
    on.plain().batch_execute(&format!("{OTHERS} {trigger}")).unwrap();
    let path = on.path.clone();
    let database = Database::<Sqlite>::new("main", move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA foreign_keys = ON")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    });
    let database = database.model::<Account>().model::<Note>().model::<Tag>().model::<Log>();
    let kv = built(KvSync::builder().store(MemoryStore::new()), database);
    others_are_filled_in(&kv, kv.connect::<Sqlite>("main").unwrap());
}

#[test]
fn other_tables_on_postgres() {
    let on = Postgres::new();
    let trigger = "CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS \
                   'BEGIN UPDATE log SET text = ''of a trigger''; RETURN NULL; END'; \
                   CREATE TRIGGER logs AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION logs()";
    on.plain().batch_execute(&format!("{OTHERS} {trigger}")).unwrap();
    let database = on.declared().model::<Account>().model::<Note>().model::<Tag>().model::<Log>();
    let kv = built(KvSync::builder().store(MemoryStore::new()), database);
    others_are_filled_in(&kv, kv.connect::<Pg>("main").unwrap());
}
