//! What ordinary Diesel writes to PostgreSQL is caught, once it is committed.

mod check;
mod lend;
mod reread;
mod transactions;
mod unreadable;

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
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
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
        .unsynced()
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
    let mut on = Fixture::registered(Database::model::<Name>);
    on.conn
        .unsynced()
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
    let mut on = Fixture::with(Database::model::<Name>);
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
