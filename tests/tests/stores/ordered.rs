//! An engine from outside of the crate, on the ordered layer: small values, and transactions that are optimistic, run
//! again when others wrote, and now and then when nobody did. FoundationDB is such an engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::data::Direction;
use kvsync::store::ordered::{Between, Engine, Limits, OrderedStore, Overlay, Reader, Split, Writer};
use kvsync::store::{Health, Status, Store};
use kvsync::{Error, ErrorKind, Result};
use parking_lot::Mutex;

/// Makes stores on engines of their own.
pub(crate) struct Fresh;

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        Stores::both(Arc::new(OrderedStore::over(Optimistic::default())))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}

/// Values above this are split.
const PIECE: usize = 20_000;

type Entries = Arc<BTreeMap<Bytes, Bytes>>;

/// Each write is a new state; a transaction is over the state that it began with.
#[derive(Debug, Default)]
pub(crate) struct Optimistic {
    state: Mutex<Entries>,
    begun: AtomicU64,
}

impl Store for Optimistic {
    fn name(&self) -> &'static str {
        "optimistic"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Engine for Optimistic {
    fn limits(&self) -> Limits {
        Limits { key: 1_000, value: 300_000, transaction: 1_000_000, batch: 64 }
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        let state = Arc::clone(&self.state.lock());
        work(&Split::over(State(state), PIECE))
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        for _ in 0..10_000 {
            let begin = Arc::clone(&self.state.lock());
            let mut split = Split::over(Overlay::new(State(Arc::clone(&begin))), PIECE);
            let answer = work(&mut split)?;
            let changes = split.into_inner()?.into_changes();
            let large = changes.values().flatten().find(|value| value.len() > PIECE);
            assert!(large.is_none(), "a value of more than a piece");
            let size: usize = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
            if size > 2 * self.limits().transaction {
                return Err(Error::new(ErrorKind::Rejected, format!("{size} bytes are too many for a transaction")));
            }
            let mut state = self.state.lock();
            if !Arc::ptr_eq(&begin, &state) || self.begun.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                continue;
            }
            drop(begin);
            let entries = Arc::make_mut(&mut state);
            for (key, value) in changes {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
            return Ok(answer);
        }
        Err(Error::new(ErrorKind::Contention, "others never stopped"))
    }
}

struct State(Entries);

impl Reader for State {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let found = self.0.range::<[u8], _>(between).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Reverse => found.rev().take(limit).collect(),
        })
    }
}
