//! What fjall says when it fails, and what a person can do about it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Why fjall did not do something.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The operating system said no.
    Io(Arc<io::Error>),
    /// The directory is open elsewhere.
    Locked,
    /// An earlier failure, perhaps of a thread of fjall's, made it stop taking writes.
    Stopped,
    /// What is stored is not what fjall writes; its own word for it.
    Damaged(Arc<fjall::Error>),
    /// This stands in the directory, and is not the store's.
    Stray(PathBuf),
    /// The store itself refused, before fjall was asked.
    Refused(Error),
}

impl Fault {
    /// Whether the disk, or the share of it that this user may take, is full.
    pub(super) fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// Whether fjall takes no more writes after it, until it is opened anew.
    pub(super) const fn stops_writes(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Stopped)
    }

    /// The same fault with its cause, where fjall does not tell it and it is still there.
    pub(super) fn looked_into(self, dir: &Path) -> Self {
        match self {
            Self::Stopped => probe(dir).map_or_else(Self::from, |()| Self::Stopped),
            told => told,
        }
    }

    /// The error of a call on a store that is open in `dir`.
    pub(super) fn error(&self, dir: &Path) -> Error {
        let dir = dir.display();
        match self {
            Self::Io(error) if self.is_full() => Error::new(
                ErrorKind::Unavailable,
                format!("the disk of the embedded store in `{dir}` is full; make room, writing then goes on by itself"),
            )
            .with_source(Arc::clone(error)),
            Self::Io(error) => Error::new(
                ErrorKind::UnknownOutcome,
                format!("the embedded store in `{dir}` met a failure of its disk; check the disk, then restart"),
            )
            .with_source(Arc::clone(error)),
            Self::Stopped => Error::new(
                ErrorKind::Unavailable,
                format!("the embedded store in `{dir}` takes no writes since one failed; is the disk full or failing?"),
            ),
            Self::Locked => Error::new(
                ErrorKind::Unavailable,
                format!("the embedded store in `{dir}` is open elsewhere, by this process or another; close it there"),
            ),
            Self::Damaged(error) => Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the embedded store in `{dir}` is damaged, or is no store; move the directory away, start anew \
                     and backfill from the database"
                ),
            )
            .with_source(Arc::clone(error)),
            Self::Stray(path) => Error::new(
                ErrorKind::Corrupt,
                format!("`{}` is in the way of the embedded store in `{dir}`; remove it", path.display()),
            ),
            Self::Refused(error) => error.clone(),
        }
    }

    /// The error of an attempt to open a store in `dir`.
    pub(super) fn opening(&self, dir: &Path) -> Error {
        match self {
            Self::Io(error) if !self.is_full() => Error::new(
                ErrorKind::Config,
                format!(
                    "cannot open an embedded store in `{}`; it has to be a directory that this user may write",
                    dir.display()
                ),
            )
            .with_source(Arc::clone(error)),
            _ => self.error(dir),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Self::Io(Arc::new(error)),
            fjall::Error::Locked => Self::Locked,
            fjall::Error::Poisoned => Self::Stopped,
            damaged => Self::Damaged(Arc::new(damaged)),
        }
    }
}

/// Looks for what makes fjall panic: it expects numbered folders and journals that are files.
pub(super) fn find_stray(dir: &Path) -> Result<(), Fault> {
    let stray = |dir: PathBuf, is_stray: fn(&str, bool) -> bool| {
        let Ok(entries) = std::fs::read_dir(dir) else {
            // Nothing is there yet, or fjall says why it cannot be read.
            return Ok(());
        };
        for entry in entries {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if entry.file_name().to_str().is_none_or(|name| is_stray(name, is_dir)) {
                return Err(Fault::Stray(entry.path()));
            }
        }
        Ok(())
    };
    stray(dir.to_owned(), |name, is_dir| is_dir && Path::new(name).extension().is_some_and(|end| end == "jnl"))?;
    stray(dir.join("keyspaces"), |name, is_dir| is_dir && name.parse::<u64>().is_err())
}

/// Whether the disk takes writes, found out by writing some.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join("probe.tmp");
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0; 256 * 1024])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}
