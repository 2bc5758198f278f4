//! How a process reaches the store and the database.

use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncBackend, SyncModel};
use kvsync::{Builder, KvSync};

use crate::Outcome;
use crate::job::{DatabaseAt, Job, Singles};
use crate::models::{Account, Badge, Member};
use crate::options::Delivery;

/// How long a process waits for a store or database that is down when it starts.
const PATIENCE: Duration = Duration::from_mins(1);

/// Rows are looked for often, and claims of a relay that was killed or sleeps run out soon.
const OUTBOX_POLL: Duration = Duration::from_millis(50);
const OUTBOX_LEASE: Duration = Duration::from_millis(500);

/// The job's database, and its store or the broker that leads there.
pub(crate) fn open(job: &Job) -> Outcome<Builder> {
    let builder = match &job.transport {
        Some((_, transport)) => transport.publishing(KvSync::builder())?,
        None => KvSync::builder().store(job.store.open()?),
    };
    Ok(beside(job, builder))
}

/// The job's database beside what the builder has.
pub(crate) fn beside(job: &Job, builder: Builder) -> Builder {
    let builder = builder.workers(2).queue_bytes(job.queue);
    let builder = builder.relay(job.relay).outbox_poll(OUTBOX_POLL).outbox_lease(OUTBOX_LEASE);
    match job.database.clone() {
        DatabaseAt::Sqlite(path) => {
            builder.database(registered(job, Database::<Sqlite>::new("main", move || sqlite(&path))))
        }
        DatabaseAt::Postgres(url) => {
            builder.database(registered(job, Database::<Pg>::new("main", move || postgres(&url))))
        }
    }
}

fn registered<DB: SyncBackend>(job: &Job, database: Database<DB>) -> Database<DB>
where
    Account: SyncModel<DB>,
    Badge: SyncModel<DB>,
    Member: SyncModel<DB>,
{
    let database = match job.delivery {
        Delivery::Memory => database.model::<Account>().model::<Badge>().model::<Member>(),
        Delivery::Outbox => database.model::<Account>().model::<Badge>().model::<Member>().outbox(),
        Delivery::Triggers => database.triggers::<Account>().triggers::<Badge>().triggers::<Member>().outbox(),
    };
    if job.singles == Singles::Wrapped { database.wrap_single_writes() } else { database }
}

/// A connection to the file.
pub(crate) fn sqlite(path: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// A connection to the server.
pub(crate) fn postgres(url: &str) -> ConnectionResult<PgConnection> {
    let mut conn = PgConnection::establish(url)?;
    conn.batch_execute("SET deadlock_timeout = '50ms'").map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Does this again while it fails: at the start a fault may be in the way.
pub(crate) fn patiently<T>(mut work: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}
