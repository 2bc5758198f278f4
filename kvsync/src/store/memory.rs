//! A store in the memory of the process: for tests, and for caches that need not outlive it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::data::Direction;
use super::ordered::{Between, Engine, Limits, OrderedStore, Overlay, Reader, Writer};
use super::{Health, Status, Store};
use crate::error::Result;

/// Lengths are stored in four bytes.
const MAX: usize = 0xffff_ffff;

/// A store in memory. Clones share what is stored.
///
/// A call to [`execute`](super::SyncStore::execute) takes effect as a whole: readers see all of it or none. What
/// [`DataCommands`](super::data::DataCommands) write stands apart from the rows.
pub type MemoryStore = OrderedStore<Memory>;

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries of rows it holds, tombstones and records of deleted rows included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows().unwrap_or_default()
    }

    /// Whether it holds no entry of a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The engine of a [`MemoryStore`]: a map in memory.
// One lock: a call holds it for microseconds, and a change spans keys.
#[derive(Default)]
pub struct Memory(RwLock<BTreeMap<Bytes, Bytes>>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("len", &self.0.read().len()).finish()
    }
}

impl Store for Memory {
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

impl Engine for Memory {
    fn limits(&self) -> Limits {
        Limits { key: MAX, value: MAX, transaction: usize::MAX, batch: 4096 }
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

    /// Nothing is waited for.
    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let found = BTreeMap::range::<[u8], _>(self, between);
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match direction {
            Direction::Forward => found.take(limit).map(owned).collect(),
            Direction::Reverse => found.rev().take(limit).map(owned).collect(),
        })
    }
}
