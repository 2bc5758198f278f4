//! Several operations that happen as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bytes::IntoBytes;
use super::command::{Command, Condition, too_many_entries};
use super::methods::{many, set, table};
use super::{Atomicity, DataCapabilities};
use crate::error::{Error, ErrorKind, Result};

/// One operation of an atomic write: a [`Command`] that writes. One with a condition that does not hold
/// undoes the whole.
///
/// Conditions are those of [`Command::Set`] other than [`Condition::Always`], `must_exist` of [`Command::Del`],
/// `if_absent` of [`Command::ZAdd`] and [`Command::ZhAdd`], and that of [`Command::HSetNx`]. No other is one: a
/// [`Command::ZhIncrBy`] of a field that is absent does nothing, and the others happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation(Command);

impl Operation {
    /// The operation of this command.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`] when the command only reads.
    pub fn new(command: Command) -> Result<Self> {
        if command.writes() {
            Ok(Self(command))
        } else {
            Err(Error::new(
                ErrorKind::Rejected,
                "an atomic write takes commands that write; read before it, or in a batch",
            ))
        }
    }

    /// The command.
    #[must_use]
    pub const fn command(&self) -> &Command {
        &self.0
    }
}

/// What became of an atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It did not; these conditions failed: the places of their operations, in order. Stores name all that
    /// they know of, and at least one.
    Refused(Vec<usize>),
}

impl Outcome {
    /// Whether it happened.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether it did not happen because of the condition of the operation at this place.
    #[must_use]
    pub fn refused(&self, operation: usize) -> bool {
        matches!(self, Self::Refused(failed) if failed.contains(&operation))
    }
}

/// Collects the operations of an atomic write. Each method returns the place of its operation, by which
/// [`Outcome::refused`] tells whether its condition failed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AtomicWrite {
    operations: Vec<Operation>,
}

impl AtomicWrite {
    /// A write without operations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its operations, in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn push(&mut self, command: Command) -> usize {
        self.operations.push(Operation(command));
        self.operations.len() - 1
    }
}

macro_rules! in_an_atomic_write {
    (
        read { $($reads:tt)* }
        write { $($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty, $take:path, $command:expr;)* }
    ) => {
        /// Each returns the place of its operation.
        impl AtomicWrite {
            $(
                $(#[$doc])*
                pub fn $name(&mut self, $($argument: $kind),*) -> usize {
                    self.push($command)
                }
            )*
        }
    };
}

table!(in_an_atomic_write);

/// The places of the conditions that do not hold, each looked at by `holds`. Where all that can be judged hold, one
/// that is on another kind of value is the error.
pub(crate) fn failed<'a>(
    commands: impl Iterator<Item = &'a Command>,
    mut holds: impl FnMut(&Command) -> Result<bool>,
) -> Result<Vec<usize>> {
    let (mut failed, mut wrong) = (Vec::new(), None);
    for (place, command) in commands.enumerate() {
        match holds(command) {
            Ok(true) => {}
            Ok(false) => failed.push(place),
            Err(error) if error.kind() == ErrorKind::WrongType => wrong = wrong.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match wrong {
        Some(error) if failed.is_empty() => Err(error),
        _ => Ok(failed),
    }
}

/// The rule of atomic writes, for stores that run them: fails for operations that the store cannot do, or not as one.
/// These are too many; over keys too far apart, where `slot` says which keys are together (asked only of a store with
/// [`Atomicity::Slot`]); two on the same string, member or field, or for different kinds of values under one key; and one
/// that the store would refuse alone ([`Command::check`]). One operation may name a member or field twice.
///
/// Nothing is read: a wrong kind that stands there, and conditions, are for the store to see.
///
/// ```
/// use kvsync::store::data::{AtomicWrite, DataCapabilities, check_atomic};
///
/// let can = DataCapabilities::new(1024, 1024, 1 << 20);
/// let mut write = AtomicWrite::new();
/// write.sadd("names", ["ann", "bob", "ann"]);
/// assert!(check_atomic(write.operations(), can, |_| ()).is_ok());
/// write.srem("names", ["bob"]);
/// assert!(check_atomic(write.operations(), can, |_| ()).is_err(), "is bob a name, or not?");
/// ```
///
/// # Errors
///
/// [`ErrorKind::Rejected`], saying which.
pub fn check<T: PartialEq>(operations: &[Operation], can: DataCapabilities, slot: impl Fn(&[u8]) -> T) -> Result<()> {
    let rejected = |message: String| Err(Error::new(ErrorKind::Rejected, message));
    if operations.len() > can.max_operations {
        return rejected(format!(
            "an atomic write of {} operations; this store takes {}",
            operations.len(),
            can.max_operations
        ));
    }
    operations.iter().try_for_each(|operation| operation.0.check(can))?;
    let members: usize = operations.iter().map(|operation| operation.0.members()).sum();
    let named: BTreeSet<_> = operations.iter().flat_map(|operation| operation.0.keys()).collect();
    if named.len() + members > can.max_entries {
        return rejected(too_many_entries(named.len() + members, can));
    }
    let mut keys = operations.iter().flat_map(|operation| operation.0.keys());
    if let Some(first) = keys.next() {
        match can.atomic {
            Atomicity::Store => {}
            Atomicity::Slot if keys.all(|key| slot(key) == slot(first)) => {}
            Atomicity::Slot => {
                return rejected(
                    "an atomic write over several hash slots; give its keys one {tag}, so that one node has them"
                        .into(),
                );
            }
            Atomicity::Key if keys.all(|key| key == first) => {}
            Atomicity::Key => {
                return rejected("an atomic write over several keys; this store writes one key at a time".into());
            }
        }
    }
    let mut whole = BTreeSet::new();
    let mut elements = BTreeSet::new();
    let mut kinds = BTreeMap::new();
    for operation in operations {
        let Some(key) = operation.0.keys().first() else { continue };
        let twice = match operation.0.elements() {
            None => elements.iter().any(|(other, _)| other == &key) || !whole.insert(key),
            Some(named) => {
                // What one operation names twice is named once: of two values of a field the last counts, as alone.
                let named: BTreeSet<_> = named.into_iter().collect();
                whole.contains(key) || named.into_iter().any(|element| !elements.insert((key, element)))
            }
        };
        if twice {
            return rejected(format!(
                "two operations of an atomic write are about the same of `{}`",
                key.escape_ascii()
            ));
        }
        let kind = operation.0.kind();
        if *kinds.entry(key).or_insert(kind) != kind {
            return rejected(format!(
                "two operations of an atomic write are for different kinds of values under `{}`",
                key.escape_ascii()
            ));
        }
    }
    Ok(())
}
