//! What the rows of the outbox say, as changes of models.
//!
//! A row with content is a model in its codec. Otherwise it shows a primary key or a whole row in the
//! database's own words, and these are read by the database itself, so that every type is read as in any
//! other query.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::backend::SyncBackend;
use super::super::hub::Hub;
use super::super::primary::loses_keys;
use super::super::table::{ModelEntry, Table};
use super::content::Content;
use super::image::{Image, Seen, Shows, see};
use super::stored::Stored;
use crate::change::{Action, Change, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::Model;
use crate::version::Version;

/// Where a row belongs.
pub struct Belongs {
    /// The table as it stands in SQL.
    pub(in super::super) sql: String,
    /// The scope of its schema, where schemas have scopes.
    pub(in super::super) scope: Option<Scope>,
}

/// A row of the outbox that concerns models of this process.
struct Told<'a, DB: SyncBackend> {
    stored: &'a Stored,
    table: &'a Arc<Table<DB>>,
    sql: String,
    scope: Scope,
    action: Action,
    version: Version,
    models: Vec<&'a ModelEntry<DB>>,
}

/// The changes of each row.
pub(super) fn decode<DB: SyncBackend>(
    conn: &mut DB::Connection,
    hub: &Hub<DB>,
    rows: &[Stored],
) -> Vec<Result<Vec<Change>>> {
    let told: Vec<Result<Told<'_, DB>>> = rows.iter().map(|row| tell(conn, hub, row)).collect();
    let mut images = Vec::new();
    for (at, told) in told.iter().enumerate() {
        if let Ok(told) = told {
            told.wants(at, &mut images);
        }
    }
    let mut seen = see(conn, &images).into_iter().peekable();
    let changes = |(at, told): (usize, Result<Told<'_, DB>>)| {
        let mut own = Vec::new();
        while let Some(one) = seen.next_if(|(of, _)| *of == at) {
            own.push(one.1);
        }
        told?.changes(hub, own)
    };
    told.into_iter().enumerate().map(changes).collect()
}

/// Whom a row concerns.
fn tell<'a, DB: SyncBackend>(conn: &mut DB::Connection, hub: &'a Hub<DB>, stored: &'a Stored) -> Result<Told<'a, DB>> {
    let name = DB::DIALECT.fold(stored.table_name.as_str().into());
    let strange = || {
        let message = format!(
            "the row {} of the outbox is of the table `{}`, and this process has registered no such model there",
            stored.id, stored.table_name
        );
        Error::new(ErrorKind::Config, message)
    };
    let mut belongs = None;
    for table in hub.tables.iter().filter(|table| table.name == *name) {
        if let Some(found) = DB::belongs(conn, hub, table, stored.table_schema.as_deref())? {
            belongs = Some((table, found));
            break;
        }
    }
    let (table, Belongs { sql, scope }) = belongs.ok_or_else(strange)?;
    let action = stored.action()?;
    let own = Scope::of_prefix(&stored.scope).ok_or_else(|| stored.wrong("its scope is none"))?;
    let of_name: Vec<&ModelEntry<DB>> = table
        .models
        .iter()
        .filter(|model| stored.model.as_deref().is_none_or(|name| name == model.schema.model))
        .collect();
    let is_own = |model: &&&ModelEntry<DB>| stored.generation == Some(i64::from(model.schema.generation));
    // A row of a generation that nobody has claimed is taken for whatever generations there are.
    let models = match of_name.iter().find(is_own) {
        Some(model) if stored.model.is_some() => vec![*model],
        _ => of_name,
    };
    if models.is_empty() {
        return Err(strange());
    }
    let scope = if own.is_none() { scope.unwrap_or(own) } else { own };
    Ok(Told { stored, table, sql, scope, action, version: stored.version(hub.publish.epoch())?, models })
}

impl<DB: SyncBackend> Told<'_, DB> {
    /// Whether the row is to be read again: it was tried in vain before, and a mark of that attempt may be above its
    /// own version by now.
    fn is_again(&self) -> bool {
        self.stored.failed && self.action != Action::Delete && self.stored.primary_key.is_some()
    }

    /// The content, if it can be read as this model, and is of use.
    fn content(&self, model: &ModelEntry<DB>) -> Option<Content<'_>> {
        if self.is_again() && model.schema.has_mutable_key() {
            return None;
        }
        let is_own = self.stored.generation == Some(i64::from(model.schema.generation));
        let content = self.stored.content.as_deref().filter(|_| is_own && self.stored.model.is_some())?;
        Content::parse(content).ok().filter(|content| content.is_readable_as(model.schema, model.kind.codec))
    }

    /// Whether the row as it was before is of use.
    fn needs_old_row(&self, model: &ModelEntry<DB>) -> bool {
        // The keys that a row leaves are in its ledger, unless it has none.
        self.stored.old_row.is_some() && (self.action == Action::Delete || !model.schema.has_mutable_key())
    }

    /// Adds what the database has to read: for each model that has no content its primary key, and the old
    /// row where that is of use.
    fn wants<'b>(&'b self, at: usize, images: &mut Vec<Image<'b, DB>>) {
        for model in &self.models {
            if self.content(model).is_some() {
                continue;
            }
            let image = |shows, text| Image { row: at, table: self.table, sql: &self.sql, model, shows, text };
            images.push(image(Shows::PrimaryKey, self.stored.primary_key.as_deref().unwrap_or_default()));
            if self.needs_old_row(model) {
                images.push(image(Shows::Row, self.stored.old_row.as_deref().unwrap_or_default()));
            }
        }
    }

    fn changes(&self, hub: &Hub<DB>, seen: Vec<Result<Seen>>) -> Result<Vec<Change>> {
        let mut seen = seen.into_iter();
        let mut next = || seen.next().unwrap_or_else(|| Err(self.stored.wrong("it was not read")));
        let mut changes = Vec::with_capacity(self.models.len());
        for model in &self.models {
            let (row, size) = if let Some(content) = self.content(model) {
                let thawed = catch_unwind(AssertUnwindSafe(|| model.kind.decode(content.body)));
                let row = thawed.unwrap_or_else(|_| Err(self.stored.wrong("reading its content panicked")));
                match row {
                    Ok(row) if self.is_again() => {
                        let unknown = catch_unwind(AssertUnwindSafe(|| Row::Live(row).unknown()));
                        let unknown = unknown.map_err(|_| self.stored.wrong("the keys of its content panicked"))?;
                        let size = unknown.size();
                        (Row::Unknown(unknown), size)
                    }
                    Ok(row) => (self.row(row, self.stored.live.unwrap_or(true)), content.body.len()),
                    Err(error) => return Err(error),
                }
            } else {
                let (known, old) = (next(), self.needs_old_row(model).then(&mut next));
                self.shown(hub, model, known, old)?
            };
            changes.push(Change {
                schema: model.schema,
                database: Arc::clone(&hub.name),
                scope: self.scope.clone(),
                action: self.action,
                version: self.version,
                captured_at: self.stored.captured_at(),
                row,
                size: size + size_of::<Change>() + 64,
            });
        }
        Ok(changes)
    }

    fn row(&self, row: Box<dyn Model>, live: bool) -> Row {
        match self.action {
            Action::Delete => Row::Deleted { row, live },
            _ if live => Row::Live(row),
            _ => Row::Hidden(row),
        }
    }

    /// What follows from what the database has read.
    fn shown(
        &self,
        hub: &Hub<DB>,
        model: &ModelEntry<DB>,
        known: Result<Seen>,
        old: Option<Result<Seen>>,
    ) -> Result<(Row, usize)> {
        let (lost, old) = match old {
            Some(Ok(Seen::Row { row, size, live })) => (None, Some((row, size, live))),
            Some(Err(error)) if error.is_retryable() => return Err(error),
            Some(Err(error)) => (Some(error), None),
            _ => (None, None),
        };
        let mut kept = Vec::new();
        match old {
            Some((row, size, live)) if self.action == Action::Delete => {
                return Ok((Row::Deleted { row, live: self.stored.live.unwrap_or(live) }, size));
            }
            // The keys that it left: the row is read again, and those that it no longer has are released.
            Some((row, ..)) => kept = kept_keys(row),
            None => {}
        }
        let Seen::PrimaryKey(mut unknown) = known? else { return Err(self.stored.wrong("it shows no primary key")) };
        kept.retain(|key| !unknown.kept.contains(key));
        unknown.kept.append(&mut kept);
        if loses_keys(model.schema) && (self.action == Action::Delete || lost.is_some()) {
            let reason = "a row of the outbox does not show the row as it was, so that of its keys only the one made of \
                          the primary key is released";
            hub.missed(Some(&self.table.name), reason, &self.stored.table_name);
        }
        let size = unknown.size();
        Ok((if self.action == Action::Delete { Row::Absent(unknown) } else { Row::Unknown(unknown) }, size))
    }
}

/// The keys of a row that no ledger lists, though the model's code may panic.
fn kept_keys(row: Box<dyn Model>) -> Vec<Key> {
    catch_unwind(AssertUnwindSafe(|| Row::Live(row).unknown().kept)).unwrap_or_default()
}
