//! A verification that never ends: a client among others that measures how often the stores are right.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::scope::all_known;
use super::verify::{Difference, Run, Verified, Verify, digest, read};
use crate::clock::{from_now, whole_millis};
use crate::error::{Error, ErrorKind, Result};
use crate::serial::in_millis;
use crate::transport::failure_text;
use crate::worker::{Access, Pipeline};

/// How long it waits after a failure of a database or a store.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5);
/// How many differences are followed as they grow old.
const FOLLOWED: usize = 1024;

/// Starts a verification that never ends. Made by `KvSync::verifier`.
#[must_use = "nothing is compared until `.start()` is called"]
pub struct VerifierBuilder<'a> {
    pipeline: &'a Pipeline,
    running: &'a Verifiers,
    verify: Verify,
    ages: Vec<Duration>,
    on_difference: Option<OnAge>,
}

/// Is told of a difference, and how old it is.
type OnAge = Box<dyn FnMut(&Difference, Duration) + Send>;

/// A verification that runs on a thread of its own, `kvsync-verify`, until this is dropped or kvsync is shut
/// down.
pub struct Verifier {
    shared: Arc<Shared>,
}

/// What a [`Verifier`] has measured so far.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VerifierReport {
    /// For how long it has been running. Serialised as `running_ms`.
    #[serde(rename = "running_ms", serialize_with = "in_millis")]
    pub running: Duration,
    /// How often it came to the end of all tables and stores.
    pub rounds: u64,
    /// Rows that were compared, counted once for each store and round.
    pub rows: u64,
    /// Keys and entries that were looked at.
    pub checked: u64,
    /// Differences that outlived the time in flight.
    pub accused: u64,
    /// Of these, how many still stood as they were found after each of the ages. Serialised as a list of
    /// `{"age_ms":60000,"count":0}`.
    #[serde(serialize_with = "counts_of_ages")]
    pub ages: Vec<(Duration, u64)>,
    /// The share of what was checked that was right, 0 to 1.
    pub consistent: f64,
    /// With 95 % confidence the share is at least this: 1 - 3/n after n checks without a difference.
    pub at_least: f64,
    /// What could not be judged.
    pub unjudged: u64,
    /// The last failure of a database or a store, while it lasts.
    pub last_error: Option<String>,
}

/// The verifiers of a handle, for its health.
#[derive(Debug, Default)]
pub(crate) struct Verifiers(Mutex<Vec<Weak<Shared>>>);

/// What the thread and the handle share.
pub(crate) struct Shared {
    stop: AtomicBool,
    began: Instant,
    ages: Vec<Duration>,
    state: Mutex<State>,
    /// Apart from the state, so that it may ask for the report.
    on_difference: Mutex<Option<OnAge>>,
}

#[derive(Default)]
struct State {
    /// Of the rounds that have ended.
    before: Totals,
    /// Of the round that is under way.
    now: Totals,
    rounds: u64,
    aged: Vec<u64>,
    open: Vec<Open>,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    rows: u64,
    checked: u64,
    accused: u64,
    unjudged: u64,
}

/// A difference that is followed as it grows old.
struct Open {
    difference: Difference,
    store: usize,
    digest: u64,
    since: Instant,
    /// How many of the ages it has reached.
    reached: usize,
}

impl<'a> VerifierBuilder<'a> {
    pub(crate) fn new(pipeline: &'a Pipeline, running: &'a Verifiers, verify: Verify) -> Self {
        let ages = [1, 5, 10].map(Duration::from_mins).to_vec();
        Self { pipeline, running, verify: verify.rate(100).page(50).samples(0), ages, on_difference: None }
    }

    /// How many rows or entries are looked at in a second, at most; 100 without this call.
    pub fn rate(self, per_second: u32) -> Self {
        Self { verify: self.verify.rate(per_second), ..self }
    }

    /// As [`Verify::in_flight`].
    pub fn in_flight(self, time: Duration) -> Self {
        Self { verify: self.verify.in_flight(time), ..self }
    }

    /// The ages at which a difference that still stands is told of once more, from its finding on; 1, 5 and
    /// 10 minutes without this call.
    pub fn ages(self, ages: impl IntoIterator<Item = Duration>) -> Self {
        let mut ages: Vec<Duration> = ages.into_iter().collect();
        ages.sort_unstable();
        Self { ages, ..self }
    }

    /// Is told of every difference when it is found, at the age of nothing, and again at each of the ages
    /// while it stands. Called on the verifier's thread.
    pub fn on_difference(self, told: impl FnMut(&Difference, Duration) + Send + 'static) -> Self {
        Self { on_difference: Some(Box::new(told)), ..self }
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when it cannot be started; [`ErrorKind::Config`] within a scope whose rows the
    /// database cannot know ([`Database::single_tenant`](crate::capture::Database::single_tenant)).
    pub fn start(self) -> Result<Verifier> {
        let Self { pipeline, running, verify, ages, on_difference } = self;
        all_known(&verify.access, &verify.scope, verify.chosen.as_deref())?;
        let state = State { aged: vec![0; ages.len()], ..State::default() };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            began: Instant::now(),
            ages,
            state: Mutex::new(state),
            on_difference: Mutex::new(on_difference),
        });
        let (access, scope, chosen, settings) = (verify.access, verify.scope, verify.chosen, verify.settings);
        let own = Arc::clone(&shared);
        pipeline.spawn("kvsync-verify", move || {
            let mut pause = Duration::ZERO;
            while !own.pause(&access, pause) {
                let mut verify = Verify::new(access.clone(), scope.clone(), chosen.clone());
                verify.settings = settings.clone();
                pause = match Run::new(verify, None).and_then(|run| run.watched(&own)) {
                    Ok(found) => own.round(&found),
                    Err(error) if error.kind() == ErrorKind::Closed => return,
                    Err(error) => own.failed(&error),
                };
            }
        })?;
        running.0.lock().push(Arc::downgrade(&shared));
        Ok(Verifier { shared })
    }
}

impl Verifier {
    /// What it has measured so far.
    #[must_use]
    pub fn report(&self) -> VerifierReport {
        self.shared.report()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

impl Verifiers {
    /// What each that is running has measured so far.
    pub(crate) fn reports(&self) -> Vec<VerifierReport> {
        let mut all = self.0.lock();
        all.retain(|one| one.upgrade().is_some_and(|one| !one.stop.load(Ordering::Acquire)));
        all.iter().filter_map(Weak::upgrade).map(|one| one.report()).collect()
    }
}

impl Shared {
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more precision")]
    fn report(&self) -> VerifierReport {
        let state = self.state.lock();
        let add = |of: fn(&Totals) -> u64| of(&state.before) + of(&state.now);
        let (checked, accused) = (add(|totals| totals.checked), add(|totals| totals.accused));
        let share = |wrong: f64| (1.0 - wrong / checked.max(1) as f64).max(0.0);
        let wrong = accused as f64;
        VerifierReport {
            running: self.began.elapsed(),
            rounds: state.rounds,
            rows: add(|totals| totals.rows),
            checked,
            accused,
            ages: self.ages.iter().copied().zip(state.aged.iter().copied()).collect(),
            consistent: if checked == 0 { 0.0 } else { share(wrong) },
            // The rule of three, and its like where something was found.
            at_least: if checked == 0 { 0.0 } else { share(wrong + 2.0 * wrong.sqrt() + 3.0) },
            unjudged: add(|totals| totals.unjudged),
            last_error: state.last_error.clone(),
        }
    }

    /// Waits this long. Whether it is time to stop.
    pub(crate) fn pause(&self, access: &Access, long: Duration) -> bool {
        let until = from_now(long);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.stop.load(Ordering::Acquire) || access.pause(left.min(Duration::from_millis(100))) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Takes note of how far a round is, and looks at what has reached an age.
    pub(crate) fn note(&self, access: &Access, found: &Verified) {
        let mut open = {
            let mut state = self.state.lock();
            state.now = Totals::of(found);
            state.last_error = None;
            std::mem::take(&mut state.open)
        };
        open.retain_mut(|one| self.ages.len() > one.reached && self.grows_old(access, one));
        // Only this thread finds any.
        self.state.lock().open = open;
    }

    /// Whether a difference is still there and has to be followed on.
    fn grows_old(&self, access: &Access, one: &mut Open) -> bool {
        let Some(age) = self.ages.get(one.reached).copied() else { return false };
        let Some((_, store)) = access.store(one.store).filter(|_| one.since.elapsed() >= age) else { return true };
        // A store that does not answer is asked again.
        let Ok(stands) = read(&**store, std::slice::from_ref(&one.difference.key)) else { return true };
        if stands.into_iter().next().flatten().map_or(0, |bytes| digest(&bytes)) != one.digest {
            return false;
        }
        if let Some(count) = self.state.lock().aged.get_mut(one.reached) {
            *count += 1;
        }
        one.reached += 1;
        tracing::warn!(difference = %one.difference, ?age, "a difference is still there");
        if let Some(told) = &mut *self.on_difference.lock() {
            told(&one.difference, age);
        }
        true
    }

    /// A difference was found; `digest` is of what stands there.
    pub(crate) fn found(&self, difference: &Difference, store: usize, digest: u64) {
        let followed = |open: &Open| open.store == store && open.difference.key == difference.key;
        if self.state.lock().open.iter().any(followed) {
            return;
        }
        if let Some(told) = &mut *self.on_difference.lock() {
            told(difference, Duration::ZERO);
        }
        let mut state = self.state.lock();
        if state.open.len() < FOLLOWED {
            let (difference, since) = (difference.clone(), Instant::now());
            state.open.push(Open { difference, store, digest, since, reached: 0 });
        }
    }

    /// A round has ended. How long to wait before the next.
    fn round(&self, found: &Verified) -> Duration {
        let mut state = self.state.lock();
        let Totals { rows, checked, accused, unjudged } = Totals::of(found);
        state.before.rows += rows;
        state.before.checked += checked;
        state.before.accused += accused;
        state.before.unjudged += unjudged;
        state.now = Totals::default();
        state.rounds += 1;
        // A small table is not read over and over without a rest.
        Duration::from_millis(100)
    }

    fn failed(&self, error: &Error) -> Duration {
        tracing::warn!(%error, "the verifier could not compare; it tries again");
        let mut state = self.state.lock();
        let Totals { rows, checked, accused, unjudged } = std::mem::take(&mut state.now);
        state.before.rows += rows;
        state.before.checked += checked;
        state.before.accused += accused;
        state.before.unjudged += unjudged;
        state.last_error = Some(failure_text(error));
        AFTER_A_FAILURE
    }
}

impl Totals {
    fn of(found: &Verified) -> Self {
        Self { rows: found.rows, checked: found.keys + found.entries, accused: found.found(), unjudged: found.unjudged }
    }
}

impl fmt::Display for VerifierReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, accused, running, .. } = self;
        write!(f, "{checked} checked in {running:.0?}, {accused} wrong: at least {:.5} % right", self.at_least * 100.0)
    }
}

fn counts_of_ages<S: Serializer>(ages: &[(Duration, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Of {
        age_ms: u64,
        count: u64,
    }
    let mut list = serializer.serialize_seq(Some(ages.len()))?;
    for (age, count) in ages {
        list.serialize_element(&Of { age_ms: whole_millis(*age), count: *count })?;
    }
    list.end()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report().fmt(f)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("report", &self.report()).finish()
    }
}

impl fmt::Debug for VerifierBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierBuilder").field("verify", &self.verify).finish_non_exhaustive()
    }
}
