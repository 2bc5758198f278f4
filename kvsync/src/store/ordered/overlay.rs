use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Between, Reader, Writer};
use crate::error::Result;
use crate::store::data::Direction;

/// A transaction for engines that write batches: writes wait in memory, over a state that is read.
/// Whoever commits it has to be the only writer.
#[derive(Debug)]
pub struct Overlay<R> {
    under: R,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<R: Reader> Overlay<R> {
    /// Nothing written yet, over this state.
    pub const fn new(under: R) -> Self {
        Self { under, changes: BTreeMap::new() }
    }

    /// What has to be written: entries, and `None` for what has to go.
    pub fn into_changes(self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.changes
    }
}

impl<R: Reader> Reader for Overlay<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.changes.get(key).map_or_else(|| self.under.get(key), |changed| Ok(changed.clone()))
    }

    fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>) {
        self.under.prefetch(keys);
    }

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        if is_empty(between) {
            return Ok(Vec::new());
        }
        let changed: Vec<_> = self.changes.range::<[u8], _>(between).collect();
        // As many more from below as may be hidden by what was removed or written over.
        let below = self.under.range(between, direction, limit.saturating_add(changed.len()))?;
        let mut merged: BTreeMap<Bytes, Bytes> = below.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(match direction {
            Direction::Forward => merged.into_iter().take(limit).collect(),
            Direction::Reverse => merged.into_iter().rev().take(limit).collect(),
        })
    }
}

impl<R: Reader> Writer for Overlay<R> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.changes.insert(key.into(), Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.changes.insert(key.into(), None);
    }
}

/// Whether no key can be between these; the ranges of `BTreeMap` panic on some of them.
pub(crate) fn is_empty((begin, end): Between<'_>) -> bool {
    match (begin, end) {
        (Bound::Included(begin), Bound::Included(end)) => begin > end,
        (Bound::Included(begin) | Bound::Excluded(begin), Bound::Included(end) | Bound::Excluded(end)) => begin >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
