//! What a lane meets: whether its store or broker takes changes, for health, for those who wait, and for the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::lane::Lane;
use crate::error::{Error, ErrorKind, failure_text};
use crate::sync::Mutex;

/// How often it is logged at most that changes are not taken, however often that begins.
const QUIET: Duration = Duration::from_mins(1);

/// What went wrong in one lane, and what of it lasts.
#[derive(Default)]
pub(crate) struct Trouble {
    state: Mutex<State>,
    /// Changes that were not taken and wait for another attempt, of all workers of the lane.
    parked: AtomicUsize,
}

#[derive(Default)]
struct State {
    outage: Option<Outage>,
    /// What was said of single rows, last.
    refusal: Option<Met>,
    /// Why rows could not be read again.
    reading: Option<Met>,
    /// When an outage was logged, last.
    logged: Option<Instant>,
}

/// What is said of whatever is written, until something is taken and nothing is parked.
struct Outage {
    since: Instant,
    last: Met,
    attempts: u64,
    logged: bool,
}

/// An error, and when it was met.
#[derive(Debug, Clone)]
pub(crate) struct Met {
    pub(crate) error: Arc<Error>,
    pub(crate) at: Instant,
}

/// What one worker keeps for another attempt.
pub(crate) struct Parked {
    lane: Arc<Lane>,
    count: usize,
}

impl Lane {
    /// The store or the broker took nothing of what it was given, or not all.
    pub(crate) fn failed(&self, error: &Arc<Error>) {
        let mut state = self.trouble.state.lock();
        let now = Instant::now();
        let quiet = state.logged.is_some_and(|at| now.duration_since(at) < QUIET);
        let last = Met { error: Arc::clone(error), at: now };
        let begun = Outage { since: now, last: last.clone(), attempts: 0, logged: false };
        let outage = state.outage.get_or_insert(begun);
        outage.last = last;
        outage.attempts = outage.attempts.saturating_add(1);
        // Whoever only meets others at the same key succeeds at the next attempt.
        if outage.logged || quiet || error.kind() == ErrorKind::Contention {
            return;
        }
        outage.logged = true;
        state.logged = Some(now);
        drop(state);
        let kept = self.shared.kept(self.limit());
        tracing::warn!(error = failure_text(&**error), "{} does not take changes; {kept}", self.target);
    }

    /// It has taken something. What was said of everything is over once nothing is left of what it did not take.
    pub(crate) fn answered(&self) {
        if self.trouble.parked.load(Ordering::Acquire) > 0 {
            return;
        }
        let Some(outage) = self.trouble.state.lock().outage.take() else { return };
        if outage.logged {
            let (after, attempts, waiting) = (outage.since.elapsed(), outage.attempts, self.queue_depth());
            tracing::info!(
                "{} takes changes again, after {after:.1?} and {attempts} attempts in vain; {waiting} changes wait for it",
                self.target
            );
        }
    }

    /// Remembers what was said of a row, for `health` and `flush`.
    pub(crate) fn refused(&self, error: Option<Arc<Error>>) {
        if let Some(error) = error {
            self.trouble.state.lock().refusal = Some(Met { error, at: Instant::now() });
        }
    }

    /// Remembers how reading rows again went.
    pub(crate) fn note_reread(&self, error: Option<Arc<Error>>) {
        self.trouble.state.lock().reading = error.map(|error| Met { error, at: Instant::now() });
    }

    /// What is wrong, or was last, and whether it lasts: until the store takes changes, or as long as there are rows that
    /// cannot be read again.
    pub(crate) fn trouble(&self) -> Option<(Met, bool)> {
        let reading_lasts = self.unsettled.depth().0 > 0;
        let state = self.trouble.state.lock();
        let outage = state.outage.as_ref().map(|outage| (outage.last.clone(), true));
        let reading = state.reading.clone().map(|met| (met, reading_lasts));
        let refusal = state.refusal.clone().map(|met| (met, false));
        outage.or_else(|| reading.clone().filter(|(_, lasts)| *lasts)).or(refusal).or(reading)
    }

    /// The last error of the store, or of reading rows again for it.
    pub(crate) fn last_error(&self) -> Option<Arc<Error>> {
        self.trouble().map(|(met, _)| met.error)
    }
}

impl Parked {
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, count: 0 }
    }

    /// It keeps so many now.
    pub(crate) fn set(&mut self, count: usize) {
        let parked = &self.lane.trouble.parked;
        parked.fetch_add(count, Ordering::AcqRel);
        parked.fetch_sub(self.count, Ordering::AcqRel);
        self.count = count;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.set(0);
    }
}
