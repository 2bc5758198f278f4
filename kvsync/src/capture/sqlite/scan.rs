//! Reads tables page by page on SQLite.

use diesel::dsl::sql;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Double};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::reread::{Until, lookup, model_of};
use super::super::scan::{Asked, Scan, strange};
use super::reread::{number, told};
use crate::error::Result;
use crate::key::Scope;
use crate::model::{Looked, PrimaryKey, RowsPage, Schema};
use crate::version::Version;

/// A number that is taken while nobody else writes: every transaction that was given a lower one has
/// ended, and those that begin after it are given higher ones.
pub(super) fn barrier<C: Inner<Backend = Sqlite>>(conn: &mut C, hub: &Hub<Sqlite>, until: Until) -> Result<Version> {
    wait(conn, until)?;
    conn.batch_execute("BEGIN IMMEDIATE").map_err(told)?;
    let epoch = hub.publish.epoch();
    let sequence = number(conn).map_err(told)?;
    conn.batch_execute("COMMIT").map_err(told)?;
    Ok(Version::new(epoch, 0, sequence))
}

pub(super) fn page<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    asked: &Asked<'_>,
    until: Until,
) -> Result<RowsPage> {
    let (table, model) = model_of(hub, asked.schema)?;
    wait(conn, until)?;
    let mut scan = Scan::new((table, model), &table.sql, asked.most, image, "");
    if let Some(after) = asked.after {
        let value = |image: &String| {
            let value = Image::parse(image).ok_or_else(|| strange(image, asked.schema))?;
            Ok(Box::new(value) as Box<dyn QueryFragment<Sqlite>>)
        };
        scan.after(after.iter().map(value).collect::<Result<_>>()?);
    }
    scan.run(conn).map_err(told)
}

pub(super) fn look<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    (schema, _): (&'static Schema, &Scope),
    rows: &[PrimaryKey],
    until: Until,
) -> Result<Vec<Looked>> {
    let (table, model) = model_of(hub, schema)?;
    wait(conn, until)?;
    lookup(conn, (table, model), &table.sql, rows, told)
}

pub(super) fn estimate<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    schema: &'static Schema,
    until: Until,
) -> Result<Option<u64>> {
    let (table, _) = model_of(hub, schema)?;
    wait(conn, until)?;
    let count = sql::<BigInt>(&format!("SELECT count(*) FROM {}", table.sql)).get_result::<i64>(conn);
    Ok(u64::try_from(count.map_err(told)?).ok())
}

fn wait<C: Inner<Backend = Sqlite>>(conn: &mut C, until: Until) -> Result<()> {
    conn.batch_execute(&format!("PRAGMA busy_timeout = {}", until.millis()?)).map_err(told)
}

/// A value with its storage class, in text: any column may hold any class, and text any character.
fn image(column: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'integer' THEN 'i' || {column} WHEN 'real' THEN 'r' || printf('%!.17g', {column}) \
         WHEN 'text' THEN 't' || hex(CAST({column} AS BLOB)) ELSE 'b' || hex({column}) END"
    )
}

#[derive(Debug, PartialEq, QueryId)]
enum Image {
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Image {
    fn parse(image: &str) -> Option<Self> {
        let (class, value) = image.split_at_checked(1)?;
        Some(match class {
            "i" => Self::Integer(value.parse().ok()?),
            "r" => Self::Real(value.parse().ok()?),
            "t" => Self::Text(unhex(value)?),
            "b" => Self::Blob(unhex(value)?),
            _ => return None,
        })
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

impl QueryFragment<Sqlite> for Image {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        match self {
            Self::Integer(value) => out.push_bind_param::<BigInt, _>(value),
            Self::Real(value) => out.push_bind_param::<Double, _>(value),
            Self::Text(value) => {
                // In the database's encoding, which need not be Rust's. The sign takes the affinity from the
                // expression: numbers in a column without one would be compared as text.
                out.push_sql("+CAST(");
                out.push_bind_param::<Binary, _>(value)?;
                out.push_sql(" AS TEXT)");
                Ok(())
            }
            Self::Blob(value) => out.push_bind_param::<Binary, _>(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn only_what_was_written_is_read() {
        assert_eq!(Image::parse("i-9223372036854775808"), Some(Image::Integer(i64::MIN)));
        assert_eq!(Image::parse("r0.1"), Some(Image::Real(0.1)));
        assert_eq!(Image::parse("t00Ff"), Some(Image::Text(vec![0, 255])));
        assert_eq!(Image::parse("b"), Some(Image::Blob(Vec::new())));
        for strange in ["", "1", "i", "i1;", "i 1", "t0", "tzz", "b0g", "é", "t1é"] {
            assert_eq!(Image::parse(strange), None, "{strange}");
        }
    }
}
