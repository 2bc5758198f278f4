//! Reads tables page by page on PostgreSQL, behind a barrier.

use std::collections::HashMap;

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::{Inner, Inside};
use super::super::hub::Hub;
use super::super::reread::{Until, lookup, model_of};
use super::super::scan::{Asked, Scan, strange};
use super::reread::{Reading, told};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Looked, PrimaryKey, RowsPage, Schema};
use crate::version::Version;

/// Tables that the planner takes to be smaller than this are counted.
const COUNTED: u64 = 50_000;

pub(super) fn barrier<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>, until: Until) -> Result<Version> {
    let mut reading = timed(conn, hub, until)?;
    reading.durable()?;
    reading.barrier(Version::ZERO)
}

pub(super) fn scopes<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    schema: &'static Schema,
    until: Until,
) -> Result<Vec<Scope>> {
    if hub.scopes.is_none() {
        return Ok(Vec::new());
    }
    let (table, _) = model_of(hub, schema)?;
    let mut reading = timed(conn, hub, until)?;
    let with = "SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relname = ";
    let with: Vec<String> = sql::<Text>(with).bind::<Text, _>(&table.name).get_results(reading.conn).map_err(told)?;
    let own = |name: &String| with.contains(name) && table.schema.as_ref().is_none_or(|schema| schema == name);
    let mut scopes: Vec<Scope> =
        reading.scopes()?.iter().filter(|(_, name)| own(name)).map(|(scope, _)| scope.clone()).collect();
    scopes.sort_by(|one, other| one.prefix().cmp(other.prefix()));
    Ok(scopes)
}

pub(super) fn page<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    asked: &Asked<'_>,
    until: Until,
) -> Result<RowsPage> {
    let (named, model) = model_of(hub, asked.schema)?;
    let mut reading = timed(conn, hub, until)?;
    let table = reading.table(asked.schema, asked.scope)?;
    // Compared by the same operators as ordered, whatever the search path makes of them.
    let mut scan =
        Scan::new((named, model), &table, asked.most, |column| format!("{column}::pg_catalog.text"), " USING <");
    if let Some(after) = asked.after {
        scan.after(values(reading.conn, &table, asked.schema, after)?);
    }
    scan.run(reading.conn).map_err(|error| match &error {
        // Text that is no value of the column's type.
        diesel::result::Error::DatabaseError(_, said)
            if asked.after.is_some() && said.message().contains("invalid input") =>
        {
            strange(&asked.after.unwrap_or_default().join("/"), asked.schema).with_source(error)
        }
        _ => told(error),
    })
}

pub(super) fn look<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    (schema, scope): (&'static Schema, &Scope),
    rows: &[PrimaryKey],
    until: Until,
) -> Result<Vec<Looked>> {
    let (named, model) = model_of(hub, schema)?;
    let mut reading = timed(conn, hub, until)?;
    let table = reading.table(schema, scope)?;
    lookup(reading.conn, (named, model), &table, rows, told)
}

pub(super) fn estimate<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    schema: &'static Schema,
    scope: &Scope,
    until: Until,
) -> Result<Option<u64>> {
    let mut reading = timed(conn, hub, until)?;
    let table = reading.table(schema, scope)?;
    // The planner knows of partitions, and of how far a table has grown since it was analyzed.
    let plan: Vec<String> =
        sql::<Text>(&format!("EXPLAIN SELECT 1 FROM {table}")).get_results(reading.conn).map_err(told)?;
    let rows = plan.first().and_then(|top| top.split_once("rows=")).map(|(_, rest)| rest);
    let rows = rows.and_then(|rest| rest.split(' ').next()?.parse().ok());
    if rows.is_none_or(|rows: u64| rows > COUNTED) {
        return Ok(rows);
    }
    let count = sql::<BigInt>(&format!("SELECT count(*) FROM {table} WHERE {}true", Pg::only(&table)))
        .get_result::<i64>(reading.conn);
    Ok(u64::try_from(count.map_err(told)?).ok())
}

/// A reading whose statements end in time, and which writes values in the one form that every session
/// understands. The order of day and month stays the session's: a model's `live_if` may lean on it.
fn timed<'a, C: Inner<Backend = Pg>>(conn: &'a mut C, hub: &'a Hub<Pg>, until: Until) -> Result<Reading<'a, C>> {
    let millis = until.millis()?;
    let mut reading = Reading::new(conn, hub, until);
    reading.run(&format!("SET statement_timeout = {millis}; SET datestyle = 'ISO'; SET extra_float_digits = 1"))?;
    Ok(reading)
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    of_type: String,
}

/// The values of these images, each as its column's type.
fn values<C: Inner<Backend = Pg>>(
    conn: &mut C,
    table: &str,
    schema: &Schema,
    images: &[String],
) -> Result<Vec<Box<dyn QueryFragment<Pg>>>> {
    let columns: Vec<Column> = sql_query(
        "SELECT attname::text AS name, pg_catalog.format_type(atttypid, atttypmod) AS of_type \
         FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attname = ANY ($2) AND attnum > 0",
    )
    .bind::<Text, _>(table)
    .bind::<Array<Text>, _>(schema.primary_key)
    .get_results(conn)
    .map_err(told)?;
    let mut types: HashMap<String, String> = columns.into_iter().map(|column| (column.name, column.of_type)).collect();
    let value = |(name, image): (&&str, &String)| {
        let of_type = types.remove(*name).ok_or_else(|| {
            let message = format!("the table {table} has no column {}; migrate it", Pg::quote(name));
            Error::new(ErrorKind::Database, message)
        })?;
        Ok(Box::new(Image { text: image.clone(), of_type }) as Box<dyn QueryFragment<Pg>>)
    };
    schema.primary_key.iter().zip(images).map(value).collect()
}

/// A value that is written as text.
#[derive(QueryId)]
struct Image {
    text: String,
    /// As the catalog writes it.
    of_type: String,
}

impl QueryFragment<Pg> for Image {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("CAST(CAST(");
        out.push_bind_param::<Text, _>(&self.text)?;
        out.push_sql(" AS pg_catalog.text) AS ");
        out.push_sql(&self.of_type);
        out.push_sql(")");
        Ok(())
    }
}
