//! An engine from outside of the crate, on the ordered layer: small values, and transactions that are optimistic, run
//! again when others wrote, and now and then when nobody did. FoundationDB is such an engine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::envelope::{Head, State as Entry, Value};
use kvsync::record::{Order, Terms, Write};
use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::data::{DataCommands, DataStore, Direction};
use kvsync::store::ordered::{Between, Engine, Limits, OrderedStore, Overlay, Reader, Split, Writer};
use kvsync::store::{Health, Status, Step, Store, SyncStore};
use kvsync::{Error, ErrorKind, Key, Result, Version};
use libtest_mimic::Trial;
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

/// What the suite cannot ask of the layer.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("ordered::a_value_is_no_larger_than_a_transaction", || Ok(transactions()?)),
        Trial::test("ordered::a_reference_tells_what_will_be_read", || Ok(told()?)),
    ]
}

/// An engine whose values may be larger than its transactions takes what it says it takes.
fn transactions() -> Result<()> {
    let engine = Optimistic { value: 5_000_000, ..Optimistic::default() };
    let most = engine.limits().transaction;
    let store = OrderedStore::over(engine);
    let (rows, can) = (store.capabilities(), store.data_capabilities());
    assert!(rows.max_value < most && can.max_value < most, "{rows:?} and {can:?} of transactions of {most}");
    let (key, field) = (vec![0; can.max_key], vec![0; can.max_member.min(400)]);
    store.set_for(key.clone(), vec![1; can.max_value], Duration::from_hours(1))?;
    store.delete(key.clone())?;
    store.zh_add(key, field, vec![1; can.max_value], 1.0)?;
    let head = Head { version: Version::new(0, 1, 1), state: Entry::Value, expires_at: 0 };
    let key = Key::new("k".repeat(rows.max_key));
    let write = Write { key, head, value: Value::model(1, &[], &vec![1; rows.max_value]), order: Order::Slot };
    let terms = Terms { now: 1, left: 1, dead: 1 };
    store.execute(&[Step::Write(write)], &terms).remove(0).map(drop)
}

/// What a reader behind a reference was told of.
fn told() -> Result<()> {
    struct Told(Cell<usize>);
    impl Reader for Told {
        fn get(&self, _key: &[u8]) -> Result<Option<Bytes>> {
            Ok(None)
        }
        fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>) {
            self.0.set(self.0.get() + keys.count());
        }
        fn range(&self, _between: Between<'_>, _direction: Direction, _limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
            Ok(Vec::new())
        }
    }
    fn tell(reader: impl Reader) -> Result<Option<Bytes>> {
        reader.prefetch(&mut [vec![1], vec![2]].into_iter());
        reader.get(&[1])
    }
    let told = Told(Cell::new(0));
    tell(&told)?;
    assert_eq!(told.0.get(), 2, "keys that will be read");
    Ok(())
}

/// Values above this are split.
const PIECE: usize = 20_000;

type Entries = Arc<BTreeMap<Bytes, Bytes>>;

/// Each write is a new state; a transaction is over the state that it began with.
#[derive(Debug)]
pub(crate) struct Optimistic {
    state: Mutex<Entries>,
    begun: AtomicU64,
    /// The largest value.
    value: usize,
}

impl Default for Optimistic {
    fn default() -> Self {
        let (state, begun) = Default::default();
        Self { state, begun, value: 300_000 }
    }
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
        Limits { key: 1_000, value: self.value, transaction: 1_000_000, batch: 64 }
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

    /// Nothing is waited for.
    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let found = self.0.range::<[u8], _>(between).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Reverse => found.rev().take(limit).collect(),
        })
    }
}
