//! A store whose calls are observed: what [`Metered`](super::Metered), [`Traced`](super::Traced) and
//! [`Profiled`](super::Profiled) have in common.

use std::slice;
use std::time::Duration;

use bytes::Bytes;

use super::size::{Size, of_command, of_step};
use crate::error::Result;
use crate::key::Key;
use crate::record::Terms;
use crate::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use crate::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};

/// A store around a store that changes nothing and lets an observer look on. Made as
/// [`Metered`](super::Metered), [`Traced`](super::Traced) or [`Profiled`](super::Profiled).
#[derive(Debug, Clone)]
pub struct Observed<S, O> {
    pub(super) store: S,
    observer: O,
}

/// What looks on. It runs on the thread of the call, before it and after it.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// What it keeps while a call runs.
    type Running;

    /// A call begins.
    fn begin(&self, call: &Call<'_>) -> Self::Running;

    /// A call has been answered.
    fn end<T: Size>(&self, running: Self::Running, call: &Call<'_>, answers: &[Result<T>]);
}

/// One call of a store.
#[derive(Debug)]
pub struct Call<'a> {
    /// The store's name.
    pub(super) store: &'a str,
    asked: Asked<'a>,
}

#[derive(Debug)]
enum Asked<'a> {
    Execute(&'a [Step]),
    GetMany(&'a [Key]),
    Scan,
    Epoch,
    RaiseEpoch,
    Run(&'a [Command]),
    RunAtomic(&'a [Operation]),
}

impl<S: Store, O: Observer> Observed<S, O> {
    pub(super) const fn around(store: S, observer: O) -> Self {
        Self { store, observer }
    }

    fn one<T: Size>(&self, asked: Asked<'_>, work: impl FnOnce(&S) -> Result<T>) -> Result<T> {
        let call = Call { store: self.store.name(), asked };
        let running = self.observer.begin(&call);
        let answer = work(&self.store);
        self.observer.end(running, &call, slice::from_ref(&answer));
        answer
    }

    fn many<T: Size>(&self, asked: Asked<'_>, work: impl FnOnce(&S) -> Vec<Result<T>>) -> Vec<Result<T>> {
        let call = Call { store: self.store.name(), asked };
        let running = self.observer.begin(&call);
        let answers = work(&self.store);
        self.observer.end(running, &call, &answers);
        answers
    }
}

impl Call<'_> {
    /// What was asked: the name of the command or step, `batch` for several that differ.
    pub(super) fn name(&self) -> &'static str {
        match self.asked {
            Asked::Execute(steps) => only(steps.iter().map(Step::name)),
            Asked::GetMany(_) => "get_many",
            Asked::Scan => "scan",
            Asked::Epoch => "epoch",
            Asked::RaiseEpoch => "raise_epoch",
            Asked::Run(commands) => only(commands.iter().map(Command::name)),
            Asked::RunAtomic(_) => "atomic",
        }
    }

    /// How many steps, commands, operations or keys it has.
    pub(super) fn len(&self) -> usize {
        match self.asked {
            Asked::Execute(steps) => steps.len(),
            Asked::GetMany(keys) => keys.len(),
            Asked::Run(commands) => commands.len(),
            Asked::RunAtomic(operations) => operations.len(),
            Asked::Scan | Asked::Epoch | Asked::RaiseEpoch => 1,
        }
    }

    /// The bytes of values, members and fields that it carries.
    pub(super) fn bytes(&self) -> usize {
        match self.asked {
            Asked::Execute(steps) => steps.iter().map(of_step).sum(),
            Asked::Run(commands) => commands.iter().map(of_command).sum(),
            Asked::RunAtomic(operations) => operations.iter().map(|operation| of_command(operation.command())).sum(),
            Asked::GetMany(_) | Asked::Scan | Asked::Epoch | Asked::RaiseEpoch => 0,
        }
    }
}

/// What only figures by name need.
#[cfg(feature = "metrics")]
impl Call<'_> {
    /// The name of what the answer at this place is to.
    pub(super) fn name_at(&self, place: usize) -> &'static str {
        match self.asked {
            Asked::Execute(steps) => steps.get(place).map_or("batch", Step::name),
            Asked::Run(commands) => commands.get(place).map_or("batch", Command::name),
            Asked::GetMany(_) | Asked::Scan | Asked::Epoch | Asked::RaiseEpoch | Asked::RunAtomic(_) => self.name(),
        }
    }

    /// How many of each name it has, neighbours of one name together.
    pub(super) fn each(&self, mut tell: impl FnMut(&'static str, usize)) {
        match self.asked {
            Asked::Execute(steps) => runs(steps.iter().map(Step::name), tell),
            Asked::Run(commands) => runs(commands.iter().map(Command::name), tell),
            Asked::RunAtomic(operations) => {
                runs(operations.iter().map(|operation| operation.command().name()), tell);
            }
            Asked::GetMany(_) | Asked::Scan | Asked::Epoch | Asked::RaiseEpoch => tell(self.name(), self.len()),
        }
    }
}

/// The bytes of values, members and fields in answers.
pub(super) fn bytes_of<T: Size>(answers: &[Result<T>]) -> usize {
    answers.iter().flatten().map(Size::size).sum()
}

fn only(mut names: impl Iterator<Item = &'static str>) -> &'static str {
    let first = names.next().unwrap_or("batch");
    if names.all(|name| name == first) { first } else { "batch" }
}

#[cfg(feature = "metrics")]
fn runs(names: impl Iterator<Item = &'static str>, mut tell: impl FnMut(&'static str, usize)) {
    let mut names = names.peekable();
    while let Some(name) = names.next() {
        let mut count = 1;
        while names.next_if_eq(&name).is_some() {
            count += 1;
        }
        tell(name, count);
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store, O: Observer> Store for Observed<S, O> {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.store.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SyncStore, O: Observer> SyncStore for Observed<S, O> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.many(Asked::Execute(steps), |store| store.execute(steps, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.one(Asked::GetMany(keys), |store| store.get_many(keys))
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.one(Asked::Scan, |store| store.scan(prefix, cursor, limit))
    }

    fn epoch(&self) -> Result<u32> {
        self.one(Asked::Epoch, SyncStore::epoch)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.one(Asked::RaiseEpoch, |store| store.raise_epoch(epoch))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore, O: Observer> DataStore for Observed<S, O> {
    fn data_capabilities(&self) -> DataCapabilities {
        self.store.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.many(Asked::Run(commands), |store| store.run(commands, reads))
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.one(Asked::RunAtomic(operations), |store| store.run_atomic(operations))
    }
}
