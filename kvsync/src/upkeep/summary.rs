use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backfill::Target;
use crate::error::Error;
use crate::key::Scope;
use crate::model::{Position, Schema};
use crate::version::Version;
use crate::worker::Filled;

/// How far a backfill is: it can be kept as text or JSON, and gone on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// All rows up to here are done.
    pub position: Position,
    /// How many these were.
    pub rows: u64,
}

/// How a backfill goes, told after each page.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Progress {
    /// The model's name.
    pub model: &'static str,
    /// Rows done, those of earlier runs included.
    pub rows: u64,
    /// About how many rows there are; nothing when the database cannot tell.
    pub estimate: Option<u64>,
    /// Rows a second, in this run.
    pub rate: f64,
    /// How long this run has taken.
    pub elapsed: Duration,
    /// About how long the rest takes.
    pub left: Option<Duration>,
    /// The version at which rows are written.
    pub version: Version,
    /// Where to go on; nothing once all is done.
    pub next: Option<Checkpoint>,
}

/// What a backfill did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// The database's name.
    pub database: Arc<str>,
    /// The model's name.
    pub model: &'static str,
    /// The scope.
    pub scope: Scope,
    /// Rows read by this run.
    pub rows: u64,
    /// Rows that a store holds now as they were read; counted once for each store, as those that follow.
    pub written: u64,
    /// Rows of which a store held something newer.
    pub superseded: u64,
    /// Rows that have no form a store would hold, or cannot be read as the model: readers are sent to the
    /// database for them.
    pub masked: u64,
    /// Rows that a store refused even so. Their entries may be stale.
    pub failed: u64,
    /// Rows of which not even the primary key could be read; counted once. Their entries may be stale.
    pub nameless: u64,
    /// The version of the last rows.
    pub version: Version,
    /// How long it took.
    pub elapsed: Duration,
    /// Where to go on; nothing when the table was read to its end.
    pub next: Option<Checkpoint>,
}

/// A backfill that failed on its way.
#[derive(Debug, Clone)]
pub struct Interrupted {
    /// Why.
    pub error: Error,
    /// What it had done; [`Summary::next`] says where to go on, nothing being the first row.
    pub summary: Box<Summary>,
}

impl Summary {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            database: Arc::clone(&target.database),
            model: target.schema.model,
            scope: target.scope.clone(),
            rows: 0,
            written: 0,
            superseded: 0,
            masked: 0,
            failed: 0,
            nameless: 0,
            version: Version::ZERO,
            elapsed: Duration::ZERO,
            next: None,
        }
    }

    pub(super) fn add(&mut self, filled: Filled, nameless: u64) {
        self.written += filled.written;
        self.superseded += filled.superseded;
        self.masked += filled.masked;
        self.failed += filled.failed;
        self.nameless += nameless;
    }

    /// Whether the table was read to its end, and every store holds each of its rows or says that it does
    /// not know it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next.is_none() && self.failed == 0 && self.nameless == 0
    }
}

impl Interrupted {
    pub(super) fn before_it_began(error: Error) -> Self {
        let nothing = Target { database: "".into(), schema: &NO_SCHEMA, scope: Scope::NONE };
        Self { error, summary: Box::new(Summary::new(&nothing)) }
    }
}

/// What stands in a summary of nothing.
static NO_SCHEMA: Schema = Schema::new("", "", &[], &[], None, &[], 0, None, None);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.model, self.rows)?;
        if let Some(estimate) = self.estimate {
            write!(f, " of about {estimate}")?;
        }
        write!(f, " rows, {:.0} a second", self.rate)?;
        self.left.map_or(Ok(()), |left| write!(f, ", {left:.0?} left"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, database, rows, written, superseded, masked, failed, nameless, elapsed, .. } = self;
        write!(f, "{rows} rows of {model} in {database}: {written} written, {superseded} newer in the store, ")?;
        write!(f, "{masked} masked, {failed} failed, {nameless} passed over, in {elapsed:.1?}")?;
        match &self.next {
            Some(next) => write!(f, "; not done, go on from `{}`", next.position),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backfill of {} stopped after {} rows: {}", self.summary.model, self.summary.rows, self.error)
    }
}

impl std::error::Error for Interrupted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<Interrupted> for Error {
    fn from(interrupted: Interrupted) -> Self {
        let kind = interrupted.error.kind();
        let Interrupted { error, summary } = interrupted;
        let message = format!("the backfill of {} stopped after {} rows", summary.model, summary.rows);
        Self::new(kind, message).with_source(error)
    }
}
