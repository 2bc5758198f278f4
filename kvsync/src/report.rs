//! What became of changes, as it is told to the application.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::change::{Action, Missed};
use crate::error::Error;
use crate::key::Key;
use crate::serial::{as_text, in_millis};
use crate::version::Version;

/// Something that the application may want to know. Handed to the callback given to the builder, on a
/// thread of its own: a slow callback holds up no write, and a report for which there is no room is
/// dropped and counted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Report {
    /// What became of one key of one change, in one store.
    Key(KeyReport),
    /// What became of one message that a consumer received.
    Message(MessageReport),
    /// A write was seen that could not be captured.
    Missed(Missed),
    /// A table's rows in a store can no longer be trusted to be the database's.
    Dirty(DirtyTable),
    /// A store may have forgotten what it acknowledged; every table is dirty from then on.
    Forgot {
        /// The store's name.
        store: Arc<str>,
        /// How that was noticed.
        reason: String,
    },
    /// Code panicked, and was survived.
    Panicked {
        /// The thread's name.
        thread: String,
        /// What the panic said.
        message: String,
    },
}

/// What became of one key of one change, in one store or broker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyReport {
    /// The store's name, or the broker's.
    pub store: Arc<str>,
    /// The model's name.
    pub model: &'static str,
    /// The table's name.
    pub table: &'static str,
    /// The database's name.
    pub database: Arc<str>,
    /// The key's name; `None` for a row's hidden record, and for keys of which only the text is known.
    pub key_name: Option<&'static str>,
    /// The key, within its scope.
    pub key: Key,
    /// What the statement did.
    pub action: Action,
    /// The version of the change.
    pub version: Version,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it failed, or why the value could not be written and readers are sent to the database.
    pub error: Option<Arc<Error>>,
    /// How often the store was asked.
    pub attempts: u32,
    /// How long the change waited for a worker.
    pub queued: Duration,
    /// How long it took from there to the store's answer, encoding and retries included.
    pub writing: Duration,
}

/// What became of one message that a consumer received. Of one that cannot be read, what only it could tell is not
/// there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MessageReport {
    /// The queue's name.
    pub subscription: Arc<str>,
    /// The table's name.
    pub table: Option<Arc<str>>,
    /// The model's name.
    pub model: Option<Arc<str>>,
    /// The key that names the row, within its scope.
    pub key: Option<Key>,
    /// What the statement did.
    pub action: Option<Action>,
    /// The version of the change.
    pub version: Option<Version>,
    /// What became of it: `Written`, `Superseded`, `Masked`; `Deferred`: it is delivered again; `Failed`: it is a dead
    /// letter.
    pub outcome: Outcome,
    /// Why it is delivered again, or a dead letter.
    pub error: Option<Arc<Error>>,
    /// How often it was delivered before, as far as the broker tells.
    pub redelivered: u32,
    /// How long ago it was captured.
    pub lag: Option<Duration>,
}

/// What became of one key of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The key answers with the change: its value, or that no row stands there.
    Written,
    /// A broker has confirmed the message that tells of it.
    Published,
    /// Something newer stood there already, or came in the same batch.
    Superseded,
    /// The row has left the key, and the key says so.
    Released,
    /// The row's content is not known: readers of the key are sent to the database until it is.
    Masked,
    /// There was no room for the change: its primary key is kept, and the row will be read again.
    Deferred,
    /// The store refused it, or it had no form that could be stored; the error says why.
    Failed,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(report) => report.fmt(f),
            Self::Message(report) => report.fmt(f),
            Self::Missed(missed) => {
                write!(f, "not captured in {}: {} ({})", missed.database, missed.reason, missed.sql)
            }
            Self::Dirty(table) => table.fmt(f),
            Self::Forgot { store, reason } => write!(f, "{store} may have forgotten what it acknowledged: {reason}"),
            Self::Panicked { thread, message } => write!(f, "{thread} panicked and went on: {message}"),
        }
    }
}

impl fmt::Display for KeyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, model, key, version, outcome, store, attempts, queued, writing, .. } = self;
        write!(f, "{action} of {model} at {version}: `{key}` {outcome} in {store}")?;
        write!(f, ", attempt {attempts}, {queued:.0?} queued, {writing:.0?} writing")?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl fmt::Display for MessageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscription, outcome, redelivered, .. } = self;
        match (&self.action, &self.model, &self.key, &self.version) {
            (Some(action), Some(model), Some(key), Some(version)) => {
                write!(f, "{action} of {model} at {version}: `{key}` {outcome} from {subscription}")?;
            }
            _ => write!(f, "a message {outcome} from {subscription}")?,
        }
        write!(f, ", delivered {redelivered} times before")?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Written => "written",
            Self::Published => "published",
            Self::Superseded => "superseded",
            Self::Released => "released",
            Self::Masked => "masked",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
        })
    }
}

/// A table whose rows in a store may be older than the database's, until they are filled in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DirtyTable {
    /// The database's name.
    #[serde(serialize_with = "as_text")]
    pub database: Arc<str>,
    /// The table; `None` when it is not known which.
    pub table: Option<String>,
    /// Since when. Serialised as `since_unix_ms`.
    #[serde(rename = "since_unix_ms", serialize_with = "in_millis")]
    pub since: SystemTime,
    /// How many writes are missing in the stores: changes that were lost or are dead letters, and statements that were
    /// not captured, of any number of rows each.
    pub lost: u64,
    /// Why, the first time.
    pub reason: String,
    /// Whether a deletion may be among what was lost: then the store may hold entries of rows that the
    /// database does not have, which filling in does not find.
    pub deletes: bool,
    /// Whether it was filled in since: then it is such entries alone that it is still dirty for.
    pub filled: bool,
}

impl DirtyTable {
    /// A table that has been dirty since this moment, for this reason.
    #[must_use]
    pub fn new(database: Arc<str>, table: Option<String>, since: SystemTime, reason: impl Into<String>) -> Self {
        Self { database, table, since, lost: 0, reason: reason.into(), deletes: false, filled: false }
    }
}

impl fmt::Display for DirtyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.as_deref().unwrap_or("some table");
        write!(f, "{table} of {} is dirty", self.database)?;
        match self.lost {
            0 => {}
            1 => f.write_str(" (1 write is missing)")?,
            lost => write!(f, " ({lost} writes are missing)")?,
        }
        write!(f, ": {}", self.reason)?;
        if self.filled { write!(f, "; since then it was filled in, but for deleted rows") } else { Ok(()) }
    }
}
