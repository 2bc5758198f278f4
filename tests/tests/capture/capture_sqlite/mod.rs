//! What ordinary Diesel writes to SQLite is caught, once it is committed.

mod check;
mod lend;
mod pools;
mod transactions;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{AnyDatabase, Database, Policy, SyncConnection, Unattached};
use kvsync::change::{Publish, Row};
use kvsync::model::{Model, PrimaryKey, Wanted};
use kvsync::{ErrorKind, Scope, Syncable, Version};
use kvsync_tests::recorder::Recorder;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
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
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
struct User {
    id: i32,
    uuid: String,
    username: String,
}

const USERS: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)";

fn user(id: i32, uuid: &str, username: &str) -> User {
    User { id, uuid: uuid.into(), username: username.into() }
}

fn describe(row: &dyn Model) -> String {
    let user = row.downcast_ref::<User>().unwrap();
    format!("{} {} {}", user.id, user.uuid, user.username)
}

type Conn = SyncConnection<SqliteConnection>;

fn attach(database: Database<Sqlite>, recorder: &Arc<Recorder>) -> Arc<dyn AnyDatabase> {
    Box::new(database).attach(Arc::clone(recorder) as Arc<dyn Publish>).unwrap()
}

fn database() -> Database<Sqlite> {
    Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<User>()
}

fn open() -> (Conn, Arc<Recorder>) {
    open_with(database())
}

fn open_with(database: Database<Sqlite>) -> (Conn, Arc<Recorder>) {
    let recorder = Recorder::new();
    let database = attach(database, &recorder);
    let mut conn = database.downcast::<Sqlite>().unwrap().connect().unwrap();
    conn.batch_execute(USERS).unwrap();
    (conn, recorder)
}

#[test]
fn single_statements_are_caught() {
    let (mut conn, recorder) = open();
    let inserted = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    assert_eq!(inserted, 1);
    assert_eq!(recorder.lines(describe), ["insert 1 a Ann"]);
    let updated = diesel::update(users::table.find(1)).set(users::username.eq("Bob")).execute(&mut conn).unwrap();
    assert_eq!(updated, 1);
    assert_eq!(recorder.lines(describe), ["update 1 a Bob"]);
    let deleted = diesel::delete(users::table).execute(&mut conn).unwrap();
    assert_eq!(deleted, 1);
    assert_eq!(recorder.lines(describe), ["delete 1 a Bob"]);
    let rows: Vec<User> = users::table.load(&mut conn).unwrap();
    assert_eq!(rows, []);
    assert_eq!(recorder.lines(describe), [""; 0]);
}

#[test]
fn the_caller_sees_what_it_asked_for() {
    let (mut conn, recorder) = open();
    let whole: User = diesel::insert_into(users::table).values(user(1, "a", "Ann")).get_result(&mut conn).unwrap();
    assert_eq!(whole, user(1, "a", "Ann"));
    let name: String = diesel::insert_into(users::table)
        .values(user(2, "b", "Bob"))
        .returning(users::username)
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(name, "Bob");
    let both: Vec<(i32, String)> = diesel::update(users::table)
        .set(users::username.eq("Cy"))
        .returning((users::id, users::uuid))
        .get_results(&mut conn)
        .unwrap();
    assert_eq!(both, [(1, "a".to_owned()), (2, "b".to_owned())]);
    let one: i32 = diesel::delete(users::table).returning(users::id).get_result(&mut conn).unwrap();
    assert_eq!(one, 1);
    assert_eq!(
        recorder.lines(describe),
        ["insert 1 a Ann", "insert 2 b Bob", "update 1 a Cy", "update 2 b Cy", "delete 1 a Cy", "delete 2 b Cy"]
    );
}

#[test]
fn a_rolled_back_transaction_leaves_nothing() {
    let (mut conn, recorder) = open();
    let result: QueryResult<()> = conn.transaction(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        assert_eq!(conn.captured().len(), 1);
        Err(diesel::result::Error::RollbackTransaction)
    });
    assert!(result.is_err());
    assert_eq!(recorder.take().len(), 0);
    assert_eq!(conn.captured().len(), 0);
}

#[test]
fn a_rolled_back_savepoint_takes_its_own_changes_and_no_others() {
    let (mut conn, recorder) = open();
    conn.transaction::<_, diesel::result::Error, _>(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        let inner: QueryResult<()> = conn.transaction(|conn| {
            diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(conn)?;
            Err(diesel::result::Error::RollbackTransaction)
        });
        assert!(inner.is_err());
        conn.transaction(|conn| diesel::insert_into(users::table).values(user(3, "c", "Cy")).execute(conn))?;
        assert_eq!(recorder.take().len(), 0);
        Ok(())
    })
    .unwrap();
    let sets = recorder.take();
    assert_eq!(sets.len(), 1, "one set a transaction");
    let lines: Vec<String> =
        sets[0].changes.iter().map(|change| kvsync_tests::recorder::line(change, describe)).collect();
    assert_eq!(lines, ["insert 1 a Ann", "insert 3 c Cy"]);
}

#[test]
fn several_statements_in_one_string_follow_the_policy() {
    let both = "INSERT INTO users VALUES (1, 'a', 'Ann'); INSERT INTO users VALUES (2, 'b', 'Bob')";
    let (mut conn, recorder) = open();
    conn.batch_execute(both).unwrap();
    assert_eq!(recorder.take().len(), 0);
    let missed = recorder.missed();
    assert_eq!(missed[0].table.as_deref(), Some("users"));

    let (mut conn, recorder) = open_with(database().policy(Policy::Error));
    let error = conn.batch_execute(both).unwrap_err();
    assert!(error.to_string().contains("not captured"), "{error}");
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).unwrap(), 0);
    assert_eq!(recorder.missed().len(), 0);
}

/// A database in a file, with the counter or without.
struct InFile {
    folder: tempfile::TempDir,
    database: Arc<dyn AnyDatabase>,
    recorder: Arc<Recorder>,
}

impl InFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db").to_str().unwrap().to_owned();
        let recorder = Recorder::new();
        let declared =
            Database::<Sqlite>::new("main", move || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
                let mut conn = SqliteConnection::establish(&path)?;
                conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL")?;
                Ok(conn)
            });
        let database = attach(declared.model::<User>(), &recorder);
        let this = Self { folder, database, recorder };
        this.connect().batch_execute(USERS).unwrap();
        this
    }

    fn connect(&self) -> Conn {
        assert!(self.folder.path().exists());
        self.database.downcast::<Sqlite>().unwrap().connect().unwrap()
    }
}

fn wanted(id: i32, floor: Version) -> Wanted {
    Wanted { schema: User::SCHEMA, scope: Scope::NONE, primary_key: PrimaryKey::of::<User>(id), floor }
}

#[test]
fn rows_are_read_again_under_the_write_lock() {
    for counted in [false, true] {
        let on = InFile::new();
        let mut conn = on.connect();
        if counted {
            conn.batch_execute(kvsync::capture::SQLITE_COUNTER).unwrap();
        }
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
        let written = on.recorder.changes()[0].version;
        let floor = Version::new(0, 0, written.sequence() + 1_000_000_000);
        let ask = [wanted(2, floor), wanted(1, Version::ZERO)];
        let read = on.database.source().reread(&ask, Duration::from_mins(1)).unwrap();
        assert!(read[0].row.as_ref().unwrap().is_none());
        assert_eq!(describe(read[1].row.as_ref().unwrap().as_deref().unwrap()), "1 a Ann");
        assert!(read[0].version > floor);
        diesel::update(users::table).set(users::username.eq("Bob")).execute(&mut conn).unwrap();
        assert!(on.recorder.changes()[0].version > read[0].version);

        conn.transaction::<_, diesel::result::Error, _>(|conn| {
            diesel::update(users::table).set(users::username.eq("Cy")).execute(conn)?;
            let late = on.database.source().reread(&ask, Duration::from_millis(50)).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Deadline, "{late}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn the_counter_orders_what_is_rolled_back_and_written_again() {
    let on = InFile::new();
    let mut conn = on.connect();
    conn.batch_execute(kvsync::capture::SQLITE_COUNTER).unwrap();
    let mut other = on.connect();
    let mut last = Version::ZERO;
    let mut rises = |on: &InFile| {
        for change in on.recorder.changes() {
            assert!(change.version > last, "{} after {last}", change.version);
            last = change.version;
        }
    };
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    rises(&on);
    let name: String = diesel::update(users::table)
        .set(users::username.eq("Bob"))
        .returning(users::username)
        .get_result(&mut other)
        .unwrap();
    assert_eq!(name, "Bob");
    rises(&on);
    conn.transaction::<_, diesel::result::Error, _>(|conn| {
        let undone: QueryResult<()> = conn.transaction(|conn| {
            diesel::update(users::table).set(users::username.eq("Cy")).execute(conn)?;
            Err(diesel::result::Error::RollbackTransaction)
        });
        assert!(undone.is_err());
        diesel::update(users::table).set(users::username.eq("Di")).execute(conn)?;
        diesel::update(users::table).set(users::username.eq("Ed")).execute(conn)?;
        Ok(())
    })
    .unwrap();
    rises(&on);
    diesel::update(users::table).set(users::username.eq("Fi")).execute(&mut other).unwrap();
    rises(&on);
}

#[test]
fn for_one_row_the_order_of_versions_is_the_order_of_commits() {
    for counted in [false, true] {
        let on = InFile::new();
        on.connect().batch_execute("ALTER TABLE users ADD COLUMN n INTEGER NOT NULL DEFAULT 0").unwrap();
        if counted {
            on.connect().batch_execute(kvsync::capture::SQLITE_COUNTER).unwrap();
        }
        diesel::insert_into(users::table).values(user(1, "a", "0")).execute(&mut on.connect()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut conn = on.connect();
                    for _ in 0..50 {
                        let raw = "UPDATE users SET n = n + 1, username = n + 1";
                        diesel::sql_query(raw).execute(&mut conn).unwrap();
                    }
                });
            }
        });
        let mut changes = on.recorder.changes();
        changes.sort_by_key(|change| change.version);
        let order: Vec<i32> = changes
            .iter()
            .map(|change| match &change.row {
                Row::Live(row) => row.downcast_ref::<User>().unwrap().username.parse().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, (0..=200).collect::<Vec<i32>>());
    }
}

#[test]
fn a_set_that_moves_a_row_from_its_keys_is_reported() {
    let (mut conn, recorder) = open();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    diesel::sql_query("UPDATE OR REPLACE users SET id = 2").execute(&mut conn).unwrap();
    assert!(recorder.missed()[0].reason.contains("primary-key column"));
    diesel::replace_into(users::table).values(user(3, "a", "Cy")).execute(&mut conn).unwrap();
    assert!(recorder.missed()[0].reason.contains("replaced unseen"));
    let (mut conn, _) = open_with(database().policy(Policy::Error));
    assert!(diesel::sql_query("UPDATE OR REPLACE users SET id = 2").execute(&mut conn).is_err());
}

#[test]
fn a_temporary_namesake_is_reported_and_not_handed_on() {
    let (mut conn, recorder) = open();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    diesel::sql_query("CREATE TEMP TABLE users (id INTEGER PRIMARY KEY, uuid TEXT UNIQUE, username TEXT)")
        .execute(&mut conn)
        .unwrap();
    diesel::insert_into(users::table).values(user(1, "x", "Temp")).execute(&mut conn).unwrap();
    diesel::sql_query("UPDATE main.users SET username = 'Bob'").execute(&mut conn).unwrap();
    assert_eq!(recorder.lines(describe), ["insert 1 a Ann", "update 1 a Bob"]);
    assert!(recorder.missed()[0].reason.contains("temporary"));
    conn.batch_execute("DROP TABLE temp.users").unwrap();
    diesel::insert_into(users::table).values(user(2, "b", "Cy")).execute(&mut conn).unwrap();
    assert_eq!(recorder.lines(describe), ["insert 2 b Cy"]);
}
