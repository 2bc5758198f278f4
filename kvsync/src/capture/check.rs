//! Whether a database's tables fit the models that are registered for them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::TransactionManager;
use diesel::result::Error as DieselError;

use super::backend::{Inner, Inside, SyncBackend};
use super::connection::SyncConnection;
use super::database::Policy;
use super::fit::{BLIND, BY_KEY, SECURED};
use super::hub::Hub;
use super::plan::refused;
use super::reread::probe;
use super::table::{ModelEntry, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::model::KeySpec;

/// Something about a table that hinders sync, or weakens a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether the table can be synced nevertheless.
    pub severity: Severity,
    /// What it is about.
    pub kind: FindingKind,
    /// The database's name.
    pub database: Arc<str>,
    /// The table.
    pub table: String,
    /// What was found, and what to do about it.
    pub message: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A promise is weakened.
    Warning,
    /// The table cannot be synced as it was declared. Its writes fail until it is mended; where rows cannot
    /// be read back, they follow [`Database::misfit`](super::Database::misfit).
    Error,
}

/// What a [`Finding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A view or virtual table, or one that the search path does not find.
    Table,
    /// Columns of a model are missing, or the role may not read them.
    Unreadable,
    /// A rule or the rights keep a write from returning anything.
    Blind,
    /// A key, or the primary key, that no unique constraint covers.
    NotUnique,
    /// A key whose unique constraint is partial, and not by the model's `live_if`.
    Partial,
    /// A key whose unique constraint is deferrable.
    Deferrable,
    /// A table whose rows a crash takes away.
    Unlogged,
    /// Row security.
    RowSecurity,
    /// A trigger.
    Trigger,
    /// A foreign key that deletes or changes rows.
    ForeignKey,
    /// A rule.
    Rule,
    /// A view through which rows can be written.
    View,
    /// A table that inherits.
    Child,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table `{}` of `{}`: {}", self.table, self.database, self.message)
    }
}

impl<C: Inner> SyncConnection<C> {
    /// Looks at every registered table, as a write would when it is the first: that the models'
    /// columns are there and may be read, and that every key is unique. Tables that are not there yet
    /// are passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] when the catalog cannot be read.
    pub fn check(&mut self) -> Result<Vec<Finding>> {
        let hub = Arc::clone(&self.state.hub);
        let mut found = Vec::new();
        for table in &hub.tables {
            let checked = check(&mut self.inner, &hub, table).map_err(|error| unchecked(&hub, table, error))?;
            if let Some(Checked { findings, fit }) = checked {
                table.fit.set(fit);
                found.extend(findings);
            }
        }
        Ok(found)
    }
}

pub(super) fn unchecked<DB: SyncBackend>(hub: &Hub<DB>, table: &Table<DB>, error: DieselError) -> Error {
    let message = format!("the table `{}` of `{}` cannot be checked", table.name, hub.name);
    Error::new(ErrorKind::Database, message).with_source(error)
}

/// What the database says of a table.
#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) columns: Vec<Column>,
    pub(super) uniques: Vec<Unique>,
    /// What makes the table unfit, whatever the model.
    pub(super) unfit: Option<String>,
    /// What weakens a promise.
    pub(super) warnings: Vec<(FindingKind, String)>,
    /// Whether it has row security, for some roles at least.
    pub(super) secured: bool,
    /// Rules that do something in place of a statement: whether for INSERT, UPDATE, DELETE.
    pub(super) instead: [bool; 3],
    /// Columns of every table that the capture of whole rows reads, and the role may not.
    pub(super) denied: Vec<&'static str>,
}

#[derive(Debug)]
pub(super) struct Column {
    /// As the database compares it.
    pub(super) name: String,
    /// Whether it may be read.
    pub(super) readable: bool,
}

/// A unique constraint or index.
#[derive(Debug)]
pub(super) struct Unique {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// The condition of a partial one.
    pub(super) predicate: Option<String>,
    /// Whether it may be violated for a while.
    pub(super) deferrable: bool,
}

/// Looks at a table before its first captured write, and finds out how its writes can be captured.
pub(super) fn ensure<C: Inner>(conn: &mut C, hub: &Hub<C::Backend>, table: &Table<C::Backend>) -> QueryResult<()> {
    if table.is_checked() {
        return Ok(());
    }
    let Some(Checked { findings, fit }) = check(conn, hub, table)? else { return Ok(()) };
    for finding in &findings {
        let hinders = matches!(finding.kind, FindingKind::Unreadable | FindingKind::Blind);
        match finding.severity {
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Error if hinders && hub.misfit != Policy::Error => {
                tracing::error!("{finding}");
                if hub.misfit == Policy::Warn {
                    hub.missed(Some(&table.name), finding.message.clone(), "");
                }
            }
            Severity::Error => return Err(refused(Error::new(ErrorKind::Database, finding.to_string()))),
        }
    }
    table.fit.add(fit);
    table.set_checked(true);
    Ok(())
}

/// What was found when a table was looked at.
struct Checked {
    findings: Vec<Finding>,
    /// What hinders the reading back of its rows; see [`Fit`](super::fit::Fit).
    fit: u8,
}

/// Nothing when there is no such table.
fn check<C: Inner>(conn: &mut C, hub: &Hub<C::Backend>, table: &Table<C::Backend>) -> QueryResult<Option<Checked>> {
    let Some(catalog) = C::Backend::catalog(conn, hub, table)? else { return Ok(None) };
    table.set_displaces(catalog.uniques.len() > 1);
    let finding = |severity, kind, message| Finding {
        severity,
        kind,
        database: Arc::clone(&hub.name),
        table: table.name.clone(),
        message,
    };
    let mut found: Vec<Finding> =
        catalog.warnings.iter().map(|(kind, warning)| finding(Severity::Warning, *kind, warning.clone())).collect();
    if let Some(unfit) = &catalog.unfit {
        found.push(finding(Severity::Error, FindingKind::Table, unfit.clone()));
        return Ok(Some(Checked { findings: found, fit: 0 }));
    }
    let mut fit = if catalog.secured { SECURED } else { 0 };
    for (instead, (blind, verb)) in catalog.instead.iter().zip(BLIND.into_iter().zip(["INSERT", "UPDATE", "DELETE"])) {
        if *instead && !table.triggers {
            fit |= blind;
            let message = format!(
                "a rule does something in place of its {verb}, which so cannot return rows and is not captured; use a \
                 trigger in place of the rule"
            );
            found.push(finding(Severity::Error, FindingKind::Blind, message));
        }
    }
    for model in &table.models {
        if !table.triggers
            && let Some(message) = unidentified(model, &catalog)
        {
            fit |= BLIND.iter().fold(0, |all, blind| all | blind);
            found.push(finding(Severity::Error, FindingKind::Blind, message));
            continue;
        }
        if !model.by_key
            && let Some(message) = unreadable(conn, table, model, &catalog)?
        {
            fit |= BY_KEY;
            // Where triggers fill the outbox, this connection may write without reading.
            let severity = if table.triggers { Severity::Warning } else { Severity::Error };
            found.push(finding(severity, FindingKind::Unreadable, message));
        }
        let primary = model.schema.primary_key;
        let identified = covering::<C::Backend>(&catalog, primary, None).is_some();
        if !identified {
            let message = format!(
                "no unique constraint covers the primary key ({}) of `{}`; add one, or name the table's own with \
                 `#[diesel(primary_key(..))]`",
                primary.join(", "),
                model.schema.model
            );
            found.push(finding(Severity::Error, FindingKind::NotUnique, message));
        }
        let keys = model.schema.keys.iter().filter(|key| !key.assume_unique && (identified || !key.of_primary_key));
        let wrong = keys.filter_map(|key| ambiguous::<C::Backend>(&catalog, model, key));
        found.extend(wrong.map(|(kind, message)| finding(Severity::Error, kind, message)));
    }
    if table.triggers {
        let faults = C::Backend::faults(conn, hub, table)?;
        found.extend(faults.into_iter().map(|(severity, message)| finding(severity, FindingKind::Trigger, message)));
    }
    Ok(Some(Checked { findings: found, fit }))
}

/// Why not even the primary key of a written row can be read.
fn unidentified<DB: SyncBackend>(model: &ModelEntry<DB>, catalog: &Catalog) -> Option<String> {
    let columns = model.schema.primary_key.iter();
    let folded = columns.map(|column| DB::DIALECT.fold(Cow::Borrowed(*column))).collect::<Vec<_>>();
    let hidden =
        folded.iter().find(|column| !catalog.columns.iter().any(|other| other.readable && other.name == **column))?;
    let name = model.schema.model;
    Some(if catalog.columns.iter().any(|column| column.name == **hidden) {
        format!(
            "the role may not read `{hidden}` of the primary key of `{name}`, so no write of the table is captured; \
             GRANT SELECT ({hidden}) ON it"
        )
    } else {
        format!(
            "the column `{hidden}` of the primary key of `{name}` is not there, so no write of the table is captured"
        )
    })
}

/// Why the model's columns cannot be read.
fn unreadable<C: Inner>(
    conn: &mut C,
    table: &Table<C::Backend>,
    model: &ModelEntry<C::Backend>,
    catalog: &Catalog,
) -> QueryResult<Option<String>> {
    // In a savepoint: on Postgres a failure would abort the caller's transaction.
    C::TransactionManager::begin_transaction(conn)?;
    let probed = probe(conn, table, model);
    C::TransactionManager::rollback_transaction(conn)?;
    let error = match probed {
        Ok(()) if catalog.denied.is_empty() => return Ok(None),
        Ok(()) => String::new(),
        Err(error @ DieselError::DatabaseError(..)) => error.to_string(),
        Err(error) => return Err(error),
    };
    let denied: Vec<&str> = catalog
        .columns
        .iter()
        .filter(|column| !column.readable && model.list.contains(&C::Backend::quote(&column.name)))
        .map(|column| column.name.as_str())
        .chain(catalog.denied.iter().copied())
        .collect();
    let name = model.schema.model;
    Ok(Some(if denied.is_empty() {
        format!(
            "`{name}` cannot be read from it ({error}), so its rows can only be captured by key and their readers are sent to the \
             database; migrate the table, or sync a model of the columns it has"
        )
    } else {
        format!(
            "the role may not read what `{name}` needs, so its rows can only be captured by key and read again; GRANT SELECT \
             ({}) ON it, or register the model with `model_by_key`",
            denied.join(", ")
        )
    }))
}

/// Why two rows may stand under one key.
fn ambiguous<DB: SyncBackend>(
    catalog: &Catalog,
    model: &ModelEntry<DB>,
    key: &KeySpec,
) -> Option<(FindingKind, String)> {
    let live_if = model.schema.live_if;
    if covering::<DB>(catalog, key.columns, live_if).is_some() {
        return None;
    }
    let columns = key.columns.join(", ");
    let head = format!("the key `{}` of `{}` may belong to two rows: ", key.name, model.schema.model);
    let tail = format!("; or declare it `assume_unique`, if nothing ever writes two rows with the same {columns}");
    let within = |unique: &&Unique| is_within::<DB>(unique, key.columns);
    let near = catalog.uniques.iter().find(within);
    Some(match near {
        Some(unique) if unique.deferrable => {
            let message = format!(
                "{head}`{}` is DEFERRABLE, so the order in which rows give up and take a key is not known; make it \
                 NOT DEFERRABLE{tail}",
                unique.name
            );
            (FindingKind::Deferrable, message)
        }
        Some(Unique { name, predicate: Some(predicate), .. }) => {
            let live_if = live_if.map_or("none is declared".to_owned(), |live_if| format!("it is `{live_if}`"));
            let message = format!(
                "{head}`{name}` holds only where {predicate}, which is not the model's `live_if` ({live_if}){tail}"
            );
            (FindingKind::Partial, message)
        }
        _ => (FindingKind::NotUnique, format!("{head}no unique constraint covers ({columns}); add one{tail}")),
    })
}

/// A unique constraint that keeps two live rows from having the same values in these columns.
fn covering<'a, DB: SyncBackend>(
    catalog: &'a Catalog,
    columns: &[&'static str],
    live_if: Option<&str>,
) -> Option<&'a Unique> {
    catalog.uniques.iter().find(|unique| {
        let everywhere = unique
            .predicate
            .as_deref()
            .is_none_or(|predicate| live_if.is_some_and(|live_if| normal(live_if) == normal(predicate)));
        everywhere && !unique.deferrable && is_within::<DB>(unique, columns)
    })
}

fn is_within<DB: SyncBackend>(unique: &Unique, columns: &[&'static str]) -> bool {
    let has = |name: &String| columns.iter().any(|column| DB::DIALECT.fold(Cow::Borrowed(column)) == *name);
    !unique.columns.is_empty() && unique.columns.iter().all(has)
}

/// A condition without what does not change its meaning: blanks, parentheses, quotes of names, the
/// casts that Postgres adds.
fn normal(condition: &str) -> String {
    let mut text = String::new();
    let mut quoted = false;
    let mut characters = condition.chars().peekable();
    while let Some(character) = characters.next() {
        quoted ^= character == '\'';
        if quoted || character == '\'' {
            text.push(character);
        } else if character == ':' && characters.peek() == Some(&':') {
            characters.next();
            while characters.next_if(|next| next.is_alphanumeric() || *next == '_' || *next == ' ').is_some() {}
        } else if !character.is_whitespace() && !"()\"`[]".contains(character) {
            text.extend(character.to_lowercase());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_condition_is_known_in_the_databases_own_words() {
        for (written, stored) in [
            ("NOT deleted", "(NOT deleted)"),
            ("status = 'Active'", "((status)::text = 'Active'::text)"),
            ("deleted_at IS NULL", "(deleted_at IS NULL)"),
            ("\"deleted_at\" is null", "deleted_at IS NULL"),
        ] {
            assert_eq!(normal(written), normal(stored));
        }
        assert_ne!(normal("status = 'a b'"), normal("status = 'ab'"));
        assert_ne!(normal("status = 'A'"), normal("status = 'a'"));
    }
}
