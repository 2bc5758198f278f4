//! Capture on PostgreSQL.

mod barrier;
mod begin;
mod catalog;
mod outbox;
mod place;
mod reread;
mod row_by_row;
mod scan;
mod trigger;
mod unseen;
mod ways;

use std::time::SystemTime;

use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManagerStatus};
use diesel::deserialize;
use diesel::dsl::sql;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::AstPass;
use diesel::result::Error as DieselError;
use diesel::row::Row;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Oid, Text};
use diesel::{QueryResult, RunQueryDsl};

pub use self::begin::TransactionBuilder;
use self::place::Places;
use super::backend::{Inner, Inside, Ready, Stamp, SyncBackend, alike};
use super::check::Catalog;
use super::finding::Notice;
use super::hub::Hub;
use super::outbox::{Belongs, Statement, Written};
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

/// Where the WAL stands.
const POSITION: &str = "(pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8";

impl SyncBackend for Pg {
    type Connection = PgConnection;
}

/// What one connection remembers.
#[derive(Debug, Default)]
pub struct Session {
    /// The timeline of the server that it is connected to; nothing before the first captured write.
    timeline: Option<u32>,
    /// The outbox as it stands in SQL; nothing before it was found.
    outbox: Option<String>,
    places: Places,
}

impl Inside for Pg {
    type Row<'conn, 'query> = <PgConnection as LoadConnection<DefaultLoadingMode>>::Row<'conn, 'query>;
    type Owned = <PgConnection as LoadConnection<DefaultLoadingMode>>::Row<'static, 'static>;
    type Owning = ();
    type Session = Session;

    alike!();

    #[allow(private_interfaces, reason = "as in the trait")]
    const DIALECT: Dialect = Dialect::Postgres;
    const DEFAULT_SCHEMA: Option<&'static str> = None;
    const LOSES_TRANSACTIONS: bool = false;
    const ABORTS: bool = true;
    const TYPED_BINDS: bool = true;
    const QUALIFIED: bool = true;
    const SUFFIX: usize = 2;

    /// The table's own name would not do: it is the same in all schemas. The position is read while
    /// the row is locked, so later writers of the row read a higher one.
    fn suffix(reference: &str) -> String {
        format!("{reference}.tableoid, {POSITION}")
    }

    /// The right to read `tableoid` is one that a role with rights on single columns seldom has.
    fn suffix_by_name(table: &str) -> String {
        let table = table.replace('\'', "''");
        format!("pg_catalog.to_regclass('{table}')::pg_catalog.oid, {POSITION}")
    }

    fn live(condition: &str, table: &str, reference: &str) -> String {
        format!("(SELECT ({condition}) FROM (SELECT {reference}.*) AS {table})")
    }

    fn quote(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn only(table: &str) -> String {
        let table = trigger::literal(table);
        format!(
            "(tableoid = {table}::pg_catalog.regclass \
             OR tableoid IN (SELECT relid FROM pg_catalog.pg_partition_tree({table}::pg_catalog.regclass))) AND "
        )
    }

    fn own(row: Self::Row<'_, '_>, (): &mut ()) -> Self::Owned {
        row
    }

    fn flag(row: &Self::Row<'_, '_>, at: usize) -> Option<bool> {
        row.get_value::<Nullable<Bool>, Option<bool>, _>(at).ok().flatten()
    }

    fn weigh(value: &mut Self::RawValue<'_>) -> usize {
        value.as_bytes().len()
    }

    fn greet<C: Inner<Backend = Self>>(conn: &mut C) -> Result<()> {
        let asked = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int8";
        let version: i64 = sql::<BigInt>(asked).get_result(conn).map_err(|error| {
            Error::new(ErrorKind::Database, "PostgreSQL does not tell its version").with_source(error)
        })?;
        if version < 130_000 {
            let message =
                format!("PostgreSQL 13 or later is needed, this is {}.{}", version / 10_000, version % 10_000);
            return Err(Error::new(ErrorKind::Database, message));
        }
        let asked = "SELECT pg_catalog.current_setting('synchronous_commit')";
        if sql::<Text>(asked).get_result::<String>(conn).is_ok_and(|setting| setting == "off") {
            tracing::warn!("synchronous_commit is off: after a crash the database may forget what was synced");
        }
        Ok(())
    }

    fn cluster<C: Inner<Backend = Self>>(conn: &mut C) -> Option<i64> {
        let asked = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        // What only looks like PostgreSQL may not have it.
        sql::<BigInt>(asked).get_result(conn).ok()
    }

    fn prepare<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Session, _: &Plan<Self>) -> QueryResult<Ready> {
        if session.timeline.is_none() {
            session.timeline = Some(timeline(conn)?);
        }
        Ok(Ready { locks: false, elsewhere: None })
    }

    fn reserve<C: Inner<Backend = Self>>(_: &mut C, _: &Table<Self>) -> QueryResult<()> {
        Ok(())
    }

    fn lock<C: Inner<Backend = Self>>(_: &mut C, _: &mut Session) -> QueryResult<()> {
        Ok(())
    }

    fn stamp(
        session: &mut Session,
        row: &Self::Row<'_, '_>,
        at: usize,
        _: SystemTime,
        epoch: u32,
    ) -> deserialize::Result<Stamp> {
        let relation = row.get_value::<Oid, u32, _>(at)?;
        let position = u64::try_from(row.get_value::<BigInt, i64, _>(at + 1)?)?;
        let timeline = session.timeline.unwrap_or_default();
        Ok(Stamp { version: Version::new(epoch, timeline, position), relation })
    }

    fn settle<C: Inner<Backend = Self>>(
        conn: &mut C,
        session: &mut Session,
        hub: &Hub<Self>,
        plan: &Plan<Self>,
        pending: &mut Pending,
        relations: &[(usize, u32)],
    ) {
        session.places.settle(conn, hub, plan, pending, relations);
    }

    fn altered(session: &mut Session) {
        session.places.forget();
        session.outbox = None;
    }

    fn unwatched(_: &mut Session) {}

    fn ended(_: &mut Session, _: bool, _: bool) {}

    /// The server's own refusal of a COMMIT is certain. A connection that broke in the middle of one is not.
    fn in_doubt(after: &TransactionManagerStatus, committing: bool) -> bool {
        committing && matches!(after, TransactionManagerStatus::InError)
    }

    fn catalog<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<Option<Catalog>> {
        catalog::catalog(conn, hub, table)
    }

    fn text(row: &Self::Row<'_, '_>, at: usize) -> Option<String> {
        row.get_value::<Nullable<Text>, Option<String>, _>(at).ok().flatten()
    }

    fn scopes<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        schema: &'static Schema,
        until: Until,
    ) -> Result<Vec<Scope>> {
        scan::scopes(conn, hub, schema, until)
    }

    fn estimate<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        schema: &'static Schema,
        scope: &Scope,
        until: Until,
    ) -> Result<Option<u64>> {
        scan::estimate(conn, hub, schema, scope, until)
    }

    fn triggers_sql(table: &Table<Self>) -> TriggersSql {
        trigger::sql(table)
    }

    fn install_triggers<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<()> {
        trigger::install(conn, hub, table)
    }

    fn faults<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<Vec<Notice>> {
        trigger::faults(conn, hub, table)
    }

    fn image(primary_key: &[String], reference: &str) -> String {
        trigger::image(primary_key, reference)
    }

    fn outbox<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Session) -> QueryResult<Option<String>> {
        if session.outbox.is_none() {
            session.outbox = trigger::outbox(conn)?;
        }
        Ok(session.outbox.clone())
    }

    fn sees_displaced<C: Inner<Backend = Self>>(_: &mut C) -> QueryResult<bool> {
        Ok(true)
    }

    fn is_stale_plan(error: &DieselError) -> bool {
        let DieselError::DatabaseError(_, info) = error else { return false };
        info.message().contains("cached plan must not change result type")
    }
}

/// The timeline of the server's WAL.
fn timeline<C: Inner<Backend = Pg>>(conn: &mut C) -> QueryResult<u32> {
    let asked = "SELECT ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(\
                 pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int8";
    let timeline: i64 = sql::<BigInt>(asked).get_result(conn)?;
    u32::try_from(timeline).map_err(|error| DieselError::DeserializationError(error.into()))
}
