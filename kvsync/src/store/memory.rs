//! A store in the memory of the process: for tests, and for caches that need not outlive it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::steps::{after, plan};
use super::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, SyncStore};
use crate::error::Result;
use crate::key::Key;
use crate::record::Terms;

/// A store in memory. Clones share what is stored.
///
/// A call to [`execute`](SyncStore::execute) takes effect as a whole: readers see all of it or none.
#[derive(Clone, Default)]
pub struct MemoryStore {
    // One lock: a call holds it for microseconds, and a change spans keys.
    inner: Arc<RwLock<Inner>>,
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

    /// How many entries it holds, tombstones and records of deleted rows included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().entries.len()
    }

    /// Whether it holds no entry.
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

impl SyncStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        // Lengths are stored in four bytes.
        let max = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        Capabilities::new(max, max, 4096).with_whole_changes()
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

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    /// Does nothing: the entries go with the last clone.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
