//! Capture on SQLite.

mod batch;
mod begin;
mod catalog;
mod clock;
mod counter;
mod outbox;
mod reread;
mod scan;
mod trigger;
mod unseen;
mod ways;

use std::time::SystemTime;

use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManagerStatus};
use diesel::deserialize;
use diesel::dsl::sql;
use diesel::query_builder::AstPass;
use diesel::row::{Field, IntoOwnedRow, Row};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::sqlite::{Sqlite, SqliteConnection, SqliteType};
use diesel::{QueryResult, RunQueryDsl};

pub use self::batch::BatchResults;
pub use self::counter::SQLITE_COUNTER;
use super::backend::{Inner, Inside, Ready, Stamp, SyncBackend, alike};
use super::check::Catalog;
use super::finding::Notice;
use super::hub::Hub;
use super::outbox::{Belongs, Statement, Written, is_there};
use super::pending::Pending;
use super::plan::Plan;
use super::reread::Until;
use super::scan::Asked;
use super::statement::Dialect;
use super::table::Table;
use super::triggers::TriggersSql;
use super::ways::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Looked, PrimaryKey, Reread, RowsPage, Schema, Wanted};
use crate::version::Version;

impl SyncBackend for Sqlite {
    type Connection = SqliteConnection;
}

type SqliteRow<'conn, 'query> = <SqliteConnection as LoadConnection<DefaultLoadingMode>>::Row<'conn, 'query>;

/// What one connection remembers.
#[derive(Debug, Default)]
pub struct Session {
    counter: counter::Counter,
    /// The temporary tables and views; nothing before they were looked for.
    temporary: Option<Vec<String>>,
    /// Whether the outbox was found.
    outbox: bool,
}

impl Session {
    /// Whether a table that is named without its schema is a temporary one.
    fn is_temporary<C: Inner<Backend = Sqlite>>(&mut self, conn: &mut C, table: &str) -> QueryResult<bool> {
        if self.temporary.is_none() {
            let names = "SELECT lower(name) FROM temp.sqlite_master WHERE type IN ('table', 'view')";
            self.temporary = Some(sql::<Text>(names).get_results(conn)?);
        }
        Ok(self.temporary.iter().flatten().any(|name| name == table))
    }
}

impl Inside for Sqlite {
    type Row<'conn, 'query> = SqliteRow<'conn, 'query>;
    type Owned = <SqliteRow<'static, 'static> as IntoOwnedRow<'static, Self>>::OwnedRow;
    type Owning = <SqliteRow<'static, 'static> as IntoOwnedRow<'static, Self>>::Cache;
    type Session = Session;

    alike!();

    #[allow(private_interfaces, reason = "as in the trait")]
    const DIALECT: Dialect = Dialect::Sqlite;
    const DEFAULT_SCHEMA: Option<&'static str> = Some("main");
    const LOSES_TRANSACTIONS: bool = true;
    const ABORTS: bool = false;
    const TYPED_BINDS: bool = false;
    const QUALIFIED: bool = false;
    const SUFFIX: usize = 0;

    fn suffix(_: &str) -> String {
        String::new()
    }

    fn suffix_by_name(_: &str) -> String {
        String::new()
    }

    fn live(condition: &str, _: &str, _: &str) -> String {
        format!("({condition})")
    }

    fn quote(name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn only(_: &str) -> String {
        String::new()
    }

    fn own(row: Self::Row<'_, '_>, names: &mut Self::Owning) -> Self::Owned {
        row.into_owned(names)
    }

    fn flag(row: &Self::Row<'_, '_>, at: usize) -> Option<bool> {
        let field = Row::get(row, at)?;
        let mut value = field.value()?;
        Some(value.read_integer() != 0)
    }

    fn weigh(value: &mut Self::RawValue<'_>) -> usize {
        match value.value_type() {
            Some(SqliteType::Text) => value.read_text().len(),
            Some(SqliteType::Binary) => value.read_blob().len(),
            _ => 0,
        }
    }

    fn greet<C: Inner<Backend = Self>>(conn: &mut C) -> Result<()> {
        let version: String = sql::<Text>("SELECT sqlite_version()")
            .get_result(conn)
            .map_err(|error| Error::new(ErrorKind::Database, "SQLite does not tell its version").with_source(error))?;
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
        if (numbers.next(), numbers.next()) < (Some(3), Some(35)) {
            let message = format!(
                "SQLite {version} has no RETURNING; link SQLite 3.35 or later, or the feature `bundled` of libsqlite3-sys"
            );
            return Err(Error::new(ErrorKind::Database, message));
        }
        if let Ok(Some(notice)) = unseen::forgetful(conn) {
            tracing::warn!("{notice}");
        }
        Ok(())
    }

    fn cluster<C: Inner<Backend = Self>>(_: &mut C) -> Option<i64> {
        None
    }

    fn prepare<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Session, plan: &Plan<Self>) -> QueryResult<Ready> {
        let locks = session.counter.is_present(conn)?;
        let hidden = !plan.qualified && session.is_temporary(conn, &plan.table.name)?;
        let elsewhere = hidden.then_some("a statement wrote a temporary table of the same name, which is not synced");
        Ok(Ready { locks, elsewhere })
    }

    /// A transaction that has read before it writes may find that another has written since.
    fn reserve<C: Inner<Backend = Self>>(conn: &mut C, table: &Table<Self>) -> QueryResult<()> {
        conn.batch_execute(&format!("DELETE FROM {} WHERE 0", table.sql))
    }

    fn lock<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Session) -> QueryResult<()> {
        session.counter.take(conn)
    }

    fn stamp(
        session: &mut Session,
        _: &Self::Row<'_, '_>,
        _: usize,
        now: SystemTime,
        epoch: u32,
    ) -> deserialize::Result<Stamp> {
        let sequence = session.counter.next().unwrap_or_else(|| clock::next(now));
        Ok(Stamp { version: Version::new(epoch, 0, sequence), relation: 0 })
    }

    fn settle<C: Inner<Backend = Self>>(
        _: &mut C,
        _: &mut Session,
        _: &Hub<Self>,
        _: &Plan<Self>,
        _: &mut Pending,
        _: &[(usize, u32)],
    ) {
    }

    fn altered(session: &mut Session) {
        session.counter.forget();
        session.outbox = false;
        session.temporary = None;
    }

    fn unwatched(session: &mut Session) {
        session.temporary = None;
    }

    fn ended(session: &mut Session, outermost: bool, rolled_back: bool) {
        if outermost || rolled_back {
            session.counter.drop_block();
        }
        if rolled_back {
            session.temporary = None;
        }
    }

    /// SQLite may have ended the transaction when a statement failed; those after it were then
    /// committed, each by itself, and COMMIT and ROLLBACK found nothing to end.
    fn in_doubt(_: &TransactionManagerStatus, _: bool) -> bool {
        true
    }

    fn catalog<C: Inner<Backend = Self>>(
        conn: &mut C,
        _: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<Option<Catalog>> {
        catalog::catalog(conn, table)
    }

    fn text(row: &Self::Row<'_, '_>, at: usize) -> Option<String> {
        let field = Row::get(row, at)?;
        let mut value = field.value()?;
        Some(value.read_text().to_owned())
    }

    fn scopes<C: Inner<Backend = Self>>(_: &mut C, _: &Hub<Self>, _: &'static Schema, _: Until) -> Result<Vec<Scope>> {
        Ok(Vec::new())
    }

    fn estimate<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        schema: &'static Schema,
        _: &Scope,
        until: Until,
    ) -> Result<Option<u64>> {
        scan::estimate(conn, hub, schema, until)
    }

    fn triggers_sql(table: &Table<Self>) -> TriggersSql {
        trigger::triggers_sql(table)
    }

    fn install_triggers<C: Inner<Backend = Self>>(conn: &mut C, _: &Hub<Self>, table: &Table<Self>) -> QueryResult<()> {
        trigger::install(conn, table)
    }

    fn faults<C: Inner<Backend = Self>>(conn: &mut C, _: &Hub<Self>, table: &Table<Self>) -> QueryResult<Vec<Notice>> {
        trigger::faults(conn, table)
    }

    fn image(primary_key: &[String], _: &str) -> String {
        trigger::image(primary_key, "")
    }

    fn outbox<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Session) -> QueryResult<Option<String>> {
        if !session.outbox {
            session.outbox = is_there(conn)?;
        }
        Ok(session.outbox.then(|| "main.kvsync_outbox".to_owned()))
    }

    fn sees_displaced<C: Inner<Backend = Self>>(conn: &mut C) -> QueryResult<bool> {
        trigger::is_recursive(conn)
    }

    fn is_stale_plan(_: &diesel::result::Error) -> bool {
        false
    }
}
