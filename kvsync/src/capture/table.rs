//! The registered tables and how their rows are read.

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use diesel::associations::HasTable;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSqlRow, StaticallySizedRow};
use diesel::expression::{Expression, Selectable};
use diesel::expression_methods::EqAll;
use diesel::query_builder::{AstPass, QueryBuilder, QueryFragment};
use diesel::row::Row;
use diesel::{QueryResult, QuerySource, Table as _};

use super::backend::{Inside, SyncBackend};
use super::fit::Fit;
use super::primary::{self, KeyTypeOf, Picked};
use super::statement::{Scanned, TableName, scan};
use super::weigh::WeighedRow;
use crate::change::Unknown;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Kind, Model, PrimaryKey, Schema, Syncable, guarded};

/// A registered table and its models.
pub struct Table<DB: SyncBackend> {
    /// The schema, where the model names one; as the database compares it.
    pub(super) schema: Option<String>,
    /// The name, as the database compares it.
    pub(super) name: String,
    /// The table as it stands in SQL.
    pub(super) sql: String,
    /// Its columns, as `table!` names them.
    pub(super) columns: Vec<String>,
    /// Those of its primary key.
    pub(super) primary_key: Vec<String>,
    /// Whether triggers fill the outbox with what is written to it.
    pub(super) triggers: bool,
    /// Its models.
    pub(super) models: Vec<ModelEntry<DB>>,
    /// When it was looked at, in nanoseconds since the start; 0 when it has to be looked at.
    checked: AtomicU64,
    /// Whether it was ever found in order: what it lacks by then was taken from it.
    met: AtomicBool,
    /// What was found then.
    pub(super) fit: Fit,
    /// The schema that it was found in, where the model names none.
    pub(super) home: OnceLock<String>,
    /// Whether it has a unique key beside the primary key.
    displaces: AtomicBool,
}

impl<DB: SyncBackend> Table<DB> {
    /// The table of a `FROM` clause, without models.
    fn new(sql: String) -> Result<Self> {
        let probe = format!("DELETE FROM {sql}");
        let Scanned::Write(write) = scan(&probe, DB::DIALECT) else {
            let message = format!("`{sql}` is not the name of a table; only models of one table can be synced");
            return Err(Error::new(ErrorKind::Config, message));
        };
        let TableName { schema, name } = write.table;
        let (schema, name) = (schema.map(std::borrow::Cow::into_owned), name.into_owned());
        Ok(Self {
            schema,
            name,
            sql,
            columns: Vec::new(),
            primary_key: Vec::new(),
            triggers: false,
            models: Vec::new(),
            checked: AtomicU64::new(0),
            met: AtomicBool::new(false),
            fit: Fit::default(),
            home: OnceLock::new(),
            displaces: AtomicBool::new(false),
        })
    }

    /// Whether it was looked at since it was last altered, and not longer ago than this.
    pub(super) fn is_checked(&self, within: Duration) -> bool {
        let at = self.checked.load(Ordering::Relaxed);
        at > 0 && u128::from(nanos().saturating_sub(at)) < within.as_nanos()
    }

    /// Whether a row may be displaced by one of another primary key.
    pub(super) fn displaces(&self) -> bool {
        self.displaces.load(Ordering::Relaxed)
    }

    pub(super) fn set_displaces(&self, displaces: bool) {
        self.displaces.store(displaces, Ordering::Relaxed);
    }

    /// Whether a model reads one of these columns.
    pub(super) fn reads(&self, columns: &[String]) -> bool {
        let reads = |model: &ModelEntry<DB>, column: &String| {
            let live_if = model.schema.live_if.unwrap_or_default().to_lowercase();
            model.list.contains(&DB::quote(column)) || live_if.contains(&column.to_lowercase())
        };
        self.models.iter().any(|model| columns.iter().any(|column| reads(model, column)))
    }

    pub(super) fn set_checked(&self, checked: bool) {
        self.checked.store(if checked { nanos() } else { 0 }, Ordering::Relaxed);
        self.met.fetch_or(checked, Ordering::Relaxed);
    }

    /// Whether it was ever found in order.
    pub(super) fn is_met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }
}

/// The time since the first call, and one.
fn nanos() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// A model of a table, its type erased.
pub(super) struct ModelEntry<DB: SyncBackend> {
    pub(super) schema: &'static Schema,
    /// What reads its stored bytes.
    pub(super) kind: Kind,
    /// The SQL of its columns, cut where the table is named.
    columns: Vec<String>,
    /// The SQL of its columns as Diesel writes it.
    pub(super) list: String,
    /// How many values a row has.
    pub(super) width: usize,
    /// The bytes that a row takes, without what its fields point to.
    base_size: usize,
    decode: Decode<DB>,
    /// Whether only the primary keys of written rows are asked for.
    pub(super) by_key: bool,
    /// Where the columns of the primary key stand among its own, where that can be told.
    primary_key: Option<Box<[usize]>>,
    identify: Identify<DB>,
    filter: fn(&PrimaryKey) -> Option<Box<dyn QueryFragment<DB>>>,
}

type Decode<DB> = for<'row, 'conn, 'query> fn(
    &'row <DB as Inside>::Row<'conn, 'query>,
    Range<usize>,
) -> deserialize::Result<(Box<dyn Model>, usize)>;

type Identify<DB> =
    for<'row, 'conn, 'query> fn(&Picked<'row, <DB as Inside>::Row<'conn, 'query>>) -> deserialize::Result<Unknown>;

impl<DB: SyncBackend> ModelEntry<DB> {
    /// Its columns in a statement that calls the table `reference`.
    pub(super) fn columns(&self, reference: &str) -> String {
        self.columns.join(&format!("{reference}."))
    }

    /// The columns of its primary key, each in its place among its own, and NULL in all other places;
    /// nothing when these places cannot be told.
    pub(super) fn primary_key_alone(&self) -> Option<String> {
        let places = self.primary_key.as_ref()?;
        let column = |place: usize| {
            let column = places.iter().position(|of_key| *of_key == place);
            column.and_then(|at| self.schema.primary_key.get(at)).map_or("NULL".to_owned(), |name| DB::quote(name))
        };
        Some((0..self.width).map(column).collect::<Vec<_>>().join(", "))
    }

    /// The condition that a row has this primary key; nothing when it is of another model.
    pub(super) fn filter(&self, primary_key: &PrimaryKey) -> Option<Box<dyn QueryFragment<DB>>> {
        (self.filter)(primary_key)
    }

    /// Reads a row whose first value stands at `at`, with about how many bytes it takes. A panic in a
    /// user's `FromSql` is an error like others.
    pub(super) fn decode(
        &self,
        row: &<DB as Inside>::Row<'_, '_>,
        at: usize,
    ) -> deserialize::Result<(Box<dyn Model>, usize)> {
        let read = panic::catch_unwind(AssertUnwindSafe(|| (self.decode)(row, at..at + self.width)));
        let (model, bytes) = read.unwrap_or_else(|_| Err("reading it panicked".into()))?;
        Ok((model, self.base_size + bytes))
    }

    /// The same with its primary key. What was read can write all its keys.
    pub(super) fn read(
        &self,
        row: &<DB as Inside>::Row<'_, '_>,
        at: usize,
    ) -> deserialize::Result<(Box<dyn Model>, PrimaryKey)> {
        let (model, _) = self.decode(row, at)?;
        let primary_key = guarded(self.schema, || model.named())?;
        Ok((model, primary_key))
    }

    /// Reads of such a row what tells which one it is; nothing when that cannot be read either.
    pub(super) fn identify(&self, row: &<DB as Inside>::Row<'_, '_>, at: usize) -> Option<Unknown> {
        let columns = self.primary_key.as_ref()?.iter().map(|column| at + column).collect();
        self.identify_by(row, columns).ok()
    }

    /// Reads what tells which row it is, of a row in which the primary key stands at `at` and alone.
    pub(super) fn identify_alone(&self, row: &<DB as Inside>::Row<'_, '_>, at: usize) -> deserialize::Result<Unknown> {
        self.identify_by(row, (at..at + self.schema.primary_key.len()).collect())
    }

    fn identify_by(&self, row: &<DB as Inside>::Row<'_, '_>, columns: Box<[usize]>) -> deserialize::Result<Unknown> {
        let read = panic::catch_unwind(AssertUnwindSafe(|| (self.identify)(&Picked { row, columns })));
        read.unwrap_or_else(|_| Err("reading it panicked".into()))
    }

    /// The columns of its primary key in a statement that calls the table `reference`.
    pub(super) fn key_columns(&self, reference: &str) -> String {
        let column = |name: &&str| {
            let name = DB::quote(name);
            if DB::QUALIFIED { format!("{reference}.{name}") } else { name }
        };
        self.schema.primary_key.iter().map(column).collect::<Vec<_>>().join(", ")
    }
}

/// A model that can be registered in a database: it derives `Syncable`, `Queryable`, `Selectable` and
/// `Identifiable`, and its primary key's fields compare with the table's primary-key columns and can be
/// read from them alone. Implemented for all such.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be synced with this database",
    note = "it needs `#[derive(Queryable, Selectable, Identifiable, Syncable)]` and fields that the database's types can be read into"
)]
pub trait SyncModel<DB: SyncBackend>:
    Syncable<PrimaryKey: FromSqlRow<KeyTypeOf<<Self as HasTable>::Table>, DB>>
    + HasTable<
        Table: diesel::Table<
            PrimaryKey: EqAll<<Self as Syncable>::PrimaryKey, Output: QueryFragment<DB> + 'static> + QueryFragment<DB>,
            AllColumns: QueryFragment<DB>,
        > + QuerySource<FromClause: QueryFragment<DB>>,
    > + Selectable<DB, SelectExpression: QueryFragment<DB>>
    + StaticallySizedRow<SqlTypeOf<Self, DB>, DB>
{
}

impl<DB, M> SyncModel<DB> for M
where
    DB: SyncBackend,
    M: Syncable<PrimaryKey: FromSqlRow<KeyTypeOf<<M as HasTable>::Table>, DB>>
        + HasTable<
            Table: diesel::Table<
                PrimaryKey: EqAll<<M as Syncable>::PrimaryKey, Output: QueryFragment<DB> + 'static> + QueryFragment<DB>,
                AllColumns: QueryFragment<DB>,
            > + QuerySource<FromClause: QueryFragment<DB>>,
        > + Selectable<DB, SelectExpression: QueryFragment<DB>>
        + StaticallySizedRow<SqlTypeOf<M, DB>, DB>,
{
}

/// The table of a model, with this model.
pub(super) fn table_of<DB: SyncBackend, M: SyncModel<DB>>() -> Result<Table<DB>> {
    let sql = render(&M::table().from_clause(), false)?;
    let mut table = Table::new(sql)?;
    table.columns = primary::names(&render(&<M::Table as diesel::Table>::all_columns(), true)?);
    table.primary_key = primary::names(&render(&M::table().primary_key(), true)?);
    let list = render(&M::construct_selection(), !DB::QUALIFIED)?;
    let columns = if DB::QUALIFIED {
        list.split(&format!("{}.", table.sql)).map(str::to_owned).collect()
    } else {
        vec![list.clone()]
    };
    let width = <M as StaticallySizedRow<SqlTypeOf<M, DB>, DB>>::FIELD_COUNT;
    table.models.push(ModelEntry {
        schema: M::SCHEMA,
        by_key: false,
        kind: Kind::of::<M>(),
        columns,
        primary_key: primary::places::<DB>(M::SCHEMA, &table.sql, &list, width),
        list,
        width,
        base_size: size_of::<M>() + size_of::<crate::change::Change>(),
        decode: |row: &<DB as Inside>::Row<'_, '_>, range| {
            let row = WeighedRow::new(row);
            let model = <M as FromSqlRow<SqlTypeOf<M, DB>, DB>>::build_from_row(&row.partial_row(range))?;
            Ok((Box::new(model), row.bytes()))
        },
        identify: |row| primary::identify::<M, KeyTypeOf<<M as HasTable>::Table>, DB>(row),
        filter: |primary_key| {
            let values = primary_key.values::<M>()?.clone();
            Some(Box::new(M::table().primary_key().eq_all(values)))
        },
    });
    Ok(table)
}

/// What a row of the model is in SQL.
pub(super) type SqlTypeOf<M, DB> = <<M as Selectable<DB>>::SelectExpression as Expression>::SqlType;

/// The SQL of a part of a statement that has no binds.
fn render<DB: SyncBackend, F: QueryFragment<DB>>(fragment: &F, bare: bool) -> Result<String> {
    let mut sql = DB::QueryBuilder::default();
    let wrong = |error: diesel::result::Error| {
        Error::new(ErrorKind::Config, "the columns of a model cannot be written as SQL").with_source(error)
    };
    let probe = Bare { fragment, bare };
    probe.to_sql(&mut sql, &DB::default()).map_err(wrong)?;
    Ok(sql.finish())
}

struct Bare<'a, F> {
    fragment: &'a F,
    /// Whether columns are written without their table.
    bare: bool,
}

impl<DB: Backend, F: QueryFragment<DB>> QueryFragment<DB> for Bare<'_, F> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.skip_from(self.bare);
        self.fragment.walk_ast(out)
    }
}
