//! What rows of the outbox show of rows of PostgreSQL: JSON objects.

use diesel::pg::Pg;

use super::super::backend::{Inner, Inside as _};
use super::super::hub::Hub;
use super::super::outbox::{Belongs, Statement};
use super::super::table::Table;
use super::place::home;
use crate::error::{Error, ErrorKind, Result};

#[allow(clippy::unnecessary_wraps, reason = "the other database may refuse the text")]
pub(super) fn push_image<'a>(
    statement: Statement<'a>,
    table: &str,
    text: &'a str,
    _: &[&str],
) -> Result<Statement<'a>> {
    let statement = statement.sql(format!("pg_catalog.json_populate_record(NULL::{table}, ")).value(text);
    Ok(statement.sql("::pg_catalog.json)"))
}

pub(super) fn belongs<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
    schema: Option<&str>,
) -> Result<Option<Belongs>> {
    let at = |schema: &str, scope| {
        Ok(Some(Belongs { sql: format!("{}.{}", Pg::quote(schema), Pg::quote(&table.name)), scope }))
    };
    let own = match (&table.schema, &hub.scopes, schema) {
        (Some(own), ..) => own.clone(),
        (None, Some(scopes), Some(schema)) => {
            let scope = scopes(schema).ok_or_else(|| {
                let message = format!("a row of the outbox is of the schema `{schema}`, which was given no scope");
                Error::new(ErrorKind::Config, message)
            })?;
            return at(schema, Some(scope));
        }
        (None, ..) => home(conn, table)
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the schema of a table cannot be looked up").with_source(error)
            })?
            .ok_or_else(|| {
                let message =
                    format!("the table `{}` is in none of the schemas of the default search path", table.name);
                Error::new(ErrorKind::Config, message)
            })?,
    };
    if schema.is_none_or(|schema| schema == own) { at(&own, None) } else { Ok(None) }
}
