//! A table is looked at before its first captured write.

use kvsync::capture::{Finding, FindingKind, Severity};

use super::*;

fn on(table: &str) -> (Conn, Arc<Recorder>) {
    let recorder = Recorder::new();
    let database = attach(database(), &recorder);
    let mut conn = database.downcast::<Sqlite>().unwrap().connect().unwrap();
    conn.batch_execute(table).unwrap();
    (conn, recorder)
}

fn errors(found: &[Finding]) -> Vec<&str> {
    found.iter().filter(|one| one.severity == Severity::Error).map(|one| one.message.as_str()).collect()
}

#[test]
fn a_table_that_fits_is_found_to_fit() {
    for table in [
        USERS,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT, username TEXT); CREATE UNIQUE INDEX u ON users (uuid)",
        "CREATE TABLE Users (ID INT PRIMARY KEY, UUID TEXT UNIQUE, username TEXT, more BLOB) WITHOUT ROWID",
    ] {
        let (mut conn, recorder) = on(table);
        assert_eq!(conn.check().unwrap(), []);
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
        assert_eq!(recorder.changes().len(), 1);
    }
    let (mut conn, _) = on("SELECT 1");
    assert_eq!(conn.check().unwrap(), [], "a table that is not there is none of our business");
}

#[test]
fn a_table_that_does_not_fit_is_not_written() {
    for (table, says) in [
        ("CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT UNIQUE, name TEXT)", "username"),
        ("CREATE TABLE users (id INTEGER, uuid TEXT UNIQUE, username TEXT)", "primary key"),
        ("CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT, username TEXT)", "`uuid` of `User`"),
        (
            "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT, username TEXT); \
             CREATE UNIQUE INDEX u ON users (uuid) WHERE username <> ''",
            "`u` holds only where username <> ''",
        ),
        (
            "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT, username TEXT); \
             CREATE UNIQUE INDEX u ON users (lower(uuid))",
            "no unique constraint covers (uuid)",
        ),
        ("CREATE VIRTUAL TABLE users USING fts5 (id, uuid, username)", "virtual"),
    ] {
        let (mut conn, recorder) = on(table);
        let found = conn.check().unwrap();
        assert_eq!(errors(&found).len(), 1, "{table}: {found:?}");
        assert!(found[0].to_string().contains(says), "{says}: {found:?}");
        let error = conn
            .transaction::<_, diesel::result::Error, _>(|conn| {
                diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)
            })
            .unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(recorder.take().len(), 0);
    }
}

#[test]
fn a_table_is_looked_at_anew_once_it_was_altered() {
    let (mut conn, recorder) = on(USERS);
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    conn.batch_execute("ALTER TABLE users RENAME COLUMN username TO name").unwrap();
    recorder.missed();
    assert_eq!(diesel::delete(users::table).execute(&mut conn).unwrap(), 1);
    assert_eq!(recorder.lines(describe), ["insert 1 a Ann", "delete absent user:id:1"]);
    assert!(recorder.missed()[0].reason.contains("cannot be read"));
}

#[test]
fn what_writes_rows_unseen_is_listed() {
    let (mut conn, _) = on(USERS);
    conn.batch_execute(
        "CREATE TABLE teams (id INTEGER PRIMARY KEY); \
         ALTER TABLE users ADD COLUMN team INTEGER REFERENCES teams ON DELETE SET NULL; \
         CREATE TRIGGER late AFTER UPDATE ON users BEGIN UPDATE users SET username = upper(NEW.username) WHERE id = NEW.id; END",
    )
    .unwrap();
    let mut found = conn.audit().unwrap();
    found.retain(|one| one.severity == Severity::Warning && one.kind != FindingKind::Versions);
    let names: Vec<&str> = found.iter().map(|one| one.message.split('`').nth(1).unwrap()).collect();
    assert_eq!(names, ["teams", "late"], "{found:?}");
}
