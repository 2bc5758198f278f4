use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::KvSync;
use crate::clock::from_now;
use crate::error::{Error, failure_text, without_passwords};
use crate::serial::as_text;
use crate::store::{self, Status};
use crate::transport::OutboxDepth;
use crate::upkeep::VerifierReport;
use crate::worker::{PipelineHealth, Probe};

/// How a [`KvSync`] is: its worst part, a sentence about whatever is not well, and the figures.
///
/// # As JSON
///
/// It is serialised with the names of its fields, which stay. Durations are whole milliseconds and the name says so
/// (`lag_ms`), errors are text, a status is `up`, `degraded` or `down`:
///
/// ```json
/// {
///   "status": "degraded",
///   "details": ["unavailable: ..", "redis at 127.0.0.1:6379 does not take changes"],
///   "stores": [{"store": "redis at 127.0.0.1:6379", "status": "down", "details": [".."], "lives": null}],
///   "brokers": [],
///   "pipeline": {
///     "brokers": [],
///     "stores": [{"store": "redis at 127.0.0.1:6379", "queued": {"changes": 7, "bytes": 2048}, "unsettled": 0,
///                 "unsettled_bytes": 0, "last_error": "unavailable: ..", "last_error_age_ms": 12, "failing": true}],
///     "lag_ms": 1500, "written": 4711,
///     "outboxes": [{"database": "main", "depth": {"pending": 7, "dead": 0, "delivered": 4711, "oldest_unix_ms": 1790000000000},
///                   "oldest_age_ms": 1500, "seen_age_ms": 300, "in_flight": 7, "failing": [], "strangers": 0,
///                   "error": null, "silent_ms": null}],
///     "dirty": [], "dropped_reports": 0, "threads": 9, "restarts": 0, "closed": false
///   },
///   "verifiers": []
/// }
/// ```
///
/// The details name servers, databases and tables: they are for those who run the program, not for the public.
/// Passwords in URLs are struck out.
///
/// # For people
///
/// As text it is the status, and the details below it, a line each.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Up, degraded or down.
    pub status: Status,
    /// What is worth knowing, a sentence each.
    pub details: Vec<String>,
    /// What each store says of itself, in the order given; the first is the one that is read.
    pub stores: Vec<StoreStatus>,
    /// What each broker says of itself, in the order given.
    pub brokers: Vec<BrokerStatus>,
    /// The way from commits to stores and brokers.
    pub pipeline: PipelineHealth,
    /// What each [`verifier`](KvSync::verifier) that is running has measured.
    pub verifiers: Vec<VerifierReport>,
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub store: Arc<str>,
    /// How it is. Serialised, its fields stand beside the name.
    #[serde(flatten)]
    pub health: store::Health,
}

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub broker: Arc<str>,
    /// How it is. Serialised, its fields stand beside the name.
    #[serde(flatten)]
    pub health: store::Health,
}

impl KvSync {
    /// How the stores are, and what waits for them. Answers within the deadline, which all stores share, also when
    /// none of them does. Asks no database: what is said of an outbox, its relay has seen.
    ///
    /// It is as its worst part is; but a store that is down and is not the one that is read only degrades it, and so
    /// does a broker, also the only one, since what is committed waits for it. So `Down` means that fetches fail, and a
    /// handle that only publishes is never down: taking a program out of service that can commit would help nobody.
    /// Whoever is to be woken by a broker that is away looks at [`brokers`](Health::brokers), each with its status, at
    /// [`lag`](PipelineHealth::lag) and at how long an outbox grows.
    ///
    /// An error degrades it while it lasts: while a store, a broker or the database takes nothing. One that was said of a
    /// row is told with its age, and what it left behind degrades until it is mended: rows to be read again, rows of an outbox
    /// that fail, dead letters until they are retried or dropped, dirty tables until they are filled in or repaired.
    ///
    /// # Liveness and readiness
    ///
    /// A load balancer's *readiness* check asks this, with a deadline below its own, and takes the program out of
    /// service when it is `Down`, if the program cannot serve from the database instead; never when it is
    /// `Degraded`, in which a program is of use. A *liveness* check, whose failure has the program killed, must not
    /// ask it at all: a store that is down does not come back because its clients are restarted, and what they had
    /// queued is lost. Let it answer that the process answers.
    #[must_use]
    pub fn health(&self, deadline: Duration) -> Health {
        let (stores, brokers) = self.ask_all(deadline);
        let pipeline = self.inner.pipeline.health();
        let (mut status, mut details) = (Status::Up, Vec::new());
        for (number, one) in stores.iter().enumerate() {
            let is_read = number == 0;
            status = status.max(if is_read { one.health.status } else { one.health.status.min(Status::Degraded) });
            details.extend(one.health.details.iter().cloned());
        }
        for one in &brokers {
            status = status.max(one.health.status.min(Status::Degraded));
            details.extend(one.health.details.iter().cloned());
        }
        // Whoever is down has said why.
        let answers = details.join("\n");
        let because = |error: &Error| {
            let why = failure_text(error);
            if answers.contains(&why) { String::new() } else { format!(": {why}") }
        };
        let mut weakened = |detail: String| {
            status = status.max(Status::Degraded);
            details.push(detail);
        };
        if pipeline.closed {
            weakened("kvsync was shut down: what is committed from now on reaches no store".to_owned());
        }
        for table in &pipeline.dirty {
            weakened(table.to_string());
        }
        for store in &pipeline.stores {
            if let Some(error) = store.last_error.as_ref().filter(|_| store.failing) {
                weakened(format!("{} does not take changes{}", store.store, because(error)));
            }
            if store.unsettled > 0 {
                weakened(format!("{} rows of {} are to be read again", store.unsettled, store.store));
            }
        }
        for broker in &pipeline.brokers {
            if let Some(error) = broker.last_error.as_ref().filter(|_| broker.failing) {
                weakened(format!("{} does not take changes, which wait{}", broker.broker, because(error)));
            }
            if broker.unsettled > 0 {
                weakened(format!("{} rows for {} are to be read again", broker.unsettled, broker.broker));
            }
        }
        for outbox in &pipeline.outboxes {
            let database = &outbox.database;
            if let Some(error) = &outbox.error {
                weakened(format!("the outbox of {database} cannot be asked: {}", failure_text(&**error)));
            }
            if let Some(silent) = outbox.silent {
                weakened(format!("the database {database} has not answered for {silent:.0?} what its outbox holds"));
            }
            if let Some(OutboxDepth { pending, dead, .. }) = outbox.depth
                && dead > 0
            {
                weakened(format!("{dead} dead letters in the outbox of {database}, {pending} rows wait there"));
            }
            for failing in &outbox.failing {
                weakened(format!("rows in the outbox of {database} are not delivered: {failing}"));
            }
            if outbox.strangers > 0 {
                let strangers = outbox.strangers;
                weakened(format!("{strangers} rows in the outbox of {database} are of models that are not registered"));
            }
        }
        let of_stores =
            pipeline.stores.iter().map(|one| (&one.store, one.failing, &one.last_error, one.last_error_age));
        let of_brokers =
            pipeline.brokers.iter().map(|one| (&one.broker, one.failing, &one.last_error, one.last_error_age));
        for (name, failing, error, age) in of_stores.chain(of_brokers) {
            if let (false, Some(error), Some(age)) = (failing, error, age) {
                let why = failure_text(&**error);
                if !details.iter().any(|detail| detail.contains(&why)) {
                    details.push(format!("{name} failed for a row {age:.0?} ago and went on: {why}"));
                }
            }
        }
        if pipeline.dropped_reports > 0 {
            details.push(format!("{} reports were dropped; the callback is too slow", pipeline.dropped_reports));
        }
        if pipeline.restarts > 0 {
            details.push(format!("threads panicked {} times and went on", pipeline.restarts));
        }
        let details = details.iter().map(|detail| without_passwords(detail)).collect();
        Health { status, details, stores, brokers, pipeline, verifiers: self.inner.verifiers.reports() }
    }

    /// Every store and every broker is asked at the same time.
    fn ask_all(&self, deadline: Duration) -> (Vec<StoreStatus>, Vec<BrokerStatus>) {
        let until = from_now(deadline);
        let begin = |probe| (probe, Probe::begin(probe, until));
        let stores: Vec<_> = self.inner.probes.iter().map(begin).collect();
        let brokers: Vec<_> = self.inner.brokers.iter().map(begin).collect();
        let answer = |(probe, awaited): (&Probe, u64)| -> (Arc<str>, store::Health) {
            let mut health = probe.health(awaited, until, deadline);
            health.details.iter_mut().for_each(|detail| *detail = without_passwords(detail));
            (probe.name().into(), health)
        };
        let stores = stores.into_iter().map(answer).map(|(store, health)| StoreStatus { store, health }).collect();
        let brokers = brokers.into_iter().map(answer).map(|(broker, health)| BrokerStatus { broker, health }).collect();
        (stores, brokers)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        self.details.iter().try_for_each(|detail| write!(f, "\n  {detail}"))
    }
}

impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.store, self.health)
    }
}
