use std::time::Duration;

use super::KvSync;
use crate::error::failure_text;
use crate::store::{self, Status};
use crate::transport::OutboxDepth;
use crate::upkeep::VerifierReport;
use crate::worker::PipelineHealth;

/// How a [`KvSync`] is: its worst part, a sentence about whatever is not well, and the figures.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// Up, degraded or down.
    pub status: Status,
    /// What is worth knowing, a sentence each.
    pub details: Vec<String>,
    /// The way from commits to stores.
    pub pipeline: PipelineHealth,
    /// What each [`verifier`](KvSync::verifier) that is running has measured.
    pub verifiers: Vec<VerifierReport>,
}

impl KvSync {
    /// How the store that is read is, and what waits for the stores. Answers within the deadline, also
    /// when the store does not.
    ///
    /// An error degrades it while it lasts: while a store or the database does not answer. One that is over is told
    /// with its age, and what it left behind degrades until it is mended: rows to be read again, rows of an outbox
    /// that fail, dead letters until they are retried or dropped, dirty tables until they are filled in or repaired.
    #[must_use]
    pub fn health(&self, deadline: Duration) -> Health {
        let store::Health { mut status, mut details, lives: _ } = self.inner.store.health(deadline);
        let pipeline = self.inner.pipeline.health();
        let mut weakened = |detail: String| {
            status = status.max(Status::Degraded);
            details.push(detail);
        };
        for table in &pipeline.dirty {
            weakened(table.to_string());
        }
        for store in &pipeline.stores {
            if let Some(error) = store.last_error.as_ref().filter(|_| store.failing) {
                weakened(format!("the last error of {}: {}", store.store, failure_text(&**error)));
            }
            if store.unsettled > 0 {
                weakened(format!("{} rows of {} are to be read again", store.unsettled, store.store));
            }
        }
        for outbox in &pipeline.outboxes {
            let database = &outbox.database;
            if let Some(error) = &outbox.error {
                weakened(format!("the outbox of {database} cannot be asked: {}", failure_text(&**error)));
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
        for store in pipeline.stores.iter().filter(|store| !store.failing) {
            if let (Some(error), Some(age)) = (&store.last_error, store.last_error_age) {
                let (store, error) = (&store.store, failure_text(&**error));
                details.push(format!("the last error of {store}, {age:.0?} ago, is over: {error}"));
            }
        }
        if pipeline.dropped_reports > 0 {
            details.push(format!("{} reports were dropped; the callback is too slow", pipeline.dropped_reports));
        }
        if pipeline.restarts > 0 {
            details.push(format!("threads panicked {} times and went on", pipeline.restarts));
        }
        Health { status, details, pipeline, verifiers: self.inner.verifiers.reports() }
    }
}
