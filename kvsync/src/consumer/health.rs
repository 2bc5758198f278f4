use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::Consumer;
use crate::clock::from_now;
use crate::error::{failure_text, without_passwords};
use crate::serial::{as_text, in_millis};
use crate::status::{Health, Status};
use crate::transport::Backlog;

/// How a [`Consumer`] is: its worst part, a sentence about whatever is not well, and the figures.
///
/// Serialised, each field has its name; durations are in whole milliseconds, and their names end with `_ms`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// Up, degraded or down.
    pub status: Status,
    /// What is worth knowing, a sentence each.
    pub details: Vec<String>,
    /// The queue's name.
    #[serde(serialize_with = "as_text")]
    pub subscription: Arc<str>,
    /// What the queue holds; nothing when the broker does not tell.
    pub backlog: Option<Backlog>,
    /// Messages that were received since the start, repetitions included.
    pub received: u64,
    /// Those of them that had been delivered before.
    pub redelivered: u64,
    /// Messages that were acknowledged: the store has their changes.
    pub written: u64,
    /// The same where the store held something newer.
    pub superseded: u64,
    /// The same where the change told no content, so that readers of its row are sent to the database.
    pub unknown: u64,
    /// Messages that were given back, because the store was down or a hook failed.
    pub again: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages that are held.
    pub held: u64,
    /// Messages that were acknowledged a second, over the last ten.
    pub rate: f64,
    /// From the capture of the change that was acknowledged last to that. Serialised as `lag_ms`.
    #[serde(rename = "lag_ms", serialize_with = "in_millis")]
    pub lag: Option<Duration>,
    /// Reports that were dropped because the callback was too slow.
    pub dropped_reports: u64,
    /// The threads that run. None after a shutdown.
    pub threads: usize,
    /// How often a thread panicked and went on.
    pub restarts: u64,
}

impl Consumer {
    /// How it is. Asks the store and the broker, at the same time, and answers within the deadline also when neither
    /// does.
    ///
    /// `Down` when the store or the broker is: nothing is written then, and what is published waits. Dead letters
    /// of this process degrade it, and so do a hook that fails and a table whose changes the store refuses, for as long as
    /// messages wait for them.
    #[must_use]
    pub fn health(&self, deadline: Duration) -> ConsumerHealth {
        let shared = &self.shared;
        let (mut status, mut details) = (Status::Up, Vec::new());
        let mut add = |health: Health| {
            status = status.max(health.status);
            details.extend(health.details);
        };
        let until = from_now(deadline);
        let asked: Vec<_> = [Some(&self.probes.queue), self.probes.store.as_ref()]
            .into_iter()
            .flatten()
            .map(|probe| (probe, probe.begin(until)))
            .collect();
        let backlog = self.probes.backlog.begin(until);
        for (probe, awaited) in asked {
            add(probe.health(awaited, until, deadline));
        }
        let backlog = self.probes.backlog.answer(backlog, until).and_then(|answer| answer.backlog);
        let mut weakened = |detail: String| {
            status = status.max(Status::Degraded);
            details.push(detail);
        };
        let counts = &shared.counts;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        if shared.stop.is_stopped() {
            weakened("the consumer was shut down".to_owned());
        }
        if let Some(error) = shared.store_error.lock().as_ref() {
            weakened(format!("the store does not take changes: {}", failure_text(&**error)));
        }
        if let Some(error) = shared.queue_error.lock().as_ref() {
            weakened(format!("nothing can be received: {}", failure_text(&**error)));
        }
        shared.troubles.details().into_iter().for_each(&mut weakened);
        if let Some(why) = shared.forgot.lock().as_ref() {
            weakened(format!("the store may have forgotten what it acknowledged ({why}); fill it in again"));
        }
        let dead = count(&counts.dead);
        if dead > 0 {
            weakened(format!("{dead} messages became dead letters"));
        }
        // What a server says of itself is told again by whom it failed.
        let repeated =
            |detail: &String| details.iter().any(|other| other.len() > detail.len() && other.contains(detail));
        let repeated: Vec<bool> = details.iter().map(repeated).collect();
        let mut repeated = repeated.into_iter();
        details.retain(|_| !repeated.next().unwrap_or_default());
        let (rate, lag) = counts.recent();
        ConsumerHealth {
            status,
            details: details.iter().map(|detail| without_passwords(detail)).collect(),
            subscription: Arc::clone(&shared.name),
            backlog,
            received: count(&counts.received),
            redelivered: count(&counts.redelivered),
            written: count(&counts.written),
            superseded: count(&counts.superseded),
            unknown: count(&counts.unknown),
            again: count(&counts.again),
            dead,
            held: counts.held(),
            rate,
            lag,
            dropped_reports: shared.reporter.dropped(),
            threads: self.pool.running() + self.listener.running(),
            restarts: self.pool.restarts() + self.listener.restarts(),
        }
    }
}

impl fmt::Display for ConsumerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, written, superseded, unknown, redelivered, again, dead, rate, .. } = self;
        let done = written + superseded + unknown;
        write!(f, "{status}: {done} done, {rate:.0}/s, {redelivered} redelivered, {again} given back, {dead} dead")?;
        if let Some(lag) = self.lag {
            write!(f, ", lag {lag:.1?}")?;
        }
        if let Some(Backlog { waiting, taken, .. }) = self.backlog {
            write!(f, ", {waiting} waiting, {taken} taken")?;
        }
        self.details.iter().try_for_each(|detail| write!(f, "\n  {detail}"))
    }
}
