//! The Postgres server that the library starts keeps what it acknowledged.

use xtask::servers::Postgres;

type Tested = Result<(), Box<dyn std::error::Error>>;

#[test]
fn commits_outlive_an_immediate_stop() -> Tested {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("app")?;
    assert!(url.ends_with("/app"));
    postgres.sql("app", "CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)")?;
    postgres.kill()?;
    assert!(postgres.sql("app", "SELECT 1").is_err());
    postgres.restart()?;
    assert_eq!(postgres.sql("app", "SELECT id, id + 1 FROM t ORDER BY id")?, "1|2\n2|3");
    assert_eq!(postgres.url(), url.replace("/app", "/postgres"));
    Ok(())
}

#[test]
fn settings_are_given_and_errors_are_told() -> Tested {
    let postgres = Postgres::start_with(&[("wal_level", "logical")])?;
    assert_eq!(postgres.sql("postgres", "SHOW wal_level")?, "logical");
    assert_eq!(postgres.sql("postgres", "SHOW max_connections")?, "200");
    let error = postgres.create_database("postgres").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("already exists"), "{error}");
    Ok(())
}
