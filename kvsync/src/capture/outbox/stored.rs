//! A row of the outbox as it is stored.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::backend::SyncBackend;
use super::super::statement::Dialect;
use crate::change::Action;
use crate::error::{Error, ErrorKind, Result};
use crate::version::Version;

/// Content beyond this is not read with its row: many such rows may be claimed at once. What it is of is
/// read again.
const LARGE: usize = 256 << 10;

/// A row of the outbox as it is stored.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) id: i64,
    captured_at: i64,
    epoch: Option<i64>,
    timeline: i64,
    sequence: i64,
    pub(super) table_schema: Option<String>,
    pub(super) table_name: String,
    pub(super) model: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) scope: String,
    pub(super) action: String,
    pub(super) live: Option<bool>,
    pub(super) primary_key: Option<String>,
    pub(super) old_row: Option<String>,
    pub(super) content: Option<Vec<u8>>,
    pub(super) attempts: i64,
    /// Whether it was tried in vain before.
    pub(super) failed: bool,
}

/// What is returned of it.
pub(super) fn columns(dialect: Dialect) -> String {
    let length = match dialect {
        Dialect::Postgres => "pg_catalog.octet_length",
        Dialect::Sqlite => "length",
    };
    format!(
        "kvsync_outbox.id, captured_at, epoch, timeline, sequence, table_schema, table_name, model, generation, scope, \
         action, live, primary_key, old_row, \
         CASE WHEN {length}(content) <= {LARGE} OR primary_key IS NULL THEN content END, CAST(attempts AS bigint), \
         error IS NOT NULL"
    )
}

impl Stored {
    /// Reads it. Of one whose columns are not what they should be, its id: it will be found wrong.
    pub(super) fn read<DB: SyncBackend>(row: &DB::Row<'_, '_>) -> Self {
        let read = catch_unwind(AssertUnwindSafe(|| Self::whole::<DB>(row))).ok().flatten();
        read.unwrap_or_else(|| Self { id: DB::integer(row, 0).unwrap_or_default(), ..Self::default() })
    }

    fn whole<DB: SyncBackend>(row: &DB::Row<'_, '_>) -> Option<Self> {
        Some(Self {
            id: DB::integer(row, 0)?,
            captured_at: DB::integer(row, 1)?,
            epoch: DB::integer(row, 2),
            timeline: DB::integer(row, 3)?,
            sequence: DB::integer(row, 4)?,
            table_schema: DB::text(row, 5),
            table_name: DB::text(row, 6)?,
            model: DB::text(row, 7),
            generation: DB::integer(row, 8),
            scope: DB::text(row, 9).unwrap_or_default(),
            action: DB::text(row, 10)?,
            live: DB::flag(row, 11),
            primary_key: DB::text(row, 12),
            old_row: DB::text(row, 13),
            content: DB::bytes(row, 14),
            attempts: DB::integer(row, 15).unwrap_or_default(),
            failed: DB::flag(row, 16) == Some(true),
        })
    }

    /// What was done. What TRUNCATE deleted unseen is nothing that could be delivered.
    pub(super) fn action(&self) -> Result<Action> {
        Ok(match self.action.as_str() {
            "insert" => Action::Insert,
            "update" => Action::Update,
            "upsert" => Action::Upsert,
            "delete" => Action::Delete,
            "truncate" => {
                let message = "TRUNCATE may have deleted rows that its transaction could not see; verify the table, then \
                               drop this dead letter";
                return Err(Error::new(ErrorKind::Capture, message));
            }
            other => return Err(self.wrong(format!("the action `{other}` is none that is known"))),
        })
    }

    /// Its version. `epoch` is that of now, which stands in for one that the writer did not know.
    pub(super) fn version(&self, epoch: u32) -> Result<Version> {
        let epoch = self.epoch.map_or(Ok(epoch), u32::try_from);
        match (epoch, u32::try_from(self.timeline), u64::try_from(self.sequence)) {
            (Ok(epoch), Ok(timeline), Ok(sequence)) => Ok(Version::new(epoch, timeline, sequence)),
            _ => Err(self.wrong("epoch, timeline or sequence is out of range")),
        }
    }

    pub(super) fn captured_at(&self) -> SystemTime {
        time(self.captured_at)
    }

    pub(super) fn wrong(&self, message: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("the row {} of the outbox cannot be understood: {message}", self.id))
    }
}

/// The time of these milliseconds.
pub(super) fn time(millis: i64) -> SystemTime {
    let millis = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    UNIX_EPOCH.checked_add(millis).unwrap_or(UNIX_EPOCH)
}
