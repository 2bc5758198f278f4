//! How much of a table's written rows can be read back.
//!
//! It is known of the table, not of the connection: what one role may not read, no role asks for any more
//! until the table is altered or checked.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::change::Action;

/// How a statement is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// It returns the models' columns.
    Rows,
    /// It returns primary keys; the rows are read again.
    Keys,
    /// It returns nothing of ours, because it would fail; it is reported.
    Blind,
}

/// What was found to hinder the reading back of a table's rows.
#[derive(Debug, Default)]
pub(super) struct Fit(AtomicU8);

/// Models cannot be read from the table, but their primary keys can.
pub(super) const BY_KEY: u8 = 1;
/// An INSERT, UPDATE or DELETE may return nothing at all.
pub(super) const BLIND: [u8; 3] = [2, 4, 8];
/// It has row security: a row that may be inserted may not be one that may be read.
pub(super) const SECURED: u8 = 16;
/// An INSERT has failed for that in a transaction.
const GUARDED: u8 = 32;
/// What was found was told.
const TOLD: u8 = 64;
/// Tables inherit from it.
const INHERITED: u8 = 128;

impl Fit {
    /// The table was altered, or is looked at on purpose: only what is found now counts.
    pub(super) fn set(&self, found: u8) {
        self.0.store(found | self.0.load(Ordering::Relaxed) & INHERITED, Ordering::Relaxed);
    }

    /// Whether tables inherit from it, as found now. Returns whether that they do is news.
    pub(super) fn inherited(&self, found: bool) -> bool {
        let before = if found {
            self.0.fetch_or(INHERITED, Ordering::Relaxed)
        } else {
            self.0.fetch_and(!INHERITED, Ordering::Relaxed)
        };
        found && before & INHERITED == 0
    }

    /// One more role was hindered, or the same again. Returns whether that was not told yet.
    pub(super) fn add(&self, found: u8) -> bool {
        let all = found | TOLD;
        self.0.fetch_or(all, Ordering::Relaxed) & all != all
    }

    pub(super) fn level(&self, action: Action) -> Level {
        let found = self.0.load(Ordering::Relaxed);
        let [insert, update, delete] = BLIND;
        let blind = match action {
            Action::Update => update,
            Action::Delete => delete,
            Action::Upsert => insert | update,
            _ => insert,
        };
        match (found & blind, found & BY_KEY) {
            (0, 0) => Level::Rows,
            (0, _) => Level::Keys,
            _ => Level::Blind,
        }
    }

    /// Whether row security may refuse to return what this action writes.
    pub(super) fn is_secured(&self, action: Action) -> bool {
        matches!(action, Action::Insert | Action::Upsert) && self.0.load(Ordering::Relaxed) & SECURED != 0
    }

    /// From now on, statements that row security may refuse for being captured run in a savepoint.
    pub(super) fn guard(&self) {
        self.0.fetch_or(GUARDED, Ordering::Relaxed);
    }

    /// Whether this action runs in a savepoint.
    pub(super) fn is_guarded(&self, action: Action) -> bool {
        self.is_secured(action) && self.0.load(Ordering::Relaxed) & GUARDED != 0
    }
}
