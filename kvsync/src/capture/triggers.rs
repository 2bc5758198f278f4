//! Database triggers that write what is done to a table into the outbox, whoever does it.

use std::borrow::Cow;
use std::sync::Arc;

use super::backend::{Inner, Inside as _, SyncBackend};
use super::check::look_again;
use super::connection::SyncConnection;
use super::database::Database;
use super::table::{SyncModel, Table, table_of};
use crate::error::{Error, ErrorKind, Result};

/// The SQL of a migration that makes triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TriggersSql {
    /// For `up.sql`. May be run again: it replaces the triggers that are there.
    pub up: String,
    /// For `down.sql`.
    pub down: String,
}

impl<DB: SyncBackend> Database<DB> {
    /// Registers a model whose table has triggers that fill the outbox, which is delivered as with
    /// [`outbox`](Self::outbox); models without triggers use it only if that is called, too. What cascades,
    /// functions, COPY, TRUNCATE or programs without kvsync write is synced, too. Statements of a
    /// [`SyncConnection`] on such a table are run as they are, and cost what the trigger costs.
    ///
    /// The triggers come from a migration with [`triggers_sql`](Self::triggers_sql), or from
    /// [`SyncConnection::install_triggers`]. Where they are missing, disabled or emptied, the first write of
    /// the table through a [`SyncConnection`] fails, and `check` tells. A `check` that
    /// finds them so leaves the table dirty until a `repair`, because what was written meanwhile is lost; of
    /// triggers that are taken away later a write tells, too, within [`check_every`](Self::check_every). Where they were made for other columns
    /// or models, as while one program replaces another, `check` warns: every write is caught all the same,
    /// but an update may not show the row as it was. All models of the table are
    /// synced by way of its triggers, also those that were registered by [`model`](Self::model).
    #[must_use]
    pub fn triggers<M: SyncModel<DB>>(mut self) -> Self {
        match table_of::<DB, M>() {
            Ok(mut table) => {
                table.triggers = true;
                self.register(table);
            }
            Err(error) => self.set_wrong(error),
        }
        self
    }

    /// The triggers of the tables that were registered with [`triggers`](Self::triggers), as SQL for a
    /// migration, to be run after the one that makes the outbox. Make it anew when the columns of
    /// a table, or the keys of its models, have changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a model cannot be synced as it was registered.
    pub fn triggers_sql(&self) -> Result<TriggersSql> {
        Ok(triggers_of(self.tables()?.iter()))
    }
}

/// The triggers of those of these tables that have them.
pub(super) fn triggers_of<'a, DB: SyncBackend>(tables: impl Iterator<Item = &'a Table<DB>>) -> TriggersSql {
    let mut all = TriggersSql { up: String::new(), down: String::new() };
    for table in tables.filter(|table| table.triggers) {
        let TriggersSql { up, down } = DB::triggers_sql(table);
        all.up.push_str(&up);
        all.down.push_str(&down);
    }
    all
}

impl<C: Inner> SyncConnection<C> {
    /// Makes the triggers of all tables that were registered with [`Database::triggers`], or replaces
    /// those that are out of date; touches no others. Needs the rights of the tables' owner, and locks
    /// a table for a moment. Tables that are not there yet are passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] when the database refuses: there is no outbox, or the role may not.
    pub fn install_triggers(&mut self) -> Result<()> {
        let hub = Arc::clone(&self.state.hub);
        for table in hub.tables.iter().filter(|table| table.triggers) {
            // What they replace may have been taken away: that is reported.
            look_again(&mut self.inner, &hub, table);
            C::Backend::install_triggers(&mut self.inner, &hub, table).map_err(|error| {
                let message = format!("the triggers of the table `{}` of `{}` cannot be made", table.name, hub.name);
                Error::new(ErrorKind::Database, message).with_source(error)
            })?;
            table.set_checked(false);
        }
        Ok(())
    }
}

impl<DB: SyncBackend> Table<DB> {
    /// The columns beside the primary key by which a row leaves a key when they change: those that make
    /// up keys, and those that `live_if` names. All columns where that cannot be told.
    pub(super) fn key_columns(&self) -> Vec<&str> {
        let own = |column: &str| {
            let folded = |name: &str| DB::DIALECT.fold(Cow::Owned(name.to_owned())).into_owned();
            self.columns.iter().position(|name| folded(name) == folded(column))
        };
        let mut watched = vec![false; self.columns.len()];
        for model in &self.models {
            for column in model.schema.keys.iter().flat_map(|key| key.columns) {
                match own(column).and_then(|at| watched.get_mut(at)) {
                    Some(watched) => *watched = true,
                    // A column whose name in SQL is another than in Rust.
                    None => watched.fill(true),
                }
            }
            let words = model.schema.live_if.unwrap_or_default();
            for word in words.split(|char: char| !char.is_alphanumeric() && char != '_') {
                if let Some(watched) = own(word).and_then(|at| watched.get_mut(at)) {
                    *watched = true;
                }
            }
        }
        let named = self.columns.iter().zip(watched).filter_map(|(name, watched)| watched.then_some(name.as_str()));
        named.filter(|name| !self.primary_key.iter().any(|primary| primary == name)).collect()
    }
}
