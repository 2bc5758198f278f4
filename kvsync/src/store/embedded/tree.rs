use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{
    Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot, UserValue,
};

use super::fault::{self, Fault};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::store::steps::Entries;

/// The longest key that fjall takes is 65535 bytes; one is ours.
pub(super) const MAX_KEY: usize = 65_534;
/// Before each key: fjall takes no empty key, and the store's own entry stands apart.
const KEY: u8 = b'k';
const EPOCH: [u8; 1] = [b'e'];

/// How many bytes are collected in memory before they become a table on disk. There may be four such
/// tables in memory.
const TABLE: u64 = 16 << 20;

/// fjall halts a writer, without a deadline, from 4 sealed tables in memory or 30 in the first level
/// on disk. The store waits below that, with a deadline.
const MAX_SEALED: usize = 3;
const MAX_FIRST_LEVEL: usize = 26;
const PATIENCE: Duration = Duration::from_secs(30);

/// A fjall database that is open, and the two trees that the store keeps in it.
pub(super) struct Tree {
    entries: Keyspace,
    /// What the commands of users write.
    data: Keyspace,
    // After the keyspace, so that it is dropped last and lets go of the directory.
    database: Database,
    /// Odd while a batch is being written: fjall shows its entries one by one to who reads without a snapshot.
    writing: AtomicU64,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").finish_non_exhaustive()
    }
}

impl Tree {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, TABLE)
    }

    fn open_with(dir: &Path, table: u64) -> Result<Self> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(table);
        let open = || {
            fault::find_stray(dir)?;
            let database = Database::builder(dir).open()?;
            let entries = database.keyspace("entries", options)?;
            let data = database.keyspace("data", options)?;
            database.persist(PersistMode::SyncAll)?;
            Ok(Self { entries, data, database, writing: AtomicU64::new(0) })
        };
        // Some damage makes fjall panic instead of saying so.
        let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(fjall::Error::Unrecoverable.into()));
        opened.map_err(|fault: Fault| fault.opening(dir))
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Bytes>, Fault> {
        // What cannot be stored is not there.
        if key.as_str().len() > MAX_KEY {
            return Ok(None);
        }
        Ok(self.whole(&self.entries, &stored(key))?.map(|entry| Bytes::copy_from_slice(&entry)))
    }

    /// What stands under a key that is about to be written.
    pub(super) fn get_to_write(&self, key: &Key) -> Result<Option<Bytes>, Fault> {
        let len = key.as_str().len();
        if len > MAX_KEY {
            let message = format!("a key of {len} bytes is too long for an embedded store, which takes {MAX_KEY}");
            return Err(Fault::Refused(Error::new(ErrorKind::Rejected, message)));
        }
        self.get(key)
    }

    /// The keys from `begin` on that start with `prefix`, ascending, at most `limit`.
    pub(super) fn keys(&self, begin: Bound<Key>, prefix: &str, limit: usize) -> Result<Vec<Key>, Fault> {
        let begin = match begin {
            Bound::Included(key) => Bound::Included(stored(&key)),
            Bound::Excluded(key) => Bound::Excluded(stored(&key)),
            Bound::Unbounded => Bound::Included(vec![KEY]),
        };
        let mut keys = Vec::new();
        for guard in self.entries.range::<Vec<u8>, _>((begin, Bound::Unbounded)).take(limit) {
            let stored = guard.key()?;
            let key = stored.strip_prefix(&[KEY]).and_then(|key| std::str::from_utf8(key).ok());
            match key {
                Some(key) if key.starts_with(prefix) => keys.push(Key::new(key)),
                _ => break,
            }
        }
        Ok(keys)
    }

    /// Writes entries, all or none, and hands them to the operating system; with `sync` to the disk.
    pub(super) fn commit(&self, entries: Entries, sync: bool) -> Result<(), Fault> {
        let mut batch = self.database.batch().durability(Some(mode(sync)));
        for (key, entry) in entries {
            match entry {
                Some(entry) => batch.insert(&self.entries, stored(&key), entry.as_ref()),
                None => batch.remove(&self.entries, stored(&key)),
            }
        }
        wait_for_room(&self.database, &self.entries)?;
        self.write(batch)
    }

    /// One entry of the data.
    pub(super) fn data_entry(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.whole(&self.data, key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The data as it is now, whatever is written meanwhile.
    pub(super) fn data(&self) -> Data<'_> {
        Data { data: &self.data, state: Some(self.database.snapshot()) }
    }

    /// The data for who writes it, alone.
    pub(super) fn data_to_write(&self) -> Data<'_> {
        Data { data: &self.data, state: None }
    }

    /// Writes data, as [`commit`](Self::commit) writes entries.
    pub(super) fn commit_data(&self, changes: BTreeMap<Bytes, Option<Bytes>>, sync: bool) -> Result<(), Fault> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = self.database.batch().durability(Some(mode(sync)));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.data, key.as_ref(), value.as_ref()),
                None => batch.remove(&self.data, key.as_ref()),
            }
        }
        wait_for_room(&self.database, &self.data)?;
        self.write(batch)
    }

    /// Writes a batch, as the only writer.
    fn write(&self, batch: OwnedWriteBatch) -> Result<(), Fault> {
        // Odd again where a panic has left it odd.
        let odd = self.writing.load(Ordering::Relaxed) | 1;
        self.writing.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        let written = batch.commit();
        self.writing.store(odd.wrapping_add(1), Ordering::Release);
        Ok(written?)
    }

    /// One entry, of before or after any batch and never of the middle of one. A snapshot costs as much as a reading, so
    /// it is taken only where a batch is being written meanwhile.
    fn whole(&self, tree: &Keyspace, key: &[u8]) -> Result<Option<UserValue>, Fault> {
        let before = self.writing.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            let found = tree.get(key)?;
            // The reading comes before the question whether a batch was begun.
            fence(Ordering::Acquire);
            if self.writing.load(Ordering::Relaxed) == before {
                return Ok(found);
            }
        }
        Ok(self.database.snapshot().get(tree, key)?)
    }

    pub(super) fn epoch(&self) -> Result<u32, Fault> {
        match self.entries.get(EPOCH)? {
            None => Ok(0),
            Some(bytes) => Ok(u32::from_be_bytes(bytes.as_ref().try_into().map_err(|_| fjall::Error::Unrecoverable)?)),
        }
    }

    pub(super) fn raise_epoch(&self, epoch: u32) -> Result<u32, Fault> {
        let stands = self.epoch()?;
        if epoch > stands {
            let mut batch = self.database.batch().durability(Some(mode(true)));
            batch.insert(&self.entries, EPOCH, epoch.to_be_bytes());
            batch.commit()?;
        }
        Ok(stands.max(epoch))
    }

    pub(super) fn close(self) -> Result<(), Fault> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

/// One state of the data.
pub(super) struct Data<'a> {
    data: &'a Keyspace,
    state: Option<Snapshot>,
}

impl Data<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let value = match &self.state {
            Some(state) => state.get(self.data, key)?,
            None => self.data.get(key)?,
        };
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn range(
        &self,
        between: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let range = match &self.state {
            Some(state) => state.range::<&[u8], _>(self.data, between),
            None => self.data.range::<&[u8], _>(between),
        };
        let owned = |guard: Guard| {
            let (key, value) = guard.into_inner()?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        };
        if reverse { range.rev().take(limit).map(owned).collect() } else { range.take(limit).map(owned).collect() }
    }
}

fn wait_for_room(database: &Database, tree: &Keyspace) -> Result<(), Fault> {
    let deadline = Instant::now() + PATIENCE;
    while tree.sealed_memtable_count() >= MAX_SEALED || tree.l0_table_count() >= MAX_FIRST_LEVEL {
        // It fails once a thread of fjall's has failed to write, and then nobody makes room.
        database.persist(PersistMode::Buffer)?;
        if Instant::now() > deadline {
            return Err(Fault::Refused(Error::new(
                ErrorKind::Deadline,
                format!("the disk did not keep up for {PATIENCE:?}; nothing was written, try again later"),
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn mode(sync: bool) -> PersistMode {
    if sync { PersistMode::SyncAll } else { PersistMode::Buffer }
}

fn stored(key: &Key) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.as_str().len() + 1);
    stored.push(KEY);
    stored.extend_from_slice(key.as_str().as_bytes());
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_wait_for_the_disk_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_with(dir.path(), 32 * 1024).unwrap();
        let entry = |number: u32| Bytes::from(number.to_be_bytes().repeat(1_000));
        let key = |number: u32| Key::new(format!("key:{number}"));
        for number in 0..3_000 {
            tree.commit(Entries::from([(key(number), Some(entry(number)))]), false).unwrap();
        }
        for number in 0..3_000 {
            assert_eq!(tree.get(&key(number)).ok().flatten(), Some(entry(number)));
        }
        // A thread writes them, and may be behind.
        let patience = Instant::now() + Duration::from_mins(1);
        while tree.entries.table_count() == 0 {
            assert!(Instant::now() < patience, "no table was written");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
