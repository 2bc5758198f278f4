//! What a child process is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvsync::store::SyncStore;
use kvsync::store::embedded::EmbeddedStore;
use kvsync::store::memory::MemoryStore;
use kvsync::store::redis::RedisStore;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::options::Delivery;
use crate::transport::{Side, TransportAt};

/// The variable that carries a job; without it the process is the conductor.
pub(crate) const JOB: &str = "KVSYNC_TORTURE_JOB";

/// What a child process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The number of this incarnation, which its rows carry.
    pub(crate) writer: i32,
    /// What its dice are seeded with.
    pub(crate) seed: u64,
    /// How changes travel.
    pub(crate) delivery: Delivery,
    /// Through which broker they travel, if they do, and on which side of it the process stands.
    pub(crate) transport: Option<(Side, TransportAt)>,
    /// Whether it brings what waits in the outbox to the store.
    pub(crate) relay: bool,
    /// Whether its writers know nothing of kvsync.
    pub(crate) stranger: bool,
    /// How many threads write; none in a process that only delivers.
    pub(crate) threads: usize,
    pub(crate) singles: Singles,
    /// How many bytes of changes may wait in memory.
    pub(crate) queue: usize,
    /// Where the owner of a store answers for it.
    pub(crate) socket: Option<PathBuf>,
    /// Whether the store begins empty and is filled from the database.
    pub(crate) refill: bool,
    /// Primary keys go from one to this.
    pub(crate) rows: i32,
    pub(crate) store: StoreAt,
    pub(crate) database: DatabaseAt,
}

/// What becomes of statements that need no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Singles {
    /// They have one all the same.
    Never,
    /// They stand alone. An answer that is lost leaves rows that nobody can name.
    Alone,
    /// They stand alone, and kvsync gives them a transaction.
    Wrapped,
}

/// Where the store is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum StoreAt {
    Memory,
    Embedded(PathBuf),
    Redis(String),
    Cluster(Vec<String>),
}

/// Where the database is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum DatabaseAt {
    Sqlite(String),
    Postgres(String),
}

impl Job {
    /// The broker that the process takes from, to write into the store.
    pub(crate) fn consumes(&self) -> Option<&TransportAt> {
        self.transport.as_ref().and_then(|(side, at)| (*side == Side::Consumers).then_some(at))
    }
}

impl StoreAt {
    /// Opens the store.
    pub(crate) fn open(&self) -> Outcome<Arc<dyn SyncStore>> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            Self::Embedded(folder) => Arc::new(EmbeddedStore::open(folder)?),
            Self::Redis(url) => Arc::new(redis(url)?),
            Self::Cluster(urls) => Arc::new(cluster(urls)?),
        })
    }
}

/// Shorter than most faults, so that the workers have to repeat what failed.
const STORE_PATIENCE: Duration = Duration::from_millis(150);

/// A store in this server.
pub(crate) fn redis(url: &str) -> Outcome<RedisStore> {
    Ok(RedisStore::builder([url]).prefix("t:").retry_for(STORE_PATIENCE).connect()?)
}

/// A store in the cluster of these nodes.
pub(crate) fn cluster(urls: &[String]) -> Outcome<RedisStore> {
    Ok(RedisStore::builder(urls).prefix("t:").retry_for(STORE_PATIENCE).cluster()?)
}
