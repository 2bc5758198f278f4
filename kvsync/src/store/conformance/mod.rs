//! The suite that every store passes: one table of cases, run over any store.
//!
//! A store of your own passes it too, or it is not a store: give a [`Harness`] that makes an empty one,
//! and run each of [`cases`] as a test of its own, or all of them with [`run`].
//!
//! ```
//! use std::sync::Arc;
//! use kvsync::store::conformance::{self, Harness, Store, Verdict};
//! use kvsync::store::MemoryStore;
//!
//! struct Memory;
//!
//! impl Harness for Memory {
//!     fn fresh(&self) -> Arc<dyn Store> {
//!         Arc::new(MemoryStore::new())
//!     }
//!     fn unreachable(&self) -> Option<Arc<dyn Store>> {
//!         None
//!     }
//! }
//!
//! for (case, verdict) in conformance::run(&Memory) {
//!     assert!(!matches!(verdict, Verdict::Failed(_)), "{case}: {verdict:?}");
//! }
//! ```

mod data;
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

use super::SyncStore;
use super::data::{Atomicity, DataStore};

/// Makes the stores that the suite runs on.
pub trait Harness: Send + Sync {
    /// An empty store, that no other case sees.
    fn fresh(&self) -> Arc<dyn Store>;

    /// A store whose server does not answer; `None` where a store has no server.
    fn unreachable(&self) -> Option<Arc<dyn Store>>;
}

/// A store that keeps both contracts.
pub trait Store: SyncStore + DataStore {}

impl<S: SyncStore + DataStore + ?Sized> Store for S {}

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
    run: Run,
}

/// What a case runs on.
#[derive(Debug)]
enum Run {
    Sync(fn(&dyn SyncStore) -> Result<(), String>),
    Data(fn(&dyn DataStore) -> Result<(), String>),
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
    /// Atomic writes over keys of one slot, or over any.
    AtomicSlot,
    /// Atomic writes over keys of one slot and no further.
    SlotsOnly,
    /// Atomic writes on one key only.
    KeysOnly,
    /// A largest value that a test can exceed.
    ValueLimit,
    /// A longest key and a longest member that a test can exceed.
    MemberLimit,
}

impl Case {
    const fn sync(name: &'static str, needs: Needs, run: fn(&dyn SyncStore) -> Result<(), String>) -> Self {
        Self { name, needs, run: Run::Sync(run) }
    }

    const fn data(name: &'static str, needs: Needs, run: fn(&dyn DataStore) -> Result<(), String>) -> Self {
        Self { name, needs, run: Run::Data(run) }
    }

    /// Whether the case can be asked of such a store; if not, why.
    ///
    /// # Errors
    ///
    /// What the store does not have and the case asks for.
    pub fn applies(&self, harness: &dyn Harness, store: &dyn Store) -> Result<(), &'static str> {
        let (can, data) = (store.capabilities(), store.data_capabilities());
        match self.needs {
            Needs::AtomicSlot if data.atomic == Atomicity::Key => Err("it writes one key at a time"),
            Needs::SlotsOnly if data.atomic != Atomicity::Slot => Err("its keys have no slots"),
            Needs::KeysOnly if data.atomic != Atomicity::Key => Err("it writes several keys as one"),
            Needs::ValueLimit if data.max_value > 1 << 24 => Err("it takes values of any size"),
            Needs::MemberLimit if data.max_key.max(data.max_member) > 1 << 20 => Err("it takes keys of any length"),
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
        if let Err(why) = self.applies(harness, &*store) {
            return Verdict::NotApplicable(why);
        }
        let store = if self.needs == Needs::Outage { harness.unreachable().unwrap_or(store) } else { store };
        let answer = match self.run {
            Run::Sync(run) => run(&*store),
            Run::Data(run) => run(&*store),
        };
        match answer {
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
    .chain(data::cases())
}

/// Runs all cases, each on a store of its own.
pub fn run(harness: &dyn Harness) -> Vec<(&'static str, Verdict)> {
    cases().map(|case| (case.name, case.run(harness))).collect()
}
