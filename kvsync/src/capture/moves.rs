//! Finds the rows that an UPDATE of the primary key moves, before it moves them: what it returns are the
//! new keys only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManager};
use diesel::query_builder::QueryFragment;
use diesel::row::Row as _;
use parking_lot::Mutex;

use super::backend::{Inner, Inside, SyncBackend};
use super::connection::SyncConnection;
use super::database::Policy;
use super::fit::Level;
use super::fragment::Rewritten;
use super::hub::Hub;
use super::pending::Beside;
use super::plan::{Caching, Plan};
use super::state::State;
use super::statement::{Dialect, Verb, Write};
use super::table::Table;
use crate::change::{Action, Change, Row, Unknown};

/// A row as it was called before the update: its model among those of the table, and its primary key.
pub(super) struct Moved {
    model: usize,
    unknown: Unknown,
    beside: Option<Beside>,
}

/// The plan of what finds the rows whose primary key an update changes; nothing when it changes none, or
/// when they cannot be found.
pub(super) fn moves<DB: SyncBackend>(
    hub: &Hub<DB>,
    sql: &str,
    write: &Write<'_>,
    table: &Arc<Table<DB>>,
) -> Option<Box<Plan<DB>>> {
    primary_key_set(table, write)?;
    let name = DB::quote(&write.table.name);
    let reference = write.alias.unwrap_or(&name);
    let mut list: Vec<String> = table.models.iter().map(|model| model.key_columns(reference)).collect();
    let own = table.models.iter().map(|model| model.schema.primary_key.len()).sum();
    if hub.outbox {
        list.push(DB::image(&table.primary_key, reference));
    }
    Some(Box::new(Plan {
        sql: finding::<DB>(sql, write, &list.join(", "))?,
        cache: Caching::Never,
        table: Arc::clone(table),
        action: Action::Delete,
        places: Vec::new(),
        owning: Mutex::default(),
        hidden: 0,
        image: hub.outbox.then_some(own),
        concern: None,
        replaces: false,
        qualified: write.table.schema.is_some(),
        rows: None,
        moves: None,
        sets: Vec::new(),
        level: Level::Keys,
        asks: false,
    }))
}

/// A column of the primary key that a statement sets.
pub(super) fn primary_key_set<DB: SyncBackend>(table: &Arc<Table<DB>>, write: &Write<'_>) -> Option<&'static str> {
    let set = write.columns_set();
    if set.is_empty() {
        return None;
    }
    let mut columns = table.models.iter().flat_map(|model| model.schema.primary_key);
    columns.find(|column| set.contains(&DB::DIALECT.fold(Cow::Borrowed(column)))).copied()
}

/// What is reported of an update of the primary key whose rows could not be found before.
pub(super) fn old_keys_stay(column: &str) -> String {
    format!(
        "a statement sets the primary-key column `{column}`: the row's old keys stay; delete the row and insert it anew"
    )
}

/// The statement that finds and locks them, with the binds of the update; nothing where it would not
/// certainly be right.
fn finding<DB: SyncBackend>(sql: &str, write: &Write<'_>, list: &str) -> Option<String> {
    if write.verb != Verb::Update || write.or.is_some() || write.joined || write.with {
        return None;
    }
    let (target, filter) = (sql.get(write.target.clone())?, sql.get(write.filter.clone())?);
    if filter.to_ascii_lowercase().contains("current") {
        // `WHERE CURRENT OF` a cursor.
        return None;
    }
    if DB::DIALECT == Dialect::Postgres {
        return Some(format!("SELECT {list} FROM {target} {filter} FOR UPDATE"));
    }
    // SQLite counts its binds from the first placeholder of the text on.
    let values = write.values_set();
    let binds = values.iter().filter(|value| value.starts_with(['?', ':', '@', '$']));
    let binds = binds.map(|bind| (*bind == "?").then_some("?")).collect::<Option<Vec<_>>>()?.join(", ");
    let with = if binds.is_empty() { String::new() } else { format!("WITH kvsync_set AS (SELECT {binds}) ") };
    Some(format!("{with}SELECT {list} FROM {target} {filter}"))
}

impl<C: Inner> SyncConnection<C> {
    /// Finds and locks the rows; nothing when that fails, which may not fail the update.
    pub(super) fn find_moved(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        find: &Plan<C::Backend>,
    ) -> QueryResult<Option<Vec<Moved>>> {
        C::Backend::reserve(&mut self.inner, &find.table)?;
        C::TransactionManager::begin_transaction(&mut self.inner)?;
        let found = self.read_moved(source, find);
        if found.is_ok() {
            C::TransactionManager::commit_transaction(&mut self.inner)?;
        } else {
            C::TransactionManager::rollback_transaction(&mut self.inner)?;
        }
        Ok(found.ok().flatten())
    }

    fn read_moved(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        find: &Plan<C::Backend>,
    ) -> QueryResult<Option<Vec<Moved>>> {
        let mut found = Vec::new();
        for row in LoadConnection::<DefaultLoadingMode>::load(&mut self.inner, Rewritten::new(source, find))? {
            let row = row?;
            let beside =
                find.image.map(|at| Beside { image: C::Backend::text(&row, at).map(Into::into), schema: None });
            let mut at = 0;
            for (index, model) in find.table.models.iter().enumerate() {
                let Ok(unknown) = model.identify_alone(&row, at) else { return Ok(None) };
                found.push(Moved { model: index, unknown, beside: beside.clone() });
                at += model.schema.primary_key.len();
            }
            debug_assert!(at <= row.field_count());
        }
        Ok(Some(found))
    }
}

impl<DB: SyncBackend> State<DB> {
    /// After an update that moves rows: lets their old keys go, or reports that they stay.
    pub(super) fn moved(&mut self, plan: &Plan<DB>, found: Option<Vec<Moved>>, from: usize, now: SystemTime) {
        let all = found.is_some_and(|found| self.left(&plan.table, found, from, now));
        if !all && self.hub.policy != Policy::Allow {
            self.hub.missed(Some(&plan.table.name), old_keys_stay(&plan.sets.join("`, `")), &plan.sql);
        }
    }

    /// Of the rows that were found, those whose primary key no row has any more are gone. `from` is where
    /// the changes of the update begin. Returns whether there are as many of these as there were rows.
    fn left(&mut self, table: &Arc<Table<DB>>, found: Vec<Moved>, from: usize, now: SystemTime) -> bool {
        let changes = self.pending.changes().get(from..).unwrap_or_default();
        let Some(last) = changes.last() else { return true };
        let (version, scope) = (last.version, last.scope.clone());
        let all = changes.len() == found.len();
        let name = |schema: &crate::model::Schema, home: &crate::key::Key| (schema.model, home.clone());
        let stay: HashSet<_> = changes.iter().map(|change| name(change.schema, &change.row.home())).collect();
        let relation = self.relations.last().map(|(_, relation)| *relation);
        for Moved { model, unknown, beside } in found {
            let Some(model) = table.models.get(model) else { continue };
            if stay.contains(&name(model.schema, unknown.primary_key.home())) {
                continue;
            }
            let change = Change {
                schema: model.schema,
                database: Arc::clone(&self.hub.name),
                scope: scope.clone(),
                action: Action::Delete,
                version,
                captured_at: now,
                size: size_of::<Change>() + unknown.size(),
                row: Row::Absent(unknown),
            };
            let (at, room) = (self.pending.len(), self.hub.room());
            let kept = match beside {
                Some(beside) => self.pending.push_beside(change, beside, room),
                None => self.pending.push(change, room),
            };
            if let (true, Some(relation)) = (kept, relation) {
                self.relations.push((at, relation));
            }
        }
        all
    }
}
