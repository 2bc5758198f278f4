//! Fills stores from a table, beside whoever writes it.
//!
//! First a version is taken behind a barrier ([`Source::barrier`]): every change that a page read from
//! then on does not see has a higher one. So a page may be written at that version at any time: it
//! replaces what is older, is refused where something newer stands, and loses to what comes later.
//!
//! Each [`REFRESH`] the version is taken anew. One version for a whole table would be as right at rest,
//! but what was lost while a long backfill went on could be above it, and then the row as it was read
//! would be refused in favour of an older one; and the older a version is, the further may a key step back
//! for a moment, when a change arrives that the page had already seen. Where a long transaction holds up
//! the new version, the old one stays right, and rows go on.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::pace::Pace;
use super::scope::known;
use super::summary::{Checkpoint, Interrupted, Progress, Summary};
use crate::change::{Action, Change, Row, Unknown};
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Position, RowsPage, Scanned, Schema, Source};
use crate::version::Version;
use crate::worker::Filler;

/// How old a version is when the next one is taken.
const REFRESH: Duration = Duration::from_secs(10);
/// How long a new version is waited for while an old one is at hand.
const PATIENCE: Duration = Duration::from_millis(500);

/// Fills every store with the rows of a model, from the database, beside live traffic. It never replaces
/// anything newer than what it read. Made by `KvSync::backfill`; nothing happens until [`run`](Self::run).
///
/// Rows are read page by page in the order of the primary key, so memory holds two pages at most, and a
/// run that ended early goes on from where it was ([`resume`](Self::resume)), also in another process.
/// Entries of an older form, as a binary before a deploy wrote them, are replaced like all that is older.
///
/// What a backfill cannot see is a row that the database does not have: an entry in the store whose row was
/// deleted while nobody captured it stays. Finding these takes a walk over the store: verify.
#[must_use = "nothing happens until `.run()` is called"]
pub struct Backfill {
    filler: Filler,
    target: Result<Target>,
    rows_per_page: usize,
    rate: Option<u32>,
    deadline: Duration,
    from: Option<Checkpoint>,
    on_progress: OnProgress,
}

type OnProgress = Box<dyn FnMut(&Progress) -> ControlFlow<()> + Send>;

/// What is filled in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) database: Arc<str>,
    pub(crate) schema: &'static Schema,
    pub(crate) scope: Scope,
}

impl Backfill {
    pub(crate) fn new(filler: Filler, target: Result<Target>) -> Self {
        Self {
            filler,
            target,
            rows_per_page: 500,
            rate: None,
            deadline: Duration::from_mins(1),
            from: None,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// How many rows are read and written at a time; 500 without this call.
    pub fn rows_per_page(mut self, rows: usize) -> Self {
        self.rows_per_page = rows.max(1);
        self
    }

    /// How many rows a second at most; as many as can be without this call.
    pub fn rows_per_second(mut self, rows: u32) -> Self {
        self.rate = Some(rows);
        self
    }

    /// How long the barrier or one page may take, with all repetitions, before the backfill fails; a
    /// minute without this call. It must be longer than the longest transaction that writes.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Goes on from where another run was.
    pub fn resume(mut self, from: Checkpoint) -> Self {
        self.from = Some(from);
        self
    }

    /// Is called after each page. [`ControlFlow::Break`] ends the run there, without an error.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress) -> ControlFlow<()> + Send + 'static) -> Self {
        self.on_progress = Box::new(callback);
        self
    }

    /// Reads and writes until the last row, and returns when every store has taken all of them. A panic or
    /// a kill on the way harms nothing: what is written is right.
    ///
    /// Blocks for as long as it takes, first of all until every transaction of the database has ended that
    /// was open when it began, idle ones included, if it had written anything.
    ///
    /// # Errors
    ///
    /// The failure of the database or of a store that lasted longer than the deadline;
    /// [`ErrorKind::Config`] for a model, a scope or a checkpoint that is not this database's, and for a scope whose
    /// rows it cannot know ([`Database::single_tenant`](crate::capture::Database::single_tenant));
    /// [`ErrorKind::Closed`] after a shutdown. It holds what was done until then.
    pub fn run(mut self) -> Result<Summary, Interrupted> {
        let began = match &self.target {
            Ok(target) => Summary::new(target),
            Err(error) => {
                return Err(Interrupted::before_it_began(error.clone()));
            }
        };
        let mut summary = Summary { next: self.from.clone(), ..began };
        let mut pace = Pace::new(self.rate);
        let ended = self.go_on(&mut summary, &mut pace);
        summary.elapsed = pace.elapsed();
        match ended {
            Ok(()) => Ok(summary),
            Err(error) => Err(Interrupted { error, summary: Box::new(summary) }),
        }
    }

    fn go_on(&mut self, summary: &mut Summary, pace: &mut Pace) -> Result<()> {
        let target = self.target.clone()?;
        let source = self.filler.source(&target.database)?;
        known(&*source, target.schema, &target.scope)?;
        if self.filler.wait(Duration::ZERO) {
            return Err(closed());
        }
        let estimate = source.estimate(target.schema, &target.scope, self.deadline).ok().flatten();
        let mut behind = self.barrier(&*source, self.deadline)?;
        let before = self.from.as_ref().map_or(0, |from| from.rows);
        let mut after = self.from.as_ref().map(|from| from.position.clone());
        loop {
            if behind.asked.elapsed() > REFRESH {
                self.refresh(&*source, &mut behind)?;
            }
            let (done, version) = self.page(&*source, &target, after.as_ref(), &mut behind, summary)?;
            let rows = done.rows + done.nameless;
            summary.rows += rows;
            summary.version = version;
            after.clone_from(&done.next);
            let so_far = before + summary.rows;
            summary.next = done.next.map(|position| Checkpoint { position, rows: so_far });
            let pause = pace.add(rows);
            let progress = Progress {
                model: target.schema.model,
                rows: so_far,
                estimate,
                rate: pace.rate(),
                elapsed: pace.elapsed(),
                left: left(estimate, so_far, pace.rate(), summary.next.is_some()),
                version,
                next: summary.next.clone(),
            };
            if (self.on_progress)(&progress).is_break() || after.is_none() {
                return Ok(());
            }
            if self.filler.wait(pause) {
                return Err(closed());
            }
        }
    }

    /// Reads and writes one page, again and again until both went well or the deadline passed.
    fn page(
        &self,
        source: &dyn Source,
        target: &Target,
        after: Option<&Position>,
        behind: &mut Behind,
        summary: &mut Summary,
    ) -> Result<(Done, Version)> {
        let deadline = from_now(self.deadline);
        self.patiently(deadline, || {
            if behind.version.epoch() < self.filler.epoch() || behind.age() > self.filler.oldest() {
                *behind = self.barrier(source, deadline.saturating_duration_since(Instant::now()))?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let RowsPage { rows, nameless, next } =
                source.page(target.schema, &target.scope, after, self.rows_per_page, left)?;
            for error in &nameless {
                tracing::error!(%error, table = target.schema.table, "a row was passed over: its primary key cannot be read");
            }
            let done = Done { rows: len(&rows), nameless: len(&nameless), next };
            let changes: Vec<Change> = rows.into_iter().map(|row| target.change(row, behind)).collect();
            let filled = self.filler.fill(&changes, deadline)?;
            summary.add(filled, done.nameless);
            Ok((done, behind.version))
        })
    }

    fn barrier(&self, source: &dyn Source, within: Duration) -> Result<Behind> {
        let deadline = from_now(within);
        self.patiently(deadline, || {
            // Before the barrier, so that its age is never taken for less than it is.
            let (taken, captured_at) = (Instant::now(), self.filler.now());
            let version = source.barrier(deadline.saturating_duration_since(taken))?;
            Ok(Behind { version, taken, captured_at, asked: taken })
        })
    }

    /// Takes a newer version, or keeps the one at hand where there is none soon.
    fn refresh(&self, source: &dyn Source, behind: &mut Behind) -> Result<()> {
        let (taken, captured_at) = (Instant::now(), self.filler.now());
        match source.barrier(PATIENCE) {
            Ok(version) => *behind = Behind { version, taken, captured_at, asked: taken },
            Err(error) if error.is_retryable() => behind.asked = Instant::now(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn patiently<T>(&self, deadline: Instant, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempts = 0;
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            attempts += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            if matches!(error.kind(), ErrorKind::Config | ErrorKind::Closed) || left.is_zero() {
                return Err(error);
            }
            if self.filler.wait(self.filler.pause(attempts).min(left)) {
                return Err(closed());
            }
        }
    }
}

/// A version behind a barrier.
#[derive(Debug, Clone, Copy)]
struct Behind {
    version: Version,
    taken: Instant,
    captured_at: SystemTime,
    /// When a newer one was last asked for.
    asked: Instant,
}

impl Behind {
    fn age(&self) -> Duration {
        self.taken.elapsed()
    }
}

/// A page that was written.
struct Done {
    rows: u64,
    nameless: u64,
    next: Option<Position>,
}

impl Target {
    /// What was read, as a change.
    fn change(&self, scanned: Scanned, behind: &Behind) -> Change {
        let Scanned { primary_key, row } = scanned;
        let unknown = || Unknown { primary_key: primary_key.clone(), kept: Vec::new(), certain: true };
        let row = match row {
            Ok(Some(row)) => Row::Live(row),
            Ok(None) => Row::Absent(unknown()),
            Err(error) => {
                tracing::error!(%error, row = %primary_key.home(), "a row cannot be stored");
                Row::Unknown(unknown())
            }
        };
        Change {
            schema: self.schema,
            database: Arc::clone(&self.database),
            scope: self.scope.clone(),
            action: Action::Reread,
            version: behind.version,
            captured_at: behind.captured_at,
            row,
            size: 0,
        }
    }
}

impl fmt::Debug for Backfill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backfill").field("target", &self.target).field("from", &self.from).finish_non_exhaustive()
    }
}

fn left(estimate: Option<u64>, done: u64, rate: f64, more: bool) -> Option<Duration> {
    if !more {
        return Some(Duration::ZERO);
    }
    #[allow(clippy::cast_precision_loss, reason = "a forecast needs no more precision")]
    let rows = estimate?.saturating_sub(done) as f64;
    Duration::try_from_secs_f64(rows / rate.max(1e-6)).ok()
}

fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "kvsync was shut down")
}
