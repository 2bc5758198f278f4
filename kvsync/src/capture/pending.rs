//! The changes of the open transaction.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use crate::change::{Action, Change, ChangeSet, Lost, Row};

/// The changes of the open transaction, and where each savepoint in it began.
#[derive(Debug, Default)]
pub struct Pending {
    changes: Vec<Change>,
    /// What the outbox needs to know of each change besides; empty where there is none.
    beside: Vec<Beside>,
    marks: Vec<usize>,
    size: usize,
    doubt: bool,
    /// The first and the last row that it may have written into the outbox.
    outbox: Option<(i64, i64)>,
    /// How deep the transaction was when the outbox was not written, so that it must not be committed.
    spoiled: Option<usize>,
    /// Whether a change has the version of the one before it.
    ties: bool,
    /// Changes that there was no room for, each behind so many that were kept.
    lost: Vec<(usize, Lost)>,
}

/// How many bytes of changes are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Of whole changes.
    pub(super) whole: usize,
    /// Of these and of primary keys.
    pub(super) all: usize,
}

/// What the outbox needs to know of a change.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// The primary key in the database's own words.
    pub(super) image: Option<Arc<str>>,
    /// The schema of the table, where schemas have scopes.
    pub(super) schema: Option<Arc<str>>,
}

impl Pending {
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Adds a change: whole, or its primary key, or, where there is no room for that either, only that there
    /// was one. Once one was lost, those behind it are, too. Whether it was kept.
    pub(super) fn push(&mut self, change: Change, room: Room) -> bool {
        if self.lost.last().is_some_and(|(behind, _)| *behind == self.changes.len()) {
            self.lose(&change);
            return false;
        }
        let change = if self.size + change.size > room.whole { change.into_unknown() } else { change };
        if self.size + change.size > room.all {
            self.lose(&change);
            return false;
        }
        self.size += change.size;
        self.ties |= self.changes.last().is_some_and(|last| last.version == change.version);
        if self.changes.capacity() == 0 {
            // Most transactions write one row.
            self.changes.reserve_exact(1);
        }
        self.changes.push(change);
        true
    }

    fn lose(&mut self, change: &Change) {
        let behind = self.changes.len();
        let deletes = change.action == Action::Delete;
        let same = |(at, lost): &&mut (usize, Lost)| {
            *at == behind && std::ptr::eq(lost.schema, change.schema) && lost.scope == change.scope
        };
        if let Some((_, lost)) = self.lost.iter_mut().find(same) {
            lost.changes += 1;
            lost.deletes |= deletes;
        } else {
            let Change { schema, database, scope, .. } = change;
            let lost = Lost { schema, database: database.clone(), scope: scope.clone(), changes: 1, deletes };
            self.lost.push((behind, lost));
        }
    }

    /// Adds a change that is to be written into the outbox.
    pub(super) fn push_beside(&mut self, change: Change, beside: Beside, room: Room) -> bool {
        self.beside.resize_with(self.changes.len(), Beside::default);
        let kept = self.push(change, room);
        if kept {
            self.beside.push(beside);
        }
        kept
    }

    /// The changes from here on, with what the outbox needs to know of each.
    pub(super) fn besides(&self, from: usize) -> impl Iterator<Item = (&Change, &Beside)> {
        self.changes.iter().zip(&self.beside).skip(from)
    }

    /// Drops the changes from here on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.beside.truncate(len);
        for change in self.changes.drain(len.min(self.changes.len())..) {
            self.size = self.size.saturating_sub(change.size);
        }
        // Of what was lost behind the last change that stays, it is not known when.
        self.lost.retain(|(behind, _)| *behind <= len);
    }

    /// Keeps the changes from `from` on for which `keep`, given what stands beside each, says so.
    pub(super) fn retain_from(&mut self, from: usize, mut keep: impl FnMut(&mut Change, &mut Beside) -> bool) {
        let mut at = 0;
        let size = &mut self.size;
        let mut beside = mem::take(&mut self.beside).into_iter();
        self.changes.retain_mut(|change| {
            let (mut own, mut none) = (beside.next(), Beside::default());
            let kept = at < from || keep(change, own.as_mut().unwrap_or(&mut none));
            at += 1;
            if kept {
                self.beside.extend(own);
            }
            if !kept {
                *size = size.saturating_sub(change.size);
            }
            kept
        });
        for (behind, _) in &mut self.lost {
            *behind = (*behind).min(self.changes.len());
        }
    }

    /// How many transactions and savepoints are open, as far as was told here.
    pub(super) fn depth(&self) -> usize {
        self.marks.len()
    }

    /// A transaction or savepoint began.
    pub(super) fn begin(&mut self) {
        self.marks.push(self.changes.len());
    }

    /// The innermost savepoint was released: its changes belong to what is around it.
    pub(super) fn release(&mut self) {
        self.marks.pop();
        let depth = self.marks.len();
        self.spoiled = self.spoiled.map(|spoiled| spoiled.min(depth));
    }

    /// The innermost savepoint was rolled back, and its changes with it.
    pub(super) fn roll_back(&mut self) {
        let mark = self.marks.pop().unwrap_or(0);
        let depth = self.marks.len();
        self.spoiled = self.spoiled.filter(|spoiled| *spoiled <= depth);
        self.truncate(mark);
    }

    /// Rows with these ids, and maybe some of others, were written into the outbox. A savepoint that is
    /// rolled back takes none of them out: whoever waits for a row that is not there does not wait.
    pub(super) fn outboxed(&mut self, first: i64, last: i64) {
        let (low, high) = self.outbox.unwrap_or((first, last));
        self.outbox = Some((low.min(first), high.max(last)));
    }

    /// Where its rows in the outbox are; from now on it has none.
    pub(super) fn take_outboxed(&mut self) -> Option<(i64, i64)> {
        self.outbox.take()
    }

    /// A row was written, and the outbox does not know of it: what is open now must be rolled back.
    pub(super) fn spoil(&mut self) {
        self.spoiled = self.spoiled.or(Some(self.marks.len()));
    }

    /// Whether the transaction must not be committed.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled.is_some()
    }

    /// From now on it cannot be told which of the changes, and of those to come, the database keeps.
    pub(super) fn doubt(&mut self) {
        self.doubt = true;
    }

    /// Whether [`doubt`](Self::doubt) was called in this transaction.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// The transaction was rolled back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The transaction was committed: its changes. Of those of one row that have the same version only
    /// the last is left; the order of the statements decided between them.
    pub(super) fn take(&mut self) -> ChangeSet {
        let Self { mut changes, ties, lost, .. } = mem::take(self);
        if ties {
            keep_last(&mut changes, |change| (change.home(), change.version));
        }
        // Almost always nothing was.
        let lost = if lost.is_empty() { Vec::new() } else { lost.into_iter().map(|(_, lost)| lost).collect() };
        ChangeSet { changes, lost }
    }

    /// The transaction was committed or not: the rows that it may have changed, each once, as unknown.
    pub(super) fn take_in_doubt(&mut self) -> ChangeSet {
        let ChangeSet { changes, lost } = self.take();
        let mut changes: Vec<Change> = changes.into_iter().map(uncertain).collect();
        keep_last(&mut changes, Change::home);
        ChangeSet { changes, lost }
    }
}

fn uncertain(change: Change) -> Change {
    let mut change = change.into_unknown();
    if let Row::Unknown(unknown) = &mut change.row {
        unknown.certain = false;
    }
    change
}

fn keep_last<K: Eq + std::hash::Hash>(changes: &mut Vec<Change>, key: impl Fn(&Change) -> K) {
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> = changes.iter().rev().map(|change| seen.insert(key(change))).collect();
    changes.retain(|_| keep.pop().unwrap_or(true));
}
