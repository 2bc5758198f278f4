//! Both contracts over any ordered, transactional key-value store.
//!
//! An engine of that kind implements [`Engine`] and is given to [`OrderedStore`], which then keeps
//! [`SyncStore`](super::SyncStore) and [`DataStore`]: the steps of the protocol, the layout of keys, conditions, ranges
//! and times to live are done here once. The stores in memory and in FoundationDB are such adapters, and so are
//! the commands of the store on disk, which keeps its rows in a tree of its own.
//!
//! # Costs
//!
//! The steps of a call are one transaction, as far as they fit into one: it reads each key that is written, and writes
//! it once.
//!
//! A batch is one transaction for each hundred of its commands. Strings, counters, members and fields are
//! read and written one entry each, an entry of a sorted set or hash with a second one for its score. Ranges
//! read what they return, counts read what they count. Writing over or removing a key reads what stands
//! under it.
//!
//! # Times to live
//!
//! What has expired is never returned. It is removed when its key is written, and a few at a time by
//! other writes, oldest first, about a second after it has expired.

mod layout;
mod overlay;
#[cfg(feature = "nats")]
pub(crate) mod packed;
mod rows;
mod run;
mod sorted;
mod split;
mod sweep;
#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::overlay::Overlay;
use self::run::Run;
pub use self::split::Split;
use self::sweep::Sweeper;
#[cfg(feature = "nats")]
pub(crate) use self::sweep::sweep as sweep_expired;
use super::data::{Command, DataCapabilities, DataStore, Direction, Operation, Outcome, Reads, Reply, atomic};
use crate::clock::{Clock, SystemClock, millis};
use crate::error::{ErrorKind, Result};
use crate::store::{Health, Store};

/// An ordered key-value store with transactions: all that rows and commands need of an engine.
///
/// # Contract
///
/// - [`read`](Self::read) sees one state of the store, as it was after some write and before the next.
/// - [`write`](Self::write) is serializable, and durable in the sense of the engine when it returns Ok. When the
///   work fails, nothing is written. The work may run several times, when others write at the same time.
///   To compare only the keys that were written is not enough (snapshot isolation): what was read has to stand too.
/// - Keys are ordered as bytes.
///
/// `kvsync::store::conformance::run_engine` (feature `conformance`) has two transactions meet and says whether it holds.
pub trait Engine: Store {
    /// How much the engine takes.
    fn limits(&self) -> Limits;

    /// Runs readings on one state of the store.
    ///
    /// # Errors
    ///
    /// What the work fails with, and when the store could not be read.
    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T>;

    /// What stands under one key. An engine whose states cost something to open has a cheaper way than that of
    /// [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// When the store could not be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(|reader| reader.get(key))
    }

    /// Runs readings and writes as one transaction.
    ///
    /// # Errors
    ///
    /// What the work fails with; when the store could not be written; and
    /// [`ErrorKind::Contention`] when others never stopped to interfere.
    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T>;
}

/// How much an engine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes; a hundred at least.
    pub key: usize,
    /// The largest value, in bytes; some hundreds at least.
    pub value: usize,
    /// What one transaction may write, keys and values, in bytes. Steps that are more together are several
    /// transactions; a single row with its keys, or an atomic write, has to fit.
    pub transaction: usize,
    /// The most steps that one call should carry.
    pub batch: usize,
}

/// Reads a state of an engine.
pub trait Reader {
    /// What stands under a key.
    ///
    /// # Errors
    ///
    /// When the engine could not be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Told of keys that [`get`](Self::get) will ask for, in about this order. An engine across a network begins to
    /// read them, so that the answers need not be waited for one by one; others have nothing to do.
    fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>);

    /// At most `limit` entries between two keys, in the order of their keys or against it. The limit may be 0, for
    /// nothing, and [`usize::MAX`], for all: it says nothing about how much there is. The ends are never the wrong way
    /// round, nor both at one key that either excludes, on which a `BTreeMap` would panic; an [`Overlay`] and a
    /// [`Split`] take those too, and find nothing.
    ///
    /// # Errors
    ///
    /// When the engine could not be read.
    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
}

impl<R: Reader + ?Sized> Reader for &R {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        (**self).get(key)
    }

    fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>) {
        (**self).prefetch(keys);
    }

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        (**self).range(between, direction, limit)
    }
}

/// Reads and writes within a transaction. Its own writes are seen by its readings.
pub trait Writer: Reader {
    /// Writes an entry.
    fn put(&mut self, key: Vec<u8>, value: Bytes);

    /// Removes an entry, if there is one.
    fn remove(&mut self, key: Vec<u8>);
}

/// Two ends of a range of keys.
pub type Between<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// How many commands of a batch are one transaction: others wait meanwhile, and an engine may limit it.
const TOGETHER: usize = 100;

/// A store over an engine. Clones share it.
#[derive(Debug)]
pub struct OrderedStore<E> {
    engine: Arc<E>,
    clock: Arc<dyn Clock>,
    sweeper: Arc<Sweeper>,
}

impl<E> Clone for OrderedStore<E> {
    fn clone(&self) -> Self {
        let Self { engine, clock, sweeper } = self;
        Self { engine: Arc::clone(engine), clock: Arc::clone(clock), sweeper: Arc::clone(sweeper) }
    }
}

impl<E: Engine + Default> Default for OrderedStore<E> {
    fn default() -> Self {
        Self::over(E::default())
    }
}

impl<E: Engine> OrderedStore<E> {
    /// A store over this engine, which holds nothing else.
    #[must_use]
    pub fn over(engine: E) -> Self {
        Self { engine: Arc::new(engine), clock: Arc::new(SystemClock), sweeper: Arc::default() }
    }

    /// The same with another clock, by which strings expire.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Runs commands as one transaction, or in parts where the engine does not take them as one.
    fn group(&self, commands: &[Command]) -> Vec<Result<Reply>> {
        use ErrorKind::{Contention, Corrupt, Rejected};
        match self.together(commands) {
            Ok(replies) => replies,
            Err(error) if commands.len() > 1 && matches!(error.kind(), Contention | Corrupt | Rejected) => {
                let (first, second) = commands.split_at(commands.len() / 2);
                [self.group(first), self.group(second)].concat()
            }
            Err(error) => commands.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn together(&self, commands: &[Command]) -> Result<Vec<Result<Reply>>> {
        let (can, now) = (self.data_capabilities(), millis(self.clock.now()));
        // A command that is at fault itself has written nothing, and the others go on.
        let answer = |reply: Result<Reply>| match reply {
            Err(error) if matches!(error.kind(), ErrorKind::WrongType | ErrorKind::Rejected) => Ok(Err(error)),
            reply => reply.map(Ok),
        };
        if let [command @ Command::Get { .. }] = commands {
            let checked = command.check(can);
            return Ok(vec![answer(checked.and_then(|()| run::read(&One(&*self.engine), now, command)))?]);
        }
        if !commands.iter().any(Command::writes) {
            let read = |reader: &dyn Reader, command: &Command| {
                answer(command.check(can).and_then(|()| run::read(reader, now, command)))
            };
            return self.engine.read(|reader| commands.iter().map(|command| read(reader, command)).collect());
        }
        self.engine.write(|writer| {
            self.sweeper.run(writer, now, commands.len())?;
            let mut run = Run { entries: writer, now };
            commands.iter().map(|command| answer(command.check(can).and_then(|()| run.write(command)))).collect()
        })
    }
}

/// An engine, for a command that reads one entry.
struct One<'a, E>(&'a E);

impl<E: Engine> Reader for One<'_, E> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key)
    }

    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.read(|reader| reader.range(between, direction, limit))
    }
}

impl<E: Engine> Store for OrderedStore<E> {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.engine.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.engine.close()
    }
}

impl<E: Engine> DataStore for OrderedStore<E> {
    fn data_capabilities(&self) -> DataCapabilities {
        let Limits { key, value, transaction, .. } = self.engine.limits();
        // A value is written with what says its kind, its score and its end.
        let value = value.min(transaction.saturating_sub(4 * key));
        // A key may double when it is escaped, and stands before each of its members.
        DataCapabilities::new(key / 4, key / 2 - layout::OVERHEAD, value.saturating_sub(layout::OVERHEAD))
    }

    fn run(&self, commands: &[Command], _reads: Reads) -> Vec<Result<Reply>> {
        commands.chunks(TOGETHER).flat_map(|commands| self.group(commands)).collect()
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        atomic::check(operations, self.data_capabilities(), |_| 0)?;
        let now = millis(self.clock.now());
        self.engine.write(|writer| run_atomic(writer, now, operations))
    }
}

/// Runs a command in a transaction, at a time. Where it fails, nothing of the transaction may be written.
#[cfg(feature = "nats")]
pub(crate) fn run_one(entries: &mut dyn Writer, now: u64, command: &Command) -> Result<Reply> {
    sweep_expired(entries, now)?;
    Run { entries, now }.write(command)
}

/// Runs operations as one, in a transaction, at a time. Where it fails, nothing of the transaction may be written.
pub(crate) fn run_atomic(entries: &mut dyn Writer, now: u64, operations: &[Operation]) -> Result<Outcome> {
    let mut run = Run { entries, now };
    let failed = atomic::failed(operations.iter().map(Operation::command), |command| run.holds(command))?;
    if !failed.is_empty() {
        return Ok(Outcome::Refused(failed));
    }
    for operation in operations {
        run.write(operation.command())?;
    }
    Ok(Outcome::Done)
}
