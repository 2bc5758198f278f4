//! What becomes of the changes of a transaction, however it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Integer;
use kvsync::change::Row;
use kvsync::model::Wanted;
use kvsync_tests::servers::{Fault, Proxy, Side};

use super::*;

fn insert(conn: &mut SyncConnection<PgConnection>, id: i32) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(user(id, &format!("e{id}"), "Ann")).execute(conn)
}

fn stored(on: &Fixture) -> i64 {
    users::table.count().get_result(&mut on.database.connect().unwrap()).unwrap()
}

/// The port of the shared server.
fn port() -> u16 {
    let url = kvsync_tests::env::postgres_url().unwrap();
    let host = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    host.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn only_the_outermost_commit_hands_on() {
    let mut on = Fixture::new();
    let recorder = Arc::clone(&on.recorder);
    on.conn
        .transaction::<_, Error, _>(|conn| {
            insert(conn, 1)?;
            conn.transaction(|conn| insert(conn, 2))?;
            let undone: QueryResult<()> = conn.transaction(|conn| {
                insert(conn, 3)?;
                conn.transaction(|conn| insert(conn, 4))?;
                Err(Error::RollbackTransaction)
            });
            assert!(undone.is_err());
            insert(conn, 5)?;
            assert_eq!(recorder.take().len(), 0);
            Ok(())
        })
        .unwrap();
    assert_eq!(on.lines(), ["insert 1 e1 Ann", "insert 2 e2 Ann", "insert 5 e5 Ann"]);
    assert_eq!(on.conn.last_commit().unwrap().sequence, 1);
}

#[test]
fn a_test_transaction_shows_and_never_hands_on() {
    let mut on = Fixture::new();
    on.conn.test_transaction::<_, Error, _>(|conn| {
        insert(conn, 1)?;
        assert_eq!(conn.captured().len(), 1);
        Ok(())
    });
    on.conn.begin_test_transaction().unwrap();
    on.conn.transaction(|conn| insert(conn, 1)).unwrap();
    assert_eq!(kvsync_tests::recorder::line(&on.conn.captured()[0], describe), "insert 1 e1 Ann");
    let Fixture { conn, recorder, .. } = on;
    drop(conn);
    assert_eq!(recorder.take().len(), 0);
}

#[test]
fn a_savepoint_mends_an_aborted_transaction() {
    let mut on = Fixture::new();
    on.conn
        .transaction::<_, Error, _>(|conn| {
            insert(conn, 1)?;
            let again = conn.transaction(|conn| {
                insert(conn, 2)?;
                insert(conn, 1)
            });
            assert!(again.is_err());
            insert(conn, 3)?;
            Ok(())
        })
        .unwrap();
    assert_eq!(on.lines(), ["insert 1 e1 Ann", "insert 3 e3 Ann"]);
    assert_eq!(stored(&on), 2);
}

#[test]
fn a_swallowed_error_in_a_savepoint_takes_the_savepoint_back() {
    let mut on = Fixture::new();
    let outer = on.conn.transaction::<_, Error, _>(|conn| {
        insert(conn, 1)?;
        let inner: QueryResult<()> = conn.transaction(|conn| {
            insert(conn, 2)?;
            assert!(insert(conn, 1).is_err());
            Ok(())
        });
        assert!(inner.is_err(), "the savepoint cannot be released");
        insert(conn, 3)
    });
    outer.unwrap();
    assert_eq!(on.lines(), ["insert 1 e1 Ann", "insert 3 e3 Ann"]);
    assert_eq!(stored(&on), 2);
}

#[test]
fn a_serialization_failure_leaves_nothing() {
    let mut on = Fixture::new();
    insert(&mut on.conn, 1).unwrap();
    on.recorder.take();
    let mut other = on.another();
    let result: QueryResult<()> = on.conn.build_transaction().serializable().run(|conn| {
        let _: i64 = users::table.count().get_result(conn)?;
        insert(conn, 2)?;
        other
            .build_transaction()
            .serializable()
            .run(|conn| {
                let _: i64 = users::table.count().get_result(conn)?;
                insert(conn, 3)
            })
            .map(drop)
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)), "{error}");
    assert_eq!(on.lines(), ["insert 3 e3 Ann"]);
    assert_eq!(stored(&on), 2);
}

#[test]
fn a_panic_in_the_closure_leaves_nothing() {
    let mut on = Fixture::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        on.conn.transaction::<(), Error, _>(|conn| {
            insert(conn, 1)?;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    // The transaction is still open, as it is in plain Diesel: what comes now is a part of it.
    on.conn.transaction(|conn| insert(conn, 2)).unwrap();
    assert_eq!(on.recorder.take().len(), 0);
    let Fixture { conn, recorder, database, .. } = on;
    drop(conn);
    let count: i64 = users::table.count().get_result(&mut database.connect().unwrap()).unwrap();
    assert_eq!((count, recorder.take().len()), (0, 0));
}

#[test]
fn a_connection_killed_before_commit_leaves_nothing_certain() {
    for write_after in [false, true] {
        let mut on = Fixture::new();
        let mut killer = on.database.connect().unwrap();
        let result = on.conn.transaction::<_, Error, _>(|conn| {
            insert(conn, 1)?;
            let pid: i32 = diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()")).get_result(conn)?;
            sql_query(format!("SELECT pg_terminate_backend({pid}, 600000)")).execute(&mut killer)?;
            if write_after {
                insert(conn, 2)?;
            }
            Ok(())
        });
        assert!(result.is_err());
        assert_eq!(stored(&on), 0);
        // Whether the server had the COMMIT before it died is not known here, so the row is read again.
        let lines = on.lines();
        assert_eq!(lines, if write_after { vec![] } else { vec!["insert unknown user:id:1, in doubt".to_owned()] });
        assert!(insert(&mut on.conn, 3).is_err(), "the connection is broken for good");
        assert_eq!(on.lines(), [""; 0]);
    }
}

#[test]
fn a_lost_answer_to_commit_leaves_its_rows_in_doubt() {
    let proxy = Proxy::start(port()).unwrap();
    let on = Fixture::new();
    let through = proxy.url(&on.database.url());
    let mut conn = on.attached.downcast::<Pg>().unwrap().wrap(PgConnection::establish(&through).unwrap()).unwrap();
    insert(&mut conn, 1).unwrap();
    on.recorder.take();
    let result = conn.transaction::<_, Error, _>(|conn| {
        insert(conn, 2)?;
        diesel::update(users::table.find(1)).set(users::username.eq("Bob")).execute(conn)?;
        diesel::update(users::table.find(1)).set(users::username.eq("Cy")).execute(conn)?;
        proxy.set(Fault::CutAfter(Side::FromServer, 0));
        Ok(())
    });
    assert!(result.is_err());
    let changes = on.recorder.changes();
    assert!(changes.iter().all(|change| matches!(&change.row, Row::Unknown(unknown) if !unknown.certain)));
    let homes: Vec<String> = changes.iter().map(|change| change.home().as_str().to_owned()).collect();
    assert_eq!(homes, ["user:id:2", "user:id:1"]);
    let wanted = |change: &kvsync::change::Change| Wanted {
        schema: User::SCHEMA,
        scope: Scope::NONE,
        primary_key: change.row.primary_key(),
        floor: change.version,
    };
    let wanted: Vec<Wanted> = changes.iter().map(wanted).collect();
    let read = on.attached.source().reread(&wanted, Duration::from_mins(1)).unwrap();
    let rows: Vec<String> = read.iter().map(|read| describe(read.row.as_ref().unwrap().as_deref().unwrap())).collect();
    assert_eq!(rows, ["2 e2 Ann", "1 e1 Cy"]);
    assert!(read.iter().zip(&changes).all(|(read, change)| read.version >= change.version));
}

#[test]
fn a_lost_answer_to_a_single_write_is_reported() {
    let proxy = Proxy::start(port()).unwrap();
    let on = Fixture::new();
    let through = proxy.url(&on.database.url());
    let mut conn = on.attached.downcast::<Pg>().unwrap().wrap(PgConnection::establish(&through).unwrap()).unwrap();
    // Once it is prepared: a connection that breaks before that has run nothing.
    (1..=3).for_each(|id| drop(insert(&mut conn, id)));
    assert_eq!(on.lines().len(), 3);
    assert_eq!(on.recorder.missed(), []);
    proxy.set(Fault::CutAfter(Side::FromServer, 0));
    assert!(insert(&mut conn, 4).is_err());
    assert_eq!(on.lines(), [""; 0]);
    assert!(on.recorder.missed()[0].reason.contains("not known"));
}

#[test]
fn transactions_begin_and_end_with_diesels_methods_only() {
    let mut on = Fixture::new();
    for raw in ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "INSERT INTO users VALUES (1, 'a', 'Ann'); COMMIT"] {
        assert!(sql_query(raw).execute(&mut on.conn).is_err() || on.conn.batch_execute(raw).is_err(), "{raw}");
        assert!(on.conn.batch_execute(raw).is_err(), "{raw}");
    }
    assert_eq!(stored(&on), 0);
    on.conn.unsynced().batch_execute("BEGIN; INSERT INTO users VALUES (1, 'a', 'Ann'); COMMIT").unwrap();
    assert_eq!(stored(&on), 1);
}
