//! Two databases with an outbox, and rows of it written by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::backend::Backend;
use diesel::connection::SimpleConnection;
use diesel::deserialize::{FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use kvsync::Syncable;
use kvsync::capture::{AnyDatabase, Database, Unattached};
use kvsync::store::redis::RedisStore;
use kvsync::transport::Outbox;
use kvsync_tests::env;
use kvsync_tests::postgres::{self, FreshDatabase};
use kvsync_tests::recorder::Recorder;
use kvsync_tests::redis::patient;
pub use kvsync_tests::wait::{LONG, until};
use serde::{Deserialize, Serialize, Serializer};

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

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
pub struct User {
    pub id: i32,
    pub email: Option<String>,
    pub name: Touchy,
}

/// Text that has no form in a store when it says so.
#[derive(Debug, Clone, PartialEq, Deserialize, FromSqlRow, AsExpression)]
#[diesel(sql_type = diesel::sql_types::Text)]
pub struct Touchy(pub String);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_str() {
            "panic" => panic!("the model would rather not"),
            "poison" => Err(serde::ser::Error::custom("it is poison")),
            text => serializer.serialize_str(text),
        }
    }
}

impl<DB: Backend> FromSql<diesel::sql_types::Text, DB> for Touchy
where
    String: FromSql<diesel::sql_types::Text, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        String::from_sql(bytes).map(Self)
    }
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
pub fn on_both(test: impl Fn(&Base) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| test(&Base::sqlite()));
        test(&Base::postgres());
    });
}

impl Base {
    pub fn sqlite() -> Self {
        let base = Self::Sqlite(tempfile::tempdir().unwrap());
        base.run("PRAGMA journal_mode = WAL");
        base.migrated(include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql"))
    }

    pub fn postgres() -> Self {
        let base = Self::Postgres(postgres::fresh_database().unwrap());
        base.migrated(include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql"))
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
    pub fn database(&self) -> BoxedDatabase {
        let kind = if let Self::Sqlite(_) = self { "sqlite" } else { "postgres" };
        database(kind, &self.url())
    }

    /// Its outbox as a relay sees it.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        let database: Arc<dyn AnyDatabase> = Box::new(self.database()).attach(Recorder::new()).unwrap();
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
            "{}INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, action, primary_key, old_row) \
             VALUES ({}, {}, {}, '{table}', '{action}', {}, {old_row})",
            self.count(),
            millis(),
            self.timeline(),
            self.position(),
            text(primary_key)
        )
    }

    /// Writes a row into the outbox as capture does.
    pub fn captured_row(&self, action: &str, user: &User, sequence: Option<i64>) {
        self.run(&self.captured_row_sql(action, user, sequence));
    }

    pub fn captured_row_sql(&self, action: &str, user: &User, sequence: Option<i64>) -> String {
        let bytes = content(user).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let bytes = match self {
            Self::Sqlite(_) => format!("x'{bytes}'"),
            Self::Postgres(_) => format!("'\\x{bytes}'::bytea"),
        };
        let sequence = sequence.map_or_else(|| self.position(), |sequence| sequence.to_string());
        format!(
            "{}INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, model, generation, action, primary_key, content) \
             VALUES ({}, {}, {sequence}, 'users', 'User', 0, '{action}', '{}', {bytes})",
            self.count(),
            millis(),
            self.timeline(),
            self.user_key(user.id).replace('\'', "''"),
        )
    }

    /// Writes users, and into the outbox that they were, in one transaction, as capture does.
    pub fn insert(&self, users: &[User]) {
        let rows = users.iter().map(|user| {
            let email = user.email.as_ref().map_or("NULL".to_owned(), |email| format!("'{email}'"));
            let insert =
                format!("INSERT INTO users (id, email, name) VALUES ({}, {email}, '{}');", user.id, user.name.0);
            insert + &self.captured_row_sql("insert", user, None) + ";"
        });
        self.run(&format!("BEGIN; {} COMMIT", rows.collect::<Vec<_>>().concat()));
    }

    /// Rows of the outbox that are neither delivered nor dead.
    pub fn pending(&self) -> i64 {
        self.number("SELECT count(*) FROM kvsync_outbox WHERE delivered_at IS NULL AND dead_at IS NULL")
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
                format!("{id} AS \"id\", {email} AS \"email\", '{}' AS \"name\"", name.0)
            }
            Self::Postgres(_) => serde_json::to_string(user).unwrap(),
        }
    }

    /// Takes the next number of the counter, where versions come from one.
    fn count(&self) -> String {
        let Self::Sqlite(_) = self else { return String::new() };
        format!(
            "INSERT INTO kvsync_counter (id, last) VALUES (0, {}) \
             ON CONFLICT (id) DO UPDATE SET last = max(last + 1, excluded.last); ",
            millis() * 1000
        )
    }

    fn timeline(&self) -> &str {
        if let Self::Sqlite(_) = self { "0" } else { "1" }
    }

    fn position(&self) -> String {
        match self {
            Self::Sqlite(_) => "(SELECT last FROM kvsync_counter)".to_owned(),
            Self::Postgres(_) => "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint".to_owned(),
        }
    }
}

/// A database as the builder takes it.
pub fn database(kind: &str, url: &str) -> BoxedDatabase {
    let url = url.to_owned();
    if kind == "sqlite" {
        BoxedDatabase(Box::new(
            Database::<Sqlite>::new("main", move || sqlite(&url)).model::<User>().model::<Session>().outbox(),
        ))
    } else {
        BoxedDatabase(Box::new(
            Database::<Pg>::new("main", move || PgConnection::establish(&url))
                .model::<User>()
                .model::<Session>()
                .outbox(),
        ))
    }
}

pub struct BoxedDatabase(pub Box<dyn Unattached>);

impl Unattached for BoxedDatabase {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schemas(&self) -> Vec<&'static kvsync::model::Schema> {
        self.0.schemas()
    }

    fn attach(self: Box<Self>, publish: Arc<dyn kvsync::change::Publish>) -> kvsync::Result<Arc<dyn AnyDatabase>> {
        self.0.attach(publish)
    }
}

pub fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: Some(email.to_owned()), name: Touchy(name.to_owned()) }
}

/// This many users.
pub fn users(count: i32) -> Vec<User> {
    (1..=count).map(|id| user(id, &format!("e{id}"), &format!("name of {id}"))).collect()
}

/// A user whose name takes every form.
#[derive(Serialize)]
struct Plain<'a> {
    id: i32,
    email: &'a Option<String>,
    name: &'a str,
}

/// The bytes of a user as `content` holds them.
pub fn content(user: &User) -> Vec<u8> {
    let fields = <User as Syncable>::SCHEMA.fields;
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&u16::try_from(fields.len()).unwrap().to_be_bytes());
    bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    let plain = Plain { id: user.id, email: &user.email, name: &user.name.0 };
    bytes.extend(rmp_serde::to_vec_named(&plain).unwrap());
    bytes
}

pub fn sqlite(url: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000").map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

pub fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// How long a claim lasts where the test does not wait for its end.
pub const LEASE: Duration = Duration::from_hours(1);

/// A Redis store on the shared server, with keys of its own.
pub fn redis() -> RedisStore {
    let prefix = format!("outbox:{:x}:", rand::random::<u64>());
    patient([env::redis_url().unwrap()]).prefix(prefix).connect().unwrap()
}
