use std::sync::Arc;
use std::time::Duration;

use super::Pipeline;
use super::post::{Post, PostSeen};
use crate::error::Error;
use crate::report::DirtyTable;
use crate::transport::{Depth, Failing, OutboxDepth, Transport};

/// How the way from commits to stores is. Asks no store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PipelineHealth {
    /// Each store, in the order given.
    pub stores: Vec<StoreHealth>,
    /// How long ago the oldest commit was published that is not in every store; `None` when all are.
    pub lag: Option<Duration>,
    /// Changes that were dealt with since the start, counted once for each store.
    pub written: u64,
    /// Each outbox, in the order given.
    pub outboxes: Vec<OutboxHealth>,
    /// Tables whose rows in a store can no longer be trusted.
    pub dirty: Vec<DirtyTable>,
    /// Reports that were dropped because the callback was too slow.
    pub dropped_reports: u64,
    /// How often a thread panicked and went on.
    pub restarts: u64,
}

/// What waits for one store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreHealth {
    /// Its name.
    pub store: Arc<str>,
    /// Changes that are queued or being written.
    pub queued: Depth,
    /// Rows that the store does not know and that will be read again: deferred, in doubt, or refused.
    pub unsettled: usize,
    /// About how many bytes these take.
    pub unsettled_bytes: usize,
    /// The last error met in writing to it, or in reading rows again for it.
    pub last_error: Option<Arc<Error>>,
    /// How long ago that was.
    pub last_error_age: Option<Duration>,
    /// Whether that error lasts: what failed has not succeeded since. A refusal does not last; what it left does, as
    /// rows to be read again, a dirty table or a dead letter.
    pub failing: bool,
}

/// How one outbox is, as its relay has last seen it: a few seconds ago.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxHealth {
    /// The database's name.
    pub database: Arc<str>,
    /// What it holds; nothing before it was asked.
    pub depth: Option<OutboxDepth>,
    /// Rows that this process has claimed and that are on their way.
    pub in_flight: usize,
    /// Rows that have failed and will be tried again, by tables.
    pub failing: Vec<Failing>,
    /// Rows that wait and are about models that this process does not know.
    pub strangers: u64,
    /// Why it cannot be asked; `None` when it answers.
    pub error: Option<Arc<Error>>,
}

impl Pipeline {
    /// How it is.
    #[must_use]
    pub fn health(&self) -> PipelineHealth {
        let stores = self.lanes().iter().map(|lane| {
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
        });
        PipelineHealth {
            stores: stores.collect(),
            lag: self.shared.commits.oldest().map(|since| since.elapsed()),
            written: self.shared.commits.finished(),
            outboxes: self.shared.posts().iter().map(|post| OutboxHealth::of(post)).collect(),
            dirty: self.shared.dirty.list(),
            dropped_reports: self.shared.reporter.dropped(),
            restarts: self.pool.restarts() + self.listener.restarts(),
        }
    }
}

impl OutboxHealth {
    fn of(post: &Post) -> Self {
        let PostSeen { depth, failing, strangers, in_flight, error } = post.seen();
        Self { database: post.outbox.name().into(), depth, in_flight, failing, strangers, error }
    }
}
