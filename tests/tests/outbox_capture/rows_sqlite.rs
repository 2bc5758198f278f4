use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error as DbError;
use diesel::sql_query;
use diesel::sqlite::Sqlite;
use kvsync::capture::{BatchResults as _, Severity, SyncConnection};
use kvsync::change::Action;

use super::*;

struct Fixture {
    conn: SyncConnection<SqliteConnection>,
    recorder: Arc<Recorder>,
}

impl Fixture {
    fn new() -> Self {
        let recorder = Recorder::in_epoch(1);
        let declared = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"));
        let mut conn = attach(declared.model::<User>().outbox(), &recorder).connect().unwrap();
        conn.batch_execute(SQLITE_OUTBOX).unwrap();
        conn.batch_execute(TABLES).unwrap();
        Self { conn, recorder }
    }

    fn lines(&mut self) -> Vec<String> {
        let entries = entries!(*self.conn.unsynced());
        assert!(entries.iter().all(|entry| entry.model.as_deref() == Some("User") && entry.epoch == Some(1)));
        lines(&entries)
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
    let upsert = diesel::insert_into(users::table).values(user(2, "b", "y")).on_conflict(users::id).do_update();
    upsert.set(users::name.eq("y")).execute(&mut on.conn).unwrap();
    sql_query("DELETE FROM users WHERE id = 1").execute(&mut on.conn).unwrap();
    assert_eq!(diesel::update(users::table.find(77)).set(users::name.eq("z")).execute(&mut on.conn), Ok(0));
    assert_eq!(on.lines(), ["insert 1", "insert 2", "update 1", "upsert 2", "delete 1"]);
    let (sets, missed) = (on.recorder.take(), on.recorder.missed());
    assert!(sets.is_empty() && missed.is_empty(), "{sets:?} {missed:?}");
}

#[test]
fn rows_go_with_the_savepoint_that_is_rolled_back() {
    let mut on = Fixture::new();
    let failed = on.conn.transaction(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        Err::<(), _>(DbError::RollbackTransaction)
    });
    assert!(failed.is_err());
    on.conn
        .transaction(|conn| {
            diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(conn)?;
            let _ = conn.transaction(|conn| {
                diesel::insert_into(users::table).values(user(3, "c", "Cyd")).execute(conn)?;
                Err::<(), _>(DbError::RollbackTransaction)
            });
            assert!(conn.captured().is_empty());
            QueryResult::Ok(())
        })
        .unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut other = attach(
            Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<User>().outbox(),
            &on.recorder,
        )
        .connect()
        .unwrap();
        other.batch_execute(&format!("{SQLITE_OUTBOX}{TABLES}")).unwrap();
        let _ = other.transaction(|conn| -> QueryResult<()> {
            diesel::insert_into(users::table).values(user(4, "d", "Dan")).execute(conn)?;
            panic!("on purpose")
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(on.lines(), ["insert 2"]);
    assert_eq!(on.recorder.take_outboxed(), 1);
    assert!(on.recorder.take().is_empty());
}

#[test]
fn a_test_transaction_shows_what_it_would_have_written() {
    let mut on = Fixture::new();
    on.conn.begin_test_transaction().unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let [change] = on.conn.captured() else { panic!("{:?}", on.conn.captured()) };
    assert_eq!((change.schema.model, change.action), ("User", Action::Insert));
    assert_eq!(on.lines(), ["insert 1"]);
    assert_eq!(on.recorder.take_outboxed(), 0);
}

#[test]
fn a_write_that_the_outbox_does_not_take_fails_and_is_not_committed() {
    let mut on = Fixture::new();
    on.conn.unsynced().batch_execute("CREATE TRIGGER full BEFORE INSERT ON kvsync_outbox WHEN NEW.primary_key = '9' BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    let failed = diesel::insert_into(users::table).values(user(9, "a", "Ann")).execute(&mut on.conn).unwrap_err();
    assert!(
        matches!(&failed, DbError::DatabaseError(_, info) if info.message().contains("outbox") && info.message().contains("full")),
        "{failed}"
    );
    // It can be caught, but not be committed,
    let committed = on.conn.transaction(|conn| {
        diesel::insert_into(users::table).values(user(1, "b", "Bob")).execute(conn)?;
        diesel::insert_into(users::table).values(user(9, "a", "Ann")).execute(conn).unwrap_err();
        diesel::insert_into(users::table).values(user(2, "c", "Cyd")).execute(conn)
    });
    assert!(committed.unwrap_err().to_string().contains("outbox"));
    assert_eq!(users::table.count().get_result(&mut on.conn), Ok(0));
    // unless in a savepoint.
    on.conn
        .transaction(|conn| {
            diesel::insert_into(users::table).values(user(1, "b", "Bob")).execute(conn)?;
            conn.transaction(|conn| diesel::insert_into(users::table).values(user(9, "a", "Ann")).execute(conn))
                .unwrap_err();
            diesel::insert_into(users::table).values(user(2, "c", "Cyd")).execute(conn)
        })
        .unwrap();
    assert_eq!(users::table.count().get_result(&mut on.conn), Ok(2));
    assert_eq!(on.lines(), ["insert 1", "insert 2"]);

    on.conn.unsynced().batch_execute("DROP TABLE kvsync_outbox").unwrap();
    let mut other = Fixture::new();
    other.conn.batch_execute("DROP TABLE kvsync_outbox").unwrap();
    let found = other.conn.check().unwrap();
    assert!(
        found.iter().any(|finding| finding.severity == Severity::Error && finding.message.contains("kvsync_outbox")),
        "{found:?}"
    );
    let failed = diesel::delete(users::table).execute(&mut other.conn).unwrap_err();
    assert!(failed.to_string().contains("migration"), "{failed}");
}

#[test]
fn many_rows_are_written_by_parts_and_large_ones_without_content() {
    let recorder = Recorder::in_epoch(1);
    let declared = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"));
    let declared = declared.model::<User>().outbox().max_transaction_bytes(40_000);
    let mut conn = attach(declared, &recorder).connect().unwrap();
    conn.batch_execute(&format!("{SQLITE_OUTBOX}{TABLES}")).unwrap();
    let fill = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 1000) \
                INSERT INTO users (id, name) SELECT id, 'some name' FROM n";
    assert_eq!(sql_query(fill).execute(&mut conn), Ok(1000));
    let entries = entries!(*conn.unsynced());
    let with = entries.iter().filter(|entry| entry.content).count();
    assert!(with > 10 && with < 500, "{with}");
    assert!(entries.iter().enumerate().all(|(at, entry)| entry.primary_key.as_deref() == Some(&*(at + 1).to_string())));
    assert_eq!(lines(&entries).len(), 1000);
}

#[test]
fn capture_by_key_and_batches_go_into_the_outbox() {
    let recorder = Recorder::in_epoch(1);
    let declared = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"));
    let mut conn = attach(declared.model_by_key::<User>().outbox(), &recorder).connect().unwrap();
    conn.batch_execute(&format!("{SQLITE_OUTBOX}{TABLES}")).unwrap();
    let rows = vec![user(1, "a", "Ann"), user(2, "b", "Bob")];
    let insert = diesel::insert_into(users::table).values(rows).returning(users::id);
    let ids: Vec<i32> = insert.batch_results(&mut conn).unwrap();
    assert_eq!(ids, [1, 2]);
    let entries = entries!(*conn.unsynced());
    assert!(entries.iter().all(|entry| !entry.content), "{entries:?}");
    assert_eq!(lines(&entries), ["insert 1", "insert 2"]);
}
