use diesel::sqlite::Sqlite;

use super::setup::{TABLES, setup};

setup!(Sqlite, SqliteConnection);

fn open() -> SqliteConnection {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.batch_execute(TABLES).unwrap();
    conn
}

#[test]
fn what_cannot_be_captured_obeys_the_policy() {
    let several = "one of several statements";
    check(
        &[
            (By::Execute, "UPDATE users SET age = 1; DELETE FROM users", "several statements in one string"),
            (By::Load, "UPDATE users SET age = 1; SELECT 1", "several statements in one string"),
            (By::Execute, "UPDATE OR FAIL users SET age = 1", "OR FAIL"),
            (By::Execute, "UPDATE OR FAIL users SET name = 'same'", "OR FAIL"),
            (By::Batch, "UPDATE users SET age = 1; INSERT INTO posts VALUES (9, 1, 't')", several),
            (By::Batch, "SELECT 1; UPDATE users SET age = 1", several),
            (By::Batch, "-- a\n;;CREATE TABLE t (a); /* b */ DELETE FROM users", several),
            (By::Batch, "CREATE TRIGGER t AFTER INSERT ON posts BEGIN SELECT 1; END; DELETE FROM users", several),
            (By::Batch, "UPDATE users SET age = 1; UPDATE nope SET a = 1", several),
        ],
        open,
    );
}

#[test]
fn transactions_are_begun_and_ended_by_diesel_only() {
    for policy in POLICIES {
        for sql in
            ["BEGIN", "begin immediate", "COMMIT", "END", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a"]
        {
            for by in [By::Execute, By::Batch] {
                let left = Session::new(Some(policy), open()).run(by, sql);
                assert!(
                    left.result.as_ref().is_err_and(|error| error.contains("Diesel's own methods")),
                    "{sql}: {left:?}"
                );
            }
        }
        let left = Session::new(Some(policy), open()).run(By::Batch, "BEGIN; UPDATE users SET age = 1; COMMIT");
        assert!(left.result.is_err() && left.rows[1].age.is_none(), "{left:?}");
    }
}

#[test]
fn names_are_compared_as_sqlite_compares_them() {
    let mut session = Session::new(None, open());
    for sql in [
        "UPDATE USERS SET age = age + 1 WHERE id = 1",
        "UPDATE \"Users\" SET age = age + 1 WHERE id = 1",
        "UPDATE [uSERS] SET age = age + 1 WHERE id = 1",
        "UPDATE 'users' SET age = age + 1 WHERE id = 1",
        "UPDATE main.users SET age = age + 1 WHERE id = 1",
        "UPDATE Main.`USERS` AS u SET age = u.age + 1 WHERE u.id = 1",
    ] {
        let left = session.execute(sql);
        assert!(left.captured(&["update user:1"]), "{sql}: {left:?}");
    }
}

#[test]
fn tables_of_other_databases_are_not_taken_for_the_synced_one() {
    let mut session = Session::new(None, open());
    session.conn.batch_execute("ATTACH ':memory:' AS other").unwrap();
    session.conn.batch_execute("CREATE TABLE other.users AS SELECT * FROM main.users").unwrap();
    let left = session.execute("UPDATE other.users SET age = 99");
    assert!(left.captured(&[]), "{left:?}");
    let left = session.execute("UPDATE main.users SET age = 98 WHERE id = 1");
    assert_eq!(left.changes, ["update user:1"]);
}

#[test]
fn a_temporary_table_of_the_same_name_is_not_taken_for_the_synced_one() {
    let mut session = Session::new(None, open());
    assert_eq!(session.execute("UPDATE users SET age = 1 WHERE id = 1").changes, ["update user:1"]);
    session.conn.batch_execute("CREATE TEMP TABLE users AS SELECT * FROM main.users").unwrap();
    for sql in ["UPDATE users SET age = 99 WHERE id = 1", "UPDATE temp.users SET age = 99 WHERE id = 2"] {
        let left = session.execute(sql);
        assert_eq!((left.result.clone(), left.changes.len()), (Ok(()), 0), "{sql}: {left:?}");
    }
    session.conn.batch_execute("DROP TABLE temp.users").unwrap();
    assert_eq!(session.execute("UPDATE users SET age = 2 WHERE id = 1").changes, ["update user:1"]);
}

#[test]
fn a_write_through_a_view_is_reported() {
    let mut session = Session::new(None, open());
    session
        .conn
        .batch_execute(
            "CREATE VIEW active AS SELECT * FROM users WHERE age IS NOT NULL;
             CREATE TRIGGER t INSTEAD OF UPDATE ON active BEGIN UPDATE users SET age = NEW.age WHERE id = NEW.id; END;",
        )
        .unwrap();
    let left = session.execute("UPDATE active SET age = 50 WHERE id = 1");
    assert_eq!((left.result.clone(), left.rows[0].age), (Ok(()), Some(50)));
    assert!(left.reasons().iter().any(|reason| reason.contains("active")), "{left:?}");
}

#[test]
fn what_concerns_no_synced_table_is_nobodys_business() {
    let mut session = Session::new(Some(Policy::Error), open());
    for (by, sql) in [
        (By::Execute, "UPDATE posts SET title = 'a'; DELETE FROM posts"),
        (By::Batch, "UPDATE posts SET title = (SELECT name FROM users); DELETE FROM posts"),
        (By::Batch, "CREATE TABLE t (a); DROP TABLE t"),
        (By::Execute, "CREATE TRIGGER t AFTER INSERT ON posts BEGIN UPDATE posts SET title = 'x'; END"),
        (By::Execute, "PRAGMA user_version = 3"),
        (By::Execute, "VACUUM"),
    ] {
        let left = session.run(by, sql);
        assert!(left.captured(&[]), "{sql}: {left:?}");
    }
}

#[test]
fn a_statement_that_sets_the_primary_key_obeys_the_policy() {
    // One whose rows cannot be found before: an update that leaves rows out.
    let sql = "UPDATE OR IGNORE users SET id = 9 WHERE id = 3";
    let left = Session::new(Some(Policy::Error), open()).execute(sql);
    assert!(left.result.is_err_and(|error| error.contains("primary-key column")));
    let left = Session::new(None, open()).execute(sql);
    assert_eq!((left.result.clone(), left.missed.len()), (Ok(()), 1), "{left:?}");
}

#[test]
fn without_a_policy_writes_that_cannot_be_captured_are_run_and_reported() {
    let left = Session::new(None, open()).run(By::Batch, "DELETE FROM posts; DELETE FROM users WHERE id = 1");
    assert_eq!((left.result.clone(), left.rows.len(), left.missed.len()), (Ok(()), 2, 1), "{left:?}");
    assert_eq!(left.missed[0].table.as_deref(), Some("users"));
}

#[test]
fn a_change_of_the_schema_of_a_synced_table_obeys_the_policy() {
    for by in [By::Execute, By::Batch] {
        for sql in ["ALTER TABLE users ADD COLUMN extra INTEGER", "DROP TABLE IF EXISTS users"] {
            let left = Session::new(Some(Policy::Error), open()).run(by, sql);
            assert!(left.result.as_ref().is_err_and(|error| error.contains("migrations")), "{sql}: {left:?}");
            assert_eq!(left.rows.len(), 3);
            let left = Session::new(None, open()).run(by, sql);
            assert!(left.reported("migrations"), "{sql}: {left:?}");
            let left = Session::new(Some(Policy::Allow), open()).run(by, sql);
            assert!(left.captured(&[]), "{sql}: {left:?}");
        }
        let left = Session::new(Some(Policy::Error), open()).run(by, "ALTER TABLE posts ADD COLUMN extra INTEGER");
        assert!(left.captured(&[]), "{left:?}");
    }
}
