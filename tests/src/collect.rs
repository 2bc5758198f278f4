//! A stand-in for what takes captured changes: it keeps them for the test to look at.

use std::mem;
use std::sync::Arc;

use kvsync::change::{ChangeSet, CommitToken, Missed, OutboxRange, Publish};
use parking_lot::Mutex;

/// Keeps what it is handed.
#[derive(Default)]
pub struct Collector {
    kept: Mutex<(Vec<ChangeSet>, Vec<Missed>)>,
    outboxed: Mutex<usize>,
}

impl Collector {
    /// One that has nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What was handed on since the last call: change sets, and reports of writes that were not captured.
    #[must_use]
    pub fn take(&self) -> (Vec<ChangeSet>, Vec<Missed>) {
        mem::take(&mut *self.kept.lock())
    }

    /// How often it was told of rows in the outbox since the last call.
    #[must_use]
    pub fn take_outboxed(&self) -> usize {
        mem::take(&mut *self.outboxed.lock())
    }
}

impl Publish for Collector {
    fn publish(&self, set: ChangeSet) -> CommitToken {
        let mut kept = self.kept.lock();
        kept.0.push(set);
        CommitToken { process: 1, sequence: kept.0.len() as u64, rows: Vec::new(), outbox: None }
    }

    fn outboxed(&self, range: OutboxRange) -> CommitToken {
        *self.outboxed.lock() += 1;
        CommitToken { process: 1, sequence: 0, rows: Vec::new(), outbox: Some(range) }
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn missed(&self, missed: Missed) {
        self.kept.lock().1.push(missed);
    }
}
