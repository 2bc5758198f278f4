//! The outbox: a table in the user's database, in which changes wait until they are delivered.

pub(super) mod content;
mod decode;
mod image;
pub(super) mod literals;
mod sql;
mod stored;
mod table;
mod write;

use diesel::QueryResult;

#[doc(hidden)]
pub use self::decode::Belongs;
#[doc(hidden)]
pub use self::sql::Statement;
pub(super) use self::table::OutboxTable;
#[doc(hidden)]
pub use self::write::Written;
pub(super) use self::write::write;
use super::backend::{Inner, Inside as _};
use super::statement::Dialect;

/// Whether the table is there.
pub(super) fn is_there<C: Inner>(conn: &mut C) -> QueryResult<bool> {
    let question = match C::Backend::DIALECT {
        Dialect::Postgres => "SELECT 1 WHERE pg_catalog.to_regclass('kvsync_outbox') IS NOT NULL",
        Dialect::Sqlite => "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'kvsync_outbox'",
    };
    Ok(!Statement::new(question).load(conn, |_| ())?.is_empty())
}

/// What to do where it is not.
pub(super) fn missing(database: &str) -> String {
    format!(
        "there is no table `kvsync_outbox` in the database `{database}`; run the migration that makes it \
         (`kvsync_outbox` in `kvsync::capture::outbox`)"
    )
}
