//! A table is looked at before its first captured write.

use kvsync::capture::{FindingKind, Policy, Severity};

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
        let mut on = Fixture::with(|database| database.misfit(Policy::Error));
        on.conn.batch_execute(&format!("DROP TABLE users; {table}")).unwrap();
        let found = on.conn.check().unwrap();
        let errors: Vec<_> = found.iter().filter(|one| one.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{table}: {found:?}");
        assert!(errors[0].to_string().contains(says), "{says}: {found:?}");
        on.conn
            .transaction::<_, diesel::result::Error, _>(|conn| {
                let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn).unwrap_err();
                assert!(error.to_string().contains(says), "{error}");
                // The caller's transaction goes on.
                sql_query("SELECT 1").execute(conn)
            })
            .unwrap();
    }
}

#[test]
fn a_missing_right_is_named() {
    let mut on = Fixture::with(|database| database.misfit(Policy::Error));
    let role = format!("r{}", std::process::id());
    on.conn
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT INSERT, SELECT (id, username) ON users TO {role}; \
             SET ROLE {role}"
        ))
        .unwrap();
    let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
    assert!(error.to_string().contains("GRANT SELECT (email, tableoid)"), "{error}");
    on.conn.batch_execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
}

#[test]
fn a_table_outside_of_the_default_search_path_must_be_named() {
    let mut on = Fixture::new();
    on.conn.batch_execute("CREATE SCHEMA app; ALTER TABLE users SET SCHEMA app; SET search_path TO app").unwrap();
    let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
    assert!(error.to_string().contains("`app.users`"), "{error}");
}

#[test]
fn what_writes_rows_unseen_is_listed() {
    let mut on = Fixture::new();
    on.conn
        .batch_execute(
            "CREATE TABLE teams (id INT PRIMARY KEY); \
             ALTER TABLE users ADD COLUMN team INT REFERENCES teams ON DELETE CASCADE; \
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER late AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION f(); \
             CREATE TRIGGER early BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f(); \
             CREATE RULE ruled AS ON DELETE TO users WHERE OLD.id = 7 DO INSTEAD NOTHING; \
             CREATE VIEW active AS SELECT * FROM users WHERE NOT deleted; \
             CREATE TABLE heirs () INHERITS (users)",
        )
        .unwrap();
    let mut found = on.conn.audit().unwrap();
    found.retain(|one| ![FindingKind::Blind, FindingKind::Setting].contains(&one.kind));
    let names: Vec<&str> = found.iter().map(|one| one.message.split('`').nth(1).unwrap()).collect();
    assert_eq!(names, ["heirs", "users_team_fkey", "ruled", "active", "late", "early"], "{found:?}");
}

#[test]
fn a_check_does_not_hinder_writes_after_the_table_was_altered() {
    let mut on = Fixture::new();
    on.conn.check().unwrap();
    on.conn.batch_execute("ALTER TABLE users ALTER username TYPE VARCHAR(90)").unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    assert_eq!(on.lines(), ["insert 1 a Ann"]);
}
