use std::sync::Arc;
use std::time::Duration;

use super::Pipeline;
use crate::error::Error;
use crate::report::DirtyTable;
use crate::transport::{Depth, Transport};

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
}

impl Pipeline {
    /// How it is.
    #[must_use]
    pub fn health(&self) -> PipelineHealth {
        let stores = self.lanes().iter().map(|lane| {
            let (unsettled, unsettled_bytes) = lane.unsettled.depth();
            StoreHealth {
                store: Arc::clone(&lane.name),
                queued: lane.queue.depth(),
                unsettled,
                unsettled_bytes,
                last_error: lane.last_error(),
            }
        });
        PipelineHealth {
            stores: stores.collect(),
            lag: self.shared.commits.oldest().map(|since| since.elapsed()),
            written: self.shared.commits.finished(),
            dirty: self.shared.dirty.list(),
            dropped_reports: self.shared.reporter.dropped(),
            restarts: self.pool.restarts() + self.listener.restarts(),
        }
    }
}
