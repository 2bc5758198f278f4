use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::dirty::Loss;
use super::lane::{Lane, Shared};
use crate::change::{Change, ChangeSet, CommitToken, Lost, Missed, OutboxRange, Publish};
use crate::error::{Error, ErrorKind};
use crate::report::Report;
use crate::transport::Part;

const DAY: Duration = Duration::from_hours(24);

/// Hands the changes of commits to every lane.
pub(crate) struct Publisher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) process: u64,
}

impl Publisher {
    fn publish(&self, set: ChangeSet) -> CommitToken {
        let published = Instant::now();
        let commit = self.shared.commits.open(set.changes.len() * self.lanes.len(), published);
        let deadline = published.checked_add(self.shared.overflow_block).unwrap_or_else(|| published + DAY);
        for rows in &set.lost {
            self.lose(rows, commit);
        }
        let accept = |changes: Vec<Change>| {
            let part = Part { commit, published, changes: changes.into() };
            if let Some((last, others)) = self.lanes.split_last() {
                for lane in others {
                    lane.accept(part.clone(), deadline);
                }
                last.accept(part, deadline);
            }
        };
        if !self.is_one_part(&set.changes) {
            self.cut(set.changes).into_iter().for_each(accept);
        } else if !set.changes.is_empty() {
            accept(set.changes);
        }
        CommitToken { process: self.process, sequence: commit, rows: Vec::new(), outbox: None }
    }

    fn missed(&self, missed: Missed) {
        let now = self.shared.clock.now();
        self.shared.dirty.mark(&missed.database, missed.table.as_deref(), 1, now, &missed.reason);
        self.shared.reporter.report(Report::Missed(missed));
    }

    /// Rows of a commit of which nothing is known but that they were written.
    fn lose(&self, rows: &Lost, commit: u64) {
        let reason = "a transaction wrote more rows than memory was given for (`max_transaction_bytes`)";
        let loss = Loss {
            database: &rows.database,
            table: Some(rows.schema.table),
            scope: Some(&rows.scope),
            changes: rows.changes,
            deletes: rows.deletes,
            published: true,
            overflow: true,
        };
        self.shared.dirty.lose(&loss, self.shared.clock.now(), reason);
        let error = Error::new(ErrorKind::Unavailable, format!("{reason}; its table is filled in again"));
        self.shared.commits.finish(commit, 0, Some(Arc::new(error)));
    }

    /// Whether a commit fits into a batch, as almost all do.
    fn is_one_part(&self, changes: &[Change]) -> bool {
        let limits = self.shared.batch;
        let bytes: usize = changes.iter().map(|change| change.size).sum();
        changes.len() <= limits.rows && bytes <= limits.bytes
    }

    /// Cuts a commit into parts that fit into a batch, so that a large one is written by many workers.
    fn cut(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        let limits = self.shared.batch;
        let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
        for change in changes {
            if !part.is_empty() && (part.len() >= limits.rows || size + change.size > limits.bytes) {
                parts.push(std::mem::take(&mut part));
                size = 0;
            }
            size += change.size;
            part.push(change);
        }
        parts.push(part);
        parts
    }
}

/// A publisher as connections know it. It keeps no pipeline alive: a pipeline knows of sources and outboxes,
/// these of their connections' hub, and that of this.
pub(crate) struct Known {
    epoch: Arc<AtomicU32>,
    process: u64,
    publisher: Weak<Publisher>,
}

impl Known {
    pub(crate) fn new(publisher: &Arc<Publisher>) -> Self {
        let epoch = Arc::clone(&publisher.shared.epoch);
        Self { epoch, process: publisher.process, publisher: Arc::downgrade(publisher) }
    }

    /// What is committed when nobody syncs any more.
    fn too_late(&self) -> CommitToken {
        tracing::error!("a change was committed after kvsync was dropped; it is in no store");
        CommitToken { process: self.process, sequence: 0, rows: Vec::new(), outbox: None }
    }
}

impl Publish for Known {
    fn publish(&self, set: ChangeSet) -> CommitToken {
        self.publisher.upgrade().map_or_else(|| self.too_late(), |publisher| publisher.publish(set))
    }

    fn outboxed(&self, range: OutboxRange) -> CommitToken {
        if let Some(publisher) = self.publisher.upgrade() {
            publisher.shared.ring(&range.database);
        }
        CommitToken { process: self.process, sequence: 0, rows: Vec::new(), outbox: Some(range) }
    }

    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    fn missed(&self, missed: Missed) {
        if let Some(publisher) = self.publisher.upgrade() {
            publisher.missed(missed);
        }
    }
}
