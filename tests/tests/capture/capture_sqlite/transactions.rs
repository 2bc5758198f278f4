//! What becomes of the changes of a transaction, however it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::result::Error;

use super::*;

fn insert(conn: &mut Conn, id: i32) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(user(id, &format!("u{id}"), "Ann")).execute(conn)
}

#[test]
fn a_test_transaction_shows_and_never_hands_on() {
    let (mut conn, recorder) = open();
    conn.test_transaction::<_, Error, _>(|conn| {
        insert(conn, 1)?;
        assert_eq!(conn.captured().len(), 1);
        Ok(())
    });
    assert_eq!(conn.captured().len(), 0);
    conn.begin_test_transaction().unwrap();
    conn.transaction(|conn| insert(conn, 1)).unwrap();
    assert_eq!(kvsync_tests::recorder::line(&conn.captured()[0], describe), "insert 1 u1 Ann");
    drop(conn);
    assert_eq!(recorder.take().len(), 0);
}

#[test]
fn a_panic_in_the_closure_leaves_nothing() {
    let (mut conn, recorder) = open();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.transaction::<(), Error, _>(|conn| {
            insert(conn, 1)?;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    conn.transaction(|conn| insert(conn, 2)).unwrap();
    assert_eq!(recorder.take().len(), 0);
}

#[test]
fn immediate_and_exclusive_transactions_are_followed() {
    let (mut conn, recorder) = open();
    conn.immediate_transaction(|conn| insert(conn, 1)).unwrap();
    conn.exclusive_transaction(|conn| insert(conn, 2)).unwrap();
    let undone: QueryResult<()> = conn.immediate_transaction(|conn| {
        insert(conn, 3)?;
        Err(Error::RollbackTransaction)
    });
    assert!(undone.is_err());
    let nested = conn.transaction::<_, Error, _>(|conn| conn.immediate_transaction(|conn| insert(conn, 4)));
    assert!(matches!(nested, Err(Error::AlreadyInTransaction)));
    assert_eq!(recorder.lines(describe), ["insert 1 u1 Ann", "insert 2 u2 Ann"]);
}

#[test]
fn a_transaction_that_sqlite_ended_by_itself_is_in_doubt() {
    for fail in [false, true] {
        let (mut conn, recorder) = open();
        let result = conn.transaction::<_, Error, _>(|conn| {
            insert(conn, 1)?;
            let raw = "INSERT OR ROLLBACK INTO users VALUES (1, 'x', 'y')";
            assert!(diesel::sql_query(raw).execute(conn).is_err());
            // SQLite commits this at once: there is no transaction any more.
            insert(conn, 2)?;
            if fail { Err(Error::RollbackTransaction) } else { Ok(()) }
        });
        assert!(result.is_err());
        let stored: Vec<i32> = users::table.select(users::id).load(&mut conn).unwrap();
        assert_eq!(stored, [2]);
        assert_eq!(
            recorder.lines(describe),
            ["insert unknown user:id:1, in doubt", "insert unknown user:id:2, in doubt"]
        );
        insert(&mut conn, 3).unwrap();
        assert_eq!(recorder.lines(describe), ["insert 3 u3 Ann"]);
    }
}

#[test]
fn a_savepoint_after_sqlite_ended_the_transaction_is_in_doubt() {
    let (mut conn, recorder) = open();
    let result = conn.transaction::<_, Error, _>(|conn| {
        insert(conn, 1)?;
        conn.transaction::<_, Error, _>(|conn| {
            let raw = "INSERT OR ROLLBACK INTO users VALUES (1, 'x', 'y')";
            assert!(diesel::sql_query(raw).execute(conn).is_err());
            insert(conn, 2)?;
            Err::<(), _>(Error::RollbackTransaction)
        })
    });
    assert!(result.is_err());
    assert_eq!(users::table.select(users::id).load::<i32>(&mut conn).unwrap(), [2]);
    assert_eq!(recorder.lines(describe), ["insert unknown user:id:1, in doubt", "insert unknown user:id:2, in doubt"]);
}

#[test]
fn a_deferred_constraint_that_fails_leaves_nothing_certain() {
    let (mut conn, recorder) = open();
    conn.batch_execute(
        "PRAGMA foreign_keys = ON; CREATE TABLE teams (id INTEGER PRIMARY KEY); \
         ALTER TABLE users ADD COLUMN team INTEGER REFERENCES teams DEFERRABLE INITIALLY DEFERRED",
    )
    .unwrap();
    insert(&mut conn, 1).unwrap();
    recorder.take();
    let raw = "UPDATE users SET team = 7";
    assert!(diesel::sql_query(raw).execute(&mut conn).is_err());
    assert_eq!(recorder.take().len(), 0);
    let at_commit = conn.transaction::<_, Error, _>(|conn| diesel::sql_query(raw).execute(conn));
    assert!(at_commit.is_err());
    assert_eq!(recorder.lines(describe), ["update unknown user:id:1, in doubt"]);
}

#[test]
fn a_busy_database_leaves_nothing() {
    let on = InFile::new();
    let mut holder = on.connect();
    let mut conn = on.connect();
    conn.unsynced().batch_execute("PRAGMA busy_timeout = 0").unwrap();
    holder
        .immediate_transaction::<_, Error, _>(|holder| {
            insert(holder, 1)?;
            assert!(insert(&mut conn, 2).is_err());
            assert!(conn.transaction(|conn| insert(conn, 2)).is_err());
            Ok(())
        })
        .unwrap();
    assert_eq!(on.recorder.lines(describe), ["insert 1 u1 Ann"]);
}
