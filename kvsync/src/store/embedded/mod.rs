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
//! - [`close`](SyncStore::close) forces everything to the disk, in both modes.
//!
//! Damage in the middle of the journal (a failing disk, another program) is not always seen: fjall
//! takes what stands before it and drops what follows. Damage in tables is an error of kind
//! [`Corrupt`](crate::ErrorKind::Corrupt) when it is read.
//!
//! # When the disk is full
//!
//! Writes fail with [`Unavailable`](crate::ErrorKind::Unavailable) and reads go on. After a failed write
//! fjall takes no others until it is opened anew, so the store opens itself anew once the disk takes
//! writes again.

mod fault;
mod tree;

use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::fault::Fault;
use self::tree::{MAX_KEY, Tree};
use super::steps::{after, plan};
use super::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, SyncStore};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;

/// Lengths are stored in four bytes.
const MAX_VALUE: usize = 0xffff_ffff;

/// A store in a directory of this machine. One process opens it at a time.
///
/// See the [module](self) for what it keeps after a crash.
pub struct EmbeddedStore {
    name: String,
    sync: bool,
    dir: PathBuf,
    state: RwLock<State>,
    /// Held by whoever writes: a batch is planned and committed by one thread at a time.
    writer: Mutex<Writer>,
}

enum State {
    Open(Tree),
    /// It could not be opened anew after a failed write.
    Failed,
    Closed,
}

#[derive(Default)]
struct Writer {
    /// Why fjall takes no more writes.
    fault: Option<Fault>,
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
    /// [`ErrorKind::Config`] when the directory cannot be made or written,
    /// [`ErrorKind::Unavailable`] when the store is open elsewhere or the disk is full,
    /// [`ErrorKind::Corrupt`] when the directory holds something else or is damaged.
    pub fn open(self) -> Result<EmbeddedStore> {
        let tree = Tree::open(&self.dir)?;
        Ok(EmbeddedStore {
            name: format!("embedded ({})", self.dir.display()),
            sync: self.sync,
            dir: self.dir,
            state: RwLock::new(State::Open(tree)),
            writer: Mutex::default(),
        })
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

    fn reading<T>(&self, read: impl FnOnce(&Tree) -> Result<T, Fault>) -> Result<T> {
        match &*self.state.read() {
            State::Open(tree) => read(tree).map_err(|fault| fault.error(&self.dir)),
            State::Failed => Err(Fault::Stopped.error(&self.dir)),
            State::Closed => Err(self.closed()),
        }
    }

    /// Runs `write` as the only writer, after opening the store anew where an earlier write failed.
    fn writing<T>(&self, write: impl FnOnce(&Tree) -> Result<T, Fault>) -> Result<T> {
        let mut writer = self.writer.lock();
        if let Some(fault) = &writer.fault {
            self.reopen(fault)?;
            writer.fault = None;
        }
        self.reading(|tree| {
            write(tree).map_err(|fault| {
                let fault = fault.looked_into(&self.dir);
                if fault.stops_writes() {
                    writer.fault = Some(fault.clone());
                }
                fault
            })
        })
    }

    /// Opens the store anew if the disk takes writes again; until then it stays as it is, and readable.
    fn reopen(&self, fault: &Fault) -> Result<()> {
        // After a failed fsync nobody can say what is on the disk, so only a restart helps.
        if self.sync && !fault.is_full() {
            return Err(fault.error(&self.dir));
        }
        fault::probe(&self.dir).map_err(|_| fault.error(&self.dir))?;
        let mut state = self.state.write();
        if matches!(*state, State::Closed) {
            return Err(self.closed());
        }
        // The old one has to let go of the directory first.
        *state = State::Failed;
        *state = State::Open(Tree::open(&self.dir)?);
        Ok(())
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the store {} has been closed", self.name))
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("dir", &self.dir).field("sync", &self.sync).finish_non_exhaustive()
    }
}

impl SyncStore for EmbeddedStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX_KEY, MAX_VALUE, 4096).with_whole_changes()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let done = self.writing(|tree| {
            let (answers, changed) =
                plan(steps, terms, &|key| tree.get_to_write(key).map_err(|fault| fault.error(&self.dir)));
            tree.commit(changed, self.sync)?;
            Ok(answers)
        });
        done.unwrap_or_else(|error| steps.iter().map(|_| Err(error.clone())).collect())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.reading(|tree| keys.iter().map(|key| tree.get(key)).collect())
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let limit = limit.max(1);
        let begin = match &cursor {
            Some(cursor) => Bound::Excluded(after(cursor, prefix)?),
            None => Bound::Included(Key::new(prefix)),
        };
        self.reading(|tree| {
            let keys = tree.keys(begin, prefix, limit)?;
            let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor(last.as_str().into()));
            Ok(Page { keys, next })
        })
    }

    fn epoch(&self) -> Result<u32> {
        self.reading(Tree::epoch)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.writing(|tree| tree.raise_epoch(epoch))
    }

    fn health(&self, _deadline: Duration) -> Health {
        // No lock is waited for: whoever holds one is at work, and what it meets is known afterwards.
        if self.state.try_read().is_some_and(|state| matches!(*state, State::Closed)) {
            return Health::new(Status::Down, vec![self.closed().to_string()]);
        }
        match self.writer.try_lock().as_deref() {
            Some(Writer { fault: Some(fault) }) => Health::new(Status::Down, vec![fault.error(&self.dir).to_string()]),
            _ => Health::new(Status::Up, Vec::new()),
        }
    }

    /// Forces what was acknowledged to the disk and lets go of the directory, so that another process
    /// can open it. Calls after this one fail; a second close does nothing.
    fn close(&self) -> Result<()> {
        let _writer = self.writer.lock();
        match std::mem::replace(&mut *self.state.write(), State::Closed) {
            State::Open(tree) => tree.close().map_err(|fault| fault.error(&self.dir)),
            State::Failed | State::Closed => Ok(()),
        }
    }
}
