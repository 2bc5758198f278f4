//! The directory of a store: who reads it, who writes it, and what is done once a write has failed.

use std::path::PathBuf;

use parking_lot::{Mutex, RwLock};

use super::fault::{self, Fault};
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Health, Status};

/// A store's directory, open until it is closed.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) name: String,
    pub(super) sync: bool,
    pub(super) dir: PathBuf,
    state: RwLock<State>,
    /// Held by whoever writes: a batch is planned and committed by one thread at a time.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
enum State {
    Open(Tree),
    /// It could not be opened anew after a failed write.
    Failed,
    Closed,
}

#[derive(Debug, Default)]
struct Writer {
    /// Why fjall takes no more writes.
    fault: Option<Fault>,
}

impl Folder {
    pub(super) fn open(dir: PathBuf, sync: bool) -> Result<Self> {
        let tree = Tree::open(&dir)?;
        let name = format!("embedded ({})", dir.display());
        Ok(Self { name, sync, dir, state: RwLock::new(State::Open(tree)), writer: Mutex::default() })
    }

    pub(super) fn reading<T>(&self, read: impl FnOnce(&Tree) -> Result<T, Fault>) -> Result<T> {
        match &*self.state.read() {
            State::Open(tree) => read(tree).map_err(|fault| fault.error(&self.dir)),
            State::Failed => Err(Fault::Stopped.error(&self.dir)),
            State::Closed => Err(self.closed()),
        }
    }

    /// Runs `write` as the only writer, after opening the store anew where an earlier write failed.
    pub(super) fn writing<T>(&self, write: impl FnOnce(&Tree) -> Result<T, Fault>) -> Result<T> {
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

    pub(super) fn health(&self) -> Health {
        // No lock is waited for: whoever holds one is at work, and what it meets is known afterwards.
        if self.state.try_read().is_some_and(|state| matches!(*state, State::Closed)) {
            return Health::new(Status::Down, vec![self.closed().to_string()]);
        }
        match self.writer.try_lock().as_deref() {
            Some(Writer { fault: Some(fault) }) => Health::new(Status::Down, vec![fault.error(&self.dir).to_string()]),
            _ => Health::new(Status::Up, Vec::new()),
        }
    }

    /// Forces everything to the disk and lets go of the directory.
    pub(super) fn close(&self) -> Result<()> {
        let _writer = self.writer.lock();
        match std::mem::replace(&mut *self.state.write(), State::Closed) {
            State::Open(tree) => tree.close().map_err(|fault| fault.error(&self.dir)),
            State::Failed | State::Closed => Ok(()),
        }
    }
}
