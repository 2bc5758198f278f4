//! Compares databases and stores, from both sides.
//!
//! From the database: every row is read, page by page behind a barrier, and what stands under each of its
//! keys is compared with it. From the store: every entry whose key could be one of the model's is read, and
//! the database is asked whether its row stands there. Entries that do not say whose they are, because they
//! cannot be read, are collected and struck out by reading the table once more; what is left is nobody's.
//!
//! Nothing is accused on one look. What differs is looked at again after the time in flight, and accused
//! only if it still differs while what is stored is no newer than the barrier: a row that was written
//! meanwhile shows a higher version in its record, which is read last.

mod call;
pub(crate) mod compare;
mod difference;
mod flight;
mod rows;
mod run;
mod scan;
mod strays;
mod units;

use std::fmt;
use std::time::Duration;

pub use self::difference::{Difference, DifferenceKind, Side, Verified, VerifyProgress};
pub(crate) use self::flight::{EntryFault, RowFault, Unit, digest, read};
pub(crate) use self::run::{IN_FLIGHT, Run, Settings};
use crate::error::Result;
use crate::key::Scope;
use crate::model::Kind;
use crate::worker::Access;

/// What is told of progress.
pub(crate) type OnProgress = Box<dyn FnMut(&VerifyProgress) + Send>;
/// What is told of each difference.
pub(crate) type OnDifference = Box<dyn FnMut(&Difference) + Send>;

/// Compares databases and stores from both sides and names every difference.
///
/// It runs beside live traffic, takes no locks and writes nothing. Its memory is bounded: it holds a page
/// of rows, and what waits for its second look. With several stores, each is compared.
#[must_use = "nothing is compared until `.run()` is called"]
pub struct Verify {
    pub(crate) access: Access,
    pub(crate) scope: Scope,
    /// The models to compare, each with the name of its database; all that are registered where `None`.
    pub(crate) chosen: Option<Vec<Kind>>,
    pub(crate) settings: Settings,
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) on_difference: Option<OnDifference>,
}

impl Verify {
    pub(crate) fn new(access: Access, scope: Scope, chosen: Option<Vec<Kind>>) -> Self {
        Self { access, scope, chosen, settings: Settings::default(), on_progress: None, on_difference: None }
    }

    /// How many rows or entries are read at once; 500 without this call.
    pub fn page(mut self, rows: usize) -> Self {
        self.settings.page = rows.clamp(1, 100_000);
        self
    }

    /// How many rows or entries are looked at in a second, at most; as many as can be without this call.
    pub fn rate(mut self, per_second: u32) -> Self {
        self.settings.rate = Some(per_second.max(1));
        self
    }

    /// How long a change may be on its way from its commit to the stores: that long a difference has to
    /// last before it is named; 2 seconds without this call. What is on its way in this process is waited for
    /// in any case. If other processes write too, it has to be longer than their lag, as their `health()`
    /// tells it.
    ///
    /// However little there is to compare, a run takes this long once before it begins if a table is dirty, once for
    /// all rows that differ, and once for all entries that do; one that finds nothing waits for nothing.
    pub fn in_flight(mut self, time: Duration) -> Self {
        self.settings.in_flight = time;
        self
    }

    /// Leaves the marks of tables to the caller, and does not wait for the statements that made them dirty.
    pub(crate) fn keeping_marks(mut self) -> Self {
        self.settings.keeps_marks = true;
        self
    }

    /// How long each reading may take, the wait for open transactions of the database included; 30 seconds without this
    /// call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// How many differences [`Verified::differences`] holds at most, 1000 without this call. All are
    /// counted.
    pub fn samples(mut self, most: usize) -> Self {
        self.settings.samples = most;
        self
    }

    /// Is told after every page how far it is.
    pub fn on_progress(mut self, told: impl FnMut(&VerifyProgress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(told));
        self
    }

    /// Is told of every difference when it is found.
    pub fn on_difference(mut self, told: impl FnMut(&Difference) + Send + 'static) -> Self {
        self.on_difference = Some(Box::new(told));
        self
    }

    /// Compares. Blocks until it is done. Tables that were dirty before and are found clean are dirty no
    /// longer, if all their models were compared, in every scope that their database knows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when no such model is registered, and within a scope whose rows
    /// the database cannot know ([`Database::single_tenant`](crate::capture::Database::single_tenant));
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when kvsync is shut down meanwhile; otherwise what
    /// the database or the store says. A difference is no error.
    pub fn run(self) -> Result<Verified> {
        let mut run = Run::new(self, None)?;
        run.all()?;
        Ok(run.ended())
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify").field("chosen", &self.chosen).field("settings", &self.settings).finish_non_exhaustive()
    }
}
