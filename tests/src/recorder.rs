//! What capture hands on, kept for a test to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::change::{Change, ChangeSet, CommitToken, Missed, OutboxRange, Publish, Row};
use parking_lot::Mutex;

/// Takes what capture hands on.
#[derive(Debug, Default)]
pub struct Recorder {
    sets: Mutex<Vec<ChangeSet>>,
    missed: Mutex<Vec<Missed>>,
    outboxed: AtomicUsize,
    epoch: u32,
}

impl Recorder {
    /// A new one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A new one, for an epoch other than 0.
    #[must_use]
    pub fn in_epoch(epoch: u32) -> Arc<Self> {
        Arc::new(Self { epoch, ..Self::default() })
    }

    /// The change sets since the last call.
    pub fn take(&self) -> Vec<ChangeSet> {
        std::mem::take(&mut *self.sets.lock())
    }

    /// The changes since the last call, of all sets.
    pub fn changes(&self) -> Vec<Change> {
        self.take().into_iter().flat_map(|set| set.changes).collect()
    }

    /// The changes since the last call, a line each: action, state and the row's own description.
    pub fn lines(&self, describe: impl Fn(&dyn kvsync::model::Model) -> String) -> Vec<String> {
        self.changes().iter().map(|change| line(change, &describe)).collect()
    }

    /// What was reported as missed since the last call.
    pub fn missed(&self) -> Vec<Missed> {
        std::mem::take(&mut *self.missed.lock())
    }

    /// How often it was told of rows in the outbox since the last call.
    pub fn take_outboxed(&self) -> usize {
        self.outboxed.swap(0, Ordering::SeqCst)
    }
}

/// A change in a line.
pub fn line(change: &Change, describe: impl Fn(&dyn kvsync::model::Model) -> String) -> String {
    let row = match &change.row {
        Row::Hidden(row) | Row::Deleted { row, live: false } => format!("hidden {}", describe(&**row)),
        Row::Live(row) | Row::Deleted { row, live: true } => describe(&**row),
        Row::Unknown(unknown) => {
            format!("unknown {}{}", unknown.primary_key.home(), if unknown.certain { "" } else { ", in doubt" })
        }
        Row::Absent(unknown) => format!("absent {}", unknown.primary_key.home()),
    };
    format!("{}{} {row}", change.scope.prefix(), change.action)
}

impl Publish for Recorder {
    fn publish(&self, set: ChangeSet) -> CommitToken {
        let mut sets = self.sets.lock();
        sets.push(set);
        CommitToken { process: 0, sequence: sets.len() as u64, rows: Vec::new(), outbox: None }
    }

    fn outboxed(&self, range: OutboxRange) -> CommitToken {
        self.outboxed.fetch_add(1, Ordering::SeqCst);
        CommitToken { process: 0, sequence: 0, rows: Vec::new(), outbox: Some(range) }
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn missed(&self, missed: Missed) {
        self.missed.lock().push(missed);
    }
}
