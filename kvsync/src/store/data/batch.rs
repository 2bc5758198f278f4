//! Many commands in as few round trips as a store has them, each with its own answer.

use std::marker::PhantomData;
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
#[derive(Debug, Default, Clone)]
pub struct Batch {
    commands: Vec<Command>,
}

/// Where the answer to a command of a [`Batch`] will be.
#[derive(Debug)]
#[must_use = "the answer to a command says whether it failed"]
pub struct Pending<T> {
    place: usize,
    take: fn(Reply) -> Result<T>,
    answer: PhantomData<fn() -> T>,
}

/// The answers to the commands of a [`Batch`].
#[derive(Debug)]
pub struct Answers {
    replies: Vec<Option<Result<Reply>>>,
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
        Answers { replies: store.run(&self.commands, reads).into_iter().map(Some).collect() }
    }

    fn push<T>(&mut self, command: Command, take: fn(Reply) -> Result<T>) -> Pending<T> {
        self.commands.push(command);
        Pending { place: self.commands.len() - 1, take, answer: PhantomData }
    }
}

impl Answers {
    /// The answer to one command.
    ///
    /// # Errors
    ///
    /// What the command failed with; [`ErrorKind::Rejected`] for a command of a longer batch than the one that ran.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is taken once")]
    pub fn take<T>(&mut self, pending: Pending<T>) -> Result<T> {
        let reply = self.replies.get_mut(pending.place).and_then(Option::take);
        let missing = || {
            Err(Error::new(ErrorKind::Rejected, "this batch has no such answer; take each from the batch that gave it"))
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
