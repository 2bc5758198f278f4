//! The process that writes: ordinary Diesel into SQLite. Every committed change goes to a broker, from an outbox, so that
//! none is lost: not when this is killed, not while the broker is away. `consumer` is the other process.
//!
//! ```text
//! cargo run --example publisher --features two-processes
//! KVSYNC_BROKER=nats://127.0.0.1:4222 cargo run --example publisher --features two-processes
//! ```
//!
//! `KVSYNC_DATABASE` is its file (`publisher.db`), `KVSYNC_USERS` how many users it makes (10; 0 only delivers what waits).
//! `broker_url.rs` has the variables that name the broker.
#![allow(unreachable_pub, reason = "the modules are written as those of a library")]

#[allow(dead_code, reason = "this process receives nothing")]
mod broker_url;
mod user;

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel_migrations::MigrationHarness;
use kvsync::KvSync;
use kvsync::capture::{Database, outbox};

use self::broker_url::setting;
use self::user::{User, users};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))),
    username TEXT NOT NULL
)";

/// How long the broker is waited for at the end.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let file = setting("KVSYNC_DATABASE", "publisher.db");
    let count: u32 = setting("KVSYNC_USERS", "10").parse()?;

    // The application's table, and beside it the outbox: a transaction writes its changes into it.
    let mut setup = open(&file)?;
    setup.batch_execute(TABLE)?;
    setup.run_pending_migrations(outbox::migrations())?;

    // What is committed here is published there. A process that was killed had claimed some rows of the outbox; they are
    // delivered after the lease.
    let database = Database::<Sqlite>::new("main", move || open(&file)).model::<User>().outbox();
    let kv = broker_url::publish(KvSync::builder())?.database(database).outbox_lease(Duration::from_secs(5)).build()?;

    // The work, in ordinary Diesel: each user is made and renamed, and every third one deleted.
    let mut conn = kv.connect::<Sqlite>("main")?;
    for number in 1..=count {
        let username = users::username.eq(format!("user {number}"));
        let user: User =
            diesel::insert_into(users::table).values(username).returning(User::as_returning()).get_result(&mut conn)?;
        diesel::update(&user).set(users::username.eq(format!("renamed {number}"))).execute(&mut conn)?;
        if number % 3 == 0 {
            diesel::delete(&user).execute(&mut conn)?;
        }
        println!("wrote {number} {}", user.uuid);
    }

    // Everything is safe already. Wait until the broker has confirmed it, or leave the rest to the next run.
    let published = kv.flush(PATIENCE);
    let waiting = kv.outbox("main")?.depth()?.pending;
    println!("{waiting} changes wait in the outbox; {}", kv.shutdown(PATIENCE));
    Ok(published?)
}

/// A connection; several of this process write to the file.
fn open(file: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(file)?;
    conn.batch_execute("PRAGMA busy_timeout = 60000; PRAGMA journal_mode = WAL")
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}
