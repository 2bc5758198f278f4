//! A store in a directory of this machine, on [`fjall`], a log-structured tree in pure Rust.
//!
//! # What it keeps, and when
//!
//! A call to [`execute`](SyncStore::execute) is one batch in fjall's journal, with a checksum: after a
//! crash all of it is there or none.
//!
//! - By default a batch is handed to the operating system before `execute` answers. **What was
//!   acknowledged survives the death of the process** (a panic, `kill -9`, out of memory). A power
//!   failure or a crash of the operating system may take the last seconds; what is left is a prefix of
//!   what was acknowledged, and the rest is as old as that until it is written again.
//! - With [`sync`](Builder::sync) each batch is also forced to the disk with `fsync`: what was
//!   acknowledged survives a power failure too, as far as the disk keeps its word.
//! - [`close`](Store::close) forces everything to the disk, in both modes.
//!
//! Damage in the middle of the journal (a failing disk, another program) is not always seen: fjall
//! takes what stands before it and drops what follows. Damage in tables is an error of kind
//! [`Corrupt`](crate::ErrorKind::Corrupt) when it is read.
//!
//! What [`DataCommands`](super::data::DataCommands) write is kept in the same way, apart from the rows: one
//! batch in the journal for each hundred commands of a call, and one for an atomic write.
//!
//! # When the disk is full
//!
//! Writes fail with [`Unavailable`](crate::ErrorKind::Unavailable) and reads go on. After a failed write
//! fjall takes no others until it is opened anew, so the store opens itself anew once the disk takes
//! writes again.

mod engine;
mod fault;
mod folder;
mod tree;

use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::folder::Folder;
use self::tree::{MAX_KEY, Tree};
use super::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use super::ordered::OrderedStore;
use super::steps::{after, plan};
use super::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use crate::error::Result;
use crate::key::Key;
use crate::record::Terms;
use bytes::Bytes;

/// Lengths are stored in four bytes.
const MAX_VALUE: usize = 0xffff_ffff;

/// A store in a directory of this machine. One process opens it at a time; clones share it.
///
/// See the [module](self) for what it keeps after a crash.
#[derive(Clone)]
pub struct EmbeddedStore {
    data: OrderedStore<Folder>,
}

/// How an [`EmbeddedStore`] is opened.
#[derive(Debug, Clone)]
pub struct Builder {
    dir: PathBuf,
    sync: bool,
}

impl Builder {
    /// Whether each batch is forced to the disk before it is acknowledged, so that it survives a power
    /// failure. Off by default: one `fsync` costs as much as thousands of writes.
    #[must_use]
    pub fn sync(self, sync: bool) -> Self {
        Self { sync, ..self }
    }

    /// Opens the store, and makes its directory where there is none. Replays the journal of a process
    /// that was killed.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when the directory cannot be made or written,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the store is open elsewhere or the disk is full,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when the directory holds something else or is damaged.
    pub fn open(self) -> Result<EmbeddedStore> {
        Ok(EmbeddedStore { data: OrderedStore::over(Folder::open(self.dir, self.sync)?) })
    }
}

impl EmbeddedStore {
    /// Opens the store in this directory, durable against the death of the process.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder(dir).open()
    }

    /// A store in this directory, to be configured and opened.
    #[must_use]
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder { dir: dir.as_ref().to_owned(), sync: false }
    }

    fn folder(&self) -> &Folder {
        self.data.engine()
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Folder { dir, sync, .. } = self.folder();
        f.debug_struct("EmbeddedStore").field("dir", dir).field("sync", sync).finish_non_exhaustive()
    }
}

impl Store for EmbeddedStore {
    fn name(&self) -> &str {
        &self.folder().name
    }

    fn health(&self, _deadline: Duration) -> Health {
        self.folder().health()
    }

    /// Forces what was acknowledged to the disk and lets go of the directory, so that another process
    /// can open it. Calls after this one fail; a second close does nothing.
    fn close(&self) -> Result<()> {
        self.folder().close()
    }
}

impl SyncStore for EmbeddedStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX_KEY, MAX_VALUE, 4096).with_whole_changes()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let folder = self.folder();
        let done = folder.writing(|tree| {
            let (answers, changed) =
                plan(steps, terms, &|key| tree.get_to_write(key).map_err(|fault| fault.error(&folder.dir)));
            tree.commit(changed, folder.sync)?;
            Ok(answers)
        });
        done.unwrap_or_else(|error| steps.iter().map(|_| Err(error.clone())).collect())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.folder().reading(|tree| keys.iter().map(|key| tree.get(key)).collect())
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let limit = limit.max(1);
        let begin = match &cursor {
            Some(cursor) => Bound::Excluded(after(cursor, prefix)?),
            None => Bound::Included(Key::new(prefix)),
        };
        self.folder().reading(|tree| {
            let keys = tree.keys(begin, prefix, limit)?;
            let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor(last.as_str().into()));
            Ok(Page { keys, next })
        })
    }

    fn epoch(&self) -> Result<u32> {
        self.folder().reading(Tree::epoch)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.folder().writing(|tree| tree.raise_epoch(epoch))
    }
}

impl DataStore for EmbeddedStore {
    fn data_capabilities(&self) -> DataCapabilities {
        self.data.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.data.run(commands, reads)
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.data.run_atomic(operations)
    }
}
