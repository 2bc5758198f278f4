use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DbError};
use diesel::sql_query;
use kvsync::Scope;
use kvsync::capture::SyncConnection;
use kvsync_tests::postgres::{FreshDatabase, fresh_database};

use super::*;

struct Fixture {
    conn: SyncConnection<PgConnection>,
    plain: PgConnection,
    recorder: Arc<Recorder>,
    attached: Attached<Pg>,
    _database: FreshDatabase,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|declared| declared)
    }

    fn with(configure: impl FnOnce(Database<Pg>) -> Database<Pg>) -> Self {
        let database = fresh_database().unwrap();
        let mut plain = database.connect().unwrap();
        plain.batch_execute(POSTGRES_OUTBOX).unwrap();
        plain.batch_execute(TABLES).unwrap();
        let recorder = Recorder::in_epoch(1);
        let url = database.url();
        let declared = Database::<Pg>::new("main", move || PgConnection::establish(&url));
        let declared = configure(declared.model::<User>().outbox());
        let attached = attach(declared, &recorder);
        let conn = attached.connect().unwrap();
        Self { conn, plain, recorder, attached, _database: database }
    }

    fn lines(&mut self) -> Vec<String> {
        lines(&entries!(self.plain))
    }
}

#[test]
fn every_change_is_written_with_its_statement() {
    let mut on = Fixture::new();
    assert_eq!(
        diesel::insert_into(users::table).values(&[user(1, "a", "Ann"), user(2, "b", "Bob")]).execute(&mut on.conn),
        Ok(2)
    );
    let token = on.conn.last_commit().cloned().unwrap().outbox.unwrap();
    assert_eq!((token.first, token.last), (1, 2));
    assert_eq!(on.recorder.take_outboxed(), 1);
    let name: String = diesel::update(users::table.find(1))
        .set(users::name.eq("x"))
        .returning(users::name)
        .get_result(&mut on.conn)
        .unwrap();
    assert_eq!(name, "x");
    sql_query("UPDATE users AS u SET name = t.n FROM (VALUES ('v')) AS t (n) WHERE u.id = 2")
        .execute(&mut on.conn)
        .unwrap();
    let upsert = diesel::insert_into(users::table).values(user(2, "b", "y")).on_conflict(users::id).do_update();
    upsert.set(users::name.eq("y")).execute(&mut on.conn).unwrap();
    diesel::delete(users::table.find(1)).execute(&mut on.conn).unwrap();
    // It is found whatever the search path is, and a table of its name in front takes none.
    on.conn.batch_execute("CREATE TEMP TABLE kvsync_outbox (id bigint)").unwrap();
    on.conn.batch_execute("SET search_path = pg_catalog").unwrap();
    sql_query("DELETE FROM public.users").execute(&mut on.conn).unwrap();
    let entries = entries!(on.plain);
    assert!(
        entries
            .iter()
            .all(|entry| entry.content && entry.epoch == Some(1) && entry.timeline == 1 && entry.live.is_none())
    );
    assert!(
        entries
            .iter()
            .all(|entry| entry.table_schema.as_deref() == Some("public") && entry.model.as_deref() == Some("User"))
    );
    assert_eq!(lines(&entries), ["insert 1", "insert 2", "update 1", "update 2", "upsert 2", "delete 1", "delete 2"]);
    let (sets, missed) = (on.recorder.take(), on.recorder.missed());
    assert!(sets.is_empty() && missed.is_empty(), "{sets:?} {missed:?}");
}

#[test]
fn rows_go_with_the_transaction_that_is_rolled_back() {
    let mut on = Fixture::new();
    // The closure swallows the error; Postgres answers COMMIT with a rollback.
    let swallowed = on.conn.transaction(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn).unwrap_err();
        QueryResult::Ok(())
    });
    assert_eq!(swallowed, Ok(()));
    on.conn
        .transaction(|conn| {
            diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(conn)?;
            let _ = conn.transaction(|conn| {
                diesel::insert_into(users::table).values(user(3, "c", "Cyd")).execute(conn)?;
                diesel::insert_into(users::table).values(user(2, "c", "Cyd")).execute(conn)
            });
            assert!(conn.captured().is_empty());
            QueryResult::Ok(())
        })
        .unwrap();
    // A statement that fails takes its own with it.
    diesel::insert_into(users::table)
        .values(&[user(4, "d", "Dan"), user(2, "x", "x")])
        .execute(&mut on.conn)
        .unwrap_err();
    let mut other = on.attached.connect().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _ = other.transaction(|conn| -> QueryResult<()> {
            diesel::insert_into(users::table).values(user(5, "e", "Eve")).execute(conn)?;
            panic!("on purpose")
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(on.lines(), ["insert 2"]);
    assert_eq!(on.recorder.take_outboxed(), 1);
}

#[test]
fn a_write_that_the_outbox_does_not_take_fails_as_the_database_says() {
    let mut on = Fixture::new();
    on.plain.batch_execute("ALTER TABLE kvsync_outbox ADD CONSTRAINT full_up CHECK (action <> 'delete')").unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let failed = diesel::delete(users::table).execute(&mut on.conn).unwrap_err();
    assert!(
        matches!(&failed, DbError::DatabaseError(DatabaseErrorKind::CheckViolation, info) if info.message().contains("outbox")),
        "{failed}"
    );
    assert_eq!(users::table.count().get_result(&mut on.conn), Ok(1));
    let committed = on.conn.transaction(|conn| {
        let _ = diesel::delete(users::table).execute(conn);
        QueryResult::Ok(())
    });
    assert!(committed.is_err());
    assert_eq!(users::table.count().get_result(&mut on.conn), Ok(1));
    on.conn.unsynced().batch_execute("DROP TABLE kvsync_outbox").unwrap();
    let mut other = on.attached.connect().unwrap();
    let failed = diesel::delete(users::table).execute(&mut other).unwrap_err();
    assert!(failed.to_string().contains("migration"), "{failed}");
}

#[test]
fn serialization_failures_stay_what_they_are() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let mut other = on.attached.connect().unwrap();
    let failed = on.conn.build_transaction().serializable().run(|conn| {
        users::table.load::<(i32, Option<String>, String, Option<i32>, Option<i32>)>(conn)?;
        diesel::update(users::table).set(users::name.eq("x")).execute(&mut other)?;
        diesel::update(users::table).set(users::name.eq("y")).execute(conn)
    });
    assert!(matches!(failed, Err(DbError::DatabaseError(DatabaseErrorKind::SerializationFailure, _))), "{failed:?}");
    assert_eq!(on.lines(), ["insert 1", "update 1"]);
}

#[test]
fn a_deferred_constraint_takes_the_row_with_it() {
    let mut on = Fixture::new();
    on.plain.batch_execute("ALTER TABLE users ALTER CONSTRAINT users_team_fkey DEFERRABLE INITIALLY DEFERRED").unwrap();
    let insert = "INSERT INTO users (id, name, team) VALUES (1, 'Ann', 99)";
    sql_query(insert).execute(&mut on.conn).unwrap_err();
    on.conn.transaction(|conn| sql_query(insert).execute(conn)).unwrap_err();
    assert_eq!(on.lines(), [""; 0]);
    assert_eq!(on.recorder.take_outboxed(), 0);
}

#[test]
fn rows_of_schemas_with_scopes_say_so() {
    let mut on =
        Fixture::with(|declared| declared.scopes(|schema| schema.starts_with('t').then(|| Scope::named(schema))));
    on.plain
        .batch_execute(&format!("CREATE SCHEMA t1; SET search_path = t1; {TABLES}; SET search_path = public"))
        .unwrap();
    on.conn.batch_execute("SET search_path = t1, public").unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    on.conn.batch_execute("SET search_path = public").unwrap();
    diesel::insert_into(users::table).values(user(2, "a", "Ann")).execute(&mut on.conn).unwrap();
    let schemas: Vec<Option<String>> = entries!(on.plain).into_iter().map(|entry| entry.table_schema).collect();
    assert_eq!(schemas, [Some("t1".to_owned())]);
    assert_eq!(on.recorder.missed().len(), 1, "the schema without a scope is reported");
}

#[test]
fn what_cannot_be_read_as_its_model_goes_without_content() {
    let mut on = Fixture::new();
    on.plain.batch_execute("ALTER TABLE users ALTER name DROP NOT NULL").unwrap();
    sql_query("INSERT INTO users (id) VALUES (1)").execute(&mut on.conn).unwrap();
    let entries = entries!(on.plain);
    assert!(entries.len() == 1 && !entries[0].content && entries[0].primary_key.is_some(), "{entries:?}");
}
