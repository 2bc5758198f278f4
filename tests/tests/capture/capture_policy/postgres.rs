use diesel::pg::Pg;
use kvsync_tests::postgres::{FreshDatabase, fresh_database};

use super::setup::{TABLES, setup};

setup!(Pg, PgConnection);

fn fresh() -> FreshDatabase {
    let database = fresh_database().unwrap();
    database.connect().unwrap().batch_execute(TABLES).unwrap();
    database
}

#[test]
fn what_cannot_be_captured_obeys_the_policy() {
    let (several, inside) = ("one of several statements", "stands inside another");
    let (opaque, explain) = ("cannot be seen", "EXPLAIN ANALYZE");
    let database = fresh();
    let open = || {
        let mut conn = database.connect().unwrap();
        let again = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;";
        conn.batch_execute(&[again, TABLES].concat()).unwrap();
        conn
    };
    check(
        &[
            (
                By::Execute,
                "MERGE INTO users u USING posts p ON p.user_id = u.id WHEN MATCHED THEN UPDATE SET age = 1",
                "MERGE",
            ),
            (
                By::Execute,
                "WITH p AS (SELECT * FROM posts) MERGE INTO ONLY users USING p ON p.user_id = users.id WHEN MATCHED THEN DELETE",
                "MERGE",
            ),
            (By::Execute, "WITH x AS (DELETE FROM users WHERE id = 1 RETURNING *) SELECT * FROM x", inside),
            (By::Load, "WITH x AS (UPDATE users SET age = 1 RETURNING *) SELECT * FROM x", inside),
            (
                By::Execute,
                "WITH x AS (INSERT INTO users VALUES (9, 'new') RETURNING id) INSERT INTO posts SELECT 9, id, 't' FROM x",
                inside,
            ),
            (
                By::Execute,
                "WITH x AS (DELETE FROM posts RETURNING *), y AS (UPDATE users SET age = 1) DELETE FROM posts USING x WHERE false",
                inside,
            ),
            (By::Execute, "COPY users (id, name) FROM PROGRAM 'echo \"9\tnew\"'", "COPY"),
            (By::Execute, "COPY (DELETE FROM users WHERE id = 1 RETURNING *) TO '/dev/null'", inside),
            (By::Execute, "EXPLAIN ANALYZE UPDATE users SET age = 1", explain),
            (By::Execute, "EXPLAIN (ANALYZE, COSTS off) DELETE FROM users WHERE id = 1", explain),
            (By::Load, "explain analyse verbose insert into users values (9, 'new')", explain),
            (By::Execute, "DO $$ BEGIN UPDATE users SET age = 1; END $$", opaque),
            (By::Execute, "DO 'BEGIN EXECUTE ''UPDATE users SET age = 1''; END'", opaque),
            (By::Execute, "UPDATE ONLY (users) SET age = 1", "not understood"),
            (By::Batch, "UPDATE users SET age = 1; UPDATE posts SET title = 't'", several),
            (By::Batch, "SELECT 1; DELETE FROM users WHERE id = 1", several),
            (
                By::Batch,
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1;'; DELETE FROM users WHERE id = 1",
                several,
            ),
            (By::Batch, "WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x", inside),
        ],
        open,
    );
}

#[test]
fn truncate_of_a_synced_table_is_an_error_unless_it_is_allowed() {
    let database = fresh();
    let all = 3;
    for by in [By::Execute, By::Batch] {
        for sql in
            ["TRUNCATE users", "truncate table only public.USERS restart identity cascade", "TRUNCATE posts, users"]
        {
            for policy in [None, Some(Policy::Error)] {
                let left = Session::new(policy, database.connect().unwrap()).run(by, sql);
                assert!(
                    left.result.as_ref().is_err_and(|error| error.contains("TRUNCATE")),
                    "{policy:?} {sql}: {left:?}"
                );
                assert_eq!((left.rows.len(), left.missed.len()), (all, 0));
            }
        }
    }
    for (policy, missed) in [(Policy::Warn, 1), (Policy::Allow, 0)] {
        let left = Session::new(Some(policy), fresh().connect().unwrap()).execute("TRUNCATE users");
        assert_eq!((left.result.clone(), left.rows.len(), left.missed.len()), (Ok(()), 0, missed), "{left:?}");
    }
    let left = Session::new(None, database.connect().unwrap()).execute("TRUNCATE posts");
    assert!(left.captured(&[]), "{left:?}");
    let left = Session::new(None, database.connect().unwrap()).execute("TRUNCATE posts CASCADE");
    assert_eq!((left.result.clone(), left.missed.len()), (Ok(()), 1), "{left:?}");
}

#[test]
fn transactions_are_begun_and_ended_by_diesel_only() {
    let database = fresh();
    for policy in POLICIES {
        for sql in [
            "BEGIN",
            "START TRANSACTION READ ONLY",
            "COMMIT",
            "END",
            "ROLLBACK",
            "ABORT",
            "SAVEPOINT a",
            "RELEASE a",
            "ROLLBACK TO a",
            "PREPARE TRANSACTION 'a'",
            "COMMIT PREPARED 'a'",
        ] {
            for by in [By::Execute, By::Batch] {
                let left = Session::new(Some(policy), database.connect().unwrap()).run(by, sql);
                assert!(
                    left.result.as_ref().is_err_and(|error| error.contains("Diesel's own methods")),
                    "{sql}: {left:?}"
                );
            }
        }
        let left = Session::new(Some(policy), database.connect().unwrap())
            .run(By::Batch, "BEGIN; UPDATE users SET age = 1; COMMIT");
        assert!(left.result.is_err() && left.rows[1].age.is_none(), "{left:?}");
    }
}

#[test]
fn names_are_compared_as_postgres_compares_them() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    session.conn.batch_execute("CREATE TABLE \"Users\" AS SELECT * FROM users").unwrap();
    for sql in [
        "UPDATE USERS SET age = 5 WHERE id = 1",
        "UPDATE \"users\" SET age = 5 WHERE id = 1",
        "UPDATE Public.USERS SET age = 5 WHERE id = 1",
        "UPDATE \"public\".users AS \"U\" SET age = 5 WHERE \"U\".id = 1",
        "UPDATE ONLY users SET age = 5 WHERE id = 1",
        "UPDATE users * SET age = 5 WHERE id = 1",
    ] {
        let left = session.execute(sql);
        assert!(left.captured(&["update user:1"]), "{sql}: {left:?}");
    }
    let left = session.execute("UPDATE \"Users\" SET age = 6");
    assert!(left.captured(&[]), "{left:?}");
}

#[test]
fn a_table_of_the_same_name_in_another_schema_is_never_taken_for_the_synced_one() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    session.conn.batch_execute("CREATE SCHEMA other").unwrap();
    session.conn.batch_execute("CREATE TABLE other.users AS SELECT * FROM public.users").unwrap();
    let left = session.execute("UPDATE other.users SET age = 99");
    assert_eq!((left.result.clone(), left.changes.len()), (Ok(()), 0), "{left:?}");

    session.conn.batch_execute("SET search_path = other, public").unwrap();
    let left = session.execute("UPDATE users SET age = 98 WHERE id = 1");
    assert!(left.reported("`other.users`"), "{left:?}");

    session.conn.batch_execute("SET search_path = public").unwrap();
    let left = session.execute("UPDATE users SET age = 97 WHERE id = 1");
    assert!(left.captured(&["update user:1"]), "{left:?}");
}

#[test]
fn a_temporary_table_of_the_same_name_is_not_taken_for_the_synced_one() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    assert_eq!(session.execute("UPDATE users SET age = 1 WHERE id = 1").changes, ["update user:1"]);
    session.conn.batch_execute("CREATE TEMP TABLE users AS SELECT * FROM public.users").unwrap();
    let left = session.execute("UPDATE users SET age = 99 WHERE id = 1");
    assert_eq!((left.result.clone(), left.changes.len()), (Ok(()), 0), "{left:?}");
    let left = session.execute("UPDATE public.users SET age = 3 WHERE id = 1");
    assert!(left.captured(&["update user:1"]), "{left:?}");
    session.conn.batch_execute("DROP TABLE pg_temp.users").unwrap();
    assert_eq!(session.execute("UPDATE users SET age = 2 WHERE id = 1").changes, ["update user:1"]);
}

#[test]
fn rows_of_partitions_are_rows_of_their_table() {
    let database = fresh_database().unwrap();
    let tables = "
        CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INTEGER) PARTITION BY RANGE (id);
        CREATE TABLE users_low PARTITION OF users FOR VALUES FROM (0) TO (100);
        CREATE TABLE users_high PARTITION OF users FOR VALUES FROM (100) TO (1000);
        INSERT INTO users VALUES (1, 'ada', 30), (2, 'bob', NULL), (200, 'cyd', 7)";
    let mut session = Session::new(None, database.connect().unwrap());
    session.conn.unsynced().batch_execute(tables).unwrap();
    let left = session.execute("UPDATE users SET age = 1");
    assert_eq!((left.changes.len(), left.missed.len()), (3, 0), "{left:?}");
    let left = session.execute("INSERT INTO users VALUES (3, 'dan', 4), (300, 'eve', 5)");
    assert!(left.captured(&["insert user:3", "insert user:300"]), "{left:?}");

    // Under its own name a partition is another table to the statement, but not to the reader of the store.
    let left = session.execute("UPDATE users_low SET age = 2 WHERE id = 1");
    assert_eq!((left.result.clone(), left.rows[0].age), (Ok(()), Some(2)));
    assert!(
        left.changes == ["update user:1"] || left.reasons().iter().any(|reason| reason.contains("users_low")),
        "{left:?}"
    );
    assert!(session.execute("DROP TABLE users_high").reported("users_high"));
}

#[test]
fn rows_of_tables_that_inherit_are_not_taken_for_rows_of_the_synced_one() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    session.conn.batch_execute("CREATE TABLE admins () INHERITS (users)").unwrap();
    session.conn.batch_execute("INSERT INTO admins VALUES (1, 'zoe', 60)").unwrap();
    let left = session.execute("UPDATE users SET age = 61 WHERE id = 1");
    assert_eq!((left.changes.clone(), left.missed.len()), (vec!["update user:1".to_owned()], 1), "{left:?}");
    assert!(left.reasons()[0].contains("admins"), "{left:?}");
}

#[test]
fn a_write_through_a_view_is_reported() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    session.conn.batch_execute("CREATE VIEW active AS SELECT id, age FROM users WHERE age IS NOT NULL").unwrap();
    session.conn.batch_execute("CREATE VIEW again AS SELECT * FROM active").unwrap();
    for (sql, age) in
        [("UPDATE active SET age = 50 WHERE id = 1", 50), ("UPDATE public.again SET age = 51 WHERE id = 1", 51)]
    {
        let left = session.execute(sql);
        assert_eq!((left.result.clone(), left.rows[0].age), (Ok(()), Some(age)));
        assert!(left.reasons().iter().any(|reason| reason.contains("view")), "{left:?}");
    }
    session.conn.batch_execute("CREATE VIEW titles AS SELECT id, title FROM posts").unwrap();
    session.conn.lend(|conn| sql_query("UPDATE active SET age = 52 WHERE id = 1").execute(conn)).unwrap();
    assert_eq!(session.recorder.missed().len(), 1);
    let left = session.execute("UPDATE titles SET title = 't'");
    assert!(left.captured(&[]), "{left:?}");
}

#[test]
fn an_insert_that_a_trigger_sends_elsewhere_is_reported() {
    let database = fresh();
    let mut session = Session::new(None, database.connect().unwrap());
    session
        .conn
        .batch_execute(
            "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER away BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.id > 100) EXECUTE FUNCTION away();",
        )
        .unwrap();
    let left = session.execute("INSERT INTO users VALUES (9, 'new'), (109, 'gone')");
    assert_eq!((left.changes.clone(), left.missed.len()), (vec!["insert user:9".to_owned()], 1), "{left:?}");
}

#[test]
fn what_concerns_no_synced_table_is_nobodys_business() {
    let database = fresh();
    let mut session = Session::new(Some(Policy::Error), database.connect().unwrap());
    for (by, sql) in [
        (By::Execute, "WITH x AS (DELETE FROM posts WHERE id = 1 RETURNING *) SELECT * FROM x JOIN users ON true"),
        (
            By::Execute,
            "MERGE INTO posts USING users ON users.id = posts.user_id WHEN MATCHED THEN UPDATE SET title = 't'",
        ),
        (By::Execute, "EXPLAIN ANALYZE UPDATE posts SET title = 't'"),
        (By::Execute, "EXPLAIN ANALYZE SELECT * FROM users"),
        (By::Execute, "EXPLAIN DELETE FROM users"),
        (By::Execute, "COPY users TO '/dev/null'"),
        (By::Execute, "DO $$ BEGIN UPDATE posts SET title = 't'; END $$"),
        (By::Batch, "UPDATE posts SET title = (SELECT max(name) FROM users); DELETE FROM posts"),
        (By::Batch, "CREATE TABLE t (a int); DROP TABLE t"),
        (By::Execute, "SET statement_timeout = 10000"),
        (By::Execute, "VACUUM users"),
    ] {
        let left = session.run(by, sql);
        assert!(left.captured(&[]), "{sql}: {left:?}");
    }
}

#[test]
fn code_that_does_not_name_the_table_is_not_seen() {
    // What no reading of the statement can show; the documentation says so.
    let database = fresh();
    let mut session = Session::new(Some(Policy::Error), database.connect().unwrap());
    session
        .conn
        .batch_execute("CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS 'UPDATE users SET age = 77 RETURNING age'")
        .unwrap();
    let left = session.execute("SELECT touch()");
    assert_eq!((left.result.clone(), left.rows[0].age, left.missed.len()), (Ok(()), Some(77), 0), "{left:?}");
}

#[test]
fn a_statement_that_sets_the_primary_key_obeys_the_policy() {
    let database = fresh();
    // One whose rows cannot be found before: another table is joined.
    let sql = "UPDATE users SET id = 9 FROM posts WHERE users.id = 3 AND posts.id = 1";
    let left = Session::new(Some(Policy::Error), database.connect().unwrap()).execute(sql);
    assert!(left.result.is_err_and(|error| error.contains("primary-key column")));
    let left = Session::new(None, database.connect().unwrap()).execute(sql);
    assert_eq!((left.result.clone(), left.missed.len()), (Ok(()), 1), "{left:?}");
}

#[test]
fn a_change_of_the_schema_of_a_synced_table_obeys_the_policy() {
    for by in [By::Execute, By::Batch] {
        for sql in ["ALTER TABLE users ADD COLUMN extra INTEGER", "DROP TABLE IF EXISTS users"] {
            let left = Session::new(Some(Policy::Error), fresh().connect().unwrap()).run(by, sql);
            assert!(left.result.as_ref().is_err_and(|error| error.contains("migrations")), "{sql}: {left:?}");
            assert_eq!(left.rows.len(), 3);
            let left = Session::new(None, fresh().connect().unwrap()).run(by, sql);
            assert!(left.reported("migrations"), "{sql}: {left:?}");
            let left = Session::new(Some(Policy::Allow), fresh().connect().unwrap()).run(by, sql);
            assert!(left.captured(&[]), "{sql}: {left:?}");
        }
        let left = Session::new(Some(Policy::Error), fresh().connect().unwrap())
            .run(by, "ALTER TABLE posts ADD COLUMN extra INTEGER");
        assert!(left.captured(&[]), "{left:?}");
    }
}
