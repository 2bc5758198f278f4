//! What is written to a table is written into the outbox with it, by triggers or by capture.

mod end_to_end;
mod renamed;
mod rows_postgres;
mod rows_sqlite;
mod triggers_postgres;
mod triggers_sqlite;

use std::sync::Arc;

use diesel::QueryableByName;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use kvsync::Syncable;
use kvsync::capture::{Attached, Database, SyncBackend, Unattached};
use kvsync::change::Publish;
use kvsync_tests::recorder::Recorder;
use serde::{Deserialize, Serialize};

const POSTGRES_OUTBOX: &str = include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql");
const SQLITE_OUTBOX: &str = include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Nullable<Text>,
        name -> Text,
        team -> Nullable<Integer>,
        boss -> Nullable<Integer>,
    }
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
struct User {
    id: i32,
    email: Option<String>,
    name: String,
}

/// What a newer program keeps of the same table, under a key of its own.
#[derive(Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "name", fmt = "user:name:<name>", assume_unique)]
struct Newer {
    id: i32,
    name: String,
}

/// What a declared database hands on goes to the recorder.
fn attach<DB: SyncBackend>(declared: Database<DB>, recorder: &Arc<Recorder>) -> Attached<DB> {
    let attached = Box::new(declared).attach(Arc::clone(recorder) as Arc<dyn Publish>).unwrap();
    attached.downcast::<DB>().unwrap().clone()
}

fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: Some(email.into()), name: name.into() }
}

const TABLES: &str = "
    CREATE TABLE teams (id INTEGER PRIMARY KEY);
    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        email TEXT UNIQUE,
        name TEXT NOT NULL,
        team INTEGER REFERENCES teams ON DELETE CASCADE ON UPDATE CASCADE,
        boss INTEGER REFERENCES users ON DELETE SET NULL
    );";

/// A row of the outbox.
#[derive(Debug, QueryableByName)]
struct Entry {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    captured_at: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    epoch: Option<i64>,
    #[diesel(sql_type = BigInt)]
    timeline: i64,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Nullable<Text>)]
    table_schema: Option<String>,
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Nullable<Text>)]
    model: Option<String>,
    #[diesel(sql_type = Text)]
    action: String,
    #[diesel(sql_type = Nullable<Text>)]
    primary_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    old_row: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    live: Option<bool>,
    #[diesel(sql_type = Bool)]
    content: bool,
}

const ENTRIES: &str = "SELECT id, captured_at, epoch, timeline, sequence, table_schema, table_name, model, action, \
                       primary_key, old_row, live, content IS NOT NULL AS content FROM kvsync_outbox ORDER BY id";

/// What stands in the outbox: it is emptied.
macro_rules! entries {
    ($conn:expr) => {{
        let entries: Vec<Entry> = sql_query(ENTRIES).load(&mut $conn).unwrap();
        sql_query("DELETE FROM kvsync_outbox").execute(&mut $conn).unwrap();
        entries
    }};
}
use entries;

impl Entry {
    /// What a reader of the test wants to see.
    fn line(&self) -> String {
        let key = self.primary_key.as_deref().unwrap_or("-").replace("{\"id\" : ", "").replace('}', "");
        let old = self.old_row.as_ref().map(|row| format!(" was {row}")).unwrap_or_default();
        format!("{} {key}{old}", self.action)
    }
}

/// Their lines; sequences ascend.
fn lines(entries: &[Entry]) -> Vec<String> {
    assert!(entries.is_sorted_by(|one, other| one.sequence < other.sequence), "{entries:#?}");
    entries.iter().map(Entry::line).collect()
}
