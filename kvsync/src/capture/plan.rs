//! What is done with a statement, decided once for each text.

use std::any::TypeId;
use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::backend::SyncBackend;
use super::database::Policy;
use super::fit::Level;
use super::hub::Hub;
use super::moves::{moves, old_keys_stay, primary_key_set};
use super::statement::{Conflict, Or, Scanned, Verb, Write, rewrite, scan};
use super::table::{ModelEntry, Table};
use super::ways::{Strangers, sets};
use crate::change::Action;
use crate::error::{Error, ErrorKind};
use crate::model::Schema;

/// What is done with a statement.
pub(super) enum Planned<DB: SyncBackend> {
    /// It is run as it is.
    Pass,
    /// It is run with a changed text, and its rows are captured.
    Capture(Arc<Plan<DB>>),
    /// It is run as it is, and reported as not captured.
    Report(Arc<Missing>),
    /// It is run as it is, and changes the schema.
    Altered(Arc<Alteration<DB>>),
    /// It is not run.
    Refuse(Arc<Missing>),
    /// It is run as it is: triggers fill the outbox with what it writes.
    Caught(Arc<Caught<DB>>),
    /// It writes under names that are not registered, but may lead to tables that are.
    Strange(Arc<Strangers>),
}

impl<DB: SyncBackend> Clone for Planned<DB> {
    fn clone(&self) -> Self {
        match self {
            Self::Pass => Self::Pass,
            Self::Capture(plan) => Self::Capture(Arc::clone(plan)),
            Self::Report(missing) => Self::Report(Arc::clone(missing)),
            Self::Altered(alteration) => Self::Altered(Arc::clone(alteration)),
            Self::Refuse(missing) => Self::Refuse(Arc::clone(missing)),
            Self::Caught(caught) => Self::Caught(Arc::clone(caught)),
            Self::Strange(strangers) => Self::Strange(Arc::clone(strangers)),
        }
    }
}

/// A change of the schema.
pub(super) struct Alteration<DB: SyncBackend> {
    /// The registered tables that are to be checked anew.
    pub(super) tables: Vec<Arc<Table<DB>>>,
    /// What is reported of it.
    pub(super) missing: Option<Arc<Missing>>,
    /// The tables that it names.
    pub(super) names: Option<Strangers>,
}

/// A write that triggers catch.
pub(super) struct Caught<DB: SyncBackend> {
    /// The tables that have the triggers.
    pub(super) tables: Vec<Arc<Table<DB>>>,
    /// What is reported because others are written as well.
    pub(super) missing: Option<Arc<Missing>>,
    /// Whether rows that are in the way are deleted.
    pub(super) replaces: bool,
}

/// A write that cannot be captured.
pub(super) struct Missing {
    /// The registered tables that it writes, as far as they are known.
    pub(super) tables: Vec<String>,
    pub(super) reason: Cow<'static, str>,
    /// Whether its count of rows says whether it wrote anything.
    pub(super) counts: bool,
}

impl Missing {
    fn new<'a, DB: SyncBackend>(
        tables: impl IntoIterator<Item = &'a Arc<Table<DB>>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Arc<Self> {
        let tables = tables.into_iter().map(|table| table.name.clone()).collect();
        Arc::new(Self { tables, reason: reason.into(), counts: false })
    }

    /// The error that the caller gets in place of the statement's result.
    pub(super) fn error(&self) -> diesel::result::Error {
        let tables = self.tables.join("`, `");
        let tables = if tables.is_empty() { tables } else { format!(" (table `{tables}`)") };
        refused(Error::new(ErrorKind::Capture, format!("{}{tables}", self.reason)))
    }
}

/// An error of ours, before the statement was run.
pub(super) fn refused(error: Error) -> diesel::result::Error {
    diesel::result::Error::QueryBuilderError(Box::new(error))
}

/// How a statement is captured.
pub struct Plan<DB: SyncBackend> {
    /// The text to run.
    pub(super) sql: String,
    /// How the prepared statement is cached.
    pub(super) cache: Caching,
    pub(super) table: Arc<Table<DB>>,
    pub(super) action: Action,
    /// Where each model of the table stands, in the order of the table's models.
    pub(super) places: Vec<Place>,
    /// What the rows of all executions share when they leave their connection.
    pub(super) owning: Mutex<DB::Owning>,
    /// How many values at the end of a row are ours.
    pub(super) hidden: usize,
    /// Where the primary key stands as the outbox shows it, among ours.
    pub(super) image: Option<usize>,
    /// What of the statement cannot be captured although its rows are.
    pub(super) concern: Option<Arc<Missing>>,
    /// Whether rows that are in the way are deleted unseen.
    pub(super) replaces: bool,
    /// Whether the statement names the table's schema.
    pub(super) qualified: bool,
    /// How many rows must come back.
    pub(super) rows: Option<usize>,
    /// What finds the rows whose primary key it changes.
    pub(super) moves: Option<Box<Plan<DB>>>,
    /// The columns that it sets in rows that were there.
    pub(super) sets: Vec<String>,
    /// How it is captured.
    pub(super) level: Level,
    /// Whether the caller asked for rows.
    pub(super) asks: bool,
}

/// How Diesel caches a prepared statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caching {
    /// Not at all.
    Never,
    /// Under its text.
    Text,
    /// Under this id.
    Id(TypeId),
}

/// Where a model's values stand in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The first value of its columns.
    pub(super) columns: At,
    /// The value of its `live_if`, among ours.
    pub(super) live: Option<usize>,
    /// Whether only the columns of the primary key stand there.
    pub(super) keys: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    /// Among those that the caller asked for.
    Asked(usize),
    /// Among ours.
    Own(usize),
}

/// Decides what is done with a statement.
pub(super) fn plan<DB: SyncBackend>(hub: &Hub<DB>, sql: &str, cache: Caching) -> Planned<DB> {
    let scanned = scan(sql, DB::DIALECT);
    let planned = match &scanned {
        Scanned::Read => return Planned::Pass,
        Scanned::Schema { tables } => {
            let missing = match uncaptured(hub, &scanned) {
                Some(Planned::Report(missing)) => Some(missing),
                Some(refused) => return refused,
                None => None,
            };
            let tables = hub.tables_among(tables).into_iter().cloned().collect();
            return Planned::Altered(Arc::new(Alteration { tables, missing, names: Strangers::of(&scanned) }));
        }
        Scanned::Write(write) => hub.table(&write.table).map(|table| {
            if table.triggers {
                let (tables, replaces) = (vec![Arc::clone(table)], is_replace(write));
                return Planned::Caught(Arc::new(Caught { tables, missing: None, replaces }));
            }
            written(hub, sql, write, table, cache, Level::Rows)
        }),
        other => uncaptured(hub, other),
    };
    planned.unwrap_or_else(|| Strangers::of(&scanned).map_or(Planned::Pass, |names| Planned::Strange(Arc::new(names))))
}

/// The plan of a statement that was planned before, at another level.
pub(super) fn replan<DB: SyncBackend>(
    hub: &Hub<DB>,
    sql: &str,
    plan: &Plan<DB>,
    level: Level,
) -> Option<Arc<Plan<DB>>> {
    let Scanned::Write(write) = scan(sql, DB::DIALECT) else { return None };
    match written(hub, sql, &write, &plan.table, Caching::Never, level) {
        Planned::Capture(plan) => Some(plan),
        _ => None,
    }
}

/// What is done with a statement that writes and cannot be captured; nothing when no registered table
/// is concerned.
pub(super) fn uncaptured<DB: SyncBackend>(hub: &Hub<DB>, scanned: &Scanned<'_>) -> Option<Planned<DB>> {
    match scanned {
        Scanned::Read => None,
        Scanned::Schema { tables } => {
            let tables = hub.tables_among(tables);
            let reason = "a statement alters or drops the table: rows may be changed or gone unseen; run migrations through \
                          `unsynced()` and verify the table";
            if tables.is_empty() { None } else { hub.policy.planned(Missing::new(tables, reason)) }
        }
        Scanned::Write(write) => {
            let reason = "one of several statements in one string; run it alone, as its own statement";
            missed(hub.policy, hub.table(&write.table).into_iter().collect(), reason)
        }
        Scanned::Truncate { tables, cascade } => {
            let tables = hub.tables_among(tables);
            if !tables.is_empty() {
                let reason = "TRUNCATE deletes rows that nobody sees; use DELETE, or allow it and verify the table";
                return missed(hub.truncate, tables, reason);
            }
            let reason = "TRUNCATE .. CASCADE may empty registered tables unseen; verify them";
            cascade.then(|| missed(hub.policy, hub.tables.iter().collect(), reason))?
        }
        Scanned::Transaction => Some(Planned::Refuse(Missing::new::<DB>(
            None,
            "transactions must begin and end with Diesel's own methods, else nobody knows what was committed; \
             use `transaction`, or `unsynced()` where nothing is captured",
        ))),
        Scanned::Uncapturable { reason, tables } => {
            let tables = hub.tables_among(tables);
            let reason = format!("{reason}; run it through `unsynced()` and verify the table, or write it otherwise");
            missed(hub.policy, tables, reason)
        }
    }
}

/// What is done with a statement that writes these tables, and whose rows cannot be captured.
fn missed<DB: SyncBackend>(
    policy: Policy,
    tables: Vec<&Arc<Table<DB>>>,
    reason: impl Into<Cow<'static, str>>,
) -> Option<Planned<DB>> {
    let (with, without): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| table.triggers);
    let planned = if without.is_empty() { None } else { policy.planned(Missing::new(without, reason)) };
    match planned {
        _ if with.is_empty() => planned,
        Some(Planned::Report(missing)) => Some(caught(with.into_iter().cloned().collect(), Some(missing))),
        Some(refused) => Some(refused),
        None => Some(caught(with.into_iter().cloned().collect(), None)),
    }
}

fn caught<DB: SyncBackend>(tables: Vec<Arc<Table<DB>>>, missing: Option<Arc<Missing>>) -> Planned<DB> {
    Planned::Caught(Arc::new(Caught { tables, missing, replaces: false }))
}

impl Policy {
    /// Nothing where it is run, and nobody is told.
    pub(super) fn planned<DB: SyncBackend>(self, missing: Arc<Missing>) -> Option<Planned<DB>> {
        match self {
            Self::Error => Some(Planned::Refuse(missing)),
            Self::Warn => Some(Planned::Report(missing)),
            Self::Allow => None,
        }
    }
}

fn written<DB: SyncBackend>(
    hub: &Hub<DB>,
    sql: &str,
    write: &Write<'_>,
    table: &Arc<Table<DB>>,
    cache: Caching,
    level: Level,
) -> Planned<DB> {
    let moves = if level == Level::Blind { None } else { moves(hub, sql, write, table) };
    let concern = match concern(table, write, moves.is_some()).map(|missing| hub.policy.planned(missing)) {
        Some(Some(Planned::Report(missing))) => Some(missing),
        Some(Some(refused)) => return refused,
        Some(None) | None => None,
    };
    let name = DB::quote(&write.table.name);
    let reference = write.alias.unwrap_or(&name);
    let asked = write.returning.clone().and_then(|list| sql.get(list)).map(str::trim);
    let mut list = Vec::new();
    let mut own = 0;
    let mut places = Vec::with_capacity(table.models.len());
    let captured: &[ModelEntry<DB>] = if level == Level::Blind { &[] } else { &table.models };
    for model in captured {
        if model.by_key || level == Level::Keys {
            list.push(model.key_columns(reference));
            places.push(Place { columns: At::Own(own), live: None, keys: true });
            own += model.schema.primary_key.len();
            continue;
        }
        let columns = model.columns(reference);
        let at = if asked.is_some_and(|asked| asked == columns || asked == model.list) {
            At::Asked(0)
        } else {
            list.push(columns);
            own += model.width;
            At::Own(own - model.width)
        };
        let live = model.schema.live_if.map(|condition| {
            list.push(if write.joined || write.alias.is_some() {
                DB::live(condition, &DB::quote(&table.name), reference)
            } else {
                format!("({condition})")
            });
            own += 1;
            own - 1
        });
        places.push(Place { columns: at, live, keys: false });
    }
    let image = (hub.outbox && !captured.is_empty()).then(|| {
        list.push(DB::image(&table.primary_key, reference));
        own += 1;
        own - 1
    });
    if DB::SUFFIX > 0 && !captured.is_empty() {
        list.push(if places.iter().all(|place| place.keys) {
            let schema = write.table.schema.as_deref().map(|schema| format!("{}.", DB::quote(schema)));
            DB::suffix_by_name(&format!("{}{name}", schema.unwrap_or_default()))
        } else {
            DB::suffix(reference)
        });
        own += DB::SUFFIX;
    }
    let sql = if list.is_empty() { sql.to_owned() } else { rewrite(sql, write, &list.join(", ")) };
    Planned::Capture(Arc::new(Plan {
        sql,
        cache,
        table: Arc::clone(table),
        action: action(write),
        places,
        owning: Mutex::default(),
        hidden: own,
        image,
        concern,
        replaces: is_replace(write),
        qualified: write.table.schema.is_some(),
        rows: if write.or.is_none() && write.conflict.is_none() { write.rows } else { None },
        moves,
        sets: sets(write),
        level,
        asks: asked.is_some(),
    }))
}

fn is_replace(write: &Write<'_>) -> bool {
    write.verb == Verb::Replace || write.or == Some(Or::Replace)
}

fn action(write: &Write<'_>) -> Action {
    match write.verb {
        Verb::Insert if write.conflict == Some(Conflict::Update) => Action::Upsert,
        Verb::Insert => Action::Insert,
        Verb::Update => Action::Update,
        Verb::Delete => Action::Delete,
        Verb::Replace => Action::Upsert,
    }
}

/// What a statement does that its returned rows do not show.
fn concern<DB: SyncBackend>(table: &Arc<Table<DB>>, write: &Write<'_>, found: bool) -> Option<Arc<Missing>> {
    let set = write.columns_set();
    if set.is_empty() {
        return None;
    }
    if !found && let Some(column) = primary_key_set(table, write) {
        return Some(Missing::new(Some(table), old_keys_stay(column)));
    }
    let sets = |column: &&&'static str| set.contains(&DB::DIALECT.fold(Cow::Borrowed(column)));
    let schemas = || table.models.iter().map(|model| model.schema);
    let column = schemas().flat_map(immutable_columns).find(|column| sets(column))?;
    let reason = format!(
        "a statement sets `{column}`, of a key declared `immutable`: if the value changes, the old key stays; \
         leave the column out of the update (Diesel's `skip_update`)"
    );
    Some(Missing::new(Some(table), reason))
}

/// Columns of keys that were declared immutable and are no part of the primary key.
fn immutable_columns(schema: &'static Schema) -> impl Iterator<Item = &'static &'static str> {
    let keys = schema.keys.iter().filter(|key| key.immutable && !key.of_primary_key);
    keys.flat_map(|key| key.columns).filter(|column| !schema.primary_key.contains(column))
}
