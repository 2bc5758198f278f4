use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::apply::{Applier, Beaten, Job, Round};
use super::commits::Commits;
use super::config::{Backoff, Batch, Retention};
use super::dirty::{DirtyTables, Loss};
use super::encode::{Encoder, named_keys, unknown_of};
use super::pool::Stop;
use super::post::Post;
use super::reporter::Reporter;
use super::settle::{Row, Stage, Unsettled};
use super::target::Target;
use super::trouble::Trouble;
use crate::change::{self, Action, Change, Unknown};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::model::{Source, Ttl};
use crate::report::{KeyReport, Outcome, Report};
use crate::sync::{AtomicBool, Mutex};
use crate::transport::{Part, Queue, Transport};

/// Told of a store that has forgotten: its name, and how that was noticed.
pub(crate) type OnForgot = Box<dyn Fn(&str, &str) + Send + Sync>;

/// How many losses are kept for those who begin to listen later.
const FORGOTTEN: usize = 8;

/// What all lanes share.
pub(crate) struct Shared {
    pub(crate) commits: Commits,
    pub(crate) dirty: DirtyTables,
    pub(crate) reporter: Reporter,
    pub(crate) stop: Stop,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) retention: Retention,
    /// Set once, after the start: a source stamps versions with the pipeline's epoch.
    pub(crate) sources: OnceLock<Vec<Arc<dyn Source>>>,
    /// Told of a store that has forgotten.
    pub(crate) on_forgot: OnceLock<OnForgot>,
    /// Stores that have forgotten, each with how that was noticed: it may be before anyone listens.
    pub(crate) forgotten: Mutex<Vec<(String, String)>>,
    pub(crate) default_ttl: Option<Ttl>,
    pub(crate) batch: Batch,
    pub(crate) backoff: Backoff,
    pub(crate) overflow_block: Duration,
    pub(crate) reread_deadline: Duration,
    pub(crate) epoch: Arc<AtomicU32>,
    /// What delivers the rows of the outboxes.
    pub(crate) relays: OnceLock<Vec<Arc<Post>>>,
    /// No change is taken any longer.
    pub(crate) closing: AtomicBool,
}

/// One store or broker, and what waits for it.
pub(crate) struct Lane {
    pub(crate) target: Target,
    pub(crate) name: Arc<str>,
    pub(crate) queue: Queue,
    pub(crate) unsettled: Unsettled,
    pub(crate) shared: Arc<Shared>,
    /// There was no room, and the queue has not been half empty since: nobody waits for room.
    overflowing: AtomicBool,
    limit: usize,
    /// The epoch of the store was read once.
    met: AtomicBool,
    pub(super) trouble: Trouble,
}

/// What is told of each key of a change.
pub(crate) struct Telling<'a> {
    pub(crate) change: &'a Change,
    pub(crate) error: Option<Arc<Error>>,
    pub(crate) attempts: u32,
    pub(crate) queued: Duration,
    pub(crate) writing: Duration,
}

impl Shared {
    /// A store may have forgotten what it acknowledged: nothing in it can be trusted to be the newest.
    pub(crate) fn store_forgot(&self, store: &str, why: &str) {
        tracing::error!(store, why, "the store may have forgotten what it acknowledged");
        self.reporter.report(Report::Forgot { store: store.into(), reason: why.to_owned() });
        let mut forgotten = self.forgotten.lock();
        self.mark_all(store, why);
        if let Some(on_forgot) = self.on_forgot.get() {
            on_forgot(store, why);
        }
        forgotten.truncate(FORGOTTEN - 1);
        forgotten.push((store.to_owned(), why.to_owned()));
    }

    /// Sets where rows are read again, and catches up with what was noticed before. Whether it was the
    /// first call.
    pub(crate) fn set_sources(&self, sources: Vec<Arc<dyn Source>>) -> bool {
        let forgotten = self.forgotten.lock();
        let first = self.sources.set(sources).is_ok();
        if first {
            forgotten.iter().for_each(|(store, why)| self.mark_all(store, why));
        }
        first
    }

    /// Sets who is told of stores that have forgotten, and tells of those that were noticed before.
    pub(crate) fn set_on_forgot(&self, callback: OnForgot) {
        let forgotten = self.forgotten.lock();
        if self.on_forgot.set(callback).is_ok()
            && let Some(on_forgot) = self.on_forgot.get()
        {
            forgotten.iter().for_each(|(store, why)| on_forgot(store, why));
        }
    }

    /// Where what is committed waits meanwhile, as far as this process knows; `limit` is how much memory a lane has.
    pub(crate) fn kept(&self, limit: usize) -> String {
        let (outboxes, databases) = (self.posts().len(), self.sources.get().map_or(0, Vec::len));
        let memory = format!("in memory up to {limit} bytes and then as primary keys, and is lost with the process");
        match outboxes {
            0 => format!("what is committed waits {memory}"),
            _ if outboxes >= databases => "what is committed waits in the outbox".to_owned(),
            _ => format!("what is committed waits in the outbox, and of databases without one {memory}"),
        }
    }

    fn mark_all(&self, store: &str, why: &str) {
        let now = self.clock.now();
        for source in self.sources.get().into_iter().flatten() {
            let database: Arc<str> = source.name().into();
            for schema in source.schemas() {
                self.dirty.mark(&database, Some(schema.table), 0, now, &format!("{store} may have forgotten: {why}"));
            }
        }
    }
}

/// That something was not dealt with in time: who has not taken all of it, and why, as far as that is known.
pub(super) fn late(lanes: &[Arc<Lane>], what: &str) -> Error {
    let behind: Vec<&Arc<Lane>> = lanes.iter().filter(|lane| lane.is_behind()).collect();
    let names: Vec<String> = behind.iter().map(|lane| lane.target.to_string()).collect();
    let whom = if names.is_empty() { "other processes".to_owned() } else { names.join(", ") };
    let late = Error::new(ErrorKind::Deadline, format!("{what}; it waits for {whom}"));
    match behind.iter().find_map(|lane| lane.last_error()) {
        Some(last) => late.with_source(last),
        None => late,
    }
}

impl Lane {
    pub(crate) fn new(target: Target, bytes: usize, shared: Arc<Shared>) -> Self {
        let limit = bytes - bytes / 4;
        Self {
            name: target.name().into(),
            target,
            queue: Queue::new(limit),
            unsettled: Unsettled::new(bytes / 4),
            shared,
            overflowing: AtomicBool::new(false),
            limit,
            met: AtomicBool::new(false),
            trouble: Trouble::default(),
        }
    }

    /// How many bytes its queue holds.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn applier(&self) -> Applier {
        Applier::new(self.target.clone(), Arc::clone(&self.shared.clock), self.shared.retention)
    }

    pub(crate) fn encoder(&self) -> Encoder {
        Encoder {
            store: Arc::clone(&self.name),
            capabilities: self.target.capabilities(),
            default_ttl: self.shared.default_ttl,
            publishes: self.target.broker().map(|(_, format)| format),
            room: RefCell::default(),
        }
    }

    /// Queues a part; what there is no room for by the deadline is deferred.
    pub(crate) fn accept(&self, part: Part, deadline: Instant) {
        let mut deadline = deadline;
        if self.overflowing.load(Ordering::Relaxed) {
            if self.queue.depth().bytes > self.limit / 2 {
                deadline = Instant::now();
            } else {
                self.overflowing.store(false, Ordering::Relaxed);
            }
        }
        if let Err(part) = self.queue.publish(part, deadline) {
            if !self.overflowing.swap(true, Ordering::Relaxed) {
                tracing::warn!(store = &*self.name, "the queue is full: rows are kept by their primary keys only");
            }
            self.defer_part(&part);
        }
    }

    /// Lets go of the contents of a part; its rows will be read again.
    pub(crate) fn defer_part(&self, part: &Part) {
        let mut lost = None;
        for change in part.changes.iter() {
            if let Err(error) = self.defer(change, part.commit, Stage::Unmasked) {
                lost = Some(error);
            } else if self.shared.reporter.listens() {
                let queued = part.published.elapsed();
                let telling = Telling { change, error: None, attempts: 0, queued, writing: Duration::ZERO };
                self.tell_all(&telling, Outcome::Deferred);
            }
        }
        self.shared.commits.finish(part.commit, part.changes.len(), lost);
    }

    /// Sees to it that the row of a change is read again; where there is no room for that either, its
    /// table is dirty.
    ///
    /// # Errors
    ///
    /// Why the table is dirty now.
    pub(crate) fn defer(&self, change: &Change, commit: u64, stage: Stage) -> Result<(), Arc<Error>> {
        let (error, overflow) = match unknown_of(change) {
            Ok(unknown) => match self.unsettled.insert(self.unsettled_row(change, unknown, commit, stage)) {
                Ok(()) => return Ok(()),
                Err(_) if self.shared.closing.load(Ordering::Relaxed) => {
                    (Error::new(ErrorKind::Closed, "it was committed while kvsync shut down"), false)
                }
                Err(_) => {
                    let message = format!("more was written than {} took and memory was given for", self.name);
                    (Error::new(ErrorKind::Unavailable, message), true)
                }
            },
            Err(error) => (error, false),
        };
        Err(self.lose(change, commit, Arc::new(error), overflow))
    }

    fn unsettled_row(&self, change: &Change, unknown: Unknown, commit: u64, stage: Stage) -> Row {
        let mut row = Row::new(change, unknown, commit, stage);
        row.kept_in_outbox = self.shared.commits.is_kept(commit);
        row
    }

    /// Lets go of a change for good: its table is dirty, and the application is told; but what an outbox
    /// keeps is tried again, and whoever gives it up there says so.
    pub(crate) fn give_up(&self, change: &Change, commit: u64, error: Arc<Error>) -> Arc<Error> {
        self.lose(change, commit, error, false)
    }

    fn lose(&self, change: &Change, commit: u64, error: Arc<Error>, overflow: bool) -> Arc<Error> {
        if self.shared.commits.is_kept(commit) {
            return error;
        }
        let loss = Loss {
            database: &change.database,
            table: Some(change.schema.table),
            scope: Some(&change.scope),
            changes: 1,
            deletes: change.action == Action::Delete
                || matches!(change.row, change::Row::Deleted { .. } | change::Row::Absent(_)),
            published: self.target.broker().is_some(),
            overflow,
        };
        self.shared.dirty.lose(&loss, self.shared.clock.now(), &error.to_string());
        error
    }

    /// Whether it takes changes as fast as they come.
    pub(crate) fn is_at_ease(&self) -> bool {
        self.is_met() && self.queue.depth().bytes <= self.limit / 2 && self.unsettled.has_room()
    }

    /// Reports the same of every key of a change.
    pub(crate) fn tell_all(&self, telling: &Telling<'_>, outcome: Outcome) {
        if !self.shared.reporter.listens() {
            return;
        }
        for (name, key) in named_keys(telling.change) {
            self.tell(telling, name, key, outcome);
        }
    }

    /// Reports what became of one key of a change.
    pub(crate) fn tell(&self, telling: &Telling<'_>, key_name: Option<&'static str>, key: Key, outcome: Outcome) {
        let change = telling.change;
        self.shared.reporter.report(Report::Key(KeyReport {
            store: Arc::clone(&self.name),
            model: change.schema.model,
            table: change.schema.table,
            database: Arc::clone(&change.database),
            key_name,
            key,
            action: change.action,
            version: change.version,
            outcome,
            error: telling.error.clone(),
            attempts: telling.attempts,
            queued: telling.queued,
            writing: telling.writing,
        }));
    }

    /// Remembers what a round brought.
    pub(crate) fn note_round(&self, round: &Round) {
        match &round.error {
            Some(error) if self.target.is_outage(error) => self.failed(error),
            error => {
                self.refused(error.clone());
                if round.answered {
                    self.answered();
                }
            }
        }
    }

    /// How many changes are queued or being written.
    pub(crate) fn queue_depth(&self) -> usize {
        self.queue.depth().changes
    }

    /// Whether something waits for it, or it takes nothing.
    fn is_behind(&self) -> bool {
        self.queue_depth() > 0 || self.unsettled.depth().0 > 0 || self.trouble().is_some_and(|(_, lasts)| lasts)
    }

    /// Reads the epoch of the store, and makes it everyone's when it is the highest. Returns the highest.
    ///
    /// # Errors
    ///
    /// When the store could not be read.
    pub(crate) fn read_epoch(&self) -> Result<u32, Arc<Error>> {
        let Some(store) = self.target.store() else {
            // A broker keeps none: the changes carry it.
            self.met.store(true, Ordering::Release);
            return Ok(self.shared.epoch.load(Ordering::Acquire));
        };
        let read = store.epoch().map_err(Arc::new).inspect_err(|error| self.failed(error))?;
        self.answered();
        self.met.store(true, Ordering::Release);
        Ok(self.shared.epoch.fetch_max(read, Ordering::AcqRel).max(read))
    }

    /// Finds out which jobs were superseded by something of a higher epoch.
    pub(crate) fn judge<'a>(&self, jobs: impl IntoIterator<Item = &'a mut Job>) {
        let mut beaten: Vec<&mut Job> =
            jobs.into_iter().filter(|job| job.fate.is_some() && job.beaten != Beaten::Fairly).collect();
        if !beaten.is_empty() {
            // Where the store does not say, rows are read again: that is harmless.
            let epoch = self.read_epoch().unwrap_or(u32::MAX);
            for job in &mut beaten {
                job.judge(epoch);
            }
        }
    }

    /// Whether the epoch of the store has been read: before that nothing may be written to it, because
    /// changes that were stamped without it would lose to older ones.
    pub(crate) fn is_met(&self) -> bool {
        self.met.load(Ordering::Acquire) || self.read_epoch().is_ok()
    }
}

impl Backoff {
    /// The waits from the first on.
    pub(crate) fn waits(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.min)
            .with_max_delay(self.max)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// The wait after this many attempts in vain.
    pub(crate) fn after(&self, attempts: u32) -> Duration {
        let attempts = usize::try_from(attempts.clamp(1, 32)).unwrap_or(32);
        self.waits().nth(attempts - 1).unwrap_or(self.max)
    }
}
