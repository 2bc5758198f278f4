//! The suite that every store passes: one table of cases, run over any store.
//!
//! A store of your own passes it too, or it is not a store: give a [`Harness`] that makes an empty one,
//! and run each of [`cases`] as a test of its own, or all of them with [`run`].
//!
//! ```
//! use std::sync::Arc;
//! use kvsync::store::conformance::{self, Harness, Verdict};
//! use kvsync::store::{MemoryStore, SyncStore};
//!
//! struct Memory;
//!
//! impl Harness for Memory {
//!     fn fresh(&self) -> Arc<dyn SyncStore> {
//!         Arc::new(MemoryStore::new())
//!     }
//!     fn unreachable(&self) -> Option<Arc<dyn SyncStore>> {
//!         None
//!     }
//! }
//!
//! for (case, verdict) in conformance::run(&Memory) {
//!     assert!(!matches!(verdict, Verdict::Failed(_)), "{case}: {verdict:?}");
//! }
//! ```

mod ground;
mod keys;
mod merges;
mod races;
mod reads;
mod reference;
mod scans;
mod sweeps;
mod writes;

use std::sync::Arc;

use super::{Capabilities, SyncStore};

/// Makes the stores that the suite runs on.
pub trait Harness: Send + Sync {
    /// An empty store, that no other case sees.
    fn fresh(&self) -> Arc<dyn SyncStore>;

    /// A store whose server does not answer; `None` where a store has no server.
    fn unreachable(&self) -> Option<Arc<dyn SyncStore>>;
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The store is right.
    Passed,
    /// The case asks for something that the store does not have; this says what.
    NotApplicable(&'static str),
    /// The store is wrong; this says where.
    Failed(String),
}

/// One case of the suite.
#[derive(Debug)]
pub struct Case {
    /// What has to hold, in words, without spaces.
    pub name: &'static str,
    needs: Needs,
    run: fn(&dyn SyncStore) -> Result<(), String>,
}

/// What a case asks of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// [`Capabilities::whole_changes`].
    WholeChanges,
    /// [`Capabilities::expires`].
    Expiry,
    /// The opposite: a store that has to be swept.
    Sweeping,
    /// A longest key that a test can exceed.
    KeyLimit,
    /// A store that does not answer.
    Outage,
}

impl Case {
    /// Whether the case can be asked of such a store; if not, why.
    ///
    /// # Errors
    ///
    /// What the store does not have and the case asks for.
    pub fn applies(&self, harness: &dyn Harness, can: Capabilities) -> Result<(), &'static str> {
        match self.needs {
            Needs::WholeChanges if !can.whole_changes => Err("it takes a change in steps only"),
            Needs::Expiry if !can.expires => Err("it does not remove what has expired by itself"),
            Needs::Sweeping if can.expires => Err("it removes what has expired by itself"),
            Needs::KeyLimit if can.max_key > 1 << 24 => Err("it takes keys of any length"),
            Needs::Outage if harness.unreachable().is_none() => Err("it has no server that could be down"),
            _ => Ok(()),
        }
    }

    /// Runs the case on a store of its own.
    #[must_use]
    pub fn run(&self, harness: &dyn Harness) -> Verdict {
        let store = harness.fresh();
        if let Err(why) = self.applies(harness, store.capabilities()) {
            return Verdict::NotApplicable(why);
        }
        let store = if self.needs == Needs::Outage { harness.unreachable().unwrap_or(store) } else { store };
        match (self.run)(&*store) {
            Ok(()) => Verdict::Passed,
            Err(why) => Verdict::Failed(why),
        }
    }
}

/// All cases, in the order of the contract.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        reads::CASES,
        keys::CASES,
        writes::CASES,
        merges::CASES,
        reference::CASES,
        races::CASES,
        scans::CASES,
        sweeps::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs all cases, each on a store of its own.
pub fn run(harness: &dyn Harness) -> Vec<(&'static str, Verdict)> {
    cases().map(|case| (case.name, case.run(harness))).collect()
}
