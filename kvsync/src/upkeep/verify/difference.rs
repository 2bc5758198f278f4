//! What a verification finds, as it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::key::Key;
use crate::version::Version;

/// How a store differs from its database in one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// A row stands under the key, and nothing is stored there.
    Missing,
    /// The key holds the row as it was, and not as it is.
    Stale,
    /// A row stands under the key, and the store says that none does.
    Dead,
    /// The store does not know what the row holds, or the epoch was raised since: readers are sent to the
    /// database.
    Unknown,
    /// What is stored lacks a field of the model, or is in another codec: readers are sent to the database.
    Outdated,
    /// What is stored cannot be read, or was written by a newer version of kvsync.
    Undecodable,
    /// The key holds a row that does not stand under it, or that is not there at all.
    Orphan,
    /// What stands under the key was not written by kvsync, or not for this model.
    Foreign,
    /// The record of a row lists other keys than the row has, or keys that it has left and that were never
    /// released.
    Ledger,
    /// The store is ahead of the database, which was restored or failed over: raise the epoch.
    Ahead,
}

impl DifferenceKind {
    /// Its name, as reports and the command line write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
            Self::Outdated => "outdated",
            Self::Undecodable => "undecodable",
            Self::Orphan => "orphan",
            Self::Foreign => "foreign",
            Self::Ledger => "ledger",
            Self::Ahead => "ahead",
        }
    }
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A difference between a store and its database that has outlived the time in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What is wrong.
    pub kind: DifferenceKind,
    /// The store's name.
    pub store: Arc<str>,
    /// The database's name.
    pub database: Arc<str>,
    /// The table's name.
    pub table: &'static str,
    /// The model's name.
    pub model: &'static str,
    /// The key's name; `None` for a row's hidden record.
    pub key_name: Option<&'static str>,
    /// The key, within its scope.
    pub key: Key,
    /// The primary key of the row that it is about, its columns separated as in the row's home key; `None`
    /// where no row is known.
    pub primary_key: Option<String>,
    /// The version of what is stored, where it has one.
    pub stored: Option<Version>,
    /// The database was read at this version: what is stored is older than that, or no newer.
    pub read_at: Version,
    /// The rest, in words.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, store, model, key, detail, .. } = self;
        write!(f, "{kind}: `{key}` of {model} in {store}")?;
        if let Some(primary_key) = &self.primary_key {
            write!(f, ", row {primary_key}")?;
        }
        if let Some(stored) = &self.stored {
            write!(f, ", stored at {stored}")?;
        }
        write!(f, ", read at {}: {detail}", self.read_at)
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Rows that were read from the database, counted once for each model and store.
    pub rows: u64,
    /// Keys of rows that were looked at in the stores.
    pub keys: u64,
    /// Entries that were found in the stores.
    pub entries: u64,
    /// How often each kind of difference was found.
    pub counts: BTreeMap<DifferenceKind, u64>,
    /// The first differences, as many as were asked for.
    pub differences: Vec<Difference>,
    /// Rows that could not be judged, because they were written while they were looked at.
    pub moving: u64,
    /// Keys that have no entry because it has expired, or may have: nothing is wrong with them.
    pub expired: u64,
    /// Rows that are in the database and cannot be read as their model.
    pub unreadable: u64,
    /// Rows and entries that could not be judged; the reasons are logged. Verify again, after a repair.
    pub unjudged: u64,
    /// How long it took.
    pub took: Duration,
}

impl Verified {
    /// Whether no difference was found and everything could be judged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty() && self.unjudged == 0
    }

    /// How many differences were found.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of this kind were found.
    #[must_use]
    pub fn count(&self, kind: DifferenceKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows and {} entries compared in {:.1?}: ", self.rows, self.entries, self.took)?;
        if self.counts.is_empty() {
            write!(f, "no difference")?;
        }
        for (index, (kind, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{count} {kind}", if index == 0 { "" } else { ", " })?;
        }
        for (count, what) in [
            (self.moving, "rows were being written"),
            (self.expired, "keys have expired"),
            (self.unreadable, "rows cannot be read as their model"),
            (self.unjudged, "could not be judged"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// How far a verification or a repair is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// What is being looked at.
    pub side: Side,
    /// The model that is being looked at; `None` where it is all of them.
    pub model: Option<&'static str>,
    /// How many rows or entries have been looked at on this side.
    pub done: u64,
    /// About how many there are, where that is known.
    pub of: Option<u64>,
    /// How many differences were found so far, on all sides.
    pub found: u64,
}

/// Where a verification looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// At the rows of a table, and what the stores hold of each.
    Database,
    /// At the entries of a store, and whether their rows stand under them.
    Store,
    /// At the rows of a table again, for the entries that do not say whose they are.
    Strays,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Store => "store",
            Self::Strays => "strays",
        })
    }
}
