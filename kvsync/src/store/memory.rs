//! A store in the memory of the process: for tests, and for caches that need not outlive it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::data::ordered::{Between, Engine, OrderedData, Overlay, Reader, Writer};
use super::data::{self, Command, DataCapabilities, DataStore, Direction, Operation, Reads, Reply};
use super::steps::{after, plan};
use super::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};
use crate::error::Result;
use crate::key::Key;
use crate::record::Terms;

/// Lengths are stored in four bytes.
const MAX: usize = 0xffff_ffff;

/// A store in memory. Clones share what is stored.
///
/// A call to [`execute`](SyncStore::execute) takes effect as a whole: readers see all of it or none. What
/// [`DataCommands`](super::data::DataCommands) write stands apart from the rows.
#[derive(Clone, Default)]
pub struct MemoryStore {
    // One lock: a call holds it for microseconds, and a change spans keys.
    inner: Arc<RwLock<Inner>>,
    data: OrderedData<Map>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Key, Bytes>,
    epoch: u32,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries of rows it holds, tombstones and records of deleted rows included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().entries.len()
    }

    /// Whether it holds no entry of a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    /// Does nothing: the entries go with the last clone.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX, MAX, 4096).with_whole_changes()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let mut inner = self.inner.write();
        let (answers, changed) = plan(steps, terms, &|key| Ok(inner.entries.get(key).cloned()));
        for (key, entry) in changed {
            match entry {
                Some(entry) => inner.entries.insert(key, entry),
                None => inner.entries.remove(&key),
            };
        }
        answers
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let inner = self.inner.read();
        Ok(keys.iter().map(|key| inner.entries.get(key).cloned()).collect())
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let begin = match &cursor {
            Some(cursor) => Bound::Excluded(after(cursor, prefix)?),
            None => Bound::Included(Key::new(prefix)),
        };
        let inner = self.inner.read();
        let keys: Vec<Key> = inner
            .entries
            .range((begin, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.as_str().starts_with(prefix))
            .take(limit.max(1))
            .cloned()
            .collect();
        let next = keys.last().filter(|_| keys.len() == limit.max(1)).map(|last| Cursor(last.as_str().into()));
        Ok(Page { keys, next })
    }

    fn epoch(&self) -> Result<u32> {
        Ok(self.inner.read().epoch)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        let mut inner = self.inner.write();
        inner.epoch = inner.epoch.max(epoch);
        Ok(inner.epoch)
    }
}

impl DataStore for MemoryStore {
    fn data_capabilities(&self) -> DataCapabilities {
        self.data.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.data.run(commands, reads)
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.data.run_atomic(operations)
    }
}

/// The engine of the commands: one lock, as for the rows.
#[derive(Default)]
struct Map(RwLock<BTreeMap<Bytes, Bytes>>);

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.0.read().len()).finish()
    }
}

impl Store for Map {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Engine for Map {
    fn limits(&self) -> (usize, usize) {
        (MAX, MAX)
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        work(&*self.0.read())
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        let mut map = self.0.write();
        let mut overlay = Overlay::new(&*map);
        let answer = work(&mut overlay)?;
        for (key, value) in overlay.into_changes() {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(answer)
    }
}

impl Reader for BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let found = BTreeMap::range::<[u8], _>(self, between);
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match direction {
            Direction::Forward => found.take(limit).map(owned).collect(),
            Direction::Reverse => found.rev().take(limit).map(owned).collect(),
        })
    }
}
