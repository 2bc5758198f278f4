use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::hook::{Hook, HookError, Received};
use super::trouble::Troubles;
use super::work::Worker;
use super::{Consumer, Counts, Probes, Shared};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Syncable;
use crate::report::Report;
use crate::store::SyncStore;
use crate::sync::{AtomicBool, Mutex};
use crate::transport::Subscription;
use crate::worker::{Backoff, Callback, Pool, Probe, Reporter, Retention, Stop, Upkeep, terms};

/// Configures a [`Consumer`].
#[must_use = "nothing happens until `.build()` is called"]
pub struct ConsumerBuilder {
    subscription: Option<Arc<dyn Subscription>>,
    store: Option<Arc<dyn SyncStore>>,
    hooks: Vec<Hook>,
    workers: usize,
    batch: usize,
    clock: Arc<dyn Clock>,
    retention: Retention,
    backoff: Backoff,
    attempts: u32,
    pauses: Backoff,
    epoch: u32,
    upkeep_every: Duration,
    drop_deadline: Duration,
    on_report: Option<Callback>,
}

impl ConsumerBuilder {
    pub(super) fn new() -> Self {
        Self {
            subscription: None,
            store: None,
            hooks: Vec::new(),
            workers: 4,
            batch: 256,
            clock: Arc::new(SystemClock),
            retention: Retention::default(),
            backoff: Backoff { min: Duration::from_millis(20), max: Duration::from_secs(5) },
            attempts: 8,
            pauses: Backoff { min: Duration::from_secs(1), max: Duration::from_mins(1) },
            epoch: 0,
            upkeep_every: Duration::from_secs(30),
            drop_deadline: Duration::from_secs(5),
            on_report: None,
        }
    }

    /// The queue to take from.
    pub fn subscription(mut self, subscription: impl Subscription + 'static) -> Self {
        self.subscription = Some(Arc::new(subscription));
        self
    }

    /// The queue that it was given.
    #[cfg(feature = "cli")]
    pub(crate) fn queue(&self) -> Option<&Arc<dyn Subscription>> {
        self.subscription.as_ref()
    }

    /// The store to write into. A consumer that has hooks may do without.
    pub fn store(mut self, store: impl SyncStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Is told of every change of this model, once the store has it: for a search index, a webhook. A change may be
    /// told twice, and after a newer one of its row: whoever keeps a copy keeps the highest
    /// [`version`](crate::transport::ChangeMessage::version). A message is acknowledged when every hook of it has
    /// returned `Ok`; one that fails, or panics, is delivered again after a pause, for
    /// [`attempts`](Self::attempts). Called on the consumer's workers, so as many at once as there are of these.
    ///
    /// ```
    /// # fn with<User: kvsync::Syncable>(builder: kvsync::consumer::ConsumerBuilder) -> kvsync::consumer::ConsumerBuilder {
    /// builder.on_change::<User>(|change| {
    ///     println!("{:?} of {} at {}", change.action(), change.primary_key(), change.version());
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn on_change<M: Syncable>(
        mut self,
        hook: impl Fn(&Received<'_, M>) -> Result<(), HookError> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.push(Hook::new(hook));
        self
    }

    /// How many threads take from the queue; 4 without this call.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many messages a worker takes at once; 256 without this call. The consumer holds at most this many times its
    /// [`workers`](Self::workers), and whatever the queue has fetched ahead for it.
    ///
    /// Messages without hooks are acknowledged together, once the store has them. Those that have hooks wait for their
    /// turn, and each is acknowledged when its own hooks have returned, so the last one of a batch is held for as long
    /// as all hooks of the batch take. That has to stay below the time after which the broker takes a message away from
    /// a consumer that is silent: 30 minutes in RabbitMQ (`consumer_timeout`, which also closes the channel). A queue of
    /// NATS JetStream asks for more time by itself. With hooks that take a second, 256 messages take more than four
    /// minutes, and others could have had them: take fewer.
    pub fn batch(mut self, messages: usize) -> Self {
        self.batch = messages;
        self
    }

    /// How often a message is delivered, as far as the broker counts, whose hook fails, before it is a dead letter, and
    /// how long the pauses are; 8 times, from 1 s to a minute apart, without this call. What was given back because the
    /// store was down has been delivered, too: once for each time that it went down. What the store refuses while it
    /// takes other messages has the same pauses, and no end.
    pub fn attempts(mut self, attempts: u32, pauses: Backoff) -> Self {
        (self.attempts, self.pauses) = (attempts, pauses);
        self
    }

    /// The epoch of the publishers, for a store that is more than 16 behind them, a new one for instance: it is
    /// raised to this one. 0 without this call: the store's own, and what messages tell that are at most that far
    /// ahead. See [The epoch](crate::consumer#the-epoch).
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = epoch;
        self
    }

    /// How long to wait before a store or a broker that failed is asked again; from 20 ms to 5 s without this call.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long entries are kept that only guard against late deliveries: as the publishers have it.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How often the store's epoch is read again and expired entries are looked for; 30 s without this call.
    pub fn upkeep_every(mut self, every: Duration) -> Self {
        self.upkeep_every = every;
        self
    }

    /// How long dropping the consumer waits for what it holds; 5 s without this call.
    pub fn drop_deadline(mut self, deadline: Duration) -> Self {
        self.drop_deadline = deadline;
        self
    }

    /// What time it is; for tests. The system's clock without this call.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Is told what became of each message, on a thread of its own. What it cannot keep up with is dropped and
    /// counted in [`Consumer::health`]; if it panics, that is survived.
    pub fn on_report(mut self, callback: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.on_report = Some(Box::new(callback));
        self
    }

    /// Starts the threads. A broker or a store that is down is no error: they are asked again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is no subscription, neither a store nor a hook, or a number makes no sense;
    /// [`ErrorKind::Unavailable`] when a thread cannot be started.
    pub fn build(self) -> Result<Consumer> {
        let error = |message: &'static str| Error::new(ErrorKind::Config, message);
        let subscription = self.subscription.ok_or_else(|| {
            error("no subscription was given; call `.subscription(..)` on the builder of the consumer")
        })?;
        if self.store.is_none() && self.hooks.is_empty() {
            return Err(error(
                "neither store nor hook was given; call `.store(..)` or `.on_change(..)` on the builder",
            ));
        }
        if self.workers == 0 || self.batch == 0 || self.attempts == 0 {
            return Err(error("a consumer needs one worker, one message at once, and one attempt, at least"));
        }
        if self.retention.left < Duration::from_secs(1) || self.retention.dead < self.retention.left {
            return Err(error(
                "left keys have to be kept for a second at least, and deleted rows for longer than these",
            ));
        }
        let (stop, listener_stop) = (Stop::new(), Stop::new());
        let (reporter, listening) = Reporter::new(self.on_report, &listener_stop);
        let name: Arc<str> = subscription.name().into();
        let troubles = Troubles::new(Arc::clone(&name));
        let shared = Arc::new(Shared {
            name,
            subscription,
            store: self.store,
            hooks: self.hooks,
            clock: self.clock,
            retention: self.retention,
            batch: self.batch,
            backoff: self.backoff,
            attempts: self.attempts,
            pauses: self.pauses,
            epoch: Arc::new(AtomicU32::new(self.epoch)),
            met: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            ends_at: Mutex::default(),
            counts: Counts::new(),
            reporter: reporter.clone(),
            stop: stop.clone(),
            store_error: Mutex::default(),
            queue_error: Mutex::default(),
            forgot: Mutex::default(),
            troubles,
        });
        let probes = Probes {
            store: shared.store.as_ref().map(|store| Probe::of_store(Arc::clone(store))),
            queue: Probe::of_queue(Arc::clone(&shared.subscription)),
            backlog: Probe::of_backlog(Arc::clone(&shared.subscription)),
        };
        let consumer = Consumer {
            probes,
            pool: Pool::new(stop.clone(), reporter.clone()),
            listener: Pool::new(listener_stop.clone(), reporter),
            listener_stop,
            drop_deadline: self.drop_deadline,
            ended: Mutex::default(),
            shared: Arc::clone(&shared),
        };
        if let Some(listening) = listening {
            consumer.listener.spawn("kvsync-report", move || listening.run())?;
        }
        if let Some(store) = &shared.store {
            let upkeep = shared.upkeep(store);
            let every = self.upkeep_every;
            consumer.pool.spawn("kvsync-upkeep", move || {
                upkeep.refresh_epoch();
                upkeep.watch();
                upkeep.run(every, |long| stop.wait(long));
            })?;
        }
        for worker in 0..self.workers {
            let shared = Arc::clone(&shared);
            let name = format!("kvsync-consumer-{worker}");
            consumer.pool.spawn(&name, move || Worker::new(Arc::clone(&shared)).run())?;
        }
        Ok(consumer)
    }
}

impl Shared {
    /// What keeps the store in order.
    fn upkeep(self: &Arc<Self>, store: &Arc<dyn SyncStore>) -> Upkeep {
        let terms = {
            let shared = Arc::clone(self);
            move || terms(&*shared.clock, &shared.retention)
        };
        let shared = Arc::clone(self);
        let forgot = move |store: &dyn SyncStore, why: &str| {
            tracing::error!(store = store.name(), why, "the store may have forgotten what it acknowledged");
            shared.reporter.report(Report::Forgot { store: store.name().into(), reason: why.to_owned() });
            *shared.forgot.lock() = Some(why.to_owned());
        };
        Upkeep::new(vec![Arc::clone(store)], Arc::clone(&self.epoch), terms, forgot)
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("subscription", &self.subscription)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
