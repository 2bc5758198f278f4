//! A cache in which no reading that began before a write of this process stands after it.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;

/// How many locks the keys share: more than threads that fill or write at once.
const SHARDS: usize = 1024;

/// What a key costs beside its bytes and those of its value.
const OVERHEAD: usize = 96;

/// Readings of a store, by key.
///
/// While a write of a key is under way, its key is not cached, and what was read in that time does not stay:
/// so a cached value was read when no write of this process could change it, all of them agree, and none
/// outlives the next write.
pub(super) struct Coherent<K, V> {
    cache: Cache<K, V>,
    // A shard is many keys. One of them that is written only keeps the others from being filled meanwhile.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    /// How many writes have begun.
    begun: u64,
    /// How many of them have not ended.
    writing: usize,
}

/// What was true of a key before it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    begun: u64,
}

/// A write that is under way.
#[must_use = "the write is over once this is dropped"]
pub(super) struct Writing<'a> {
    shards: Vec<&'a Mutex<Shard>>,
}

impl<K, V> Coherent<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(bytes: u64, time_to_live: Duration, size: fn(&K, &V) -> usize) -> Self {
        let weigh = move |key: &K, value: &V| u32::try_from(size(key, value) + OVERHEAD).unwrap_or(u32::MAX);
        Self {
            cache: Cache::builder().max_capacity(bytes).time_to_live(time_to_live).weigher(weigh).build(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.cache.get(key)
    }

    /// The token of a reading that begins now; `None` while a write of the key is under way.
    pub(super) fn token(&self, key: &K) -> Option<Token> {
        let shard = self.shard(key)?.lock();
        (shard.writing == 0).then_some(Token { begun: shard.begun })
    }

    /// The same for a key that is cached.
    pub(super) fn token_if_cached(&self, key: &K) -> Option<Token> {
        if self.cache.contains_key(key) { self.token(key) } else { None }
    }

    /// Keeps what was read, unless a write has begun since.
    pub(super) fn fill(&self, key: K, value: V, token: Option<Token>) {
        let (Some(token), Some(shard)) = (token, self.shard(&key)) else { return };
        let shard = shard.lock();
        // Under the lock: a write that begins now waits, and then forgets it.
        if shard.begun == token.begun {
            self.cache.insert(key, value);
        }
    }

    /// A write of these keys begins: they are forgotten, and not filled until it ends.
    pub(super) fn write<'k>(&self, keys: impl Iterator<Item = &'k K>) -> Writing<'_> {
        let begin = |key: &K| {
            let lock = self.shard(key)?;
            let mut shard = lock.lock();
            shard.begun += 1;
            shard.writing += 1;
            self.cache.invalidate(key);
            Some(lock)
        };
        Writing { shards: keys.filter_map(begin).collect() }
    }

    /// How many bytes it holds by now.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.weighted_size()
    }

    fn shard(&self, key: &K) -> Option<&Mutex<Shard>> {
        let hash = self.hasher.hash_one(key);
        self.shards.get(usize::try_from(hash % SHARDS as u64).unwrap_or_default())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.lock().writing -= 1;
        }
    }
}
