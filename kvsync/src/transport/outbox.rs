//! The outbox: changes that wait in the database that they were written in, until they are delivered.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::change::{Change, OutboxRange};
use crate::error::Result;
use crate::serial::in_millis;

/// The outbox of one database, as those see it who deliver its rows. Implemented beside capture.
///
/// # Contract
///
/// - **Several processes claim, each row is held by one.** A claim that is neither extended nor ended in
///   time runs out, and another process claims the row: it may be delivered twice, which is harmless.
/// - **No cursor.** Rows are found by their state, never by an id above the last one: a transaction that
///   commits late is not overlooked.
/// - **Every call ends** within a few seconds or fails; none waits for a row that a transaction holds.
pub trait Outbox: Send + Sync {
    /// The database's name, as given to the builder.
    fn name(&self) -> &str;

    /// Claims rows that are due and about models of this process, the oldest first, at most `most`, for as
    /// long as `lease`.
    ///
    /// # Errors
    ///
    /// When the database could not be asked. [`ErrorKind::Config`](crate::ErrorKind::Config) when it has
    /// no outbox; the text says which migration makes one.
    fn claim(&self, most: usize, lease: Duration) -> Result<Vec<Claimed>>;

    /// Holds on to claimed rows for as long as `lease` from now.
    ///
    /// # Errors
    ///
    /// When the database could not be told: then the claim runs out.
    fn extend(&self, ids: &[i64], lease: Duration) -> Result<()>;

    /// These rows are in every store.
    ///
    /// # Errors
    ///
    /// When the database could not be told: then they are delivered again.
    fn delivered(&self, ids: &[i64]) -> Result<()>;

    /// These rows could not be delivered.
    ///
    /// # Errors
    ///
    /// When the database could not be told: then they are delivered again.
    fn failed(&self, failures: &[Failure]) -> Result<()>;

    /// Gives claimed rows back, undelivered: they may be claimed again in a while.
    ///
    /// # Errors
    ///
    /// When the database could not be told: then the claim runs out.
    fn release(&self, ids: &[i64], retry_in: Duration) -> Result<()>;

    /// What it holds.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn depth(&self) -> Result<OutboxDepth>;

    /// All rows that are committed now; nothing when there are none.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn range(&self) -> Result<Option<OutboxRange>>;

    /// Whether a row of this range, about a model of this process, waits to be delivered. Those that have
    /// failed and will be tried again do not count, and neither do dead letters.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn waits(&self, range: &OutboxRange) -> Result<bool>;

    /// Why a row of this range could not be delivered, if there is one that has failed.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn failure(&self, range: &OutboxRange) -> Result<Option<String>>;

    /// Rows about models of this process that have failed and will be tried again: each table with how many, and
    /// why one of them did.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn failing(&self) -> Result<Vec<Failing>>;

    /// How many rows wait for longer than they should and are about models that this process does not know.
    /// Those that were captured longer ago than `dead_after` are made dead letters.
    ///
    /// # Errors
    ///
    /// When the database could not be asked or told.
    fn strangers(&self, dead_after: Duration) -> Result<u64>;

    /// Dead letters whose id is above `after`, the oldest first, at most `most`.
    ///
    /// # Errors
    ///
    /// When the database could not be asked.
    fn dead_letters(&self, after: i64, most: usize) -> Result<Vec<DeadLetter>>;

    /// Lets dead letters be delivered again, all of them where no ids are given. Returns how many.
    ///
    /// # Errors
    ///
    /// When the database could not be told.
    fn retry(&self, ids: Option<&[i64]>) -> Result<usize>;

    /// Deletes dead letters, all of them where no ids are given. Returns how many.
    ///
    /// # Errors
    ///
    /// When the database could not be told.
    fn discard(&self, ids: Option<&[i64]>) -> Result<usize>;

    /// Lets rows be delivered again that were captured at this time or later and that the retention has
    /// kept, dead letters among them: an older row must not stand in the place of a newer one that could not
    /// be delivered. Returns how many.
    ///
    /// # Errors
    ///
    /// When the database could not be told.
    fn replay(&self, since: SystemTime) -> Result<usize>;

    /// Deletes rows that were delivered longer ago than `retention`, at most `most`. Returns how many.
    ///
    /// # Errors
    ///
    /// When the database could not be told.
    fn purge(&self, retention: Duration, most: usize) -> Result<usize>;
}

impl fmt::Debug for dyn Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbox of {}", self.name())
    }
}

/// A row of an outbox that was claimed.
#[derive(Debug)]
pub struct Claimed {
    /// Its id.
    pub id: i64,
    /// The table that it is about.
    pub table: String,
    /// How often it failed before.
    pub attempts: u32,
    /// Its changes: one for each model that it is about. An error when it cannot be understood; one that
    /// says that a [retry](crate::Error::is_retryable) helps is not about the row.
    pub changes: Result<Vec<Change>>,
}

/// A row of an outbox that could not be delivered.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its id.
    pub id: i64,
    /// Why.
    pub error: String,
    /// When to try again; nothing makes it a dead letter.
    pub retry_in: Option<Duration>,
}

/// Rows of one table that could not be delivered so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failing {
    /// The table's name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Why, of one of them.
    pub error: String,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}` failed and will be tried again: {}", self.rows, self.table, self.error)
    }
}

/// What an outbox holds. Of each kind, a million rows are counted at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct OutboxDepth {
    /// Rows that wait to be delivered.
    pub pending: u64,
    /// Rows that were given up.
    pub dead: u64,
    /// Rows that were delivered and are kept for a replay.
    pub delivered: u64,
    /// When the row was captured that is the first to be delivered. Serialised as `oldest_unix_ms`.
    #[serde(rename = "oldest_unix_ms", serialize_with = "in_millis")]
    pub oldest: Option<SystemTime>,
}

impl OutboxDepth {
    /// These numbers.
    #[must_use]
    pub fn new(pending: u64, dead: u64, delivered: u64, oldest: Option<SystemTime>) -> Self {
        Self { pending, dead, delivered, oldest }
    }
}

/// A change that could not be delivered, and was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its id in the outbox.
    pub id: i64,
    /// Its table.
    pub table: String,
    /// Its model; nothing where it is about every model of the table.
    pub model: Option<String>,
    /// What was done: insert, update, upsert or delete.
    pub action: String,
    /// Its primary key as the outbox holds it.
    pub primary_key: Option<String>,
    /// When it was captured.
    pub captured_at: SystemTime,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up.
    pub error: String,
}
