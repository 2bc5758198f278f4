//! What a statement does not show, and what hinders capture: handled, or reported loudly.

mod audit_postgres;
mod audit_sqlite;
mod by_key;
mod deferrable;
mod hazards;
mod misfits;
mod unfit;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, Finding, FindingKind, Severity, SyncBackend, SyncConnection};
use kvsync::change::Missed;
use kvsync::report::Report;
use kvsync::store::memory::MemoryStore;
use kvsync::{KvSync, Lookup, Miss, Syncable};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::users::{TABLE, User, user, users};
use kvsync_tests::wait::{LONG, until};
use serde::{Deserialize, Serialize};

/// A store, a database, and a connection that captures.
struct App<DB: SyncBackend, H> {
    kv: KvSync,
    conn: SyncConnection<DB::Connection>,
    missed: Receiver<Missed>,
    /// What the database is in.
    home: H,
}

fn build<DB: SyncBackend, H>(database: Database<DB>, home: H) -> App<DB, H> {
    let (sender, missed) = channel();
    let builder = KvSync::builder().store(MemoryStore::new()).on_report(move |report| {
        if let Report::Missed(missed) = report {
            let _ = sender.send(missed.clone());
        }
    });
    let kv = builder.database(database).build().unwrap();
    let conn = kv.connect::<DB>("main").unwrap();
    App { kv, conn, missed, home }
}

fn postgres(tables: &str, models: impl FnOnce(Database<Pg>) -> Database<Pg>) -> App<Pg, FreshDatabase> {
    let home = fresh_database().unwrap();
    home.connect().unwrap().batch_execute(tables).unwrap();
    let url = home.url();
    build(models(Database::<Pg>::new("main", move || PgConnection::establish(&url))), home)
}

fn sqlite(tables: &str, models: impl FnOnce(Database<Sqlite>) -> Database<Sqlite>) -> App<Sqlite, tempfile::TempDir> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db").to_string_lossy().into_owned();
    let open = move || {
        let mut conn = SqliteConnection::establish(&path)?;
        let setup = conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA foreign_keys = ON");
        setup.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    };
    open().unwrap().batch_execute(tables).unwrap();
    build(models(Database::<Sqlite>::new("main", open)), home)
}

impl<DB: SyncBackend, H> App<DB, H> {
    /// The reasons of what was reported since the last call.
    fn reasons(&self) -> Vec<String> {
        self.kv.flush(LONG).unwrap();
        // Reports come on a thread of their own, in their order: one that is sure to be made ends them.
        let mark = "SELECT 1; UPDATE users SET id = 0 WHERE 1 = 0";
        self.kv.connect::<DB>("main").unwrap().batch_execute(mark).unwrap();
        let next = || self.missed.recv_timeout(LONG).unwrap();
        std::iter::from_fn(|| Some(next()).filter(|missed| missed.sql != mark))
            .map(|missed| missed.reason.into_owned())
            .collect()
    }

    fn by_id(&self, id: i32) -> Lookup<User> {
        User::lookup_by_id(&self.kv, id).unwrap()
    }

    fn by_email(&self, email: &str) -> Lookup<User> {
        User::lookup_by_email(&self.kv, email).unwrap()
    }
}

/// Runs a statement on the captured connection of an app and waits until the store has it.
macro_rules! run {
    ($app:expr, $sql:expr) => {{
        let count = sql_query($sql).execute(&mut $app.conn).unwrap();
        $app.kv.flush(LONG).unwrap();
        count
    }};
}
use run;

/// What an audit finds of these kinds, a line each.
fn audit<DB: SyncBackend, H>(app: &mut App<DB, H>, kinds: &[FindingKind]) -> Vec<String> {
    let found = app.kv.audit(&mut app.conn).unwrap();
    assert!(found.is_sorted_by_key(|one| std::cmp::Reverse(one.severity)), "the worst comes first");
    assert!(found.iter().all(|one| one.severity == Severity::Note || !one.advice.is_empty()), "{found:?}");
    let line = |one: &Finding| format!("{:?} {one}", one.severity);
    found.iter().filter(|one| kinds.contains(&one.kind)).map(line).collect()
}

/// These findings and no others: what each of them says, in parts.
#[track_caller]
fn says(found: &[String], expected: &[&[&str]]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, parts) in found.iter().zip(expected) {
        for part in *parts {
            assert!(found.contains(part), "`{part}` in {found}");
        }
    }
}

/// A role of one test, in which its connection acts; gone with it.
struct Role {
    name: String,
    database: PgConnection,
}

impl Role {
    fn new(app: &mut App<Pg, FreshDatabase>, rights: &str) -> Self {
        let mut database = app.home.connect().unwrap();
        // Roles belong to the server, databases have names of their own.
        let name = app.home.url().rsplit('/').next().unwrap().replacen("test", "role", 1);
        database.batch_execute(&format!("CREATE ROLE {name}; {}", rights.replace("$role", &name))).unwrap();
        app.conn.batch_execute(&format!("SET ROLE {name}")).unwrap();
        Self { name, database }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let name = &self.name;
        if let Err(error) = self.database.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")) {
            eprintln!("the role {name} stays behind: {error}");
        }
    }
}
