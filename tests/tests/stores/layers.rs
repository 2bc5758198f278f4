//! The layers, each around a store in memory, and all of them together: what stands around a store is a store.

use std::sync::Arc;
use std::time::Duration;

use kvsync::Result;
use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::data::{Command, DataCapabilities, DataCommands, DataStore, Operation, Outcome, Reads, Reply};
use kvsync::store::layer::{Fault, Metered, NearCache, Odds, Prefix, Profiled, Retry, Traced};
use kvsync::store::{Health, MemoryStore, Store as AnyStore, SyncStore};
use kvsync_tests::wait::LONG;
use libtest_mimic::Trial;

use crate::Store;

/// How long what is cached may hide what has expired: long for a case, short for one that waits for it.
const LIFE: Duration = Duration::from_millis(100);

/// Makes an empty store.
type Make = fn() -> Stores;

pub(crate) fn stores() -> Vec<Store> {
    let layers: [(&'static str, Make); 12] = [
        ("layer_near_cache", || both(near_cache(memory()))),
        ("layer_near_cache_reader", || reading(&near_cache(memory()))),
        ("layer_metered", || both(Metered::new(memory()))),
        ("layer_traced", || both(Traced::new(memory()))),
        ("layer_profiled", || both(Profiled::new(memory()))),
        ("layer_retry", || both(retry(LONG, memory()))),
        ("layer_retry_over_faults", || both(retry(LONG, faulty(7)))),
        ("layer_prefix", || both(prefix(memory()))),
        ("layer_fault", || both(Fault::new(memory()))),
        ("layer_all", || both(Profiled::new(Traced::new(Metered::new(near_cache(below(faulty(11)))))))),
        ("layer_all_reader", || reading(&near_cache(below(faulty(13))))),
        ("layer_behind_pointers", behind_pointers),
    ];
    layers.into_iter().map(|(name, up)| -> Store { (name, Ok(Arc::new(Layer(up)))) }).collect()
}

/// What the suite cannot ask of a layer.
pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("layers::no_time_is_too_long", || {
        let retry = Retry::new(memory()).deadline(Duration::MAX).pauses(Duration::MAX, Duration::MAX);
        let cache = NearCache::new(retry, 1 << 20, Duration::MAX);
        cache.set("key", "value")?;
        if cache.eventual().get("key")?.as_deref() != Some(b"value".as_slice()) {
            return Err("a cache for ever is read".into());
        }
        Ok(())
    })]
}

struct Layer(Make);

impl Harness for Layer {
    fn fresh(&self) -> Stores {
        self.0()
    }

    /// What is down stands at the bottom, and no layer may hide it.
    fn unreachable(&self) -> Option<Stores> {
        let down = Fault::new(memory());
        down.set_down(true);
        Some(reading(&near_cache(retry(
            Duration::from_millis(1),
            prefix(Profiled::new(Traced::new(Metered::new(down)))),
        ))))
    }
}

fn both<S: SyncStore + DataStore + 'static>(store: S) -> Stores {
    Stores::both(Arc::new(store))
}

/// All that may be answered from memory is.
fn reading<S: SyncStore + DataStore + 'static>(cache: &NearCache<S>) -> Stores {
    let rows = Traced::new(Metered::new(cache.reader()));
    Stores { sync: Some(Arc::new(rows)), data: Some(Arc::new(Lagging(cache.clone()))) }
}

fn behind_pointers() -> Stores {
    let sync: Arc<dyn SyncStore> = Arc::new(memory());
    let data: Box<dyn DataStore> = Box::new(memory());
    Stores { sync: Some(Arc::new(prefix(Traced::new(sync)))), data: Some(Arc::new(prefix(Traced::new(data)))) }
}

fn memory() -> MemoryStore {
    MemoryStore::new()
}

fn near_cache<S>(store: S) -> NearCache<S> {
    NearCache::new(store, 16 << 20, LIFE)
}

fn prefix<S: AnyStore>(store: S) -> Prefix<S> {
    Prefix::new("under:", store).unwrap()
}

fn retry<S>(deadline: Duration, store: S) -> Retry<S> {
    Retry::new(store).pauses(Duration::from_micros(1), Duration::from_micros(50)).deadline(deadline)
}

fn below<S: AnyStore>(store: S) -> Retry<Prefix<S>> {
    retry(LONG, prefix(store))
}

/// One of five calls fails, and nothing was done.
fn faulty(seed: u64) -> Fault<MemoryStore> {
    Fault::seeded(memory(), seed, Odds { refuse: 0.2, ..Odds::default() })
}

/// Reads whatever may lag.
#[derive(Debug)]
struct Lagging<S>(S);

impl<S: AnyStore> AnyStore for Lagging<S> {
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

impl<S: DataStore> DataStore for Lagging<S> {
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
