//! Repeats what failed, where repeating is harmless.

use std::collections::HashSet;
use std::hash::Hash;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;

use super::passes_on;
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;
use crate::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use crate::store::{Capabilities, Cursor, Outcome, Page, Step, Store, SyncStore};

/// A store that repeats what failed for a passing reason ([`Error::is_retryable`](crate::Error::is_retryable)), if
/// repeating it is harmless, until a deadline.
///
/// | | repeated after |
/// |---|---|
/// | steps, readings, scans, the epoch | any passing failure: doing them twice is as doing them once |
/// | commands that only read, or that [`repeat`](Command::repeats) | any passing failure |
/// | other commands, such as `incrby` | `Unavailable` and `Contention`, where nothing was done; never `UnknownOutcome` |
/// | atomic writes | `Unavailable` and `Contention`; never `UnknownOutcome`, as a second try could fail by the success of the first |
///
/// Of a call with many steps or commands those that failed are repeated, unless a later one on the same key has
/// been done: what stands in the end is what the given order would have left.
///
/// **An answer may be that of the repetition.** Where the first try was done and only its answer was lost, `sadd` and
/// `hset` answer 0 new ones, and `zadd` and `zh_add` that theirs is not new, though it was this call that added them; and
/// a removal says that there was nothing left to remove. Where that answer decides (who was first), ask for a command that
/// does not [repeat](Command::repeats), such as `set_if_absent`, which then fails as `UnknownOutcome`.
///
/// Pauses begin at 10 ms, double up to 500 ms, and are drawn at random up to twice as long; 2 s after the call began no
/// other is begun. So a call takes at most the deadline and once the store's own: a call that the store never answers
/// is not cut off here. Every store of this crate answers within its own timeouts.
///
/// kvsync's workers repeat by themselves, for ever: this layer is for fetches and for code of your own.
///
/// ```
/// use std::time::Duration;
///
/// use kvsync::store::MemoryStore;
/// use kvsync::store::layer::Retry;
///
/// let store = Retry::new(MemoryStore::new()).deadline(Duration::from_secs(5));
/// # drop(store);
/// ```
#[derive(Debug, Clone)]
pub struct Retry<S> {
    pub(super) store: S,
    deadline: Duration,
    pauses: (Duration, Duration),
}

impl<S> Retry<S> {
    /// This store, with failures repeated for 2 s.
    #[must_use]
    pub const fn new(store: S) -> Self {
        Self {
            store,
            deadline: Duration::from_secs(2),
            pauses: (Duration::from_millis(10), Duration::from_millis(500)),
        }
    }

    /// How long after a call began it is repeated.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// How long the first and the longest pause are, before chance is added.
    #[must_use]
    pub fn pauses(self, first: Duration, longest: Duration) -> Self {
        Self { pauses: (first.min(FOR_EVER), longest.min(FOR_EVER)), ..self }
    }

    /// Answers each of `asked`; `again` says whether one that failed so may be repeated.
    fn each<Q: Clone, T, K: Eq + Hash>(
        &self,
        asked: &[Q],
        keys: impl Fn(&Q) -> &[K],
        again: impl Fn(&Q, ErrorKind) -> bool,
        call: impl Fn(&[Q]) -> Vec<Result<T>>,
    ) -> Vec<Result<T>> {
        let mut answers = call(asked);
        let mut pauses = self.begin();
        while answers.iter().any(Result::is_err) {
            let failed = places(asked, &answers, &keys, &again);
            if failed.is_empty() || !pauses.pause() {
                break;
            }
            let some: Vec<Q> = failed.iter().filter_map(|place| asked.get(*place)).cloned().collect();
            for (place, answer) in failed.into_iter().zip(call(&some)) {
                if let Some(old) = answers.get_mut(place) {
                    *old = answer;
                }
            }
        }
        answers
    }

    /// Answers one question that may be repeated after these failures.
    fn one<T>(&self, again: impl Fn(&Error) -> bool, call: impl Fn() -> Result<T>) -> Result<T> {
        let mut pauses = self.begin();
        loop {
            match call() {
                Err(error) if again(&error) && pauses.pause() => {}
                answer => return answer,
            }
        }
    }

    fn begin(&self) -> Pauses {
        let (first, longest) = self.pauses;
        let builder = ExponentialBuilder::new().with_jitter().without_max_times();
        let next = builder.with_min_delay(first).with_max_delay(longest.max(first)).build();
        Pauses { until: Instant::now().checked_add(self.deadline), next }
    }
}

/// Which of those that failed may be repeated: not those after which, on the same key, something was done.
fn places<Q, T, K: Eq + Hash>(
    asked: &[Q],
    answers: &[Result<T>],
    keys: &impl Fn(&Q) -> &[K],
    again: &impl Fn(&Q, ErrorKind) -> bool,
) -> Vec<usize> {
    let mut done: HashSet<&K> = HashSet::new();
    let mut places = Vec::new();
    for (place, (one, answer)) in asked.iter().zip(answers).enumerate().rev() {
        let repeats = answer.as_ref().err().is_some_and(|error| again(one, error.kind()));
        if repeats && !keys(one).iter().any(|key| done.contains(key)) {
            places.push(place);
        } else {
            done.extend(keys(one));
        }
    }
    places.reverse();
    places
}

struct Pauses {
    until: Option<Instant>,
    next: ExponentialBackoff,
}

impl Pauses {
    /// Waits before the next try; `false` once there is no time left.
    fn pause(&mut self) -> bool {
        let Some(pause) = self.next.next() else { return false };
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left <= pause) {
            return false;
        }
        thread::sleep(pause);
        true
    }
}

/// Whether the failure may be over soon.
const fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome | ErrorKind::Contention | ErrorKind::Deadline)
}

/// Whether the failure may be over soon, and certainly left the store as it was.
const fn did_nothing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Contention)
}

fn key_of(step: &Step) -> &[Key] {
    slice::from_ref(step.key())
}

passes_on!(Retry);

#[deny(clippy::missing_trait_methods)]
impl<S: SyncStore> SyncStore for Retry<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.each(steps, key_of, |_, kind| passes(kind), |some| self.store.execute(some, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.one(Error::is_retryable, || self.store.get_many(keys))
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.one(Error::is_retryable, || self.store.scan(prefix, cursor.clone(), limit))
    }

    fn epoch(&self) -> Result<u32> {
        self.one(Error::is_retryable, || self.store.epoch())
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.one(Error::is_retryable, || self.store.raise_epoch(epoch))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore> DataStore for Retry<S> {
    fn data_capabilities(&self) -> DataCapabilities {
        self.store.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        let again = |command: &Command, kind| {
            if command.repeats() || !command.writes() { passes(kind) } else { did_nothing(kind) }
        };
        self.each(commands, Command::keys, again, |some| self.store.run(some, reads))
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.one(|error| did_nothing(error.kind()), || self.store.run_atomic(operations))
    }
}
