//! Several processes write the same rows; at rest the store equals the database under every key.
//!
//! The test starts itself again as the writers, so this file has a `main` of its own.

use std::process::{Child, Command, ExitCode};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::redis::RedisStore;
use kvsync::{KvSync, Lookup, Syncable};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env, postgres};
use libtest_mimic::{Arguments, Failed, Trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

diesel::table! {
    accounts (id) {
        id -> Integer,
        email -> Nullable<Text>,
        handle -> Text,
        n -> Integer,
    }
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:id:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync_key(name = "handle", fmt = "account:handle:<handle>")]
struct Account {
    id: i32,
    email: Option<String>,
    handle: String,
    n: i32,
}

const ROWS: i32 = 6;
const VALUES: i32 = 5;
const ROUNDS: usize = 300;
const TABLE: &str = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT UNIQUE, handle TEXT NOT NULL UNIQUE, n INTEGER NOT NULL)";

fn main() -> ExitCode {
    if let Ok(job) = std::env::var("KVSYNC_TEST_WRITER") {
        write(&job).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut trials = Vec::new();
    for processes in [2, 4] {
        for (database, cluster) in [("sqlite", false), ("postgres", false), ("postgres", true)] {
            let store = if cluster { "cluster" } else { "redis" };
            trials.push(Trial::test(format!("{processes}_processes_on_{database}_end_equal_in_{store}"), move || {
                run(database, cluster, processes).map_err(|error| Failed::from(error.to_string()))
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Starts the writers, waits for them, and compares.
fn run(database: &str, cluster: bool, processes: u64) -> Tested {
    let prefix = format!("processes:{:x}:", rand::random::<u64>());
    if database == "sqlite" {
        let dir = tempfile::tempdir()?;
        let url = dir.path().join("test.db").to_string_lossy().into_owned();
        let mut conn = sqlite(&url)?;
        conn.batch_execute(TABLE)?;
        conn.batch_execute(kvsync::capture::SQLITE_COUNTER)?;
        writers(database, &url, cluster, &prefix, processes)?;
        compare(&accounts::table.select(Account::as_select()).load(&mut conn)?, cluster, &prefix)
    } else {
        let fresh = postgres::fresh_database()?;
        let mut conn = PgConnection::establish(&fresh.url())?;
        conn.batch_execute(TABLE)?;
        writers(database, &fresh.url(), cluster, &prefix, processes)?;
        compare(&accounts::table.select(Account::as_select()).load(&mut conn)?, cluster, &prefix)
    }
}

fn writers(database: &str, url: &str, cluster: bool, prefix: &str, processes: u64) -> Tested {
    let start = |seed: u64| -> std::io::Result<Child> {
        let job = format!("{database}\n{url}\n{cluster}\n{prefix}\n{seed}");
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

/// Looks at every key that any row ever had.
fn compare(rows: &[Account], cluster: bool, prefix: &str) -> Tested {
    let kv = KvSync::builder().store(store(cluster, prefix)?).build()?;
    let mut wrong = Vec::new();
    let mut check = |key: String, truth: Option<&Account>, seen: Lookup<Account>| {
        let right = match (&seen, truth) {
            (Lookup::Found(seen), Some(truth)) => seen == truth,
            (Lookup::Absent | Lookup::Unknown(kvsync::Miss::NotStored), None) => true,
            _ => false,
        };
        if !right {
            wrong.push(format!("{key}: the database has {truth:?}, the store {seen:?}"));
        }
    };
    for id in 1..=ROWS {
        check(format!("id {id}"), rows.iter().find(|row| row.id == id), Account::lookup_by_id(&kv, id)?);
    }
    for value in 0..VALUES {
        let (email, handle) = (format!("e{value}"), format!("h{value}"));
        let owner = rows.iter().find(|row| row.email.as_ref() == Some(&email));
        check(email.clone(), owner, Account::lookup_by_email(&kv, &email)?);
        let owner = rows.iter().find(|row| row.handle == handle);
        check(handle.clone(), owner, Account::lookup_by_handle(&kv, &handle)?);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn store(cluster: bool, prefix: &str) -> Tested<RedisStore> {
    Ok(if cluster {
        patient(env::redis_cluster_urls()?).prefix(prefix).cluster()?
    } else {
        patient([env::redis_url()?]).prefix(prefix).connect()?
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
    let [database, url, cluster, prefix, seed] =
        job.split('\n').collect::<Vec<_>>().try_into().map_err(|_| "a bad job")?;
    let builder = KvSync::builder().store(store(cluster == "true", prefix)?).workers(3);
    let mut random = StdRng::seed_from_u64(seed.parse()?);
    let url = url.to_owned();
    if database == "sqlite" {
        let kv = builder.database(Database::<Sqlite>::new("main", move || sqlite(&url)).model::<Account>()).build()?;
        let mut conn = kv.connect::<Sqlite>("main")?;
        rounds(&mut random, |step| sqlite_step(&mut conn, step))?;
        kv.flush(LONG)?;
    } else {
        let kv = builder
            .database(Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<Account>())
            .build()?;
        let mut conn = kv.connect::<Pg>("main")?;
        rounds(&mut random, |step| postgres_step(&mut conn, step))?;
        kv.flush(LONG)?;
    }
    Ok(())
}

/// What a writer does next, with values drawn.
struct Step {
    kind: u32,
    row: i32,
    other: i32,
    email: Option<String>,
    handle: String,
    n: i32,
}

fn rounds(random: &mut StdRng, mut step: impl FnMut(&Step) -> QueryResult<()>) -> Tested {
    for _ in 0..ROUNDS {
        let email = random.random_bool(0.8).then(|| format!("e{}", random.random_range(0..VALUES)));
        let next = Step {
            kind: random.random_range(0..8),
            row: random.random_range(1..=ROWS),
            other: random.random_range(1..=ROWS),
            email,
            handle: format!("h{}", random.random_range(0..VALUES)),
            n: random.random(),
        };
        match step(&next) {
            // Conflicts between the writers are part of the game.
            Ok(()) | Err(DieselError::DatabaseError(..) | DieselError::RollbackTransaction) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

macro_rules! step {
    ($name:ident, $connection:ty) => {
        fn $name(conn: &mut SyncConnection<$connection>, step: &Step) -> QueryResult<()> {
            use self::accounts::dsl::{accounts, email, handle, n};
            let row = accounts.find(step.row);
            match step.kind {
                0 | 1 => {
                    let new =
                        Account { id: step.row, email: step.email.clone(), handle: step.handle.clone(), n: step.n };
                    diesel::insert_into(accounts).values(&new).execute(conn)?;
                }
                2 => drop(diesel::update(row).set(n.eq(step.n)).execute(conn)?),
                3 => drop(diesel::update(row).set(email.eq(&step.email)).execute(conn)?),
                4 => drop(diesel::delete(row).execute(conn)?),
                // Two rows swap their unique values by way of NULL.
                5 => conn.transaction(|conn| {
                    let get = |conn: &mut SyncConnection<$connection>, id: i32| {
                        accounts.find(id).select(email).first::<Option<String>>(conn).optional()
                    };
                    let (one, other) = (get(conn, step.row)?.flatten(), get(conn, step.other)?.flatten());
                    diesel::update(row).set(email.eq(None::<String>)).execute(conn)?;
                    diesel::update(accounts.find(step.other)).set(email.eq(one)).execute(conn)?;
                    diesel::update(row).set(email.eq(other)).execute(conn)?;
                    Ok::<_, DieselError>(())
                })?,
                // Deleted and inserted again, with a savepoint that is rolled back.
                6 => conn.transaction(|conn| {
                    diesel::delete(row).execute(conn)?;
                    let rolled_back = conn.transaction(|conn| {
                        diesel::update(accounts).set(n.eq(-1)).execute(conn)?;
                        Err::<(), _>(DieselError::RollbackTransaction)
                    });
                    debug_assert!(rolled_back.is_err());
                    let new =
                        Account { id: step.row, email: step.email.clone(), handle: step.handle.clone(), n: step.n };
                    diesel::insert_into(accounts).values(&new).execute(conn)?;
                    Ok::<_, DieselError>(())
                })?,
                _ => conn.transaction(|conn| {
                    diesel::update(row).set((handle.eq(&step.handle), n.eq(step.n))).execute(conn)?;
                    if step.n % 2 == 0 { Err(DieselError::RollbackTransaction) } else { Ok(()) }
                })?,
            }
            Ok(())
        }
    };
}

step!(sqlite_step, SqliteConnection);
step!(postgres_step, PgConnection);
