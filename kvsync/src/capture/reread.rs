//! Reads rows again, for those who lost sight of them.

use std::collections::{HashMap, HashSet};
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
use super::scan::{Asked, parts};
use super::statement::Dialect;
use super::table::{ModelEntry, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::{Kind, Looked, Model, Position, PrimaryKey, Reread, RowsPage, Schema, Source, Wanted};
use crate::version::Version;

/// How many connections that scanned a table are kept for the next scan.
const IDLE: usize = 2;

/// Reads rows of one database again, on connections of its own: one for single rows, others for scans, so
/// that a long scan does not hold up those who wait for a row.
pub(super) struct Rereader<DB: SyncBackend> {
    hub: Arc<Hub<DB>>,
    conn: Mutex<Option<DB::Connection>>,
    scans: Mutex<Vec<DB::Connection>>,
}

impl<DB: SyncBackend> Rereader<DB> {
    pub(super) fn new(hub: Arc<Hub<DB>>) -> Self {
        Self { hub, conn: Mutex::new(None), scans: Mutex::new(Vec::new()) }
    }

    fn open(&self) -> Result<DB::Connection> {
        let mut conn = self.hub.open()?;
        self.hub.greet(&mut conn)?;
        Ok(conn)
    }

    /// Runs something on a connection for scans. One that was idle may have broken meanwhile.
    fn scan<T>(&self, run: impl Fn(&mut DB::Connection) -> Result<T>) -> Result<T> {
        let idle = self.scans.lock().pop();
        let kept = idle.map(|mut conn| run(&mut conn).map(|done| (done, conn)));
        let (done, conn) = match kept {
            Some(Ok(kept)) => kept,
            Some(Err(error)) if matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Config) => return Err(error),
            broken => {
                if let Some(Err(error)) = broken {
                    tracing::debug!(database = &*self.hub.name, %error, "a connection that was idle failed; another is opened");
                }
                let mut conn = self.open()?;
                (run(&mut conn)?, conn)
            }
        };
        let mut scans = self.scans.lock();
        if scans.len() < IDLE {
            scans.push(conn);
        }
        Ok(done)
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
        let mut conn = match held.take() {
            Some(conn) => conn,
            None => self.open()?,
        };
        let read = DB::reread(&mut conn, &self.hub, wanted, until)?;
        *held = Some(conn);
        Ok(read)
    }

    fn schemas(&self) -> Vec<&'static Schema> {
        self.hub.tables.iter().flat_map(|table| &table.models).map(|model| model.schema).collect()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.hub.tables.iter().flat_map(|table| &table.models).map(|model| model.kind).collect()
    }

    fn look(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        rows: &[PrimaryKey],
        deadline: Duration,
    ) -> Result<Vec<Looked>> {
        let until = Until::after(deadline);
        self.scan(|conn| DB::look(conn, &self.hub, (schema, scope), rows, until))
    }

    fn scopes(&self, schema: &'static Schema, deadline: Duration) -> Result<Vec<Scope>> {
        let until = Until::after(deadline);
        self.scan(|conn| DB::scopes(conn, &self.hub, schema, until))
    }

    fn tells_scopes(&self) -> bool {
        self.hub.single_tenant || (DB::DIALECT == Dialect::Postgres && self.hub.scopes.is_some())
    }

    fn barrier(&self, deadline: Duration) -> Result<Version> {
        let until = Until::after(deadline);
        self.scan(|conn| DB::barrier(conn, &self.hub, until))
    }

    fn page(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        after: Option<&Position>,
        most: usize,
        deadline: Duration,
    ) -> Result<RowsPage> {
        let until = Until::after(deadline);
        let parts = after.map(|after| parts(after, schema)).transpose()?;
        let asked = Asked { schema, scope, after: parts.as_deref(), most: most.max(1) };
        self.scan(|conn| DB::page(conn, &self.hub, &asked, until))
    }

    fn estimate(&self, schema: &'static Schema, scope: &Scope, deadline: Duration) -> Result<Option<u64>> {
        let until = Until::after(deadline);
        self.scan(|conn| DB::estimate(conn, &self.hub, schema, scope, until))
    }
}

/// When an answer is due.
#[derive(Debug, Clone, Copy)]
pub struct Until(Instant);

impl Until {
    pub(super) fn after(time: Duration) -> Self {
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

/// A registered model and its table.
pub(super) fn model_of<'a, DB: SyncBackend>(
    hub: &'a Hub<DB>,
    schema: &Schema,
) -> Result<(&'a Arc<Table<DB>>, &'a ModelEntry<DB>)> {
    let is = |model: &&ModelEntry<DB>| {
        let (one, other) = (model.schema, schema);
        std::ptr::eq(one, other)
            || (one.model, one.table, one.generation) == (other.model, other.table, other.generation)
    };
    hub.tables.iter().find_map(|table| Some((table, table.models.iter().find(is)?))).ok_or_else(|| {
        let message = format!("the model `{}` is not registered in the database `{}`", schema.model, hub.name);
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
        let head = format!("SELECT {}{live} FROM {table} WHERE {}", model.columns(&reference), DB::only(table));
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
            found.push(match model.read(&row, 0) {
                Ok((read, primary_key)) => (primary_key.home().clone(), Ok(live.then_some(read))),
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

/// How many rows one statement looks up.
const LOOKUP: usize = 100;

/// Looks up rows of a table that stands in SQL as `table`, in the order asked; a row that is asked for twice is
/// answered twice.
pub(super) fn lookup<C: Inner>(
    conn: &mut C,
    entry: (&Table<C::Backend>, &ModelEntry<C::Backend>),
    table: &str,
    rows: &[PrimaryKey],
    told: impl Fn(DieselError) -> Error,
) -> Result<Vec<Looked>> {
    let find = |conn: &mut C, rows: &[PrimaryKey]| {
        let mut find = Find::new(entry, table, "");
        rows.iter().try_for_each(|row| find.want(row))?;
        Ok::<_, Error>(find.run(conn))
    };
    let mut looked = Vec::with_capacity(rows.len());
    let mut rest = rows;
    while !rest.is_empty() {
        // The database names a row once, however often a statement asks for it.
        let mut asked = HashSet::new();
        let several = rest.iter().take(LOOKUP).take_while(|row| asked.insert(row.home())).count();
        let (batch, others) = rest.split_at(several);
        rest = others;
        let mut found: HashMap<Key, Result<Option<Box<dyn Model>>>> = HashMap::new();
        match find(conn, batch)? {
            Ok(rows) => found.extend(rows),
            // Which of them cannot be read is not told; asked for one by one, it is.
            Err(DieselError::DeserializationError(_)) => {
                for row in batch {
                    found.extend(find(conn, std::slice::from_ref(row))?.map_err(&told)?);
                }
            }
            Err(error) => return Err(told(error)),
        }
        looked.extend(batch.iter().map(|row| found.remove(row.home()).unwrap_or(Ok(None))));
    }
    Ok(looked)
}

/// A row that is there and cannot be read.
pub(super) fn unreadable<DB: SyncBackend>(model: &ModelEntry<DB>, error: Box<dyn StdError + Send + Sync>) -> Error {
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
            out.push_sql(if index == 0 { "((" } else { ") OR (" });
            filter.walk_ast(out.reborrow())?;
        }
        out.push_sql("))");
        out.push_sql(self.tail);
        Ok(())
    }
}
