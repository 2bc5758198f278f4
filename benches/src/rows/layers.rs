//! What each layer costs a call, and what a hit in the near cache costs beside a bare one.

use std::time::Duration;

use bytes::Bytes;
use kvsync::Key;
use kvsync::store::data::{DataCommands, DataStore};
use kvsync::store::layer::{Metered, NearCache, Prefix, Profiled, Profiler, Retry, Traced};
use kvsync::store::{MemoryStore, SyncStore};
use moka::sync::Cache;

use super::stores::sides::{Versions, body, each, there, write, written};
use crate::Result;
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};

const KEYS: usize = 1000;
const CACHE: u64 = 64 << 20;
/// Nothing ends while it is measured.
const LIVES: Duration = Duration::from_hours(1);

/// A `get` of 128 bytes through one layer over the store in memory, against the store in memory. Nobody listens to the
/// metrics and the spans: what a recorder or a subscriber does is its own.
pub(crate) fn costs(options: &Options) -> Result<Vec<Figure>> {
    let turns = turns(options);
    let bare = filled(MemoryStore::new())?;
    let near = || NearCache::new(MemoryStore::new(), CACHE, LIVES);
    let profiler = Profiler::begin();
    let mut figures = vec![
        cost("Profiled, outside a unit", &filled(Profiled::new(MemoryStore::new()))?, &bare, turns)?,
        cost("Traced", &filled(Traced::new(MemoryStore::new()))?, &bare, turns)?,
        cost("Metered", &filled(Metered::new(MemoryStore::new()))?, &bare, turns)?,
        cost("NearCache, asked for the latest", &filled(near())?, &bare, turns)?,
        cost("Retry", &filled(Retry::new(MemoryStore::new()))?, &bare, turns)?,
        cost("Prefix", &filled(Prefix::new("app:", MemoryStore::new())?)?, &bare, turns)?,
    ];
    let store = filled(Profiled::new(MemoryStore::new()))?;
    let _here = profiler.enter();
    figures.push(cost("Profiled, in a unit", &store, &bare, turns)?);
    Ok(figures)
}

/// A hit, for rows and for commands, against `get` of a moka of the same limits, which clones the bytes. Both are given
/// the key as a reader has it: a [`Key`] for rows, a `&str` for commands, copied into bytes to look it up.
pub(crate) fn near_cache(options: &Options) -> Result<Vec<Figure>> {
    let store = NearCache::new(filled(MemoryStore::new())?, CACHE, LIVES);
    let (names, keys) = (names(), names().into_iter().map(Key::new).collect::<Vec<_>>());
    let (value, versions, body) = (value(), Versions::default(), body());
    let weigh = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let rows = Cache::builder()
        .max_capacity(CACHE)
        .time_to_live(LIVES)
        .weigher(move |key: &Key, value: &Option<Bytes>| {
            weigh(key.as_str().len() + value.as_ref().map_or(0, Bytes::len))
        })
        .build();
    let bytes = Cache::builder()
        .max_capacity(CACHE)
        .time_to_live(LIVES)
        .weigher(move |key: &Bytes, value: &Bytes| weigh(key.len() + value.len()))
        .build();
    for (name, key) in names.iter().zip(&keys) {
        rows.insert(key.clone(), Some(value.clone()));
        bytes.insert(Bytes::from(name.clone()), value.clone());
        store.eventual().get(name)?;
        written(&store, &[write(key.clone(), versions.next(), &body)])?;
    }
    let reader = store.reader();
    reader.get_many(&keys)?;
    let commands = turns(options).measure(
        &mut each(&names, |name| there(store.eventual().get(name)?.is_some())),
        &mut each(&names, |name| there(bytes.get(&Bytes::copy_from_slice(name.as_bytes())).is_some())),
    )?;
    let looked_up = turns(options).measure(
        &mut each(&keys, |key| there(reader.get_many(std::slice::from_ref(key))?.iter().all(Option::is_some))),
        &mut each(&keys, |key| there(rows.get(key).is_some())),
    )?;
    let many = Turns { operations: 10, ..turns(options) }.measure(
        &mut |calls: usize| (0..calls).try_for_each(|_| there(reader.get_many(&keys)?.len() == KEYS)),
        &mut |calls: usize| {
            (0..calls).try_for_each(|_| there(keys.iter().map(|key| rows.get(key)).collect::<Vec<_>>().len() == KEYS))
        },
    )?;
    Ok(vec![
        looked_up.times("a row in the near cache ÷ moka get (cpu)", Goal::AtMost(1.3)),
        many.times("1000 rows in the near cache, one call ÷ 1000 moka gets (cpu)", Goal::AtMost(1.3)),
        commands.times("a string in the near cache ÷ moka get (cpu)", Goal::AtMost(1.3)),
    ])
}

fn turns(options: &Options) -> Turns {
    Turns { clock: Clock::Thread, rounds: options.rounds(40), each: 20, operations: 1000 }
}

fn cost(layer: &str, ours: &impl DataStore, bare: &MemoryStore, turns: Turns) -> Result<Figure> {
    let names = names();
    let rounds = turns.measure(
        &mut each(&names, |name| there(ours.get(name)?.is_some())),
        &mut each(&names, |name| there(bare.get(name)?.is_some())),
    )?;
    Ok(rounds.costs(format!("a get through {layer} (cpu)")))
}

fn filled<S: DataStore>(store: S) -> Result<S> {
    for name in names() {
        store.set(name, value())?;
    }
    Ok(store)
}

fn names() -> Vec<String> {
    (0..KEYS).map(|number| format!("user:{number}")).collect()
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; 128])
}
