//! A table is looked at before its first captured write.

use kvsync::capture::Severity;

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
        let mut on = Fixture::new();
        on.conn.batch_execute(&format!("DROP TABLE users; {table}")).unwrap();
        let found = on.conn.check().unwrap();
        let errors: Vec<_> = found.iter().filter(|one| one.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{table}: {found:?}");
        assert!(errors[0].message.contains(says), "{says}: {found:?}");
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
    let mut on = Fixture::new();
    let role = format!("r{}", std::process::id());
    on.conn
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT INSERT, SELECT (id, username) ON users TO {role}; \
             SET ROLE {role}"
        ))
        .unwrap();
    let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
    assert!(error.to_string().contains("GRANT SELECT (email)"), "{error}");
    on.conn.batch_execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
}

#[test]
fn a_table_outside_of_the_default_search_path_must_be_named() {
    let mut on = Fixture::new();
    on.conn.batch_execute("CREATE SCHEMA app; ALTER TABLE users SET SCHEMA app; SET search_path TO app").unwrap();
    let error = diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap_err();
    assert!(error.to_string().contains("`app.users`"), "{error}");
}
