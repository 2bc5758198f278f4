//! Several clients of one bucket as one store, each call by the next of them. Within a client the writers of a key
//! take turns; between clients nothing but the revision of an entry keeps them apart.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::record::Terms;
use kvsync::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use kvsync::store::nats::{Builder, NatsStore};
use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use kvsync::{Key, Result};

#[derive(Debug)]
pub(super) struct Clients {
    stores: [NatsStore; 2],
    calls: AtomicUsize,
}

impl Clients {
    pub(super) fn connect(builder: &Builder) -> Result<Self> {
        let connect = || builder.clone().connect();
        Ok(Self { stores: [connect()?, connect()?], calls: AtomicUsize::new(0) })
    }

    fn next(&self) -> &NatsStore {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

impl Store for Clients {
    fn name(&self) -> &str {
        self.stores[0].name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.next().health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.stores.iter().try_for_each(Store::close)
    }
}

impl SyncStore for Clients {
    fn capabilities(&self) -> Capabilities {
        self.next().capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.next().execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.next().get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.next().scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.next().epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.next().raise_epoch(epoch)
    }
}

impl DataStore for Clients {
    fn data_capabilities(&self) -> DataCapabilities {
        self.next().data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.next().run(commands, reads)
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.next().run_atomic(operations)
    }
}
