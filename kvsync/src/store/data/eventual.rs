//! A view of a store whose readings may lag.

use std::time::Duration;

use super::{Command, DataCapabilities, DataStore, Operation, Outcome, Reads, Reply};
use crate::error::Result;
use crate::store::{Health, Store};

/// A store, read with [`Reads::Eventual`] whatever is asked. Made by
/// [`DataCommands::eventual`](super::DataCommands::eventual). Writes are as everywhere.
#[derive(Debug)]
pub struct Eventual<'a, S: ?Sized>(pub(super) &'a S);

impl<S: ?Sized> Clone for Eventual<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Eventual<'_, S> {}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Eventual<'_, S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.0.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore + ?Sized> DataStore for Eventual<'_, S> {
    fn data_capabilities(&self) -> DataCapabilities {
        self.0.data_capabilities()
    }

    fn run(&self, commands: &[Command], _reads: Reads) -> Vec<Result<Reply>> {
        self.0.run(commands, Reads::Eventual)
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        self.0.run_atomic(operations)
    }
}
