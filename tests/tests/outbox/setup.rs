//! Two databases with an outbox, and rows of it written by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use kvsync::Syncable;
use kvsync::capture::{AnyDatabase, Database, Unattached};
use kvsync::transport::Outbox;
use kvsync_tests::postgres::{self, FreshDatabase};
use kvsync_tests::recorder::Recorder;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Nullable<Text>,
        name -> Text,
    }
}

diesel::table! {
    sessions (region, id) {
        region -> Text,
        id -> BigInt,
        token -> Text,
    }
}

#[derive(
    Debug,
    Clone,
    PartialEq,
    Queryable,
    Selectable,
    Identifiable,
    Insertable,
    AsChangeset,
    Serialize,
    Deserialize,
    Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
pub struct User {
    pub id: i32,
    pub email: Option<String>,
    pub name: String,
}

/// Its key never changes, so no record is kept of it; its primary key has two columns.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = sessions, primary_key(region, id))]
#[sync_key(name = "token", fmt = "session:<token>", immutable)]
pub struct Session {
    pub region: String,
    pub id: i64,
    pub token: String,
}

pub const TABLES: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT NOT NULL); \
     CREATE TABLE sessions (region TEXT NOT NULL, id BIGINT NOT NULL, token TEXT NOT NULL UNIQUE, PRIMARY KEY (region, id))";

/// A database of its own for a test, of either kind.
pub enum Base {
    Sqlite(tempfile::TempDir),
    Postgres(FreshDatabase),
}

/// What a test does on either kind of database.
pub fn on_both(test: impl Fn(&Base)) {
    test(&Base::sqlite());
    test(&Base::postgres());
}

impl Base {
    pub fn sqlite() -> Self {
        let base = Self::Sqlite(tempfile::tempdir().unwrap());
        base.run("PRAGMA journal_mode = WAL");
        base.migrated(include_str!("../../../kvsync/migrations/sqlite/00000000000000_kvsync_outbox/up.sql"))
    }

    pub fn postgres() -> Self {
        let base = Self::Postgres(postgres::fresh_database().unwrap());
        base.migrated(include_str!("../../../kvsync/migrations/postgres/00000000000000_kvsync_outbox/up.sql"))
    }

    fn migrated(self, outbox: &str) -> Self {
        self.run(outbox);
        self.run(TABLES);
        self
    }

    /// Where it is, so that another process can open it.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(dir) => dir.path().join("test.db").to_string_lossy().into_owned(),
            Self::Postgres(fresh) => fresh.url(),
        }
    }

    /// Runs SQL past kvsync.
    pub fn run(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => sqlite(&self.url()).unwrap().batch_execute(sql).unwrap(),
            Self::Postgres(fresh) => fresh.connect().unwrap().batch_execute(sql).unwrap(),
        }
    }

    /// The number that a query returns.
    pub fn number(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Number {
            #[diesel(sql_type = BigInt)]
            n: i64,
        }
        let query = format!("SELECT CAST(({query}) AS bigint) AS n");
        let number: Number = match self {
            Self::Sqlite(_) => diesel::sql_query(query).get_result(&mut sqlite(&self.url()).unwrap()).unwrap(),
            Self::Postgres(fresh) => diesel::sql_query(query).get_result(&mut fresh.connect().unwrap()).unwrap(),
        };
        number.n
    }

    /// The database as the builder takes it.
    pub fn database(&self) -> Box<dyn Unattached> {
        let url = self.url();
        match self {
            Self::Sqlite(_) => Box::new(
                Database::<Sqlite>::new("main", move || sqlite(&url)).model::<User>().model::<Session>().outbox(),
            ),
            Self::Postgres(_) => Box::new(
                Database::<Pg>::new("main", move || PgConnection::establish(&url))
                    .model::<User>()
                    .model::<Session>()
                    .outbox(),
            ),
        }
    }

    /// Its outbox as a relay sees it.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        let database: Arc<dyn AnyDatabase> = self.database().attach(Recorder::new()).unwrap();
        database.outbox().unwrap()
    }

    /// Writes a row into the outbox as a trigger does: it names the row of the table, and shows the row as
    /// it was where that is given.
    pub fn trigger_row(&self, table: &str, action: &str, primary_key: &str, old_row: Option<&str>) {
        self.run(&self.trigger_row_sql(table, action, primary_key, old_row));
    }

    pub fn trigger_row_sql(&self, table: &str, action: &str, primary_key: &str, old_row: Option<&str>) -> String {
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let old_row = old_row.map_or("NULL".to_owned(), text);
        format!(
            "INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, action, primary_key, old_row) \
             VALUES ({}, {}, {}, '{table}', '{action}', {}, {old_row})",
            millis(),
            self.timeline(),
            self.position(),
            text(primary_key)
        )
    }

    /// Writes a row into the outbox as capture does.
    pub fn captured_row(&self, action: &str, user: &User, sequence: Option<i64>) {
        let bytes = content(user).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let bytes = match self {
            Self::Sqlite(_) => format!("x'{bytes}'"),
            Self::Postgres(_) => format!("'\\x{bytes}'::bytea"),
        };
        let sequence = sequence.map_or_else(|| self.position(), |sequence| sequence.to_string());
        self.run(&format!(
            "INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, model, generation, action, primary_key, content) \
             VALUES ({}, {}, {sequence}, 'users', 'User', 0, '{action}', '{}', {bytes})",
            millis(),
            self.timeline(),
            self.user_key(user.id).replace('\'', "''"),
        ));
    }

    /// The primary key of a user, as the outbox holds it.
    pub fn user_key(&self, id: i32) -> String {
        match self {
            Self::Sqlite(_) => id.to_string(),
            Self::Postgres(_) => format!("{{\"id\": {id}}}"),
        }
    }

    /// A user as the outbox holds a row as it was.
    pub fn user_row(&self, user: &User) -> String {
        let User { id, email, name } = user;
        match self {
            Self::Sqlite(_) => {
                let email = email.as_ref().map_or("NULL".to_owned(), |email| format!("'{email}'"));
                format!("{id} AS \"id\", {email} AS \"email\", '{name}' AS \"name\"")
            }
            Self::Postgres(_) => serde_json::to_string(user).unwrap(),
        }
    }

    fn timeline(&self) -> &str {
        if let Self::Sqlite(_) = self { "0" } else { "1" }
    }

    fn position(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("{}", micros()),
            Self::Postgres(_) => "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint".to_owned(),
        }
    }
}

pub fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: Some(email.to_owned()), name: name.to_owned() }
}

/// The bytes of a user as `content` holds them.
pub fn content(user: &User) -> Vec<u8> {
    let fields = <User as Syncable>::SCHEMA.fields;
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&u16::try_from(fields.len()).unwrap().to_be_bytes());
    bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend(rmp_serde::to_vec_named(user).unwrap());
    bytes
}

pub fn sqlite(url: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute("PRAGMA busy_timeout = 20000").map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

pub fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// How long a claim lasts where the test does not wait for its end.
pub const LEASE: Duration = Duration::from_secs(30);
