//! A table that is renamed takes its triggers along: what they write down names a table that is not there.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncBackend};
use kvsync::store::memory::MemoryStore;
use kvsync::worker::Backoff;
use kvsync::{ErrorKind, KvSync};
use kvsync_tests::postgres::fresh_database;
use kvsync_tests::wait::{LONG, until};

use super::*;

/// Written by triggers, too, and not renamed.
#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = clubs)]
#[sync_key(name = "id", fmt = "club:id:<id>")]
struct Club {
    id: i32,
    name: String,
}

diesel::table! {
    clubs (id) {
        id -> Integer,
        name -> Text,
    }
}

const CLUBS: &str = "CREATE TABLE clubs (id INTEGER PRIMARY KEY, name TEXT NOT NULL)";

fn what_is_written_meanwhile_remains<DB>(database: Database<DB>, mut plain: impl SimpleConnection)
where
    DB: SyncBackend,
    Database<DB>: 'static,
    kvsync::capture::SyncConnection<DB::Connection>: SimpleConnection,
{
    let quick = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) };
    let builder = KvSync::builder().store(MemoryStore::new()).outbox_poll(Duration::from_millis(20));
    let kv = builder.outbox_attempts(u32::MAX, quick).database(database).build().unwrap();
    kv.connect::<DB>("main").unwrap().install_triggers().unwrap();
    plain.batch_execute("INSERT INTO users (id, email, name) VALUES (1, 'a', 'Ann')").unwrap();
    kv.flush(LONG).unwrap();

    plain.batch_execute("ALTER TABLE users RENAME TO people").unwrap();
    plain.batch_execute("UPDATE people SET name = 'Eve' WHERE id = 1").unwrap();
    plain.batch_execute("INSERT INTO clubs VALUES (7, 'Seven')").unwrap();
    let error = kv.flush(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("1 of `users` failed and will be tried again"), "{error}");
    assert_eq!(Club::fetch_by_id(&kv, 7).unwrap().map(|club| club.name), Some("Seven".to_owned()));
    let told = || kv.health(LONG).details.into_iter().find(|detail| detail.contains("1 of `users` failed"));
    until("health tells", || told().is_some());

    plain.batch_execute("ALTER TABLE people RENAME TO users").unwrap();
    until("it is delivered", || kv.flush(LONG).is_ok());
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap().map(|user| user.name), Some("Eve".to_owned()));
    until("health is well", || told().is_none());
}

#[test]
fn on_postgres() {
    let fresh = fresh_database().unwrap();
    let mut plain = fresh.connect().unwrap();
    plain.batch_execute(POSTGRES_OUTBOX).unwrap();
    plain.batch_execute(TABLES).unwrap();
    plain.batch_execute(CLUBS).unwrap();
    let url = fresh.url();
    let database = Database::<Pg>::new("main", move || PgConnection::establish(&url));
    what_is_written_meanwhile_remains(database.triggers::<User>().triggers::<Club>(), plain);
}

#[test]
fn on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let open = move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    };
    let mut plain = open().unwrap();
    plain.batch_execute(SQLITE_OUTBOX).unwrap();
    plain.batch_execute(TABLES).unwrap();
    plain.batch_execute(CLUBS).unwrap();
    let database = Database::<Sqlite>::new("main", open);
    what_is_written_meanwhile_remains(database.triggers::<User>().triggers::<Club>(), plain);
}
