//! Several processes write the same rows; at rest the store equals the database under every key.
//!
//! The test starts itself again as the writers, so this file has a `main` of its own.

use std::process::{Child, Command, ExitCode};
use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::store::SyncStore;
use kvsync::store::dynamodb::DynamoDbStore;
use kvsync::store::nats::NatsStore;
use kvsync_tests::accounts::{Account, TABLE, accounts, compare, postgres_step, rounds, sqlite_step};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env, postgres};
use libtest_mimic::{Arguments, Failed, Trial};
use rand::SeedableRng;
use rand::rngs::StdRng;

const ROUNDS: usize = 300;

fn main() -> ExitCode {
    if let Ok(job) = std::env::var("KVSYNC_TEST_WRITER") {
        write(&job).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut trials = Vec::new();
    for processes in [2, 4] {
        for (database, store) in [
            ("sqlite", "redis"),
            ("postgres", "redis"),
            ("postgres", "cluster"),
            ("postgres", "nats"),
            ("postgres", "dynamodb"),
        ] {
            trials.push(Trial::test(format!("{processes}_processes_on_{database}_end_equal_in_{store}"), move || {
                run(database, store, processes).map_err(|error| Failed::from(error.to_string()))
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Starts the writers, waits for them, and compares.
fn run(database: &str, store: &str, processes: u64) -> Tested {
    let prefix = format!("processes:{:x}:", rand::random::<u64>());
    if database == "sqlite" {
        let dir = tempfile::tempdir()?;
        let url = dir.path().join("test.db").to_string_lossy().into_owned();
        let mut conn = sqlite(&url)?;
        conn.batch_execute(TABLE)?;
        conn.batch_execute(kvsync::capture::SQLITE_COUNTER)?;
        writers(database, &url, store, &prefix, processes)?;
        let rows = accounts::table.select(Account::as_select()).load(&mut conn)?;
        compare(&rows, &KvSync::builder().store(open(store, &prefix)?).build()?)
    } else {
        let fresh = postgres::fresh_database()?;
        let mut conn = PgConnection::establish(&fresh.url())?;
        conn.batch_execute(TABLE)?;
        writers(database, &fresh.url(), store, &prefix, processes)?;
        let rows = accounts::table.select(Account::as_select()).load(&mut conn)?;
        compare(&rows, &KvSync::builder().store(open(store, &prefix)?).build()?)
    }
}

fn writers(database: &str, url: &str, store: &str, prefix: &str, processes: u64) -> Tested {
    let start = |seed: u64| -> std::io::Result<Child> {
        let job = format!("{database}\n{url}\n{store}\n{prefix}\n{seed}");
        Command::new(std::env::current_exe()?).env("KVSYNC_TEST_WRITER", job).spawn()
    };
    let children: Vec<Child> = (0..processes).map(start).collect::<Result<_, _>>()?;
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("a writer ended with {status}").into());
        }
    }
    Ok(())
}

/// A store that other processes open, too.
fn open(store: &str, prefix: &str) -> Tested<Arc<dyn SyncStore>> {
    Ok(match store {
        "redis" => Arc::new(patient([env::redis_url()?]).prefix(prefix).connect()?),
        "cluster" => Arc::new(patient(env::redis_cluster_urls()?).prefix(prefix).cluster()?),
        "nats" => Arc::new(
            NatsStore::builder([env::nats_url()?]).retry_for(LONG).bucket("processes").prefix(prefix).connect()?,
        ),
        "dynamodb" => {
            let table = DynamoDbStore::builder("processes").endpoint(env::dynamodb_url()?).region("eu-west-1");
            let table = table.credentials("any", "any").connect_timeout(LONG).command_timeout(LONG).retry_for(LONG);
            table.create_table()?;
            Arc::new(table.prefix(prefix).connect()?)
        }
        other => return Err(format!("no store {other}").into()),
    })
}

fn sqlite(url: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL;")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// One writer process.
fn write(job: &str) -> Tested {
    let [database, url, store, prefix, seed] =
        job.split('\n').collect::<Vec<_>>().try_into().map_err(|_| "a bad job")?;
    let builder = KvSync::builder().store(open(store, prefix)?).workers(3);
    let mut random = StdRng::seed_from_u64(seed.parse()?);
    let url = url.to_owned();
    if database == "sqlite" {
        let kv = builder.database(Database::<Sqlite>::new("main", move || sqlite(&url)).model::<Account>()).build()?;
        let mut conn = kv.connect::<Sqlite>("main")?;
        rounds(ROUNDS, &mut random, |step| sqlite_step(&mut conn, step))?;
        kv.flush(LONG)?;
    } else {
        let kv = builder
            .database(Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<Account>())
            .build()?;
        let mut conn = kv.connect::<Pg>("main")?;
        rounds(ROUNDS, &mut random, |step| postgres_step(&mut conn, step))?;
        kv.flush(LONG)?;
    }
    Ok(())
}
