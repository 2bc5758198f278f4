//! Changes as rows of the outbox.

use diesel::backend::Backend;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Binary, Bool, HasSqlType, Nullable, Text, Untyped};
use diesel::{QueryResult, result};

use super::super::backend::{Inner, Inside, SyncBackend};
use super::super::pending::Beside;
use super::content::encode;
use crate::change::{Change, Row};
use crate::clock::millis;

/// How many rows one statement writes: SQLite may be built to take no more than 999 values.
const MOST: usize = 64;
/// How many bytes of content one statement writes, if there is more than one row.
const LARGEST: usize = 4 << 20;

/// A row to be written into the outbox.
#[derive(Debug)]
pub struct Written {
    captured_at: i64,
    epoch: i64,
    timeline: i64,
    sequence: i64,
    table_schema: Option<String>,
    table_name: String,
    model: &'static str,
    generation: i64,
    scope: String,
    action: String,
    live: Option<bool>,
    primary_key: Option<String>,
    content: Option<Vec<u8>>,
}

const COLUMNS: &str = "captured_at, epoch, timeline, sequence, table_schema, table_name, model, generation, scope, \
                       action, live, primary_key, content";

impl Written {
    /// A change of a row of the table of this name. What cannot be encoded goes without content, and is
    /// read again when it is delivered.
    pub(in super::super) fn new(change: &Change, beside: &Beside, schema: Option<&str>, table: &str) -> Self {
        let (row, live) = match &change.row {
            Row::Live(row) => (Some(row), Some(true)),
            Row::Hidden(row) => (Some(row), Some(false)),
            Row::Deleted { row, live } => (Some(row), Some(*live)),
            Row::Unknown(_) | Row::Absent(_) => (None, None),
        };
        let content = row.and_then(|row| match encode(&**row) {
            Ok(content) => Some(content),
            Err(error) => {
                let (database, row) = (&*change.database, row.home());
                tracing::warn!(database, table, %row, "a change goes into the outbox without its content: {error}");
                None
            }
        });
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            captured_at: signed(millis(change.captured_at)),
            epoch: i64::from(change.version.epoch()),
            timeline: i64::from(change.version.timeline()),
            sequence: signed(change.version.sequence()),
            table_schema: beside.schema.as_deref().or(schema).map(str::to_owned),
            table_name: table.to_owned(),
            model: change.schema.model,
            generation: i64::from(change.schema.generation),
            scope: change.scope.prefix().to_owned(),
            action: change.action.to_string(),
            live: live.filter(|_| change.schema.live_if.is_some()),
            primary_key: beside.image.as_deref().map(str::to_owned),
            content,
        }
    }

    /// About how many bytes it is.
    fn size(&self) -> usize {
        self.content.as_ref().map_or(0, Vec::len)
    }

    /// Adds its values to a statement.
    pub(in super::super) fn push<'b, DB>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
    where
        DB: Backend + HasSqlType<Bool>,
        i64: ToSql<BigInt, DB>,
        str: ToSql<Text, DB>,
        String: ToSql<Text, DB>,
        bool: ToSql<Bool, DB>,
        Vec<u8>: ToSql<Binary, DB>,
    {
        let comma = |out: &mut AstPass<'_, 'b, DB>| out.push_sql(", ");
        out.push_bind_param::<BigInt, i64>(&self.captured_at)?;
        comma(out);
        out.push_bind_param::<BigInt, i64>(&self.epoch)?;
        comma(out);
        out.push_bind_param::<BigInt, i64>(&self.timeline)?;
        comma(out);
        out.push_bind_param::<BigInt, i64>(&self.sequence)?;
        comma(out);
        out.push_bind_param::<Nullable<Text>, Option<String>>(&self.table_schema)?;
        comma(out);
        out.push_bind_param::<Text, String>(&self.table_name)?;
        comma(out);
        out.push_bind_param::<Text, str>(self.model)?;
        comma(out);
        out.push_bind_param::<BigInt, i64>(&self.generation)?;
        comma(out);
        out.push_bind_param::<Text, String>(&self.scope)?;
        comma(out);
        out.push_bind_param::<Text, String>(&self.action)?;
        comma(out);
        out.push_bind_param::<Nullable<Bool>, Option<bool>>(&self.live)?;
        comma(out);
        out.push_bind_param::<Nullable<Text>, Option<String>>(&self.primary_key)?;
        comma(out);
        out.push_bind_param::<Nullable<Binary>, Option<Vec<u8>>>(&self.content)
    }
}

/// Writes rows into the outbox that stands in SQL as `outbox`. Returns the first and the last id.
pub(in super::super) fn write<C: Inner>(
    conn: &mut C,
    outbox: &str,
    rows: impl Iterator<Item = Written>,
) -> QueryResult<Option<(i64, i64)>> {
    let mut ids: Option<(i64, i64)> = None;
    let mut rows = rows.peekable();
    while let Some(first) = rows.next() {
        let (mut size, mut some) = (first.size(), vec![first]);
        while some.len() < MOST
            && let Some(next) = rows.next_if(|next| size + next.size() <= LARGEST)
        {
            size += next.size();
            some.push(next);
        }
        let written = match some.as_slice() {
            [row] => insert(conn, One { outbox, row }),
            rows => insert(conn, Several { outbox, rows }),
        };
        for id in written.map_err(told)? {
            let (low, high) = ids.unwrap_or((id, id));
            ids = Some((low.min(id), high.max(id)));
        }
    }
    Ok(ids)
}

/// Its kind is that of the database, so that a caller who repeats what could not be serialized still does.
fn told(error: result::Error) -> result::Error {
    let says =
        |message: &str| format!("what was written could not be noted in the outbox, and so it failed: {message}");
    match error {
        result::Error::DatabaseError(kind, info) => result::Error::DatabaseError(kind, Box::new(says(info.message()))),
        other => other,
    }
}

fn insert<C, T>(conn: &mut C, statement: T) -> QueryResult<Vec<i64>>
where
    C: Inner,
    T: Query<SqlType = Untyped> + QueryFragment<C::Backend> + QueryId,
{
    let rows = LoadConnection::<DefaultLoadingMode>::load(conn, statement)?;
    rows.map(|row| Ok(<C::Backend as Inside>::integer(&row?, 0).unwrap_or_default())).collect()
}

/// The statement that almost all transactions run: prepared once.
struct One<'a> {
    outbox: &'a str,
    row: &'a Written,
}

impl QueryId for One<'_> {
    type QueryId = One<'static>;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for One<'_> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for One<'_> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        walk(out, self.outbox, std::slice::from_ref(self.row))
    }
}

struct Several<'a> {
    outbox: &'a str,
    rows: &'a [Written],
}

impl QueryId for Several<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Several<'_> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for Several<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        walk(out, self.outbox, self.rows)
    }
}

fn walk<'b, DB: SyncBackend>(mut out: AstPass<'_, 'b, DB>, outbox: &str, rows: &'b [Written]) -> QueryResult<()> {
    for part in ["INSERT INTO ", outbox, " (", COLUMNS, ") VALUES "] {
        out.push_sql(part);
    }
    for (at, row) in rows.iter().enumerate() {
        out.push_sql(if at == 0 { "(" } else { ", (" });
        DB::push_written(&mut out, row)?;
        out.push_sql(")");
    }
    out.push_sql(" RETURNING id");
    Ok(())
}
