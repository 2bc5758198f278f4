//! The suite that every store passes: one table of cases, run over any store.
//!
//! A store of your own passes it too, or it is not a store: give a [`Harness`] that makes an empty one,
//! and run each of [`cases`] as a test of its own, or all of them with [`run`].
//!
//! # A store of your own
//!
//! A store that has a lock or transactions writes down what [`steps::plan`](super::steps::plan) says, and is
//! a [`SyncStore`]. An ordered one is an [`Engine`](super::ordered::Engine), and
//! [`OrderedStore`](super::ordered::OrderedStore) over it keeps both contracts: the second half of this is all of it. Here it
//! runs the commands of a [`DataStore`], and the rows are written down by hand:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::ops::Bound;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use kvsync::record::Terms;
//! use kvsync::store::conformance::{self, Harness, Stores, Verdict};
//! use kvsync::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
//! use kvsync::store::ordered::{Engine, Limits, OrderedStore, Overlay, Reader, Writer};
//! use kvsync::store::steps::{after, plan};
//! use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};
//! use kvsync::{Key, Result};
//! use parking_lot::Mutex;
//!
//! /// Maps behind locks; yours stand in files, or on a server.
//! #[derive(Debug, Default)]
//! struct Toy {
//!     entries: Mutex<BTreeMap<Key, Bytes>>,
//!     epoch: Mutex<u32>,
//!     data: OrderedStore<Map>,
//! }
//!
//! impl Store for Toy {
//!     fn name(&self) -> &str {
//!         "toy"
//!     }
//!     fn health(&self, _deadline: Duration) -> Health {
//!         Health::new(Status::Up, Vec::new())
//!     }
//!     fn close(&self) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! impl SyncStore for Toy {
//!     fn capabilities(&self) -> Capabilities {
//!         // The longest key, the largest entry, the most steps of a call.
//!         Capabilities::new(1 << 30, 1 << 30, 1000).with_whole_changes()
//!     }
//!     fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
//!         let mut entries = self.entries.lock();
//!         let (answers, changed) = plan(steps, terms, &|key| Ok(entries.get(key).cloned()));
//!         for (key, entry) in changed {
//!             match entry {
//!                 Some(entry) => entries.insert(key, entry),
//!                 None => entries.remove(&key),
//!             };
//!         }
//!         answers
//!     }
//!     fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
//!         let entries = self.entries.lock();
//!         Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
//!     }
//!     fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
//!         let begin = match &cursor {
//!             Some(cursor) => Bound::Excluded(after(cursor, prefix)?),
//!             None => Bound::Included(Key::new(prefix)),
//!         };
//!         // A page of none would be the last.
//!         let limit = limit.max(1);
//!         let entries = self.entries.lock();
//!         let found = entries.range((begin, Bound::Unbounded)).map(|(key, _)| key);
//!         let keys: Vec<Key> = found.take_while(|key| key.as_str().starts_with(prefix)).take(limit).cloned().collect();
//!         let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor(last.as_str().into()));
//!         Ok(Page { keys, next })
//!     }
//!     fn epoch(&self) -> Result<u32> {
//!         Ok(*self.epoch.lock())
//!     }
//!     fn raise_epoch(&self, epoch: u32) -> Result<u32> {
//!         let mut stands = self.epoch.lock();
//!         *stands = epoch.max(*stands);
//!         Ok(*stands)
//!     }
//! }
//!
//! impl DataStore for Toy {
//!     fn data_capabilities(&self) -> DataCapabilities {
//!         self.data.data_capabilities()
//!     }
//!     fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
//!         self.data.run(commands, reads)
//!     }
//!     fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
//!         // The rule for whoever runs them by itself, as `OrderedStore` asks again.
//!         data::check_atomic(operations, self.data_capabilities(), |_| ())?;
//!         self.data.run_atomic(operations)
//!     }
//! }
//!
//! #[derive(Debug, Default)]
//! struct Map(Mutex<BTreeMap<Bytes, Bytes>>);
//!
//! impl Store for Map {
//!     fn name(&self) -> &str {
//!         "toy"
//!     }
//!     fn health(&self, _deadline: Duration) -> Health {
//!         Health::new(Status::Up, Vec::new())
//!     }
//!     fn close(&self) -> Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! impl Engine for Map {
//!     fn limits(&self) -> Limits {
//!         Limits { key: 1 << 30, value: 1 << 30, transaction: usize::MAX, batch: 1000 }
//!     }
//!     fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
//!         work(&*self.0.lock())
//!     }
//!     fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
//!         let mut map = self.0.lock();
//!         let mut transaction = Overlay::new(&*map);
//!         let answer = work(&mut transaction)?;
//!         for (key, value) in transaction.into_changes() {
//!             match value {
//!                 Some(value) => map.insert(key, value),
//!                 None => map.remove(&key),
//!             };
//!         }
//!         Ok(answer)
//!     }
//! }
//!
//! struct Toys;
//!
//! impl Harness for Toys {
//!     fn fresh(&self) -> Stores {
//!         Stores::both(Arc::new(Toy::default()))
//!     }
//!     fn unreachable(&self) -> Option<Stores> {
//!         None
//!     }
//! }
//!
//! // The store, and the engine by itself: two transactions that meet do so there in every run.
//! for (case, verdict) in conformance::run(&Toys).into_iter().chain(conformance::run_engine(Map::default)) {
//!     assert!(!matches!(verdict, Verdict::Failed(_)), "{case}: {verdict:?}");
//! }
//! ```

mod both;
mod data;
mod engines;
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

pub use self::engines::run_engine;
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
    Both(fn(&dyn SyncStore, &dyn DataStore) -> Result<(), String>),
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
    /// As many entries of a write as a test can exceed, over keys of one slot.
    EntryLimit,
}

impl Case {
    const fn sync(name: &'static str, needs: Needs, run: fn(&dyn SyncStore) -> Result<(), String>) -> Self {
        Self { name, needs, run: Run::Sync(run) }
    }

    const fn data(name: &'static str, needs: Needs, run: fn(&dyn DataStore) -> Result<(), String>) -> Self {
        Self { name, needs, run: Run::Data(run) }
    }

    const fn both(name: &'static str, run: fn(&dyn SyncStore, &dyn DataStore) -> Result<(), String>) -> Self {
        Self { name, needs: Needs::Nothing, run: Run::Both(run) }
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
            (Run::Both(_), Some(_), Some(_)) => Ok(()),
            (Run::Sync(_) | Run::Both(_), None, _) => Err("it takes no rows"),
            (Run::Data(_) | Run::Both(_), _, None) => Err("it runs no commands"),
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
            (Run::Both(run), Some(sync), Some(data)) => run(&*sync, &*data),
            (Run::Sync(_) | Run::Both(_), None, _) | (Run::Data(_) | Run::Both(_), _, None) => {
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
            Self::EntryLimit if can.max_entries > 10_000 => Err("it does not count what a write touches"),
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
    .chain(both::CASES)
}

/// Runs all cases, each on a store of its own.
pub fn run(harness: &dyn Harness) -> Vec<(&'static str, Verdict)> {
    cases().map(|case| (case.name, case.run(harness))).collect()
}
