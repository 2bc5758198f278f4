use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use bytes::Bytes;
use kvsync::envelope::VERSION_AT;
use kvsync::store::MemoryStore;

use super::sides::{Bare, By, compare};
use crate::Result;
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};

/// The store in memory has no client under it: a `BTreeMap` of bytes in a lock stands for one, for information.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let turns = Turns { clock: Clock::Thread, rounds: options.rounds(40), each: 20, operations: 1000 };
    let by = By { clocks: [Clock::Thread], goal: Goal::Reported };
    compare(&MemoryStore::new(), &mut Map::default(), turns, &by)
}

#[derive(Default)]
struct Map(RwLock<BTreeMap<Bytes, Bytes>>);

impl Map {
    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bare for Map {
    fn get(&mut self, key: &str) -> Result<bool> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(black_box(map.get(key.as_bytes()).cloned()).is_some())
    }

    fn set(&mut self, key: &str, value: &Bytes) -> Result {
        self.write().insert(Bytes::copy_from_slice(key.as_bytes()), value.clone());
        Ok(())
    }

    /// Under one lock.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result {
        let mut map = self.write();
        map.extend(keys.iter().map(|key| (Bytes::copy_from_slice(key.as_bytes()), value.clone())));
        Ok(())
    }

    /// Compares the versions and writes, under one lock.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool> {
        let mut map = self.write();
        let newer = map.get(key.as_bytes()).is_none_or(|stands| stands.get(VERSION_AT..20) < entry.get(VERSION_AT..20));
        if newer {
            map.insert(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(entry));
        }
        Ok(newer)
    }
}
