//! The workers: what takes committed changes and writes them into stores.

mod about;
mod access;
mod apply;
mod batch;
mod commits;
mod config;
mod dirty;
mod encode;
mod fill;
mod flight;
mod flush;
mod health;
mod lane;
#[cfg(test)]
#[cfg(kvsync_shuttle)]
mod models;
mod pool;
mod post;
mod probe;
mod publisher;
mod relay;
mod reporter;
mod reread;
mod settle;
mod shutdown;
mod sync;
mod target;
mod trouble;
mod upkeep;
mod work;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use self::config::{Backoff, Batch, Callback, PipelineConfig, RelayConfig, Retention};
pub use self::health::{BrokerHealth, OutboxHealth, PipelineHealth, StoreHealth};
pub use self::shutdown::Shutdown;

pub(crate) use self::access::Access;
pub(crate) use self::apply::{Applier, Beaten, Job, terms};
pub(crate) use self::dirty::Marked;
pub(crate) use self::fill::{Filled, Filler};
pub(crate) use self::pool::{Pool, Stop};
pub(crate) use self::probe::Probe;
pub(crate) use self::reporter::Reporter;
pub(crate) use self::target::Target;
pub(crate) use self::upkeep::Upkeep;

use self::commits::Commits;
use self::dirty::DirtyTables;
use self::lane::{Lane, Shared};
use self::post::Patience;
use self::publisher::{Known, Publisher};
use self::reread::Settler;
use self::work::Worker;
use crate::change::{Change, Publish};
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Source;
use crate::report::DirtyTable;
use crate::store::SyncStore;
use crate::sync::{AtomicBool, Mutex};
use crate::transport::Transport;

/// How long threads that were told to stop are waited for beyond a deadline that has passed.
const GRACE: Duration = Duration::from_millis(250);

/// The way of changes from the connections that commit them to the stores: queues, workers, and what
/// keeps the stores in order. Dropping it shuts it down, within
/// [`drop_deadline`](PipelineConfig::drop_deadline).
pub struct Pipeline {
    publisher: Arc<Publisher>,
    shared: Arc<Shared>,
    pool: Pool,
    /// Ends after the others, so that what they report is still told.
    listener: Pool,
    listener_stop: Stop,
    relay: RelayConfig,
    drop_deadline: Duration,
    ended: Mutex<Option<Shutdown>>,
}

impl Pipeline {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is neither store nor broker, no worker or no room, or when the retention is too
    /// short; [`ErrorKind::Unavailable`] when a thread cannot be started. A store that is down is no error:
    /// its changes wait.
    pub fn start(config: PipelineConfig) -> Result<Self> {
        config.check()?;
        let targets = config.targets();
        let stop = Stop::new();
        let listener_stop = Stop::new();
        let (reporter, listening) = Reporter::new(config.on_report, &listener_stop);
        let shared = Arc::new(Shared {
            commits: Commits::default(),
            dirty: DirtyTables::new(reporter.clone()),
            reporter: reporter.clone(),
            stop: stop.clone(),
            clock: config.clock,
            retention: config.retention,
            sources: OnceLock::new(),
            on_forgot: OnceLock::new(),
            forgotten: Mutex::default(),
            default_ttl: config.default_ttl,
            batch: config.batch,
            backoff: config.backoff,
            overflow_block: config.overflow_block,
            reread_deadline: config.reread_deadline,
            epoch: Arc::new(AtomicU32::new(config.epoch)),
            relays: OnceLock::new(),
            closing: AtomicBool::new(false),
        });
        let bytes = config.queue_bytes / targets;
        let stores = config.stores.iter().map(|store| Target::Store(Arc::clone(store)));
        let brokers = config.brokers.iter().map(|broker| Target::Broker(Arc::clone(broker), config.message_format));
        let lanes: Vec<Arc<Lane>> =
            stores.chain(brokers).map(|target| Arc::new(Lane::new(target, bytes, Arc::clone(&shared)))).collect();
        let publisher = Publisher { shared: Arc::clone(&shared), lanes, process: rand::random() };
        let pipeline = Self {
            publisher: Arc::new(publisher),
            shared: Arc::clone(&shared),
            pool: Pool::new(stop.clone(), reporter.clone()),
            listener: Pool::new(listener_stop.clone(), reporter),
            listener_stop,
            relay: config.relay,
            drop_deadline: config.drop_deadline,
            ended: Mutex::default(),
        };
        let forgot = {
            let shared = Arc::clone(&shared);
            move |store: &dyn SyncStore, why: &str| shared.store_forgot(store.name(), why)
        };
        let upkeep = Upkeep::new(config.stores, Arc::clone(&shared.epoch), pipeline.terms(), forgot);
        // A store that is down is asked again before anything is written to it.
        let met: Vec<bool> = pipeline.lanes().iter().map(|lane| lane.read_epoch().is_ok()).collect();
        upkeep.refresh_epoch();
        if met.iter().all(|met| *met) {
            // Before anything is written, so that a store that has lost its epoch is told by its mark.
            upkeep.watch();
        }
        if let Some(listening) = listening {
            pipeline.listener.spawn("kvsync-report", move || listening.run())?;
        }
        for (number, lane) in pipeline.lanes().iter().enumerate() {
            for worker in 0..config.workers {
                let lane = Arc::clone(lane);
                let name = format!("kvsync-worker-{}", number * config.workers + worker);
                pipeline.pool.spawn(&name, move || Worker::new(Arc::clone(&lane)).run())?;
            }
            let lane = Arc::clone(lane);
            pipeline.pool.spawn(&format!("kvsync-settle-{number}"), move || {
                lane.unsettled.release(Duration::ZERO);
                Settler::new(Arc::clone(&lane)).run();
            })?;
        }
        let every = config.upkeep_every;
        pipeline.pool.spawn("kvsync-upkeep", move || upkeep.run(every, |long| stop.wait(long)))?;
        Ok(pipeline)
    }

    /// Where connections hand on what they have committed. It does not keep the pipeline alive.
    #[must_use]
    pub fn publisher(&self) -> Arc<dyn Publish> {
        Arc::new(Known::new(&self.publisher))
    }

    /// Says where rows are read again, one source for each database. Until then those that have to be
    /// wait. Only the first call counts.
    pub fn set_sources(&self, sources: Vec<Arc<dyn Source>>) {
        if !self.shared.set_sources(sources) {
            tracing::warn!("the sources of a pipeline were set twice; the first ones stay");
        }
    }

    /// Calls back when a store may have forgotten what it acknowledged, with its name and how that was
    /// noticed, after its tables were marked dirty: what can deliver again does so then. On the thread of
    /// upkeep; of what was noticed before, on the caller's. Only the first call counts.
    pub fn on_forgot(&self, callback: impl Fn(&str, &str) + Send + Sync + 'static) {
        self.shared.set_on_forgot(Box::new(callback));
    }

    /// The lowest epoch whose entries count; readers share it.
    #[must_use]
    pub fn epoch(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.shared.epoch)
    }

    /// Raises the epoch of every store by one above the highest, and uses it from now on: everything
    /// written before reads as unknown.
    ///
    /// # Errors
    ///
    /// When a store could not be asked or told. The others may have been; call it again. [`ErrorKind::Config`] where
    /// there is no store.
    pub fn raise_epoch(&self) -> Result<u32> {
        if self.store_lanes().next().is_none() {
            let message = "no store keeps the epoch: set a higher `.epoch(..)` on the builder of every publisher";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let mut epoch = self.shared.epoch.load(Ordering::Acquire);
        for (_, store) in self.store_lanes() {
            epoch = epoch.max(store.epoch()?);
        }
        let raised = epoch.saturating_add(1);
        for (_, store) in self.store_lanes() {
            store.raise_epoch(raised)?;
        }
        self.shared.epoch.fetch_max(raised, Ordering::AcqRel);
        Ok(raised)
    }

    /// Writes changes at once into every store, past the queue, and returns when they are there.
    ///
    /// # Errors
    ///
    /// The first failure: of the codec, or of a store. What was written stays.
    pub fn apply_now(&self, changes: &[Change]) -> Result<()> {
        self.lanes().iter().try_for_each(|lane| lane.apply_now(changes))
    }

    /// Runs something on a thread of its own, again whenever it panics, until it returns. It has to end soon
    /// after the pipeline was told to stop ([`Filler::wait`]).
    pub(crate) fn spawn(&self, name: &str, body: impl Fn() + Send + 'static) -> Result<()> {
        self.pool.spawn(name, body)
    }

    /// What writes rows past the queue that were read from their database. It does not keep the pipeline
    /// alive, and fails once that was shut down.
    pub(crate) fn filler(&self) -> Filler {
        Filler { shared: Arc::clone(&self.shared), lanes: self.lanes().into() }
    }

    /// The tables whose rows in a store can no longer be trusted.
    #[must_use]
    pub fn dirty_tables(&self) -> Vec<DirtyTable> {
        self.shared.dirty.list()
    }

    /// Says that a table's rows were compared with the database's, or filled in again.
    pub fn clear_dirty(&self, database: &str, table: Option<&str>) {
        self.shared.dirty.clear(database, table);
    }

    /// Takes no more changes, writes what is queued until the deadline, and stops the threads. What is
    /// committed from then on makes its tables dirty. A second call says the same as the first.
    pub fn shutdown(&self, deadline: Duration) -> Shutdown {
        let mut ended = self.ended.lock();
        if let Some(ended) = &*ended {
            return ended.clone();
        }
        let deadline = from_now(deadline);
        self.shared.closing.store(true, Ordering::Release);
        let patience = Patience { deadline, outages: false, lanes: self.lanes() };
        let undelivered = self.drain_outboxes(patience).and_then(|()| self.failing()).err();
        let last = self.shared.commits.last();
        let held_up = || self.lanes().iter().any(|lane| lane.unsettled.holds_up_any(last));
        let drained = self.shared.commits.flush(last, deadline, held_up);
        self.shared.stop.stop();
        self.shared.commits.touch();
        for lane in self.lanes() {
            lane.queue.close();
            lane.unsettled.close();
        }
        let mut threads = self.pool.join(deadline.max(Instant::now() + GRACE));
        for (broker, _) in self.lanes().iter().filter_map(|lane| lane.target.broker()) {
            if let Err(error) = broker.close() {
                tracing::warn!(broker = broker.name(), %error, "a broker did not take leave");
            }
        }
        self.listener_stop.stop();
        threads += self.listener.join(deadline.max(Instant::now() + GRACE));
        let left = self.shared.commits.left().changes;
        let errors = self.lanes().iter().filter_map(|lane| lane.last_error());
        let outcome = Shutdown {
            written: self.shared.commits.finished(),
            left,
            unsettled: self.unsettled(),
            dirty: self.dirty_tables(),
            threads,
            errors: if drained {
                undelivered.map(Arc::new).into_iter().collect()
            } else {
                errors.chain(undelivered.map(Arc::new)).collect()
            },
        };
        *ended = Some(outcome.clone());
        outcome
    }

    fn lanes(&self) -> &[Arc<Lane>] {
        &self.publisher.lanes
    }

    /// Those that end in a store.
    fn store_lanes(&self) -> impl Iterator<Item = (&Arc<Lane>, &Arc<dyn SyncStore>)> {
        self.lanes().iter().filter_map(|lane| Some((lane, lane.target.store()?)))
    }

    fn terms(&self) -> impl Fn() -> crate::record::Terms + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || apply::terms(&*shared.clock, &shared.retention)
    }

    fn unsettled(&self) -> usize {
        self.lanes().iter().map(|lane| lane.unsettled.depth().0).sum()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.ended.lock().is_some() {
            // Whoever shut it down was told.
            return;
        }
        let outcome = self.shutdown(self.drop_deadline);
        if !outcome.is_clean() {
            tracing::error!("kvsync was dropped, and not everything was in order: {outcome}");
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("health", &self.health()).finish_non_exhaustive()
    }
}
