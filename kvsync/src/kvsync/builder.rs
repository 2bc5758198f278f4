use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::none::NoStore;
use super::{Inner, KvSync};
use crate::capture::{AnyDatabase, Unattached};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::Reader;
use crate::key::Scope;
use crate::model::{Schema, Ttl};
use crate::report::Report;
use crate::store::SyncStore;
use crate::transport::{Broker, MessageFormat};
use crate::upkeep::{Verifiers, mend_by_itself};
use crate::worker::{Backoff, Pipeline, PipelineConfig, Probe, Retention};

/// Configures a [`KvSync`].
#[must_use = "nothing happens until `.build()` is called"]
pub struct Builder {
    databases: Vec<Box<dyn Unattached>>,
    expiration: Option<Duration>,
    jitter: f64,
    relays: bool,
    config: PipelineConfig,
    auto_backfill: u32,
    replays: bool,
    near: Option<Arc<dyn SyncStore>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let config = PipelineConfig::new(Vec::new());
        Self {
            databases: Vec::new(),
            expiration: None,
            jitter: 0.0,
            relays: true,
            config,
            auto_backfill: 2000,
            replays: false,
            near: None,
        }
    }

    /// A store to sync into. Call it again for more stores: each gets every change, and one that is down
    /// holds up no other. The first one is the one that is read.
    pub fn store(mut self, store: impl SyncStore + 'static) -> Self {
        self.config.stores.push(Arc::new(store));
        self
    }

    /// A broker to publish to: each committed change becomes one message, and counts as dealt with once the broker
    /// has confirmed it. Call it again for more brokers. A handle that has brokers and no store publishes only: who
    /// fetches has a store of its own, which a [`Consumer`](crate::Consumer) keeps.
    ///
    /// [`kvsync::transport`](crate::transport) says when to use the queue, the outbox or a broker.
    pub fn broker(mut self, broker: impl Broker + 'static) -> Self {
        self.config.brokers.push(Arc::new(broker));
        self
    }

    /// In which form changes are published; MessagePack without this call.
    pub fn message_format(mut self, format: MessageFormat) -> Self {
        self.config.message_format = format;
        self
    }

    /// The lowest epoch of the versions that are given; 0 without this call. Needed by a handle that has brokers and
    /// no store, in which [`raise_epoch`](KvSync::raise_epoch) would keep it: after its database was restored to an
    /// earlier state, say one more here, in every process that publishes. The stores of the consumers follow the highest
    /// that they are told of.
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.config.epoch = epoch;
        self
    }

    /// What fetches read in place of the first store: a view of it that may lag, such as the
    /// [`reader`](crate::store::layer::NearCache::reader) of a near cache. A fetch then returns a committed row that is
    /// older by the time that the view lags at most. `fetch_strict`, workers and upkeep go to the first store.
    pub fn read_from(mut self, view: impl SyncStore + 'static) -> Self {
        self.near = Some(Arc::new(view));
        self
    }

    /// A database whose models are synced. Call it again for more databases. Without one, the handle
    /// only reads.
    pub fn database(mut self, database: impl Unattached + 'static) -> Self {
        self.databases.push(Box::new(database));
        self
    }

    /// How many threads write to each store, and publish to each broker; 4 without this call.
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// Is told what became of each key of each change, on a thread of its own. What it cannot keep up
    /// with is dropped and counted in [`KvSync::health`]; if it panics, that is survived.
    pub fn on_report(mut self, callback: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.config.on_report = Some(Box::new(callback));
        self
    }

    /// How long entries live whose model has no `ttl` of its own; for ever without this call.
    pub fn expiration(mut self, lifetime: Duration) -> Self {
        self.expiration = Some(lifetime);
        self
    }

    /// The share of [`expiration`](Self::expiration), 0 to 1, that is taken off by chance, so that
    /// entries written together do not expire together; 0 without this call.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// How many bytes of changes wait in memory, for all stores and brokers together; 64 MiB without this call.
    /// When it is full, primary keys are kept in place of rows, which are read again later.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.config.queue_bytes = bytes;
        self
    }

    /// How long a commit waits for room in the queue before the values of its rows are let go of;
    /// 100 ms without this call.
    pub fn overflow_block(mut self, deadline: Duration) -> Self {
        self.config.overflow_block = deadline;
        self
    }

    /// How many rows a second a table is filled in with that lost changes because the store was down or slow
    /// for longer than there was room, or because a transaction wrote too many rows to remember: on a thread
    /// of its own, once the stores keep up again. If a deletion may have been lost, it then compares the
    /// stores with the database at the same rate ([`KvSync::repair`]). 2,000 without this call; 0 leaves it
    /// to [`KvSync::backfill_dirty`] and [`KvSync::repair`].
    pub fn auto_backfill(mut self, rows_per_second: u32) -> Self {
        self.auto_backfill = rows_per_second;
        self
    }

    /// How long entries are kept that only guard against late deliveries.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.config.retention = retention;
        self
    }

    /// How often the store's epoch is read again and expired entries are looked for; 30 s without this
    /// call.
    pub fn upkeep_every(mut self, every: Duration) -> Self {
        self.config.upkeep_every = every;
        self
    }

    /// Whether this process brings what waits in the outboxes of its databases to the stores; it does without
    /// this call. A program that only writes may leave it to others: then its [`flush`](KvSync::flush) does not
    /// wait for the outbox.
    pub fn relay(mut self, relays: bool) -> Self {
        self.relays = relays;
        self
    }

    /// How often an outbox is asked for rows that other processes wrote; 250 ms without this call. What this
    /// process commits is delivered at once.
    pub fn outbox_poll(mut self, every: Duration) -> Self {
        self.config.relay.poll = every;
        self
    }

    /// How long rows of an outbox are kept once they are delivered, to be replayed to a store that forgot;
    /// 7 days without this call.
    pub fn outbox_retention(mut self, retention: Duration) -> Self {
        self.config.relay.retention = retention;
        self
    }

    /// How long the rows of an outbox wait for another process when the one that has claimed them was
    /// killed; 30 s without this call.
    pub fn outbox_lease(mut self, lease: Duration) -> Self {
        self.config.relay.lease = lease;
        self
    }

    /// How often a row of an outbox is tried that a store refuses or that cannot be understood, and how long
    /// it waits between, before it is a dead letter. Without this call 10 times, from 1 s to 5 minutes
    /// apart, which is more than a [`Backoff`] of stores begins and ends with (20 ms, 5 s). A store or a database that is
    /// down costs no attempts.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use kvsync::KvSync;
    /// use kvsync::worker::Backoff;
    ///
    /// let backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_secs(60) };
    /// let builder = KvSync::builder().outbox_attempts(5, backoff);
    /// # drop(builder);
    /// ```
    pub fn outbox_attempts(mut self, attempts: u32, backoff: Backoff) -> Self {
        (self.config.relay.attempts, self.config.relay.backoff) = (attempts, backoff);
        self
    }

    /// Delivers all rows that the outboxes have kept once more, whenever a store may have forgotten what it
    /// acknowledged: it was restarted without its data, replaced, emptied or set back. For stores that keep
    /// nothing over a restart; without this call it is left to [`Outbox::replay`](crate::Outbox::replay).
    /// One of several processes is enough: each of them would deliver all rows. Tables stay dirty until
    /// they are verified, because what was delivered before the retention is not there to be replayed.
    pub fn outbox_replays(mut self) -> Self {
        self.replays = true;
        self
    }

    /// How long dropping the last handle waits for what is queued; 5 s without this call. To wait for
    /// longer, and to learn what was left, call [`KvSync::shutdown`].
    pub fn drop_deadline(mut self, deadline: Duration) -> Self {
        self.config.drop_deadline = deadline;
        self
    }

    /// What time it is; for tests. The system's clock without this call.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.config.clock = clock;
        self
    }

    /// Reads the first store's epoch and starts the threads. Touches no database: schemas are checked
    /// at the first write of a table, or by `kv.check`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when neither a store nor a broker was given, two models or databases are in each other's way,
    /// or a number makes no sense; otherwise what the store says when it is asked for its epoch.
    pub fn build(mut self) -> Result<KvSync> {
        let store = match self.config.stores.first() {
            Some(store) => Arc::clone(store),
            None if self.config.brokers.is_empty() => {
                let message = "neither store nor broker was given; call `.store(..)` or `.broker(..)` on the builder";
                return Err(Error::new(ErrorKind::Config, message));
            }
            None => Arc::new(NoStore),
        };
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(Error::new(ErrorKind::Config, "the jitter is a share of the expiration, 0 to 1"));
        }
        if self.expiration.is_some_and(|lifetime| lifetime < Duration::from_millis(1)) {
            return Err(Error::new(ErrorKind::Config, "an expiration of nothing would expire every entry at once"));
        }
        if self.jitter > 0.0 && self.expiration.is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                "jitter needs an expiration to take it off; call `.expiration(..)`",
            ));
        }
        let schemas = self.databases.iter().map(|database| (database.name().to_owned(), database.schemas())).collect();
        check_keys(&schemas)?;
        // An outage is told here rather than at the first fetch. One of a broker is not: what is committed waits for it.
        if !self.config.stores.is_empty() {
            store.epoch()?;
        }
        self.config.default_ttl = self.expiration.map(|lifetime| Ttl { lifetime, jitter: self.jitter });
        let clock = Arc::clone(&self.config.clock);
        let probes = self.config.stores.iter().map(|store| Probe::of_store(Arc::clone(store))).collect();
        let brokers = self.config.brokers.iter().map(|broker| Probe::of_broker(Arc::clone(broker))).collect();
        let pipeline = Pipeline::start(self.config)?;
        let mut databases: HashMap<String, Arc<dyn AnyDatabase>> = HashMap::new();
        for database in self.databases {
            let name = database.name().to_owned();
            if databases.insert(name.clone(), database.attach(pipeline.publisher())?).is_some() {
                return Err(Error::new(ErrorKind::Config, format!("two databases are named `{name}`")));
            }
        }
        pipeline.set_sources(databases.values().map(|database| database.source()).collect());
        if self.relays {
            pipeline.relay(databases.values().filter_map(|database| database.outbox()).collect())?;
        }
        if self.replays {
            pipeline.replay_what_is_forgotten();
        }
        if self.auto_backfill > 0 && !databases.is_empty() {
            let (filler, access, rate) = (pipeline.filler(), pipeline.access(), self.auto_backfill);
            pipeline.spawn("kvsync-backfill", move || mend_by_itself(&filler, &access, rate))?;
        }
        let near = self.near.unwrap_or_else(|| Arc::clone(&store));
        let reader = Reader::new(Arc::clone(&store), near, pipeline.epoch(), Arc::clone(&clock));
        let verifiers = Verifiers::default();
        let inner = Inner { store, probes, brokers, reader, pipeline, databases, schemas, clock, verifiers };
        Ok(KvSync { inner: Arc::new(inner), scope: Scope::NONE })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Models whose keys have one format would overwrite each other; but two generations of one model may
/// have keys in common, while a deploy goes from one to the other.
fn check_keys(schemas: &HashMap<String, Vec<&'static Schema>>) -> Result<()> {
    let mut seen = HashMap::new();
    for (database, schema) in schemas.iter().flat_map(|(database, of_it)| of_it.iter().map(move |one| (database, one)))
    {
        for key in schema.keys {
            let Some((home, other)) = seen.insert(key.literals, (database, schema)) else { continue };
            let (model, rival) = (schema.model, other.model);
            let same = (home, other.table, rival) == (database, schema.table, model);
            if same && other.generation != schema.generation {
                continue;
            }
            let message = if (other.table, rival) == (schema.table, model) {
                format!(
                    "`{model}` is registered in two databases, whose rows would overwrite each other; use a `KvSync` with a store prefix of its own for one of them"
                )
            } else {
                format!(
                    "`{}` of `{model}` and of `{rival}` would write the same keys; give one another format",
                    key.format
                )
            };
            return Err(Error::new(ErrorKind::Config, message));
        }
    }
    Ok(())
}
