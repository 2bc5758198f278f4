//! Many commands in as few round trips as a store has them, each with its own answer.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::DataStore;
use super::Reads;
use super::bytes::IntoBytes;
use super::command::{Command, Condition};
use super::methods::{done, many, members, set, standing_score, table};
use super::range::{Direction, LexRange, ScoreRange};
use super::reply::{Entry, Reply, Scored};
use crate::error::{Error, ErrorKind, Result};

/// Collects commands. Each method returns where its answer will be.
///
/// ```
/// use kvsync::store::MemoryStore;
/// use kvsync::store::data::{Batch, DataCommands};
///
/// let store = MemoryStore::new();
/// let mut batch = Batch::new();
/// let visits = batch.incr_by("visits", 2);
/// let name = batch.get("name");
/// let mut answers = batch.run(&store);
/// assert_eq!(answers.take(visits)?, 2);
/// assert_eq!(answers.take(name)?, None);
/// # Ok::<(), kvsync::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Batch {
    commands: Vec<Command>,
    /// Tells it from other batches; clones are the same one.
    number: u64,
}

/// Where the answer to a command of a [`Batch`] will be.
#[derive(Debug)]
#[must_use = "the answer to a command says whether it failed"]
pub struct Pending<T> {
    batch: u64,
    place: usize,
    take: fn(Reply) -> Result<T>,
    answer: PhantomData<fn() -> T>,
}

/// The answers to the commands of a [`Batch`].
#[derive(Debug)]
pub struct Answers {
    batch: u64,
    replies: Vec<Option<Result<Reply>>>,
}

impl Default for Batch {
    fn default() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self { commands: Vec::new(), number: MADE.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Batch {
    /// A batch without commands.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its commands, in order.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Runs the commands on a store. Blocks for at most the store's deadlines.
    pub fn run<S: DataStore + ?Sized>(&self, store: &S) -> Answers {
        self.run_with(store, Reads::Latest)
    }

    /// Runs the commands, with readings as fresh as asked.
    pub fn run_with<S: DataStore + ?Sized>(&self, store: &S, reads: Reads) -> Answers {
        Answers { batch: self.number, replies: store.run(&self.commands, reads).into_iter().map(Some).collect() }
    }

    fn push<T>(&mut self, command: Command, take: fn(Reply) -> Result<T>) -> Pending<T> {
        self.commands.push(command);
        Pending { batch: self.number, place: self.commands.len() - 1, take, answer: PhantomData }
    }
}

impl Answers {
    /// The answer to one command.
    ///
    /// # Errors
    ///
    /// What the command failed with; [`ErrorKind::Rejected`] for a command of another batch than the one that ran, or one
    /// that was added after it ran.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is taken once")]
    pub fn take<T>(&mut self, pending: Pending<T>) -> Result<T> {
        if pending.batch != self.batch {
            return Err(Error::new(
                ErrorKind::Rejected,
                "the command is of another batch than these answers; take each from the run of the batch it was added to",
            ));
        }
        let reply = self.replies.get_mut(pending.place).and_then(Option::take);
        let missing = || {
            Err(Error::new(
                ErrorKind::Rejected,
                "the command has no answer here: it was added after the batch ran, or its answer was taken; run the batch again",
            ))
        };
        (pending.take)(reply.unwrap_or_else(missing)?)
    }
}

macro_rules! in_a_batch {
    ($($rows:ident { $($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty, $take:path, $command:expr;)* })*) => {
        impl Batch {
            $($(
                $(#[$doc])*
                pub fn $name(&mut self, $($argument: $kind),*) -> Pending<$answer> {
                    self.push($command, $take)
                }
            )*)*
        }
    };
}

table!(in_a_batch);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn an_answer_is_taken_from_the_batch_that_asked() {
        let store = MemoryStore::new();
        let (mut one, mut other) = (Batch::new(), Batch::new());
        let (of_one, _of_other) = (one.get("a"), other.incr_by("n", 1));
        let foreign = other.run(&store).take(of_one).unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::Rejected);
        assert!(foreign.to_string().contains("another batch"), "{foreign}");
        let mut before = one.run(&store);
        let late = one.get("b");
        let unasked = before.take(late).unwrap_err();
        assert!(unasked.to_string().contains("added after the batch ran"), "{unasked}");
    }
}
