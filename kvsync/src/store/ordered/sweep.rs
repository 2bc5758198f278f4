//! When strings that have expired are removed, and how many at a time.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Writer;
use super::layout::{Place, expired, expiring};
use crate::error::Result;
use crate::store::data::Direction;

/// Expired strings that a transaction removes for each of its commands: more than they can add.
const SWEPT: usize = 2;

/// How long after nothing was found one looks again, in milliseconds: looking costs as much as a write.
const PAUSE: u64 = 1000;

/// Removes what has expired, beside the writes of others.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// When to look again, in milliseconds since the Unix epoch.
    due: AtomicU64,
}

impl Sweeper {
    /// Removes some strings that have expired, within a transaction of so many commands.
    pub(super) fn run(&self, entries: &mut dyn Writer, now: u64, commands: usize) -> Result<()> {
        let due = self.due.load(Ordering::Relaxed);
        // A clock that was put back must not stop it for long.
        if now < due && due <= now.saturating_add(PAUSE) {
            return Ok(());
        }
        let most = SWEPT * commands;
        if remove(entries, now, most)? < most {
            self.due.store(now.saturating_add(PAUSE), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Removes some strings that have expired, within a transaction of one command.
#[cfg(feature = "nats")]
pub(crate) fn sweep(entries: &mut dyn Writer, now: u64) -> Result<()> {
    remove(entries, now, SWEPT).map(drop)
}

/// Removes so many at most, oldest first. How many it removed.
fn remove(entries: &mut dyn Writer, now: u64, most: usize) -> Result<usize> {
    let (first, last) = (expiring(0, &[]), expiring(now.saturating_add(1), &[]));
    let between = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
    let found = entries.range(between, Direction::Forward, most)?;
    let count = found.len();
    for (place, _) in found {
        entries.remove(Place::of(&expired(&place)).head());
        entries.remove(place.into());
    }
    Ok(count)
}
