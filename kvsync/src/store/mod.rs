//! What a store is to sync and fetch.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod data;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "foundationdb")]
pub mod foundationdb;
pub mod layer;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
pub mod ordered;
#[cfg(feature = "redis")]
pub mod redis;
mod shared;
pub mod steps;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDbStore;
#[cfg(feature = "embedded")]
pub use self::embedded::EmbeddedStore;
#[cfg(feature = "foundationdb")]
pub use self::foundationdb::FoundationDbStore;
pub use self::memory::MemoryStore;
#[cfg(feature = "nats")]
pub use self::nats::NatsStore;
pub use self::ordered::OrderedStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
use crate::error::Result;
use crate::key::Key;
use crate::record::{Delta, Record, Terms, Write};
pub use crate::status::{Health, Status};
use crate::version::Version;

/// What every store has, whichever contract it keeps: [`SyncStore`], [`DataStore`](data::DataStore), or both.
///
/// No trait of a store has default methods, so a store around a store that forgets one does not compile.
pub trait Store: Send + Sync + fmt::Debug {
    /// What people call it, with its address where it has one and never a password.
    fn name(&self) -> &str;

    /// How it is. Answers within the deadline, also when the store does not.
    fn health(&self, deadline: Duration) -> Health;

    /// Makes durable what it has acknowledged, where it can, and lets go of its resources.
    ///
    /// # Errors
    ///
    /// When the last writes could not be made durable.
    fn close(&self) -> Result<()>;
}

/// A key-value store that rows can be synced into and fetched from.
///
/// # Contract
///
/// - **Steps are atomic, each on its key.** [`execute`](Self::execute) takes many in one call and
///   answers each on its own, in the order asked. Steps of one call that name the same key take effect
///   in that order. Nothing else is promised between the steps of one call.
/// - **Repeating is harmless.** A call that failed may have done all, some or none of its steps; the
///   same call again ends in the same store.
/// - **Absence is not failure.** A key that is not there is `None`; a server that is not there is an
///   error, always.
/// - **Every call ends.** A store has a deadline for each of its commands, and says
///   [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome) when a write was cut off.
/// - **Keys are text, values are bytes.** Characters that a store forbids in keys it encodes
///   reversibly; a store's own prefix never shows.
///
/// # Implementing
///
/// [`steps::plan`] says what steps change, by [`Record::merge`] and [`Record::overwrite`]; a store gives it
/// atomicity: with a lock or a transaction around a whole call, or with a compare-and-set loop around each
/// step. The public suite in `kvsync::store::conformance` (feature `conformance`), where a whole store is
/// written down as an example, says whether it is right.
pub trait SyncStore: Store {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Runs steps and answers each, in order. Blocks for at most the store's own deadlines.
    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>>;

    /// Reads these keys, in one round trip where the store has one. The answers stand in the order asked.
    /// Entries that have expired may still be returned: readers look at the head.
    ///
    /// # Errors
    ///
    /// When any of the keys could not be read.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>>;

    /// Reads one page of the keys that begin with `prefix`. Every key that stands there from the first
    /// page to the last is on some page, whatever others add and remove meanwhile; others may be or not, and a key may be
    /// on two.
    ///
    /// The limit says about how many are wanted: a page may hold more, or fewer, or none, and the one without
    /// [`Page::next`] is the last. A limit of 0 is as one of 1.
    ///
    /// # Errors
    ///
    /// When the store could not be read, or the cursor is not one of its own.
    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page>;

    /// The epoch of the store: 0 until it is raised.
    ///
    /// # Errors
    ///
    /// When the store could not be read.
    fn epoch(&self) -> Result<u32>;

    /// Raises the epoch to `epoch`, or leaves it where it is higher, and returns what it is then.
    ///
    /// # Errors
    ///
    /// When the store could not be written.
    fn raise_epoch(&self, epoch: u32) -> Result<u32>;
}

/// What a store can do beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It takes [`Step::Apply`]: merge, projection and confirmation as one atomic step.
    pub whole_changes: bool,
    /// It removes expired entries by itself. Where it does not, upkeep sweeps.
    pub expires: bool,
    /// The longest key it takes, in bytes, after its own prefix and encoding.
    pub max_key: usize,
    /// The largest entry it takes, in bytes.
    pub max_value: usize,
    /// The most steps that one call should carry.
    pub max_steps: usize,
}

impl Capabilities {
    /// These limits, with neither whole changes nor expiry.
    #[must_use]
    pub const fn new(max_key: usize, max_value: usize, max_steps: usize) -> Self {
        Self { whole_changes: false, expires: false, max_key, max_value, max_steps }
    }

    /// The same with [`Capabilities::whole_changes`].
    #[must_use]
    pub const fn with_whole_changes(self) -> Self {
        Self { whole_changes: true, ..self }
    }

    /// The same with [`Capabilities::expires`].
    #[must_use]
    pub const fn with_expiry(self) -> Self {
        Self { expires: true, ..self }
    }

    /// Whether it is within the limit. Nothing stands under a key beyond it.
    pub(crate) fn takes(&self, key: &Key) -> bool {
        key.as_str().len() <= self.max_key
    }
}

/// One step of the protocol, atomic on its key (`Apply`: as a whole).
#[derive(Debug, Clone)]
pub enum Step {
    /// Merges a change into the record of its row, projects the record and confirms what was released,
    /// all or nothing. Only for stores with [`Capabilities::whole_changes`].
    Apply(Arc<Delta>),
    /// Merges a change into the record of its row.
    Merge(Arc<Delta>),
    /// Writes an entry unless something newer stands there. An entry that carries a ledger keeps it.
    Write(Write),
    /// Forgets dirty keys of a record, those whose release was answered.
    Confirm {
        /// The key of the record.
        home: Key,
        /// The keys, each with the version that was released.
        released: Vec<(Key, Version)>,
    },
    /// Removes an entry that has expired and that the store need not keep any longer. Fails with
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where something of another type stands, in a store
    /// that has types.
    Sweep(Key),
    /// Removes what stands under a key if it is exactly these bytes: for repairs, where what stands there
    /// is nothing that another step could build upon.
    Remove {
        /// The key.
        key: Key,
        /// The bytes, as [`SyncStore::get_many`] gives them; none for something of another type.
        stands: Bytes,
    },
}

impl Step {
    /// The key that it is atomic on; that of the record for a whole change, which writes others too.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Apply(change) | Self::Merge(change) => &change.home,
            Self::Write(write) => &write.key,
            Self::Confirm { home, .. } => home,
            Self::Sweep(key) | Self::Remove { key, .. } => key,
        }
    }

    /// Its name, for metrics and spans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Merge(_) => "merge",
            Self::Write(_) => "write",
            Self::Confirm { .. } => "confirm",
            Self::Sweep(_) => "sweep",
            Self::Remove { .. } => "remove",
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `Apply`: the change is in the store, or something newer is.
    Applied {
        /// Whether the record already held something newer.
        superseded: bool,
    },
    /// `Merge`: the record as it is now.
    Merged {
        /// Whether the record already held something newer.
        superseded: bool,
        /// The record. Its bytes may be left out when they are the change's own.
        record: Box<Record>,
    },
    /// `Write`: the entry stands.
    Written,
    /// `Write`: something at least as new stood there, and still does.
    Superseded,
    /// `Confirm`, `Sweep`, `Remove`: done, or there was nothing to do.
    Done,
}

/// Where a scan goes on. Opaque, and good only for the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// Some of the keys of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Key>,
    /// Where to go on; `None` after the last page.
    pub next: Option<Cursor>,
}
