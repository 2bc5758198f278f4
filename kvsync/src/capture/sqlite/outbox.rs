//! What rows of the outbox show of rows of SQLite: SQL literals.

use diesel::sqlite::Sqlite;

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::outbox::{Belongs, Statement, literals};
use super::super::table::Table;
use crate::error::Result;

pub(super) fn push_image<'a>(
    statement: Statement<'a>,
    _: &str,
    text: &'a str,
    primary_key: &[&str],
) -> Result<Statement<'a>> {
    Ok(statement.sql(format!("(SELECT {})", literals::columns(text, primary_key)?)))
}

#[allow(clippy::unnecessary_wraps, reason = "the other database may fail")]
pub(super) fn belongs<C: Inner<Backend = Sqlite>>(
    _: &mut C,
    _: &Hub<Sqlite>,
    table: &Table<Sqlite>,
    schema: Option<&str>,
) -> Result<Option<Belongs>> {
    let of = |schema: Option<&str>| schema.unwrap_or("main").to_ascii_lowercase();
    let is_own = of(schema) == of(table.schema.as_deref());
    Ok(is_own.then(|| Belongs { sql: table.sql.clone(), scope: None }))
}
