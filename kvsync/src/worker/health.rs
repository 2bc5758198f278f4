use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::Pipeline;
use super::lane::Lane;
use super::post::{Post, PostSeen};
use crate::error::Error;
use crate::report::DirtyTable;
use crate::serial::{as_text, in_millis, in_words};
use crate::transport::{Depth, Failing, OutboxDepth, Transport};

/// For how long a database may take to answer what is asked of its outbox. Its own deadlines are shorter; where they
/// do not bite, as for a network that swallows everything, it is this that tells.
const SILENCE: Duration = Duration::from_secs(10);

/// How the way from commits to stores is. Asks no store and no database.
///
/// Serialised, each field has its name; durations are in whole milliseconds, and their names end with `_ms`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PipelineHealth {
    /// Each store, in the order given.
    pub stores: Vec<StoreHealth>,
    /// Each broker, in the order given.
    pub brokers: Vec<BrokerHealth>,
    /// How long ago the oldest commit was published that is not in every store; `None` when all are. Serialised as
    /// `lag_ms`.
    #[serde(rename = "lag_ms", serialize_with = "in_millis")]
    pub lag: Option<Duration>,
    /// Changes that were dealt with since the start, counted once for each store.
    pub written: u64,
    /// Each outbox whose rows this process delivers, in the order given.
    pub outboxes: Vec<OutboxHealth>,
    /// Tables whose rows in a store can no longer be trusted.
    pub dirty: Vec<DirtyTable>,
    /// Reports that were dropped because the callback was too slow.
    pub dropped_reports: u64,
    /// The threads that run: the workers, and what keeps stores and outboxes in order beside them. None after a
    /// shutdown.
    pub threads: usize,
    /// How often a thread panicked and went on.
    pub restarts: u64,
    /// Whether it was shut down: what is committed since reaches no store.
    pub closed: bool,
}

/// What waits for one store.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StoreHealth {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub store: Arc<str>,
    /// Changes that are queued or being written.
    pub queued: Depth,
    /// Rows that the store does not know and that will be read again: deferred, in doubt, or refused.
    pub unsettled: usize,
    /// About how many bytes these take.
    pub unsettled_bytes: usize,
    /// The last error met in writing to it, or in reading rows again for it. Serialised as text.
    #[serde(serialize_with = "in_words")]
    pub last_error: Option<Arc<Error>>,
    /// How long ago that was. Serialised as `last_error_age_ms`.
    #[serde(rename = "last_error_age_ms", serialize_with = "in_millis")]
    pub last_error_age: Option<Duration>,
    /// Whether that error lasts: what failed has not succeeded since. A refusal does not last; what it left does, as
    /// rows to be read again, a dirty table or a dead letter.
    pub failing: bool,
}

/// What waits for one broker.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub broker: Arc<str>,
    /// Changes that are queued or being published.
    pub queued: Depth,
    /// Rows that will be read again and published: deferred, in doubt, or refused.
    pub unsettled: usize,
    /// The last error met in publishing, or in reading rows again for it. Serialised as text.
    #[serde(serialize_with = "in_words")]
    pub last_error: Option<Arc<Error>>,
    /// How long ago that was. Serialised as `last_error_age_ms`.
    #[serde(rename = "last_error_age_ms", serialize_with = "in_millis")]
    pub last_error_age: Option<Duration>,
    /// Whether that error lasts: what failed has not succeeded since.
    pub failing: bool,
}

/// How one outbox is, as its relay has last seen it: some 15 seconds ago at most, if its database answers.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct OutboxHealth {
    /// The database's name.
    #[serde(serialize_with = "as_text")]
    pub database: Arc<str>,
    /// What it held; nothing before it was asked.
    pub depth: Option<OutboxDepth>,
    /// How long the row had waited then that is the first to be delivered; `None` when none waited. Serialised as
    /// `oldest_age_ms`.
    #[serde(rename = "oldest_age_ms", serialize_with = "in_millis")]
    pub oldest_age: Option<Duration>,
    /// How long ago that was seen. Serialised as `seen_age_ms`.
    #[serde(rename = "seen_age_ms", serialize_with = "in_millis")]
    pub seen_age: Option<Duration>,
    /// Rows that this process has claimed and that are on their way.
    pub in_flight: usize,
    /// Rows that have failed and will be tried again, by tables.
    pub failing: Vec<Failing>,
    /// Rows that wait and are about models that this process does not know.
    pub strangers: u64,
    /// Why it cannot be asked; `None` when it answers. Serialised as text.
    #[serde(serialize_with = "in_words")]
    pub error: Option<Arc<Error>>,
    /// For how long its database has left a question unanswered, if that is longer than it should be. Serialised as
    /// `silent_ms`.
    #[serde(rename = "silent_ms", serialize_with = "in_millis")]
    pub silent: Option<Duration>,
}

impl Pipeline {
    /// How it is. Waits for nothing.
    #[must_use]
    pub fn health(&self) -> PipelineHealth {
        let of_lane = |lane: &Arc<Lane>| {
            let (unsettled, unsettled_bytes) = lane.unsettled.depth();
            let trouble = lane.trouble();
            StoreHealth {
                store: Arc::clone(&lane.name),
                queued: lane.queue.depth(),
                unsettled,
                unsettled_bytes,
                last_error_age: trouble.as_ref().map(|(met, _)| met.at.elapsed()),
                failing: trouble.as_ref().is_some_and(|(_, lasts)| *lasts),
                last_error: trouble.map(|(met, _)| met.error),
            }
        };
        let brokers = self.lanes().iter().filter(|lane| lane.target.broker().is_some());
        PipelineHealth {
            stores: self.store_lanes().map(|(lane, _)| of_lane(lane)).collect(),
            brokers: brokers.map(|lane| of_lane(lane).into()).collect(),
            lag: self.shared.commits.oldest().map(|since| since.elapsed()),
            written: self.shared.commits.finished(),
            outboxes: self.shared.posts().iter().map(|post| OutboxHealth::of(post)).collect(),
            dirty: self.shared.dirty.list(),
            dropped_reports: self.shared.reporter.dropped(),
            threads: self.pool.running() + self.listener.running(),
            restarts: self.pool.restarts() + self.listener.restarts(),
            closed: self.shared.closing.load(Ordering::Acquire),
        }
    }
}

impl From<StoreHealth> for BrokerHealth {
    fn from(lane: StoreHealth) -> Self {
        let StoreHealth { store: broker, queued, unsettled, last_error, last_error_age, failing, .. } = lane;
        Self { broker, queued, unsettled, last_error, last_error_age, failing }
    }
}

impl OutboxHealth {
    fn of(post: &Post) -> Self {
        let PostSeen { depth, failing, strangers, in_flight, error, at, oldest_age, asked } = post.seen();
        Self {
            database: post.outbox.name().into(),
            depth,
            oldest_age,
            seen_age: at.map(|at| at.elapsed()),
            in_flight,
            failing,
            strangers,
            error,
            silent: asked.map(|since| since.elapsed()).filter(|silent| *silent > SILENCE),
        }
    }
}
