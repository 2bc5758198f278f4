//! Statements of the outbox's own, and the cells of what they return.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;

use super::super::backend::{Inner, SyncBackend};
use super::super::hub::Hub;
use super::super::statement::Dialect;
use crate::clock::{millis, whole_millis};

/// How long another process has to claim what is of a generation of keys that it knows, before one takes it
/// that knows another generation of the same model.
pub(super) const ADOPT: Duration = Duration::from_mins(2);

/// A statement, built of SQL and of values.
#[derive(Default)]
pub struct Statement<'a> {
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Sql(Cow<'a, str>),
    Value(Cow<'a, str>),
}

impl<'a> Statement<'a> {
    /// A statement that begins like this.
    pub(in super::super) fn new(sql: impl Into<Cow<'a, str>>) -> Self {
        Self::default().sql(sql)
    }

    /// Goes on with this SQL.
    pub(in super::super) fn sql(mut self, sql: impl Into<Cow<'a, str>>) -> Self {
        self.parts.push(Part::Sql(sql.into()));
        self
    }

    /// Goes on with this text as a value.
    pub(in super::super) fn value(mut self, text: impl Into<Cow<'a, str>>) -> Self {
        self.parts.push(Part::Value(text.into()));
        self
    }

    /// Runs it, and returns how many rows it wrote.
    pub(super) fn run<C: Inner>(&self, conn: &mut C) -> QueryResult<usize> {
        conn.execute_returning_count(self)
    }

    /// Runs it, and hands each row that it returns to `read`.
    pub(super) fn load<C: Inner, T>(
        &self,
        conn: &mut C,
        mut read: impl FnMut(&<C::Backend as super::super::backend::Inside>::Row<'_, '_>) -> T,
    ) -> QueryResult<Vec<T>> {
        let rows = LoadConnection::<DefaultLoadingMode>::load(conn, self)?;
        rows.map(|row| row.map(|row| read(&row))).collect()
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        for part in &self.parts {
            match part {
                Part::Sql(sql) => out.push_sql(sql),
                Part::Value(text) => DB::push_text(&mut out, text)?,
            }
        }
        Ok(())
    }
}

/// The time now, in milliseconds, as SQL. Processes may have clocks of their own, so it is the database's
/// where the database has one.
pub(super) fn now(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => {
            "(pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) * 1000)::pg_catalog.int8".to_owned()
        }
        Dialect::Sqlite => millis(SystemTime::now()).to_string(),
    }
}

/// The time in a while, as SQL.
pub(super) fn after(dialect: Dialect, long: Duration) -> String {
    format!("({} + {})", now(dialect), shown(long))
}

/// The time a while ago, as SQL.
pub(super) fn before(dialect: Dialect, long: Duration) -> String {
    format!("({} - {})", now(dialect), shown(long))
}

/// Milliseconds as SQL, at most a thousand years.
fn shown(long: Duration) -> u64 {
    const THOUSAND_YEARS: u64 = 1000 * 366 * 24 * 3_600_000;
    whole_millis(long).min(THOUSAND_YEARS)
}

/// A list of ids as SQL.
pub(super) fn list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    // An empty list is not SQL.
    if ids.is_empty() { "NULL".to_owned() } else { ids.join(", ") }
}

/// Text that is known when the program is compiled, as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The condition that a row is about a model of this process.
pub(super) fn ours<DB: SyncBackend>(hub: &Hub<DB>) -> String {
    let table_name = match DB::DIALECT {
        Dialect::Postgres => "table_name",
        Dialect::Sqlite => "lower(table_name)",
    };
    let tables = hub.tables.iter().map(|table| {
        let models = table.models.iter().map(|model| {
            let schema = model.schema;
            format!("(model = {} AND generation = {})", literal(schema.model), schema.generation)
        });
        let names: Vec<String> = table.models.iter().map(|model| literal(model.schema.model)).collect();
        let models: Vec<String> = models.collect();
        format!(
            "({table_name} = {} AND (model IS NULL OR {} OR (model IN ({}) AND captured_at < {})))",
            literal(&table.name),
            models.join(" OR "),
            names.join(", "),
            before(DB::DIALECT, ADOPT),
        )
    });
    let tables: Vec<String> = tables.collect();
    if tables.is_empty() { "(1 = 0)".to_owned() } else { format!("({})", tables.join(" OR ")) }
}
