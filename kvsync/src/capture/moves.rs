//! Finds the rows that an UPDATE of the primary key moves, before it moves them: what it returns are the
//! new keys only.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManager};
use diesel::query_builder::QueryFragment;
use diesel::row::Row as _;

use super::backend::{Inner, Inside, SyncBackend};
use super::connection::SyncConnection;
use super::fragment::Rewritten;
use super::pending::Beside;
use super::plan::Plan;
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

/// The statement that finds and locks them, with the binds of the update; nothing where it would not
/// certainly be right.
pub(super) fn finding<DB: SyncBackend>(sql: &str, write: &Write<'_>, list: &str) -> Option<String> {
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
    /// Of the rows that were found, those whose primary key no row has any more are gone. `from` is where
    /// the changes of the update begin. Returns whether there are as many of these as there were rows.
    pub(super) fn left(&mut self, table: &Arc<Table<DB>>, found: Vec<Moved>, from: usize, now: SystemTime) -> bool {
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
