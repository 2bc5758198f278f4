//! The Redis-like commands of a store, for persistence code of your own.
//!
//! Beside rows that are synced, many programs keep things of their own in the same store: sessions,
//! counters, indexes, uniqueness marks. [`DataStore`] is what such code is written against, and
//! [`DataCommands`] are its typed methods; every store of this crate has them.
//!
//! ```
//! use kvsync::store::MemoryStore;
//! use kvsync::store::data::{AtomicWrite, DataCommands};
//!
//! let store = MemoryStore::new();
//! store.set("greeting", "hello")?;
//! assert_eq!(store.get("greeting")?.as_deref(), Some(b"hello".as_slice()));
//!
//! // A user with a unique name and a place in an enumeration, all or nothing.
//! let mut write = AtomicWrite::new();
//! let name = write.set_if_absent("user:name:ann", "7");
//! write.set("user:7", "{\"name\":\"ann\"}");
//! write.zadd("users", "ann:7", 0.0);
//! assert!(store.atomic_write(&write)?.is_done());
//!
//! let again = store.atomic_write(&write)?;
//! assert!(again.refused(name), "the name is taken, and the answer says so");
//! # Ok::<(), kvsync::Error>(())
//! ```
//!
//! Keys, members, fields and values are bytes. The data of this contract and the rows that are synced do
//! not stand in each other's way: see each store for where it keeps them.
//!
//! # What commands cost
//!
//! | | memory, embedded | Redis | DynamoDB | NATS | FoundationDB |
//! |---|---|---|---|---|---|
//! | a command | no network; on disk one journal entry for what writes | 1 round trip | 1 request to set or get a string, else 2 to 4 | 1 round trip to read or `set`, 2 to write | 1 transaction |
//! | a batch | one lock, or journal entry, for 100 commands | one pipeline to each node | its keys side by side, strings read 100 a request | its keys side by side | 1 transaction for 100 commands |
//! | an atomic write | as a command | one script | its commands, at double price | 2 round trips | 1 transaction |
//! | a member or field of a large set or hash | reads and writes that alone | that alone | a page of 32 KB | **the whole collection** | that alone |
//! | all members or fields | reads all | reads all | reads all, 100 pages a request | reads all | reads all |
//! | a member of a large sorted set or hash | that alone, with its score | that alone, O(log n) | its item and that of the key | **the whole collection** | that alone, with its score |
//! | a range of these | what it returns | what it returns | what it returns, 1 MB a request | the whole collection | what it returns |
//! | a count of these | what it counts | O(log n) | what it counts, 1 MB a request | the whole collection | what it counts |
//! | [eventual](DataCommands::eventual) | the same | the same | reads at half the price | whichever server has it | the same |
//!
//! # Limits
//!
//! A store says them as [`DataCapabilities`]; what is beyond is [`Rejected`](crate::ErrorKind::Rejected), before anything
//! is sent.
//!
//! | at most | memory | embedded | Redis | DynamoDB | NATS | FoundationDB |
//! |---|---|---|---|---|---|---|
//! | a key | 1 GiB | 16,383 bytes | 64 MiB | 2 KiB with the prefix | 1 KiB | 2.4 kB with the subspace |
//! | a member or field | 2 GiB | 32,751 bytes | 64 MiB | 1008 bytes | half a value | 4.9 kB with the subspace |
//! | a value | 4 GiB | 4 GiB | 512 MiB | 391 KiB | the server's `max_payload`, 1 MB by default | 1 MiB |
//! | a set or hash | the memory | the disk | the memory | 100 MB | a value | the cluster |
//! | an atomic write is over | any keys | any keys | any keys; in a cluster those of one slot | any keys | one key | any keys |
//! | and has operations | 100 | 100 | 100 | 100 | 100 | 100 |
//! | and touches [entries](DataCapabilities::max_entries) | any number | any number | any number | 100, and 4 MB | any number | 10 MB |

pub(crate) mod atomic;
mod batch;
mod bytes;
mod command;
mod eventual;
mod methods;
mod range;
mod reply;

pub use self::atomic::{AtomicWrite, Operation, Outcome, check as check_atomic};
pub use self::batch::{Answers, Batch, Pending};
pub use self::bytes::IntoBytes;
pub(crate) use self::command::Kind;
pub use self::command::{Command, Condition};
pub use self::eventual::Eventual;
pub use self::methods::DataCommands;
pub use self::range::{Direction, LexRange, ScoreRange};
pub use self::reply::{Entry, Reply, Scored};
use super::Store;
use crate::error::Result;

/// How many operations an atomic write may have on every store.
pub const PORTABLE_OPERATIONS: usize = 100;

/// A store that runs the Redis-like commands.
///
/// # Contract
///
/// - **A command is atomic on its key**, and takes effect at once for every reader of [`Reads::Latest`].
/// - **Each command of a batch has its own answer**, in the order asked; one that fails leaves the others alone.
///   Commands of one batch may take effect in any order, those on one key in the order given.
/// - **An atomic write happens as a whole or not at all**, for readers too.
/// - **Absence is not failure.** What is not there is `None`, empty or 0; a server that is not there is an
///   error, always.
/// - **A wrong kind of value** is [`ErrorKind::WrongType`](crate::ErrorKind::WrongType), and nothing is changed.
/// - **Every call ends**, by the store's own deadlines. A write that was cut off is
///   [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome); repeating it is harmless only where
///   the command itself is: setting is, incrementing is not. Stores never repeat by themselves what is not.
///
/// # Wrapping
///
/// Commands travel as data: a store around a store passes [`Command`]s on in two methods. The trait has
/// no default methods, so that none can be forgotten.
pub trait DataStore: Store {
    /// What it can do of this contract.
    fn data_capabilities(&self) -> DataCapabilities;

    /// Runs commands and answers each, in order. Blocks for at most the store's own deadlines.
    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>>;

    /// Runs operations as one: all of them, or none when a condition fails. Conditions are looked at
    /// before anything is written, and one that fails is told before whatever else is wrong: where another operation is
    /// on a wrong kind of value, or has a sum that is no number, the answer is [`Outcome::Refused`] all the same.
    /// A condition on a wrong kind of value has not failed; it is
    /// [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) where none has. No key may be written by two operations, unless they are
    /// for one kind of values and name other members or fields: [`check_atomic`]
    /// has the whole rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Contention`](crate::ErrorKind::Contention) when others wrote at the same time and
    /// nothing was done (a retry helps); [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when the
    /// store cannot do these operations as one.
    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome>;
}

/// How fresh a reading has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// What was acknowledged before the call is seen.
    #[default]
    Latest,
    /// What a replica or a near cache has may be answered; cheaper where a store has them, the same where not.
    Eventual,
}

/// What a store can do of [`DataStore`]'s contract, and up to what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataCapabilities {
    /// What an atomic write may span.
    pub atomic: Atomicity,
    /// The most operations of one atomic write.
    pub max_operations: usize,
    /// The most entries that one write may touch, atomic or not: each of its keys is one, and beside it each member
    /// named of a sorted set or hash. `usize::MAX` where a store does not count them.
    pub max_entries: usize,
    /// The longest key, in bytes.
    pub max_key: usize,
    /// The longest member or field, in bytes.
    pub max_member: usize,
    /// The largest value, in bytes.
    pub max_value: usize,
}

/// What an atomic write may span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atomicity {
    /// Operations on one key.
    Key,
    /// Operations on keys of one hash slot: those with the same `{tag}`.
    Slot,
    /// Any operations.
    Store,
}

impl DataCapabilities {
    /// These limits, with atomic writes of [`PORTABLE_OPERATIONS`] over the whole store.
    #[must_use]
    pub const fn new(max_key: usize, max_member: usize, max_value: usize) -> Self {
        let (atomic, max_operations) = (Atomicity::Store, PORTABLE_OPERATIONS);
        Self { atomic, max_operations, max_entries: usize::MAX, max_key, max_member, max_value }
    }

    /// The same with writes that touch no more entries than this.
    #[must_use]
    pub const fn with_max_entries(self, max_entries: usize) -> Self {
        Self { max_entries, ..self }
    }

    /// The same with other atomic writes.
    #[must_use]
    pub const fn with_atomic(self, atomic: Atomicity, max_operations: usize) -> Self {
        Self { atomic, max_operations, ..self }
    }
}
