//! What ordinary Diesel writes to PostgreSQL is caught, once it is committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::sync::Arc;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::pg::{Pg, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_query;
use kvsync::capture::{AnyDatabase, Database, SyncConnection, Unattached};
use kvsync::change::Publish;
use kvsync::model::Model;
use kvsync::{Scope, Syncable};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::recorder::Recorder;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Nullable<Text>,
        username -> Text,
        deleted -> Bool,
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
#[sync(live_if = "NOT deleted")]
struct User {
    id: i32,
    email: Option<String>,
    username: String,
}

const SCHEMA: &str = "CREATE TABLE users (id INT PRIMARY KEY, email TEXT, username TEXT NOT NULL, \
                      deleted BOOL NOT NULL DEFAULT false); \
                      CREATE UNIQUE INDEX ON users (email) WHERE NOT deleted";

fn user(id: i32, email: &str, username: &str) -> User {
    User { id, email: Some(email.into()), username: username.into() }
}

fn describe(row: &dyn Model) -> String {
    let user = row.downcast_ref::<User>().unwrap();
    format!("{} {} {}", user.id, user.email.as_deref().unwrap_or("-"), user.username)
}

struct Fixture {
    conn: SyncConnection<PgConnection>,
    recorder: Arc<Recorder>,
    attached: Arc<dyn AnyDatabase>,
    database: FreshDatabase,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|database| database)
    }

    fn with(configure: impl FnOnce(Database<Pg>) -> Database<Pg>) -> Self {
        Self::registered(|database| configure(database.model::<User>()))
    }

    fn registered(configure: impl FnOnce(Database<Pg>) -> Database<Pg>) -> Self {
        let database = fresh_database().unwrap();
        database.connect().unwrap().batch_execute(SCHEMA).unwrap();
        let recorder = Recorder::new();
        let url = database.url();
        let declared = Database::<Pg>::new("main", move || PgConnection::establish(&url));
        let attached = Box::new(configure(declared)).attach(Arc::clone(&recorder) as Arc<dyn Publish>).unwrap();
        let conn = attached.downcast::<Pg>().unwrap().connect().unwrap();
        Self { conn, recorder, attached, database }
    }

    fn lines(&self) -> Vec<String> {
        self.recorder.lines(describe)
    }

    fn another(&self) -> SyncConnection<PgConnection> {
        self.attached.downcast::<Pg>().unwrap().connect().unwrap()
    }
}

#[test]
fn single_statements_are_caught() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    diesel::update(users::table.find(1)).set(users::username.eq("Bob")).execute(&mut on.conn).unwrap();
    diesel::update(users::table.find(1)).set(users::deleted.eq(true)).execute(&mut on.conn).unwrap();
    let name: String = diesel::delete(users::table).returning(users::username).get_result(&mut on.conn).unwrap();
    assert_eq!(name, "Bob");
    let changes = on.recorder.changes();
    let lines: Vec<String> = changes.iter().map(|change| kvsync_tests::recorder::line(change, describe)).collect();
    assert_eq!(lines, ["insert 1 a Ann", "update 1 a Bob", "update hidden 1 a Bob", "delete hidden 1 a Bob"]);
    assert!(changes.is_sorted_by(|one, other| one.version < other.version));
    assert_eq!(changes[0].version.timeline(), 1);
}

#[test]
fn upserts_joins_and_raw_sql_are_caught() {
    let mut on = Fixture::new();
    let rows = vec![user(1, "a", "Ann"), user(2, "b", "Bob")];
    let back: Vec<User> = diesel::insert_into(users::table)
        .values(&rows)
        .returning(User::as_returning())
        .get_results(&mut on.conn)
        .unwrap();
    assert_eq!(back, rows);
    diesel::insert_into(users::table)
        .values(user(1, "c", "Cy"))
        .on_conflict(users::id)
        .do_update()
        .set(users::username.eq("Cy"))
        .execute(&mut on.conn)
        .unwrap();
    sql_query("UPDATE users AS u SET username = q.name FROM (VALUES (2, 'Di')) AS q (id, name) WHERE u.id = q.id")
        .execute(&mut on.conn)
        .unwrap();
    sql_query("delete from public.USERS using (select 1 as id) q where users.id = q.id").execute(&mut on.conn).unwrap();
    assert_eq!(on.lines(), ["insert 1 a Ann", "insert 2 b Bob", "upsert 1 a Cy", "update 2 b Di", "delete 1 a Cy"]);
}

#[test]
fn both_loading_modes_show_the_caller_its_rows() {
    let mut on = Fixture::new();
    let rows = vec![user(1, "a", "Ann"), user(2, "b", "Bob")];
    diesel::insert_into(users::table).values(&rows).execute(&mut on.conn).unwrap();
    let statement = || diesel::update(users::table).set(users::username.eq("Cy")).returning(users::id);
    let some: Vec<i32> =
        statement().load_iter::<i32, PgRowByRowLoadingMode>(&mut on.conn).unwrap().collect::<QueryResult<_>>().unwrap();
    let others: Vec<i32> =
        statement().load_iter::<i32, DefaultLoadingMode>(&mut on.conn).unwrap().collect::<QueryResult<_>>().unwrap();
    assert_eq!((some, others), (vec![1, 2], vec![1, 2]));
    assert_eq!(on.recorder.changes().len(), 6);
    let names = users::table.select(users::username).order(users::id);
    let read = names.load_iter::<String, PgRowByRowLoadingMode>(&mut on.conn).unwrap();
    assert_eq!(read.collect::<QueryResult<Vec<_>>>().unwrap(), ["Cy", "Cy"]);
}

#[test]
fn an_aborted_transaction_that_is_committed_leaves_nothing() {
    let mut on = Fixture::new();
    let recorder = Arc::clone(&on.recorder);
    let result = on.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        let again = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn);
        assert!(again.is_err());
        Ok(())
    });
    result.unwrap();
    assert_eq!(recorder.take().len(), 0);
    assert_eq!(users::table.count().get_result::<i64>(&mut on.conn).unwrap(), 0);
}

#[test]
fn a_deferred_constraint_that_fails_leaves_nothing() {
    let mut on = Fixture::new();
    on.conn
        .batch_execute(
            "CREATE TABLE teams (id INT PRIMARY KEY); ALTER TABLE users ADD COLUMN team INT REFERENCES teams \
             DEFERRABLE INITIALLY DEFERRED",
        )
        .unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    on.recorder.take();
    let raw = "UPDATE users SET team = 7 RETURNING id";
    let alone = sql_query(raw).execute(&mut on.conn);
    assert!(alone.is_err(), "the constraint is checked at the end of the statement");
    let at_commit = on.conn.transaction::<_, diesel::result::Error, _>(|conn| sql_query(raw).execute(conn));
    assert!(at_commit.is_err());
    assert_eq!(on.recorder.take().len(), 0);
    assert_eq!(on.recorder.missed(), []);
}

#[test]
fn the_schema_decides_the_scope() {
    let mut on = Fixture::with(|database| {
        database.scopes(|schema| (schema == "public" || schema == "t2").then(|| Scope::named(schema)))
    });
    for schema in ["t2", "t3"] {
        let sql = format!("CREATE SCHEMA {schema}; SET search_path TO {schema}; {SCHEMA}");
        on.database.connect().unwrap().batch_execute(&sql).unwrap();
    }
    for path in ["public", "t2", "t3"] {
        sql_query(format!("SET search_path TO {path}")).execute(&mut on.conn).unwrap();
        diesel::insert_into(users::table).values(user(1, "a", path)).execute(&mut on.conn).unwrap();
    }
    assert_eq!(on.lines(), ["@public:insert 1 a public", "@t2:insert 1 a t2"]);
    let missed = on.recorder.missed();
    assert_eq!(missed.len(), 1);
    assert!(missed[0].reason.contains("`t3`"), "{}", missed[0].reason);
}

#[test]
fn a_namesake_is_reported_and_not_handed_on() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    on.conn.batch_execute("CREATE TEMP TABLE users (LIKE public.users INCLUDING ALL)").unwrap();
    diesel::insert_into(users::table).values(user(1, "x", "Temp")).execute(&mut on.conn).unwrap();
    assert_eq!(on.lines(), ["insert 1 a Ann"]);
    assert!(on.recorder.missed()[0].reason.contains("temporary"));

    let sql = format!("CREATE SCHEMA t2; SET search_path TO t2; {SCHEMA}");
    on.database.connect().unwrap().batch_execute(&sql).unwrap();
    let mut other = on.another();
    other.batch_execute("SET search_path TO t2").unwrap();
    diesel::insert_into(users::table).values(user(1, "y", "Other")).execute(&mut other).unwrap();
    assert_eq!(on.lines(), [""; 0]);
    assert!(on.recorder.missed()[0].reason.contains("`t2.users`"));
}

#[derive(Debug, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "name:id:<id>")]
struct Name {
    username: String,
    id: i32,
}

#[test]
fn rows_of_partitions_belong_to_their_root() {
    let mut on = Fixture::registered(|database| database.model::<Name>());
    on.conn
        .batch_execute(
            "DROP TABLE users; \
             CREATE TABLE users (id INT PRIMARY KEY, email TEXT, username TEXT NOT NULL, \
             deleted BOOL NOT NULL DEFAULT false) PARTITION BY RANGE (id); \
             CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (10); \
             CREATE TABLE users_2 PARTITION OF users FOR VALUES FROM (10) TO (20)",
        )
        .unwrap();
    let rows = [user(1, "a", "Ann"), user(11, "b", "Bob")];
    diesel::insert_into(users::table).values(&rows[..]).execute(&mut on.conn).unwrap();
    let ids = on.recorder.lines(|row| row.downcast_ref::<Name>().unwrap().id.to_string());
    assert_eq!(ids, ["insert 1", "insert 11"]);
    assert_eq!(on.recorder.missed(), []);
}

#[test]
fn a_table_may_have_several_models() {
    let mut on = Fixture::with(|database| database.model::<Name>());
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let back: User = diesel::update(users::table)
        .set((users::username.eq("Bob"), users::deleted.eq(true)))
        .returning(User::as_returning())
        .get_result(&mut on.conn)
        .unwrap();
    assert_eq!(back.username, "Bob");
    let describe = |row: &dyn Model| match row.downcast_ref::<Name>() {
        Some(name) => format!("name {} {}", name.id, name.username),
        None => describe(row),
    };
    let lines = on.recorder.lines(describe);
    assert_eq!(lines, ["insert 1 a Ann", "insert name 1 Ann", "update hidden 1 a Bob", "update name 1 Bob"]);
}

#[test]
fn a_statement_whose_plan_went_stale_is_run_again() {
    let mut on = Fixture::new();
    let update = |on: &mut Fixture, name: &str| {
        diesel::update(users::table.find(1)).set(users::username.eq(name)).execute(&mut on.conn)
    };
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    update(&mut on, "Bob").unwrap();
    let alter = "ALTER TABLE users ALTER COLUMN username TYPE VARCHAR(20)";
    on.database.connect().unwrap().batch_execute(alter).unwrap();
    update(&mut on, "Cy").unwrap();
    assert_eq!(on.lines(), ["insert 1 a Ann", "update 1 a Bob", "update 1 a Cy"]);
}

#[test]
fn ties_of_an_unlogged_table_are_broken_by_order() {
    let mut on = Fixture::new();
    on.conn.batch_execute("ALTER TABLE users SET UNLOGGED").unwrap();
    on.conn
        .transaction::<_, diesel::result::Error, _>(|conn| {
            diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
            for name in ["Bob", "Cy", "Di"] {
                diesel::update(users::table).set(users::username.eq(name)).execute(conn)?;
            }
            Ok(())
        })
        .unwrap();
    let changes = on.recorder.changes();
    assert!(changes.is_sorted_by(|one, other| one.version < other.version), "{changes:?}");
    assert_eq!(kvsync_tests::recorder::line(changes.last().unwrap(), describe), "update 1 a Di");
}

#[test]
fn an_isolation_level_can_be_asked_for() {
    let mut on = Fixture::new();
    let level: String = on
        .conn
        .build_transaction()
        .serializable()
        .run(|conn| {
            diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
            diesel::dsl::sql::<diesel::sql_types::Text>("SHOW transaction_isolation").get_result(conn)
        })
        .unwrap();
    assert_eq!(level, "serializable");
    assert_eq!(on.lines(), ["insert 1 a Ann"]);
    let refused: QueryResult<usize> = on
        .conn
        .build_transaction()
        .read_only()
        .run(|conn| diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(conn));
    assert!(refused.is_err());
    assert_eq!(on.lines(), [""; 0]);
}

mod reread {
    use std::thread;
    use std::time::Duration;

    use kvsync::model::{PrimaryKey, Wanted};
    use kvsync::{ErrorKind, Version};

    use super::*;

    fn wanted(id: i32, floor: Version) -> Wanted {
        Wanted { schema: User::SCHEMA, scope: Scope::NONE, primary_key: PrimaryKey::of::<User>(id), floor }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn present_absent_and_hidden_rows_are_told_apart() {
        let mut on = Fixture::new();
        diesel::insert_into(users::table)
            .values([user(1, "a", "Ann"), user(2, "b", "Bob")])
            .execute(&mut on.conn)
            .unwrap();
        diesel::update(users::table.find(2)).set(users::deleted.eq(true)).execute(&mut on.conn).unwrap();
        let written = on.recorder.changes().last().unwrap().version;
        let ask = [wanted(2, Version::ZERO), wanted(3, Version::ZERO), wanted(1, Version::ZERO)];
        let read = on.attached.source().reread(&ask, SOON).unwrap();
        let rows: Vec<Option<String>> = read.iter().map(|read| read.row.as_deref().map(describe)).collect();
        assert_eq!(rows, [None, None, Some("1 a Ann".to_owned())]);
        assert!(read.iter().all(|read| read.version > written));
        diesel::update(users::table).set(users::username.eq("Cy")).execute(&mut on.conn).unwrap();
        let next = on.recorder.changes();
        assert!(next.iter().all(|change| read.iter().all(|read| change.version > read.version)));
    }

    #[test]
    fn a_row_that_is_being_written_is_waited_for() {
        let mut on = Fixture::new();
        diesel::insert_into(users::table)
            .values([user(1, "a", "Ann"), user(2, "b", "Bob")])
            .execute(&mut on.conn)
            .unwrap();
        on.recorder.take();
        let mut writer = on.another();
        writer
            .transaction::<_, diesel::result::Error, _>(|conn| {
                diesel::update(users::table.find(1)).set(users::username.eq("Cy")).execute(conn)?;
                diesel::insert_into(users::table).values(user(3, "c", "Di")).execute(conn)?;
                let source = on.attached.source();
                let late = source.reread(&[wanted(1, Version::ZERO)], Duration::from_millis(50)).unwrap_err();
                assert_eq!(late.kind(), ErrorKind::Deadline, "{late}");
                let late = source.reread(&[wanted(3, Version::ZERO)], Duration::from_millis(50)).unwrap_err();
                assert_eq!(late.kind(), ErrorKind::Deadline, "{late}");
                Ok(())
            })
            .unwrap();
        let captured = on.recorder.changes();
        let read = on.attached.source().reread(&[wanted(1, Version::ZERO), wanted(3, Version::ZERO)], SOON).unwrap();
        let rows: Vec<String> = read.iter().map(|read| describe(read.row.as_deref().unwrap())).collect();
        assert_eq!(rows, ["1 a Cy", "3 c Di"]);
        assert!(captured.iter().all(|change| change.version < read[0].version));
    }

    #[test]
    fn a_reading_ends_once_the_writer_has() {
        let mut on = Fixture::new();
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
        on.recorder.take();
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let mut writer = on.another();
        let source = on.attached.source();
        let mut watcher = on.database.connect().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer
                    .transaction::<_, diesel::result::Error, _>(|conn| {
                        diesel::update(users::table.find(1)).set(users::username.eq("Bob")).execute(conn)?;
                        diesel::delete(users::table.find(2)).execute(conn)?;
                        locked.send(()).unwrap();
                        may_go.recv().unwrap();
                        Ok(())
                    })
                    .unwrap();
            });
            is_locked.recv().unwrap();
            let reader = scope
                .spawn(move || source.reread(&[wanted(1, Version::ZERO), wanted(2, Version::ZERO)], SOON).unwrap());
            let waits =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'";
            while diesel::dsl::sql::<diesel::sql_types::BigInt>(waits).get_result::<i64>(&mut watcher).unwrap() == 0 {
                thread::yield_now();
            }
            go.send(()).unwrap();
            let read = reader.join().unwrap();
            assert_eq!(describe(read[0].row.as_deref().unwrap()), "1 a Bob");
            assert!(read[1].row.is_none());
            let written = on.recorder.changes()[0].version;
            assert!(written < read[0].version && written < read[1].version);
        });
    }

    #[test]
    fn the_floor_is_reached_by_present_and_by_absent_rows() {
        let mut on = Fixture::new();
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
        let version = on.recorder.changes()[0].version;
        // As if a crash had taken back what was written up to there.
        let lost = Version::new(0, version.timeline(), version.sequence() + 3_000_000);
        let read = on.attached.source().reread(&[wanted(1, lost), wanted(2, lost)], SOON).unwrap();
        assert!(read.iter().all(|read| read.version >= lost));
        let restored = Version::new(0, version.timeline(), version.sequence() + (1 << 40));
        let error = on.attached.source().reread(&[wanted(1, restored)], SOON).unwrap_err();
        assert!(error.to_string().contains("raise the epoch"), "{error}");
    }

    #[test]
    fn a_scope_is_read_in_its_schema() {
        let mut on = Fixture::with(|database| database.scopes(|schema| Some(Scope::named(schema))));
        let sql = format!("CREATE SCHEMA t2; SET search_path TO t2; {SCHEMA}");
        on.conn.batch_execute(&sql).unwrap();
        diesel::insert_into(users::table).values(user(1, "a", "Two")).execute(&mut on.conn).unwrap();
        let ask = |scope: &str| Wanted { scope: Scope::named(scope), ..wanted(1, Version::ZERO) };
        let read = on.attached.source().reread(&[ask("public"), ask("t2")], SOON).unwrap();
        assert!(read[0].row.is_none());
        assert_eq!(describe(read[1].row.as_deref().unwrap()), "1 a Two");
        assert!(on.attached.source().reread(&[ask("t9")], SOON).is_err());
    }
}

mod check {
    use kvsync::capture::Severity;

    use super::*;

    #[test]
    fn a_table_that_fits_is_found_to_fit() {
        let mut on = Fixture::new();
        assert_eq!(on.conn.check().unwrap(), []);
    }

    #[test]
    fn a_table_that_does_not_fit_is_not_written() {
        for (table, says) in [
            ("CREATE TABLE users (id INT PRIMARY KEY, email TEXT UNIQUE, name TEXT, deleted BOOL)", "username"),
            ("CREATE TABLE users (id INT, email TEXT UNIQUE, username TEXT, deleted BOOL)", "primary key"),
            ("CREATE TABLE users (id INT PRIMARY KEY, email TEXT, username TEXT, deleted BOOL)", "covers (email)"),
            (
                "CREATE TABLE users (id INT PRIMARY KEY, email TEXT UNIQUE DEFERRABLE, username TEXT, deleted BOOL)",
                "DEFERRABLE",
            ),
            (
                "CREATE TABLE users (id INT PRIMARY KEY, email TEXT, username TEXT, deleted BOOL); \
                 CREATE UNIQUE INDEX u ON users (email) WHERE username <> ''",
                "it is `NOT deleted`",
            ),
            (
                "CREATE TABLE u (id INT PRIMARY KEY, email TEXT UNIQUE, username TEXT, deleted BOOL); \
                 CREATE VIEW users AS SELECT * FROM u",
                "view",
            ),
        ] {
            let mut on = Fixture::new();
            on.conn.batch_execute(&format!("DROP TABLE users; {table}")).unwrap();
            let found = on.conn.check().unwrap();
            let errors: Vec<_> = found.iter().filter(|one| one.severity == Severity::Error).collect();
            assert_eq!(errors.len(), 1, "{table}: {found:?}");
            assert!(errors[0].message.contains(says), "{says}: {found:?}");
            on.conn
                .transaction::<_, diesel::result::Error, _>(|conn| {
                    let error =
                        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn).unwrap_err();
                    assert!(error.to_string().contains(says), "{error}");
                    // The caller's transaction goes on.
                    sql_query("SELECT 1").execute(conn)
                })
                .unwrap();
        }
    }

    #[test]
    fn a_missing_right_is_named() {
        let mut on = Fixture::new();
        let role = format!("r{}", std::process::id());
        on.conn
            .batch_execute(&format!(
                "DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT INSERT, SELECT (id, username) ON users TO {role}; \
                 SET ROLE {role}"
            ))
            .unwrap();
        let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
        assert!(error.to_string().contains("GRANT SELECT (email)"), "{error}");
        on.conn.batch_execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
    }

    #[test]
    fn a_table_outside_of_the_default_search_path_must_be_named() {
        let mut on = Fixture::new();
        on.conn.batch_execute("CREATE SCHEMA app; ALTER TABLE users SET SCHEMA app; SET search_path TO app").unwrap();
        let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
        assert!(error.to_string().contains("`app.users`"), "{error}");
    }
}
