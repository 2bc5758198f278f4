//! What capture needs to know of a database, in one trait.

use std::time::SystemTime;

use diesel::backend::Backend;
use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManagerStatus};
use diesel::query_builder::{AstPass, QueryBuilder};
use diesel::row::Row;
use diesel::{Connection, QueryResult, deserialize};

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
use crate::error::Result;
use crate::key::Scope;
use crate::model::{Looked, PrimaryKey, Reread, RowsPage, Schema, Wanted};
use crate::version::Version;

/// A database whose writes can be captured: Diesel's `Sqlite` or `Pg`. Implemented by this crate only.
pub trait SyncBackend: Inside {
    /// Diesel's own connection to it.
    type Connection: Inner<Backend = Self>;
}

/// A connection that can be wrapped: Diesel's own, or one around it that hands out the same rows, such
/// as a pooled one. Implemented for all of them.
pub trait Inner:
    Connection<Backend: SyncBackend>
    + for<'conn, 'query> LoadConnection<
        DefaultLoadingMode,
        Row<'conn, 'query> = <<Self as Connection>::Backend as Inside>::Row<'conn, 'query>,
    > + 'static
{
}

impl<C> Inner for C where
    C: Connection<Backend: SyncBackend>
        + for<'conn, 'query> LoadConnection<
            DefaultLoadingMode,
            Row<'conn, 'query> = <<C as Connection>::Backend as Inside>::Row<'conn, 'query>,
        > + 'static
{
}

/// The part of [`SyncBackend`] that is nobody else's business.
#[doc(hidden)]
pub trait Inside: Backend<QueryBuilder: Default + QueryBuilder<Self>> + Default + 'static {
    /// A row as Diesel's own connection gives it.
    type Row<'conn, 'query>: Row<'conn, Self>;
    /// A row that has left its connection.
    type Owned: for<'row> Row<'row, Self> + 'static;
    /// What is shared between the rows of one statement when they leave.
    type Owning: Default + Clone + Send;
    /// What one connection remembers.
    type Session: Default + Send + 'static;

    /// Whose SQL it is.
    #[allow(private_interfaces, reason = "implemented by this crate only")]
    const DIALECT: Dialect;
    /// The schema of a table that is named without one; nothing where that is not always the same.
    const DEFAULT_SCHEMA: Option<&'static str>;
    /// Whether the database may end a transaction by itself when a statement fails.
    const LOSES_TRANSACTIONS: bool;
    /// Whether a statement that fails takes its whole transaction with it.
    const ABORTS: bool;
    /// Whether the types of the binds are part of a prepared statement.
    const TYPED_BINDS: bool;
    /// Whether columns are named with their table.
    const QUALIFIED: bool;
    /// How many values [`suffix`](Self::suffix) adds.
    const SUFFIX: usize;

    /// What is returned of each row beside the models' columns.
    fn suffix(reference: &str) -> String;
    /// The same without reading any column: the relation is the one that `table` means, as it stands in SQL.
    fn suffix_by_name(table: &str) -> String;
    /// `live_if` as an expression that means the written row, whatever else is joined. The statement
    /// calls the table `reference`, the condition calls it `table`.
    fn live(condition: &str, table: &str, reference: &str) -> String;
    /// The name as it stands in SQL.
    fn quote(name: &str) -> String;
    /// The condition, with AND behind it, that a row is one of the table that stands in SQL as `table`, and of
    /// none that inherits from it; empty where none can.
    fn only(table: &str) -> String;
    /// Takes a row out of its connection.
    fn own(row: Self::Row<'_, '_>, owning: &mut Self::Owning) -> Self::Owned;
    /// Reads a boolean.
    fn flag(row: &Self::Row<'_, '_>, at: usize) -> Option<bool>;
    /// Reads an integer of eight bytes.
    fn integer(row: &Self::Row<'_, '_>, at: usize) -> Option<i64>;
    /// Reads binary.
    fn bytes(row: &Self::Row<'_, '_>, at: usize) -> Option<Vec<u8>>;
    /// Adds text to a statement, as a value.
    fn push_text<'b>(out: &mut AstPass<'_, 'b, Self>, text: &'b str) -> QueryResult<()>;
    /// Goes on with what stands for a row in a FROM clause: the row of this table, or its primary key, that
    /// a row of the outbox shows as this text.
    fn push_image<'a>(
        statement: Statement<'a>,
        table: &str,
        text: &'a str,
        primary_key: &[&str],
    ) -> Result<Statement<'a>>;
    /// Where the rows of a registered table belong that stand in this schema; nothing when they are of
    /// another table.
    fn belongs<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
        schema: Option<&str>,
    ) -> Result<Option<Belongs>>
    where
        Self: SyncBackend;
    /// The bytes of a value, if it is text or binary.
    fn weigh(value: &mut Self::RawValue<'_>) -> usize;

    /// Looks at a new connection.
    fn greet<C: Inner<Backend = Self>>(conn: &mut C) -> Result<()>
    where
        Self: SyncBackend;
    /// What tells one database cluster from all others, where there is such a thing and it is told.
    fn cluster<C: Inner<Backend = Self>>(conn: &mut C) -> Option<i64>
    where
        Self: SyncBackend;
    /// Makes ready for a captured write.
    fn prepare<C: Inner<Backend = Self>>(
        conn: &mut C,
        session: &mut Self::Session,
        plan: &Plan<Self>,
    ) -> QueryResult<Ready>
    where
        Self: SyncBackend;
    /// Takes the lock that a write of the table takes, so that what is read after it is what is written.
    fn reserve<C: Inner<Backend = Self>>(conn: &mut C, table: &Table<Self>) -> QueryResult<()>
    where
        Self: SyncBackend;
    /// Runs as the first statement of the transaction that [`prepare`](Self::prepare) asked for, or of
    /// one that is open.
    fn lock<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Self::Session) -> QueryResult<()>
    where
        Self: SyncBackend;
    /// The version of a row, whose suffix stands at `at`. Its lock is held.
    fn stamp(
        session: &mut Self::Session,
        row: &Self::Row<'_, '_>,
        at: usize,
        now: SystemTime,
        epoch: u32,
    ) -> deserialize::Result<Stamp>;
    /// Decides where changes belong, once their statement has ended: gives them their scope, or drops
    /// and reports them. Of each change that [`stamp`](Self::stamp) named a relation for, there is its
    /// place and the relation.
    fn settle<C: Inner<Backend = Self>>(
        conn: &mut C,
        session: &mut Self::Session,
        hub: &Hub<Self>,
        plan: &Plan<Self>,
        pending: &mut Pending,
        relations: &[(usize, u32)],
    ) where
        Self: SyncBackend;
    /// The other names under which registered tables are written.
    fn ways<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>) -> QueryResult<Vec<Way>>
    where
        Self: SyncBackend;
    /// The schema was changed on this connection.
    fn altered(session: &mut Self::Session);
    /// Something may have been done on this connection that nobody saw.
    fn unwatched(session: &mut Self::Session);
    /// A transaction or savepoint ended.
    fn ended(session: &mut Self::Session, outermost: bool, rolled_back: bool);
    /// Whether a transaction whose COMMIT or ROLLBACK failed may have been committed, or a part of it.
    fn in_doubt(after: &TransactionManagerStatus, committing: bool) -> bool;
    /// What the database says of a table; nothing when there is no such table.
    fn catalog<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<Option<Catalog>>
    where
        Self: SyncBackend;
    /// What writes a table's rows without a statement that shows it.
    fn unseen<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>, table: &Table<Self>) -> QueryResult<Vec<Notice>>
    where
        Self: SyncBackend;
    /// What of the database's settings weakens a promise.
    fn settings<C: Inner<Backend = Self>>(conn: &mut C) -> QueryResult<Vec<Notice>>
    where
        Self: SyncBackend;
    /// Reads rows again; see [`Source::reread`](crate::model::Source::reread).
    fn reread<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        wanted: &[Wanted],
        until: Until,
    ) -> Result<Vec<Reread>>
    where
        Self: SyncBackend;
    /// Reads text; nothing where there is none.
    fn text(row: &Self::Row<'_, '_>, at: usize) -> Option<String>;
    /// The scopes of the schemas; see [`Source::scopes`](crate::model::Source::scopes).
    fn scopes<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        schema: &'static Schema,
        until: Until,
    ) -> Result<Vec<Scope>>
    where
        Self: SyncBackend;
    /// A version for what is read from now on; see [`Source::barrier`](crate::model::Source::barrier).
    fn barrier<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>, until: Until) -> Result<Version>
    where
        Self: SyncBackend;
    /// Reads a page; see [`Source::page`](crate::model::Source::page).
    fn page<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        asked: &Asked<'_>,
        until: Until,
    ) -> Result<RowsPage>
    where
        Self: SyncBackend;
    /// Looks rows up; see [`Source::look`](crate::model::Source::look).
    fn look<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        of: (&'static Schema, &Scope),
        rows: &[PrimaryKey],
        until: Until,
    ) -> Result<Vec<Looked>>
    where
        Self: SyncBackend;
    /// About how many rows there are; see [`Source::estimate`](crate::model::Source::estimate).
    fn estimate<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        schema: &'static Schema,
        scope: &Scope,
        until: Until,
    ) -> Result<Option<u64>>
    where
        Self: SyncBackend;
    /// The triggers that fill the outbox from a table.
    fn triggers_sql(table: &Table<Self>) -> TriggersSql
    where
        Self: SyncBackend;
    /// Makes them, unless they are as they should be.
    fn install_triggers<C: Inner<Backend = Self>>(
        conn: &mut C,
        hub: &Hub<Self>,
        table: &Table<Self>,
    ) -> QueryResult<()>
    where
        Self: SyncBackend;
    /// What is wrong with them.
    fn faults<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>, table: &Table<Self>) -> QueryResult<Vec<Notice>>
    where
        Self: SyncBackend;
    /// The primary key of a row as the outbox shows it, as SQL.
    fn image(primary_key: &[String], reference: &str) -> String;
    /// The outbox as it stands in SQL; nothing where there is none.
    fn outbox<C: Inner<Backend = Self>>(conn: &mut C, session: &mut Self::Session) -> QueryResult<Option<String>>
    where
        Self: SyncBackend;
    /// Adds the values of a row of the outbox to a statement.
    fn push_written<'b>(out: &mut AstPass<'_, 'b, Self>, row: &'b Written) -> QueryResult<()>;
    /// Whether triggers run for rows that are deleted because they are in the way of others.
    fn sees_displaced<C: Inner<Backend = Self>>(conn: &mut C) -> QueryResult<bool>
    where
        Self: SyncBackend;
    /// Whether the statement failed for a prepared plan that is out of date.
    fn is_stale_plan(error: &diesel::result::Error) -> bool;
}

/// How a captured write is run.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Whether it needs a transaction, and [`Inside::lock`] before it.
    pub locks: bool,
    /// Why what it returns is not of the registered table.
    pub elsewhere: Option<&'static str>,
}

/// The place of a captured row in the order of its changes.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The version.
    pub version: Version,
    /// What tells where the row belongs; 0 where nothing does.
    pub relation: u32,
}

/// The part of [`Inside`] whose text is the same for every database: values that Diesel reads and writes alike,
/// and what its folder has a file for. It cannot be a default, since the bounds hold for a database only.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! alike {
    () => {
        fn integer(row: &Self::Row<'_, '_>, at: usize) -> Option<i64> {
            row.get_value::<Nullable<BigInt>, Option<i64>, _>(at).ok().flatten()
        }

        fn bytes(row: &Self::Row<'_, '_>, at: usize) -> Option<Vec<u8>> {
            row.get_value::<Nullable<Binary>, Option<Vec<u8>>, _>(at).ok().flatten()
        }

        fn push_text<'b>(out: &mut AstPass<'_, 'b, Self>, text: &'b str) -> QueryResult<()> {
            out.push_bind_param::<Text, str>(text)
        }

        fn push_image<'a>(
            statement: Statement<'a>,
            table: &str,
            text: &'a str,
            primary_key: &[&str],
        ) -> Result<Statement<'a>> {
            outbox::push_image(statement, table, text, primary_key)
        }

        fn belongs<C: Inner<Backend = Self>>(
            conn: &mut C,
            hub: &Hub<Self>,
            table: &Table<Self>,
            schema: Option<&str>,
        ) -> Result<Option<Belongs>> {
            outbox::belongs(conn, hub, table, schema)
        }

        fn ways<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>) -> QueryResult<Vec<Way>> {
            ways::ways(conn, hub)
        }

        fn unseen<C: Inner<Backend = Self>>(
            conn: &mut C,
            hub: &Hub<Self>,
            table: &Table<Self>,
        ) -> QueryResult<Vec<Notice>> {
            unseen::unseen(conn, hub, table)
        }

        fn settings<C: Inner<Backend = Self>>(conn: &mut C) -> QueryResult<Vec<Notice>> {
            unseen::settings(conn)
        }

        fn reread<C: Inner<Backend = Self>>(
            conn: &mut C,
            hub: &Hub<Self>,
            wanted: &[Wanted],
            until: Until,
        ) -> Result<Vec<Reread>> {
            reread::reread(conn, hub, wanted, until)
        }

        fn barrier<C: Inner<Backend = Self>>(conn: &mut C, hub: &Hub<Self>, until: Until) -> Result<Version> {
            scan::barrier(conn, hub, until)
        }

        fn page<C: Inner<Backend = Self>>(
            conn: &mut C,
            hub: &Hub<Self>,
            asked: &Asked<'_>,
            until: Until,
        ) -> Result<RowsPage> {
            scan::page(conn, hub, asked, until)
        }

        fn look<C: Inner<Backend = Self>>(
            conn: &mut C,
            hub: &Hub<Self>,
            of: (&'static Schema, &Scope),
            rows: &[PrimaryKey],
            until: Until,
        ) -> Result<Vec<Looked>> {
            scan::look(conn, hub, of, rows, until)
        }

        fn push_written<'b>(out: &mut AstPass<'_, 'b, Self>, row: &'b Written) -> QueryResult<()> {
            row.push(out)
        }
    };
}
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use alike;
