use std::hint::black_box;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use kvsync::envelope::VERSION_AT;
use kvsync::store::EmbeddedStore;

use super::sides::{Bare, By, compare};
use crate::Result;
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};

/// The store on disk against fjall alone, with tables in memory of the same size, and each write handed to the
/// operating system before it is acknowledged, as the store does. Both have few keys here: all is in memory.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let store = EmbeddedStore::open(dir.path().join("ours"))?;
    let mut bare = Fjall::open(&dir.path().join("theirs"))?;
    let turns = Turns { clock: Clock::Thread, rounds: options.rounds(40), each: 20, operations: 200 };
    let by = By { clocks: [Clock::Thread, Clock::Wall], goal: Goal::AtLeast(0.95) };
    compare(&store, &mut bare, turns, &by)
}

/// One keyspace, keys and values as they come.
pub(super) struct Fjall {
    pub(super) tree: Keyspace,
    database: Database,
    /// Held from reading to writing: fjall's batches look at nothing.
    writer: Mutex<()>,
}

impl Fjall {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir).open()?;
        let tree = database.keyspace("bare", || KeyspaceCreateOptions::default().max_memtable_size(16 << 20))?;
        Ok(Self { tree, database, writer: Mutex::default() })
    }

    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::Buffer))
    }

    /// Writes entries, each unless the one that stands there has at least its version, as one batch.
    pub(super) fn put_newer<'a>(&self, entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<bool> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut all) = (self.batch(), true);
        for (key, entry) in entries {
            let stands = self.tree.get(key)?;
            let newer = stands.is_none_or(|stands| stands.get(VERSION_AT..20) < entry.get(VERSION_AT..20));
            if newer {
                batch.insert(&self.tree, key, entry);
            }
            all &= newer;
        }
        batch.commit()?;
        Ok(all)
    }
}

impl Bare for Fjall {
    fn get(&mut self, key: &str) -> Result<bool> {
        Ok(black_box(self.tree.get(key)?).is_some())
    }

    /// `insert`, which hands the write to the operating system.
    fn set(&mut self, key: &str, value: &Bytes) -> Result {
        Ok(self.tree.insert(key, &value[..])?)
    }

    /// One batch.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result {
        let mut batch = self.batch();
        for key in keys {
            batch.insert(&self.tree, key.as_str(), &value[..]);
        }
        Ok(batch.commit()?)
    }

    /// Reads, compares the versions and writes, as the only writer.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool> {
        self.put_newer(std::iter::once((key, entry)))
    }
}
