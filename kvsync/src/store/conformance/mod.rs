//! The suite that every store passes: one table of cases, run over any store.
//!
//! A store of your own passes it too, or it is not a store: give a [`Harness`] that makes an empty one,
//! and run each of [`cases`] as a test of its own, or all of them with [`run`].
//!
//! ```
//! use std::sync::Arc;
//! use kvsync::store::conformance::{self, Harness, Stores, Verdict};
//! use kvsync::store::MemoryStore;
//!
//! struct Memory;
//!
//! impl Harness for Memory {
//!     fn fresh(&self) -> Stores {
//!         Stores::both(Arc::new(MemoryStore::new()))
//!     }
//!     fn unreachable(&self) -> Option<Stores> {
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

use super::data::{Atomicity, DataCapabilities, DataStore};
use super::{Capabilities, SyncStore};

/// Makes the stores that the suite runs on.
pub trait Harness: Send + Sync {
    /// An empty store, that no other case sees.
    fn fresh(&self) -> Stores;

    /// A store whose server does not answer; `None` where a store has no server.
    fn unreachable(&self) -> Option<Stores>;
}

/// A store, by the contracts that it keeps. Both are of one store: they share what is stored, but neither sees
/// what the other wrote.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The store as one that rows are synced into.
    pub sync: Option<Arc<dyn SyncStore>>,
    /// The store as one that runs the Redis-like commands.
    pub data: Option<Arc<dyn DataStore>>,
}

impl Stores {
    /// A store that keeps both contracts.
    #[must_use]
    pub fn both<S: SyncStore + DataStore + 'static>(store: Arc<S>) -> Self {
        let sync: Arc<dyn SyncStore> = Arc::clone(&store) as _;
        Self { sync: Some(sync), data: Some(store) }
    }

    /// A store that rows are synced into and that runs no commands.
    #[must_use]
    pub fn sync(store: Arc<dyn SyncStore>) -> Self {
        Self { sync: Some(store), data: None }
    }

    /// A store that runs commands and takes no rows.
    #[must_use]
    pub fn data(store: Arc<dyn DataStore>) -> Self {
        Self { sync: None, data: Some(store) }
    }
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
    pub fn applies(&self, harness: &dyn Harness, stores: &Stores) -> Result<(), &'static str> {
        if self.needs == Needs::Outage && harness.unreachable().is_none() {
            return Err("it has no server that could be down");
        }
        match (&self.run, &stores.sync, &stores.data) {
            (Run::Sync(_), Some(store), _) => self.needs.of_rows(store.capabilities()),
            (Run::Data(_), _, Some(store)) => self.needs.of_data(store.data_capabilities()),
            (Run::Sync(_), None, _) => Err("it takes no rows"),
            (Run::Data(_), _, None) => Err("it runs no commands"),
        }
    }

    /// Runs the case on a store of its own.
    #[must_use]
    pub fn run(&self, harness: &dyn Harness) -> Verdict {
        let stores = harness.fresh();
        if let Err(why) = self.applies(harness, &stores) {
            return Verdict::NotApplicable(why);
        }
        let stores = if self.needs == Needs::Outage { harness.unreachable().unwrap_or(stores) } else { stores };
        let answer = match (&self.run, stores.sync, stores.data) {
            (Run::Sync(run), Some(store), _) => run(&*store),
            (Run::Data(run), _, Some(store)) => run(&*store),
            (Run::Sync(_), None, _) | (Run::Data(_), _, None) => {
                Err("the store that is down keeps another contract than the one that is up".to_owned())
            }
        };
        match answer {
            Ok(()) => Verdict::Passed,
            Err(why) => Verdict::Failed(why),
        }
    }
}

impl Needs {
    fn of_rows(self, can: Capabilities) -> Result<(), &'static str> {
        match self {
            Self::WholeChanges if !can.whole_changes => Err("it takes a change in steps only"),
            Self::Expiry if !can.expires => Err("it does not remove what has expired by itself"),
            Self::Sweeping if can.expires => Err("it removes what has expired by itself"),
            Self::KeyLimit if can.max_key > 1 << 24 => Err("it takes keys of any length"),
            _ => Ok(()),
        }
    }

    fn of_data(self, can: DataCapabilities) -> Result<(), &'static str> {
        match self {
            Self::AtomicSlot if can.atomic == Atomicity::Key => Err("it writes one key at a time"),
            Self::SlotsOnly if can.atomic != Atomicity::Slot => Err("its keys have no slots"),
            Self::KeysOnly if can.atomic != Atomicity::Key => Err("it writes several keys as one"),
            Self::ValueLimit if can.max_value > 1 << 24 => Err("it takes values of any size"),
            Self::MemberLimit if can.max_key.max(can.max_member) > 1 << 20 => Err("it takes keys of any length"),
            _ => Ok(()),
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
