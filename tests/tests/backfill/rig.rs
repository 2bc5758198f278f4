//! A model, its table on both databases, and a store to look into.

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncBackend};
use kvsync::store::memory::MemoryStore;
use kvsync::{Builder, KvSync, Syncable};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
pub use kvsync_tests::wait::{LONG, until};
use serde::{Deserialize, Serialize};

diesel::table! {
    accounts (id) {
        id -> Integer,
        email -> Nullable<Text>,
        amount -> Integer,
        closed -> Bool,
    }
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync(live_if = "NOT closed")]
pub struct Account {
    pub id: i32,
    pub email: Option<String>,
    pub amount: i32,
}

pub fn account(id: i32, email: &str, amount: i32) -> Account {
    Account { id, email: (!email.is_empty()).then(|| email.to_owned()), amount }
}

pub const TABLE: &str = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT, amount INTEGER NOT NULL, \
                     closed BOOLEAN NOT NULL DEFAULT false); \
                     CREATE UNIQUE INDEX accounts_email ON accounts (email) WHERE NOT closed";

/// A SQLite file that goes with it.
pub struct Lite {
    pub path: String,
    _dir: tempfile::TempDir,
}

impl Lite {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db").to_string_lossy().into_owned();
        let on = Self { path, _dir: dir };
        on.plain().batch_execute(&format!("PRAGMA journal_mode = WAL; {TABLE}")).unwrap();
        on
    }

    /// A connection of which kvsync knows nothing.
    pub fn plain(&self) -> SqliteConnection {
        open(&self.path).unwrap()
    }

    pub fn declared(&self) -> Database<Sqlite> {
        let path = self.path.clone();
        Database::<Sqlite>::new("main", move || open(&path))
    }

    pub fn kv(&self, store: &MemoryStore) -> KvSync {
        built(KvSync::builder().store(store.clone()), self.declared().model::<Account>())
    }
}

fn open(path: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA synchronous = OFF")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// A Postgres database that goes with it.
pub struct Postgres {
    pub database: FreshDatabase,
}

impl Postgres {
    pub fn new() -> Self {
        let on = Self { database: fresh_database().unwrap() };
        on.plain().batch_execute(TABLE).unwrap();
        on
    }

    /// A connection of which kvsync knows nothing.
    pub fn plain(&self) -> PgConnection {
        self.database.connect().unwrap()
    }

    pub fn declared(&self) -> Database<Pg> {
        let url = self.database.url();
        Database::<Pg>::new("main", move || PgConnection::establish(&url))
    }

    pub fn kv(&self, store: &MemoryStore) -> KvSync {
        built(KvSync::builder().store(store.clone()), self.declared().model::<Account>())
    }
}

pub fn built<DB: SyncBackend>(builder: Builder, database: Database<DB>) -> KvSync
where
    Database<DB>: 'static,
{
    builder.database(database).build().unwrap()
}

/// Says of each key whether the store answers as the database does. `ids` and `emails` are all that ever were.
pub fn differences(kv: &KvSync, rows: &[Account], ids: std::ops::Range<i32>, emails: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for id in ids {
        let truth = rows.iter().find(|row| row.id == id);
        let said = Account::fetch_by_id(kv, id).unwrap();
        if said.as_ref() != truth {
            wrong.push(format!("id {id}: {said:?}, not {truth:?}"));
        }
    }
    for email in emails {
        let truth = rows.iter().find(|row| row.email.as_ref() == Some(email));
        let said = Account::fetch_by_email(kv, email.as_str()).unwrap();
        if said.as_ref() != truth {
            wrong.push(format!("email {email}: {said:?}, not {truth:?}"));
        }
    }
    wrong
}
