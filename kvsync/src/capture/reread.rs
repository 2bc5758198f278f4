//! Reads rows again, for those who lost sight of them.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::sql_types::Untyped;
use parking_lot::Mutex;

use super::backend::{Inner, SyncBackend};
use super::hub::Hub;
use super::primary::whole;
use super::table::{ModelEntry, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::model::{Model, PrimaryKey, Reread, Schema, Source, Wanted};

/// Reads rows of one database again, on a connection of its own.
pub(super) struct Rereader<DB: SyncBackend> {
    hub: Arc<Hub<DB>>,
    conn: Mutex<Option<DB::Connection>>,
}

impl<DB: SyncBackend> Rereader<DB> {
    pub(super) fn new(hub: Arc<Hub<DB>>) -> Self {
        Self { hub, conn: Mutex::new(None) }
    }
}

impl<DB: SyncBackend> Source for Rereader<DB> {
    fn name(&self) -> &str {
        &self.hub.name
    }

    fn reread(&self, wanted: &[Wanted], deadline: Duration) -> Result<Vec<Reread>> {
        let until = Until::after(deadline);
        let late = || Error::new(ErrorKind::Deadline, "another reading of rows held the connection for too long");
        let mut held = self.conn.try_lock_until(until.0).ok_or_else(late)?;
        // Whatever went wrong, the next reading begins on a connection in a known state.
        let mut conn = if let Some(conn) = held.take() {
            conn
        } else {
            let mut conn = self.hub.open()?;
            DB::greet(&mut conn)?;
            conn
        };
        let read = DB::reread(&mut conn, &self.hub, wanted, until)?;
        *held = Some(conn);
        Ok(read)
    }
}

/// When an answer is due.
#[derive(Debug, Clone, Copy)]
pub struct Until(Instant);

impl Until {
    fn after(time: Duration) -> Self {
        let now = Instant::now();
        // A deadline that no clock can show is none.
        Self(now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(u64::from(u32::MAX))))
    }

    /// What is left, in milliseconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when nothing is.
    pub(super) fn millis(self) -> Result<u32> {
        match self.0.saturating_duration_since(Instant::now()).as_millis() {
            0 => Err(Error::new(ErrorKind::Deadline, "rows could not be read again in time")),
            left => Ok(u32::try_from(left).unwrap_or(u32::MAX)),
        }
    }
}

/// The model of a wanted row.
pub(super) fn model_of<'a, DB: SyncBackend>(
    hub: &'a Hub<DB>,
    wanted: &Wanted,
) -> Result<(&'a Arc<Table<DB>>, &'a ModelEntry<DB>)> {
    let is = |model: &&ModelEntry<DB>| {
        let (one, other) = (model.schema, wanted.schema);
        std::ptr::eq(one, other)
            || (one.model, one.table, one.generation) == (other.model, other.table, other.generation)
    };
    hub.tables.iter().find_map(|table| Some((table, table.models.iter().find(is)?))).ok_or_else(|| {
        let message = format!("the model `{}` is not registered in the database `{}`", wanted.schema.model, hub.name);
        Error::new(ErrorKind::Config, message)
    })
}

/// One reading of rows of one model.
pub(super) struct Find<'a, DB: SyncBackend> {
    pub(super) model: &'a ModelEntry<DB>,
    /// Columns and table: all before WHERE.
    pub(super) head: String,
    pub(super) filters: Vec<Box<dyn QueryFragment<DB>>>,
    /// The key of the row that was wanted last.
    last: Option<Key>,
    /// What follows the filters.
    pub(super) tail: &'static str,
}

/// A row that is there: the key that names it, and what [`Reread`] says of it.
pub(super) type Found = (Key, Result<Option<Box<dyn Model>>>);

impl<'a, DB: SyncBackend> Find<'a, DB> {
    /// Reads rows of a table that stands in SQL as `table`.
    pub(super) fn new(entry: (&Table<DB>, &'a ModelEntry<DB>), table: &str, tail: &'static str) -> Self {
        let (named, model) = entry;
        let reference = DB::quote(&named.name);
        let live = model.schema.live_if.map(|condition| format!(", ({condition})")).unwrap_or_default();
        let head = format!("SELECT {}{live} FROM {table} WHERE ", model.columns(&reference));
        Self { model, head, filters: Vec::new(), last: None, tail }
    }

    /// Wants this row, too.
    pub(super) fn want(&mut self, primary_key: &PrimaryKey) -> Result<()> {
        let filter = self.model.filter(primary_key).ok_or_else(|| {
            let message = format!("a primary key is not one of the model `{}`", self.model.schema.model);
            Error::new(ErrorKind::Config, message)
        })?;
        self.filters.push(filter);
        self.last = Some(primary_key.home().clone());
        Ok(())
    }

    pub(super) fn run<C: Inner<Backend = DB>>(&self, conn: &mut C) -> QueryResult<Vec<Found>> {
        let model = self.model;
        let mut found = Vec::new();
        for row in LoadConnection::<DefaultLoadingMode>::load(conn, self)? {
            let row = row?;
            let live = model.schema.live_if.is_none() || DB::flag(&row, model.width) == Some(true);
            found.push(match model.decode(&row, 0) {
                Ok((decoded, _)) => (decoded.home(), Ok(live.then_some(decoded))),
                Err(error) => {
                    let alone = self.last.as_ref().filter(|_| self.filters.len() == 1);
                    let identified = || model.identify(&row, 0).map(|known| known.primary_key.home().clone());
                    let error = unreadable(model, error);
                    match alone.cloned().or_else(identified) {
                        Some(home) => (home, if live { Err(error) } else { Ok(None) }),
                        // Which of them it is cannot be told; asked for one by one, it can.
                        None => return Err(DieselError::DeserializationError(Box::new(error))),
                    }
                }
            });
        }
        Ok(found)
    }
}

/// A row that is there and cannot be read.
fn unreadable<DB: SyncBackend>(model: &ModelEntry<DB>, error: Box<dyn StdError + Send + Sync>) -> Error {
    let Schema { table, model, .. } = model.schema;
    let cause = whole(&*error);
    let message = format!(
        "a row of the table `{table}` cannot be read as `{model}`: {cause}; its readers are sent to the database until \
         it is written anew"
    );
    Error::new(ErrorKind::Database, message).with_source(error)
}

/// The failure of a reading that says by itself what is wrong.
pub(super) fn said(error: &DieselError) -> Option<Error> {
    let DieselError::DeserializationError(error) = error else { return None };
    error.downcast_ref::<Error>().cloned()
}

/// Reads no row: only whether the model's columns are there and may be read.
pub(super) fn probe<C: Inner>(
    conn: &mut C,
    table: &Table<C::Backend>,
    model: &ModelEntry<C::Backend>,
) -> QueryResult<()> {
    Find::new((table, model), &table.sql, "").run(conn).map(drop)
}

impl<DB: SyncBackend> QueryId for Find<'_, DB> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: SyncBackend> Query for Find<'_, DB> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for Find<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        // One without a filter is a check, and the table may be altered after it on the same connection.
        if self.filters.len() != 1 {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(&self.head);
        if self.filters.is_empty() {
            out.push_sql("1 = 0");
            return Ok(());
        }
        for (index, filter) in self.filters.iter().enumerate() {
            out.push_sql(if index == 0 { "(" } else { ") OR (" });
            filter.walk_ast(out.reborrow())?;
        }
        out.push_sql(")");
        out.push_sql(self.tail);
        Ok(())
    }
}
