//! On SQLite, which may end a transaction by itself when a statement fails: what comes after is committed
//! at once, and COMMIT and ROLLBACK fail.

use diesel::result::Error;
use diesel::sqlite::Sqlite;
use kvsync::capture::SQLITE_COUNTER;

use super::*;

struct App {
    kv: KvSync,
    conn: SyncConnection<SqliteConnection>,
    path: String,
    _folder: tempfile::TempDir,
}

fn app(tables: &str) -> App {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db").to_string_lossy().into_owned();
    let open = path.clone();
    let kv = handle(Database::<Sqlite>::new("main", move || {
        let mut conn = SqliteConnection::establish(&open)?;
        let setup = conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA foreign_keys = ON");
        setup.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, ConnectionError>(conn)
    }));
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.unsynced().batch_execute(tables).unwrap();
    for (id, email) in [(1, "a"), (2, "b"), (3, "c")] {
        sql_query(format!("INSERT INTO users (id, email, name) VALUES ({id}, '{email}', 'old')"))
            .execute(&mut conn)
            .unwrap();
    }
    kv.flush(LONG).unwrap();
    App { kv, conn, path, _folder: folder }
}

impl App {
    fn rows(&self) -> Vec<User> {
        let mut conn = SqliteConnection::establish(&self.path).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 300000").unwrap();
        users::table.order(users::id).select(User::as_select()).load(&mut conn).unwrap()
    }

    /// The store is equal to the database, and nobody saw anything but these names of user 1.
    fn settles(self, watch: Watch, seen: &[&str]) -> Vec<User> {
        assert!(self.kv.health(LONG).pipeline.dirty.is_empty(), "{:?}", self.kv.health(LONG).details);
        let rows = self.rows();
        assert_equal(&self.kv, &rows);
        watch.saw_only(seen);
        rows
    }
}

/// A changed row, one whose key another takes, one that is gone and one that is new.
fn write(conn: &mut SyncConnection<SqliteConnection>) -> QueryResult<()> {
    for sql in [
        "UPDATE users SET name = 'new' WHERE id = 1",
        "DELETE FROM users WHERE id = 2",
        "INSERT INTO users (id, email, name) VALUES (4, 'b', 'new')",
        "UPDATE users SET email = 'e' WHERE id = 3",
    ] {
        sql_query(sql).execute(conn)?;
    }
    Ok(())
}

/// With versions of the clock, and of the counter.
fn both(test: impl Fn(&str)) {
    test(TABLE);
    test(&format!("{TABLE}; {SQLITE_COUNTER}"));
}

#[test]
fn a_constraint_that_fails_at_commit() {
    both(|tables| {
        let teams = "; CREATE TABLE teams (id INTEGER PRIMARY KEY); \
                     ALTER TABLE users ADD COLUMN team INTEGER REFERENCES teams DEFERRABLE INITIALLY DEFERRED";
        let mut app = app(&[tables, teams].concat());
        let watch = Watch::start(&app.kv, 1, "a");
        let result = app.conn.transaction::<_, Error, _>(|conn| {
            write(conn)?;
            sql_query("UPDATE users SET team = 7 WHERE id = 3").execute(conn)
        });
        assert!(result.is_err());
        let rows = app.settles(watch, &["old"]);
        assert_eq!(rows[0].name, "old");
    });
}

#[test]
fn a_database_that_is_busy_at_commit() {
    both(|tables| {
        let mut app = app(tables);
        app.conn.unsynced().batch_execute("PRAGMA busy_timeout = 0").unwrap();
        let watch = Watch::start(&app.kv, 1, "a");
        // Whoever reads in another transaction keeps COMMIT from writing the file.
        let mut reader = SqliteConnection::establish(&app.path).unwrap();
        reader
            .transaction::<_, Error, _>(|reader| {
                let _: i64 = users::table.count().get_result(reader)?;
                assert!(app.conn.transaction(write).is_err());
                Ok(())
            })
            .unwrap();
        let rows = app.settles(watch, &["old"]);
        assert_eq!(rows[0].name, "old");
    });
}

#[test]
fn a_disk_that_is_full() {
    both(|tables| {
        for cache in ["", "PRAGMA cache_size = 1; "] {
            let mut app = app(tables);
            let full = format!("{cache}PRAGMA max_page_count = 20");
            app.conn.unsynced().batch_execute(&full).unwrap();
            let watch = Watch::start(&app.kv, 1, "a");
            let result = app.conn.transaction::<_, Error, _>(|conn| {
                write(conn)?;
                let large = "UPDATE users SET name = printf('%.200000c', 'x') WHERE id = 3";
                assert!(sql_query(large).execute(conn).is_err());
                sql_query("UPDATE users SET name = 'after' WHERE id = 1").execute(conn)
            });
            // Whether SQLite rolled back the transaction or only the statement: the store follows.
            let rows = app.rows();
            assert!(result.is_ok() == (rows[1].id == 3), "{rows:?}");
            app.settles(watch, &["old", "after"]);
        }
    });
}

#[test]
fn a_statement_that_rolls_back_the_transaction() {
    for fail in [false, true] {
        both(|tables| {
            let mut app = app(tables);
            let watch = Watch::start(&app.kv, 1, "a");
            let result = app.conn.transaction::<_, Error, _>(|conn| {
                write(conn)?;
                assert!(sql_query("INSERT OR ROLLBACK INTO users VALUES (1, 'x', 'y')").execute(conn).is_err());
                // No transaction is open any more.
                sql_query("UPDATE users SET name = 'after' WHERE id = 1").execute(conn)?;
                if fail { Err(Error::RollbackTransaction) } else { Ok(()) }
            });
            assert!(result.is_err());
            let rows = app.settles(watch, &["old", "after"]);
            let names: Vec<(i32, &str)> = rows.iter().map(|row| (row.id, row.name.as_str())).collect();
            assert_eq!(names, [(1, "after"), (2, "old"), (3, "old")]);
        });
    }
}

#[test]
fn a_constraint_that_rolls_back_the_transaction() {
    let tables = TABLE.replace("email TEXT UNIQUE", "email TEXT UNIQUE ON CONFLICT ROLLBACK");
    for within in [false, true] {
        let mut app = app(&tables);
        let watch = Watch::start(&app.kv, 1, "a");
        let clash = |conn: &mut SyncConnection<SqliteConnection>| {
            assert!(sql_query("INSERT INTO users VALUES (5, 'a', 'clash')").execute(conn).is_err());
            sql_query("UPDATE users SET name = 'after' WHERE id = 1").execute(conn)
        };
        let result = app.conn.transaction::<_, Error, _>(|conn| {
            write(conn)?;
            if within { conn.transaction(clash) } else { clash(conn) }
        });
        assert!(result.is_err());
        let rows = app.settles(watch, &["old", "after"]);
        assert_eq!(rows[0].name, "after");
    }
}
