//! A database of each kind, and models with every kind of key.

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::SyncStore;
use kvsync::{Builder, KvSync, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::accounts::{Account, TABLE};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

diesel::table! {
    sessions (id) {
        id -> Integer,
        token -> Text,
    }
}

/// Keys that never change, of rows that have an end.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = sessions)]
#[sync(ttl = "1h")]
#[sync_key(name = "id", fmt = "session:<id>")]
#[sync_key(name = "token", fmt = "session:token:<token>", immutable)]
pub(super) struct Session {
    pub id: i32,
    pub token: String,
}

/// A SQLite file that goes with it.
pub(super) struct Lite {
    path: String,
    _folder: TempDir,
}

impl Lite {
    pub(super) fn new() -> Tested<Self> {
        let folder = tempfile::tempdir()?;
        let lite = Self { path: folder.path().join("app.db").to_string_lossy().into_owned(), _folder: folder };
        lite.plain()?.batch_execute(&format!(
            "PRAGMA journal_mode = WAL; {TABLE}; CREATE TABLE sessions (id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE)"
        ))?;
        Ok(lite)
    }

    pub(super) fn kv(&self, builder: Builder) -> Tested<KvSync> {
        let path = self.path.clone();
        let database = Database::<Sqlite>::new("main", move || open(&path));
        Ok(builder.database(database.model::<Account>().model::<Session>()).build()?)
    }

    /// A connection of which kvsync knows nothing.
    pub(super) fn plain(&self) -> Tested<SqliteConnection> {
        Ok(open(&self.path)?)
    }
}

fn open(path: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 60000; PRAGMA synchronous = OFF")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// A Postgres database that goes with it.
pub(super) struct Postgres(FreshDatabase);

impl Postgres {
    pub(super) fn new() -> Tested<Self> {
        let pg = Self(fresh_database()?);
        pg.plain()?.batch_execute(TABLE)?;
        Ok(pg)
    }

    pub(super) fn kv(&self, store: impl SyncStore + 'static) -> Tested<KvSync> {
        let url = self.0.url();
        let database = Database::<Pg>::new("main", move || PgConnection::establish(&url));
        Ok(KvSync::builder().store(store).workers(2).database(database.model::<Account>()).build()?)
    }

    /// A connection of which kvsync knows nothing.
    pub(super) fn plain(&self) -> Tested<PgConnection> {
        self.0.connect()
    }
}
