//! An application with a table of rows whose keys change and one of rows whose keys do not.

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::SyncStore;
use kvsync::store::redis::{Builder as RedisBuilder, RedisStore};
use kvsync::{Builder, KvSync, Report, Syncable};
use kvsync_tests::redis::patient;
pub use kvsync_tests::wait::{LONG, until};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

diesel::table! {
    users (id) { id -> Integer, email -> Nullable<Text>, handle -> Text, n -> Integer, pad -> Text }
}

diesel::table! {
    sessions (id) { id -> Integer, token -> Text, n -> Integer }
}

pub const TABLES: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, handle TEXT NOT NULL UNIQUE, n INTEGER NOT NULL,
        pad TEXT NOT NULL);
    CREATE TABLE sessions (id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, n INTEGER NOT NULL);";

/// A record, a slot and a pointer.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
#[sync_key(name = "handle", fmt = "user:handle:<handle>", pointer)]
pub struct User {
    pub id: i32,
    pub email: Option<String>,
    pub handle: String,
    pub n: i32,
    /// To make it large.
    pub pad: String,
}

/// Two registers.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = sessions)]
#[sync_key(name = "id", fmt = "session:id:<id>")]
#[sync_key(name = "token", fmt = "session:token:<token>", immutable)]
pub struct Session {
    pub id: i32,
    pub token: String,
    pub n: i32,
}

pub fn user(id: i32, email: &str, n: i32) -> User {
    User { id, email: (!email.is_empty()).then(|| email.to_owned()), handle: format!("h{id}"), n, pad: String::new() }
}

/// A process: its handle, a connection, and what it was told.
pub struct App {
    pub kv: KvSync,
    pub conn: SyncConnection<SqliteConnection>,
    pub reports: Arc<Mutex<Vec<Report>>>,
    pub dir: Arc<TempDir>,
}

impl App {
    /// The only process of a new database.
    pub fn new(store: impl SyncStore + 'static, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut conn = open(&dir).unwrap();
        conn.batch_execute(TABLES).unwrap();
        conn.batch_execute(kvsync::capture::SQLITE_COUNTER).unwrap();
        Self::of(&dir, store, configure)
    }

    /// One more process of a database.
    pub fn of(dir: &Arc<TempDir>, store: impl SyncStore + 'static, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let (told, open_dir) = (Arc::clone(&reports), Arc::clone(dir));
        let database = Database::<Sqlite>::new("main", move || open(&open_dir)).model::<User>().model::<Session>();
        let builder = KvSync::builder()
            .store(store)
            .database(database)
            .upkeep_every(Duration::from_millis(5))
            .on_report(move |report| told.lock().push(report.clone()));
        let kv = configure(builder).build().unwrap();
        let conn = kv.connect::<Sqlite>("main").unwrap();
        Self { kv, conn, reports, dir: Arc::clone(dir) }
    }

    pub fn flush(&self) {
        self.kv.flush(LONG).unwrap();
    }

    /// Inserts a row, or replaces all of its columns.
    pub fn put(&mut self, user: &User) {
        let values = (users::email.eq(&user.email), users::handle.eq(&user.handle), users::n.eq(user.n));
        let insert = diesel::insert_into(users::table).values(user).on_conflict(users::id).do_update().set(values);
        insert.execute(&mut self.conn).unwrap();
    }

    pub fn delete(&mut self, id: i32) {
        diesel::delete(users::table.find(id)).execute(&mut self.conn).unwrap();
    }

    /// What the database holds.
    pub fn users(&self) -> Vec<User> {
        users::table.order(users::id).select(User::as_select()).load(&mut open(&self.dir).unwrap()).unwrap()
    }

    /// How often it was noticed that the store had forgotten.
    pub fn noticed(&self) -> usize {
        self.reports.lock().iter().filter(|report| matches!(report, Report::Forgot { .. })).count()
    }

    /// The tables that are dirty.
    pub fn dirty(&self) -> Vec<String> {
        self.kv.health(LONG).pipeline.dirty.into_iter().filter_map(|table| table.table).collect()
    }
}

fn open(dir: &TempDir) -> Result<SqliteConnection, diesel::ConnectionError> {
    let mut conn = SqliteConnection::establish(&dir.path().join("app.db").to_string_lossy())?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

pub fn redis(url: &str) -> RedisStore {
    redis_builder([url]).connect().unwrap()
}

/// A store that gives up soon on a server that is gone, so that it holds nobody up, and waits for one that is slow.
pub fn redis_builder<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> RedisBuilder {
    patient(urls).retry_for(Duration::from_millis(100))
}
