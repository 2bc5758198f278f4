//! A store behind a pointer is a store: what several share, and what is chosen at run time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use super::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use crate::error::Result;
use crate::key::Key;
use crate::record::Terms;

macro_rules! behind {
    ($($pointer:ident)*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<S: Store + ?Sized> Store for $pointer<S> {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn health(&self, deadline: Duration) -> Health {
                (**self).health(deadline)
            }

            fn close(&self) -> Result<()> {
                (**self).close()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<S: SyncStore + ?Sized> SyncStore for $pointer<S> {
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
                (**self).execute(steps, terms)
            }

            fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
                (**self).get_many(keys)
            }

            fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
                (**self).scan(prefix, cursor, limit)
            }

            fn epoch(&self) -> Result<u32> {
                (**self).epoch()
            }

            fn raise_epoch(&self, epoch: u32) -> Result<u32> {
                (**self).raise_epoch(epoch)
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<S: DataStore + ?Sized> DataStore for $pointer<S> {
            fn data_capabilities(&self) -> DataCapabilities {
                (**self).data_capabilities()
            }

            fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
                (**self).run(commands, reads)
            }

            fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
                (**self).run_atomic(operations)
            }
        }
    )*};
}

behind!(Arc Box);
