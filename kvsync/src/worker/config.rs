use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Ttl;
use crate::report::Report;
use crate::store::SyncStore;
use crate::transport::{Broker, MessageFormat};

/// What a report is handed to.
pub type Callback = Box<dyn Fn(&Report) + Send + Sync>;

/// What a [`Pipeline`](super::Pipeline) is made of.
#[non_exhaustive]
pub struct PipelineConfig {
    /// The stores; each gets every change, by workers of its own, so that one that is down holds up
    /// no other.
    pub stores: Vec<Arc<dyn SyncStore>>,
    /// The brokers; to each every change is published, by workers of its own.
    pub brokers: Vec<Arc<dyn Broker>>,
    /// In which form; MessagePack.
    pub message_format: MessageFormat,
    /// The lowest epoch to stamp on versions; 0. A higher one of a store counts.
    pub epoch: u32,
    /// Workers for each store and broker; 4.
    pub workers: usize,
    /// Bytes of changes that wait, for all stores and brokers together: three quarters whole, one quarter as
    /// primary keys of rows that will be read again; 64 MiB.
    pub queue_bytes: usize,
    /// How long a publisher waits for room before values are let go of and primary keys kept; 100 ms.
    /// While there is no room, only the first publisher waits.
    pub overflow_block: Duration,
    /// How long entries that only guard against late deliveries are kept.
    pub retention: Retention,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Is told what became of each key.
    pub on_report: Option<Callback>,
    /// How long entries live whose model does not say; `None` is for ever.
    pub default_ttl: Option<Ttl>,
    /// How much a worker takes at once.
    pub batch: Batch,
    /// How long to wait before a store that failed is asked again.
    pub backoff: Backoff,
    /// How long reading rows again may wait for their locks; 10 s.
    pub reread_deadline: Duration,
    /// How often the epoch is read again, and expired entries are looked for; 30 s.
    pub upkeep_every: Duration,
    /// How the rows of outboxes are delivered.
    pub relay: RelayConfig,
    /// How long dropping the pipeline may wait for what is queued; 5 s.
    pub drop_deadline: Duration,
}

/// How long entries that only guard against late deliveries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// W: tombstones of left keys, and masks; 10 minutes. Longer than any delay between two steps of a
    /// worker, so at least twice as long as a call to the store may take with all its retries.
    pub left: Duration,
    /// D: records of deleted rows. Longer than any delivery; 7 days. A change older than half of it
    /// is not written: its row is read again.
    pub dead: Duration,
}

/// How much a worker takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Rows; 256. A commit larger than that is cut.
    pub rows: usize,
    /// Bytes, as changes count them; 1 MiB.
    pub bytes: usize,
}

/// How long to wait before a store or a database that failed is asked again: twice as long each time,
/// with chance added. Without a setting, stores are asked again after 20 ms to 5 s, and rows of an outbox that fail
/// ([`RelayConfig::backoff`]) are tried again after 1 s to 5 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// How the rows of outboxes are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// How often an outbox is asked for rows of other processes; 250 ms. What this process commits is
    /// claimed at once.
    pub poll: Duration,
    /// How long a claim lasts that is not extended: so long the rows of a process that was killed wait for
    /// another; 30 s.
    pub lease: Duration,
    /// How long rows are kept after they were delivered, for a replay; 7 days.
    pub retention: Duration,
    /// How often a row is tried that a store refuses or that cannot be understood, before it is a dead
    /// letter; 10. An outage does not count.
    pub attempts: u32,
    /// How long to wait before such a row is tried again; from 1 s to 5 minutes.
    pub backoff: Backoff,
    /// After how long a row is a dead letter that is about a model that no process has registered; a day.
    pub strangers: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(250),
            lease: Duration::from_secs(30),
            retention: Duration::from_hours(7 * 24),
            attempts: 10,
            backoff: Backoff { min: Duration::from_secs(1), max: Duration::from_mins(5) },
            strangers: Duration::from_hours(24),
        }
    }
}

impl PipelineConfig {
    /// These stores, and the default of everything else.
    #[must_use]
    pub fn new(stores: Vec<Arc<dyn SyncStore>>) -> Self {
        Self {
            stores,
            brokers: Vec::new(),
            message_format: MessageFormat::default(),
            epoch: 0,
            workers: 4,
            queue_bytes: 64 << 20,
            overflow_block: Duration::from_millis(100),
            retention: Retention::default(),
            clock: Arc::new(SystemClock),
            on_report: None,
            default_ttl: None,
            batch: Batch { rows: 256, bytes: 1 << 20 },
            backoff: Backoff { min: Duration::from_millis(20), max: Duration::from_secs(5) },
            reread_deadline: Duration::from_secs(10),
            upkeep_every: Duration::from_secs(30),
            relay: RelayConfig::default(),
            drop_deadline: Duration::from_secs(5),
        }
    }

    /// How many stores and brokers there are.
    pub(super) fn targets(&self) -> usize {
        self.stores.len() + self.brokers.len()
    }

    pub(super) fn check(&self) -> Result<()> {
        let error = |message: String| Err(Error::new(ErrorKind::Config, message));
        if self.targets() == 0 {
            return error(
                "neither store nor broker was given; call `.store(..)` or `.broker(..)` on the builder".into(),
            );
        }
        if self.workers == 0 || self.batch.rows == 0 || self.queue_bytes / self.targets() < 1 << 16 {
            return error("at least one worker, one row a batch, and 64 KiB of queue for each store are needed".into());
        }
        if self.relay.poll.is_zero() || self.relay.lease < Duration::from_millis(100) || self.relay.attempts == 0 {
            return error("an outbox needs a poll, a lease of 100 ms at least, and one attempt at least".into());
        }
        if self.retention.left < Duration::from_secs(1) || self.retention.dead < self.retention.left {
            return error(
                "left keys have to be kept for a second at least, and deleted rows for longer than these".into(),
            );
        }
        Ok(())
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { left: Duration::from_mins(10), dead: Duration::from_hours(7 * 24) }
    }
}

impl fmt::Debug for PipelineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineConfig")
            .field("stores", &self.stores)
            .field("brokers", &self.brokers)
            .field("workers", &self.workers)
            .field("queue_bytes", &self.queue_bytes)
            .finish_non_exhaustive()
    }
}
