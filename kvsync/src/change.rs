//! What capture hands on: the changes of one committed transaction.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::key::{Key, Scope};
use crate::model::{Model, PrimaryKey, Schema};
use crate::version::Version;

/// What a statement did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// The row was inserted.
    Insert,
    /// The row was updated.
    Update,
    /// The row was inserted or updated; the statement does not tell which.
    Upsert,
    /// The row was deleted.
    Delete,
    /// Nobody wrote the row just now: it was read again.
    Reread,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::Reread => "reread",
        })
    }
}

/// One row of one model, as one statement left it.
#[derive(Debug)]
pub struct Change {
    /// The row's model.
    pub schema: &'static Schema,
    /// The name of the database that the row is in.
    pub database: Arc<str>,
    /// The scope of the connection that wrote it.
    pub scope: Scope,
    /// What the statement did.
    pub action: Action,
    /// Its place in the order of the row's changes.
    pub version: Version,
    /// When it was captured.
    pub captured_at: SystemTime,
    /// What is known of the row.
    pub row: Row,
    /// About how many bytes of memory the change holds.
    pub size: usize,
}

/// What a change knows of its row.
#[derive(Debug)]
pub enum Row {
    /// The row as it was written; it stands under its keys.
    Live(Box<dyn Model>),
    /// The row as it was written; its model's `live_if` does not hold, so it stands under no key.
    Hidden(Box<dyn Model>),
    /// The row as it was when it was deleted.
    Deleted {
        /// The row's last content.
        row: Box<dyn Model>,
        /// Whether it stood under its keys.
        live: bool,
    },
    /// The row was written, but its content is not at hand: it has to be read again.
    Unknown(Unknown),
    /// The row was read again, and there is no such row.
    Absent(Unknown),
}

/// A row whose content is not at hand.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// Its primary key.
    pub primary_key: PrimaryKey,
    /// The keys that hold the row's bytes and are not in any ledger (a model all of whose keys are
    /// immutable): without these nobody could mask them. Empty for other models. Before the scope.
    pub kept: Vec<Key>,
    /// Whether the change certainly happened. It did not when the answer to a COMMIT was lost.
    pub certain: bool,
}

impl Row {
    /// The primary key of the row.
    #[must_use]
    pub fn primary_key(&self) -> PrimaryKey {
        match self {
            Self::Live(row) | Self::Hidden(row) | Self::Deleted { row, .. } => row.primary_key(),
            Self::Unknown(unknown) | Self::Absent(unknown) => unknown.primary_key.clone(),
        }
    }

    /// What is left when the row's content is let go of.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        match self {
            Self::Unknown(unknown) | Self::Absent(unknown) => unknown.clone(),
            Self::Live(row) | Self::Hidden(row) | Self::Deleted { row, .. } => {
                Unknown { primary_key: row.primary_key(), kept: kept_keys(&**row), certain: true }
            }
        }
    }

    /// The key under which the row's record stands, before any scope.
    #[must_use]
    pub fn home(&self) -> Key {
        match self {
            Self::Live(row) | Self::Hidden(row) | Self::Deleted { row, .. } => row.home(),
            Self::Unknown(unknown) | Self::Absent(unknown) => unknown.primary_key.home().clone(),
        }
    }
}

impl Change {
    /// The key under which the row's record stands.
    #[must_use]
    pub fn home(&self) -> Key {
        self.row.home().within(&self.scope)
    }

    /// The same change without the row's content: what is kept of it when there is no room for more.
    #[must_use]
    pub fn into_unknown(self) -> Self {
        let unknown = self.row.unknown();
        let size = size_of::<Self>() + unknown.size();
        Self { row: Row::Unknown(unknown), size, ..self }
    }

    /// The key whose entry tells, by its version, that the change has reached a store: the row's
    /// record, or one of its keys where it has none. Listed in a [`CommitToken`] for other processes.
    #[must_use]
    pub fn witness(&self) -> Key {
        if self.schema.has_mutable_key() || self.schema.home().is_some() {
            return self.home();
        }
        let key = match &self.row {
            Row::Live(row) | Row::Hidden(row) | Row::Deleted { row, .. } => {
                (0..self.schema.keys.len()).find_map(|index| row.key(index))
            }
            Row::Unknown(unknown) | Row::Absent(unknown) => unknown.kept.first().cloned(),
        };
        key.map_or_else(|| self.home(), |key| key.within(&self.scope))
    }
}

impl Unknown {
    /// About how many bytes of memory it holds beside its own fixed size.
    #[must_use]
    pub fn size(&self) -> usize {
        let kept: usize = self.kept.iter().map(|key| size_of::<Key>() + key.as_str().len() + 16).sum();
        self.primary_key.home().as_str().len() + 64 + kept
    }
}

/// The keys of a row that no ledger lists.
fn kept_keys(row: &dyn Model) -> Vec<Key> {
    if row.schema().has_mutable_key() {
        return Vec::new();
    }
    (0..row.schema().keys.len()).filter_map(|index| row.key(index)).collect()
}

/// The changes of one committed transaction, in the order of its statements.
#[derive(Debug, Default)]
pub struct ChangeSet {
    /// The changes.
    pub changes: Vec<Change>,
    /// Rows of which there was no room even for the primary keys: their tables have to be filled in again.
    pub lost: Vec<Lost>,
}

/// Rows that a transaction wrote and of which nothing was kept.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Their model.
    pub schema: &'static Schema,
    /// The name of the database that they are in.
    pub database: Arc<str>,
    /// The scope of the connection that wrote them.
    pub scope: Scope,
    /// How many changes these were.
    pub changes: u64,
    /// Whether one of them may have been a deletion.
    pub deletes: bool,
}

impl From<Vec<Change>> for ChangeSet {
    fn from(changes: Vec<Change>) -> Self {
        Self { changes, lost: Vec::new() }
    }
}

impl ChangeSet {
    /// About how many bytes of memory it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.changes.iter().map(|change| change.size).sum()
    }
}

/// A committed transaction, to be waited for.
///
/// It can be serialized and waited for by another process, if its connection was told to list its rows
/// (`SyncConnection::set_portable_tokens`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CommitToken {
    /// The process that committed: a random number drawn at the start.
    pub process: u64,
    /// Its place among the commits of that process.
    pub sequence: u64,
    /// A key of each of its rows ([`Change::witness`]) with the row's version; empty unless asked for.
    pub rows: Vec<(String, [u8; Version::LEN])>,
    /// Where its changes stand in an outbox; nothing when they went to the queue.
    #[serde(default)]
    pub outbox: Option<OutboxRange>,
}

/// Rows of an outbox: those of one transaction stand in it, and maybe some of others.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutboxRange {
    /// The database's name.
    pub database: String,
    /// The lowest id.
    pub first: i64,
    /// The highest id; [`i64::MAX`] for all rows that are committed when the range is waited for.
    pub last: i64,
}

impl OutboxRange {
    /// The first and last id of a range whose rows triggers have written: the ids are not known.
    pub(crate) const OPEN: (i64, i64) = (0, i64::MAX);
}

/// A write that capture saw and could not capture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// The database's name.
    pub database: Arc<str>,
    /// The registered table that the statement names, as far as it is known.
    pub table: Option<String>,
    /// Why it could not be captured, and what to do.
    pub reason: Cow<'static, str>,
    /// The statement's text, without its binds.
    pub sql: String,
}

impl Missed {
    /// A statement that was not captured.
    #[must_use]
    pub fn new(
        database: Arc<str>,
        table: Option<String>,
        reason: impl Into<Cow<'static, str>>,
        sql: impl Into<String>,
    ) -> Self {
        Self { database, table, reason: reason.into(), sql: sql.into() }
    }
}

/// Where capture hands on what it caught. Implemented by what stands between capture and the workers.
pub trait Publish: Send + Sync {
    /// Takes the changes of a transaction whose COMMIT has returned. Never fails: what cannot be taken
    /// whole is kept as primary keys, to be read again. Blocks while the queue is full, up to the
    /// deadline that the builder was given.
    fn publish(&self, set: ChangeSet) -> CommitToken;

    /// A transaction whose COMMIT has returned has written rows into an outbox: they may be claimed.
    fn outboxed(&self, range: OutboxRange) -> CommitToken;

    /// The epoch to stamp on versions.
    fn epoch(&self) -> u32;

    /// A registered table was written in a way that was not captured: it is dirty until it is verified.
    fn missed(&self, missed: Missed);
}
