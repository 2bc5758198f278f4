//! Whether a database's tables fit the models that are registered for them.

use std::borrow::Cow;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::TransactionManager;
use diesel::result::Error as DieselError;

use super::backend::{Inner, Inside, SyncBackend};
use super::connection::SyncConnection;
use super::database::Policy;
use super::finding::{Finding, FindingKind, Notice, Severity};
use super::fit::{BLIND, BY_KEY, SECURED};
use super::hub::Hub;
use super::outbox::MAKE_IT;
use super::plan::refused;
use super::reread::probe;
use super::table::{ModelEntry, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::model::KeySpec;

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
                uncaught(&hub, table, &findings, true);
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
    pub(super) unfit: Option<Notice>,
    /// What weakens a promise.
    pub(super) warnings: Vec<Notice>,
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
    if table.is_checked(hub.check_every) {
        return Ok(());
    }
    let Some(Checked { findings, fit }) = check(conn, hub, table)? else { return Ok(()) };
    let news = table.fit.add(fit);
    uncaught(hub, table, &findings, table.is_met());
    for finding in &findings {
        let hinders = matches!(finding.kind, FindingKind::Unreadable | FindingKind::Blind);
        match finding.severity {
            Severity::Note => {}
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Error if hinders && hub.misfit != Policy::Error => {
                if news && hub.misfit == Policy::Warn {
                    tracing::error!("{finding}");
                    hub.missed(Some(&table.name), format!("{}; {}", finding.message, finding.advice), "");
                }
            }
            Severity::Error => return Err(refused(Error::new(ErrorKind::Database, finding.to_string()))),
        }
    }
    table.set_checked(true);
    Ok(())
}

/// Looks at a table that was once found in order, for what is reported if it no longer is.
pub(super) fn look_again<C: Inner>(conn: &mut C, hub: &Hub<C::Backend>, table: &Table<C::Backend>) {
    if table.is_met()
        && let Ok(Some(checked)) = check(conn, hub, table)
    {
        uncaught(hub, table, &checked.findings, true);
    }
}

/// Reports what triggers do not catch. Where triggers or the outbox are gone, or were never there, what was
/// written meanwhile was lost, and the next write looks again; `lost` is whether anything may have been. Of
/// tables that inherit it is told once.
fn uncaught<DB: SyncBackend>(hub: &Hub<DB>, table: &Table<DB>, findings: &[Finding], lost: bool) {
    let report = |finding: &Finding| {
        hub.missed(Some(&table.name), format!("{}; {}", finding.message, finding.advice), "");
    };
    let child = findings.iter().find(|finding| finding.kind == FindingKind::Child);
    if table.fit.inherited(child.is_some())
        && table.triggers
        && let Some(child) = child
    {
        report(child);
    }
    let gone = |finding: &&Finding| {
        matches!(finding.kind, FindingKind::Outbox | FindingKind::Trigger) && finding.severity == Severity::Error
    };
    if let Some(finding) = findings.iter().find(gone)
        && lost
    {
        table.set_checked(false);
        report(finding);
    }
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
    let mut catalog = catalog;
    let mut found = std::mem::take(&mut catalog.warnings);
    let named = |found: Vec<Notice>| found.into_iter().map(|one| one.of(&hub.name, Some(&table.name))).collect();
    if let Some(unfit) = catalog.unfit.take() {
        found.push(unfit);
        return Ok(Some(Checked { findings: named(found), fit: 0 }));
    }
    let mut fit = if catalog.secured { SECURED } else { 0 };
    for (instead, (blind, verb)) in catalog.instead.iter().zip(BLIND.into_iter().zip(["INSERT", "UPDATE", "DELETE"])) {
        if *instead && !table.triggers {
            fit |= blind;
            let message = format!(
                "a rule does something in place of its {verb}, which so cannot return rows and is not captured"
            );
            found.push(Notice::error(FindingKind::Blind, message, "use a trigger in place of the rule"));
        }
    }
    for model in &table.models {
        if !table.triggers
            && let Some(notice) = unidentified(model, &catalog)
        {
            fit |= BLIND.iter().fold(0, |all, blind| all | blind);
            found.push(notice);
            continue;
        }
        let mut lacks = lacking(model, &catalog);
        let unread = if model.by_key && lacks.is_empty() { None } else { unreadable(conn, table, model, &catalog)? };
        if let Some(notice) = unread {
            fit |= BY_KEY;
            found.push(match lacks.is_empty() {
                false => gone(model, &lacks),
                // Where triggers fill the outbox, this connection may write without reading.
                true if table.triggers => notice.at(Severity::Warning),
                true => notice,
            });
        } else {
            // The catalog does not list all that can be read, such as a `rowid`.
            lacks.clear();
        }
        let primary = model.schema.primary_key;
        let whole = |columns: &[&str]| !columns.iter().any(|column| lacks.contains(column));
        let identified = !whole(primary) || covering::<C::Backend>(&catalog, primary, None).is_some();
        if !identified {
            let (columns, name) = (primary.join(", "), model.schema.model);
            found.push(Notice::error(
                FindingKind::NotUnique,
                format!("no immediate unique constraint covers the primary key ({columns}) of `{name}`"),
                "add one, or name the table's own with `#[diesel(primary_key(..))]`",
            ));
        }
        let keys = model.schema.keys.iter().filter(|key| !key.assume_unique && (identified || !key.of_primary_key));
        found.extend(
            keys.filter(|key| whole(key.columns)).filter_map(|key| ambiguous::<C::Backend>(&catalog, model, key)),
        );
    }
    if hub.outbox && C::Backend::outbox(conn, &mut Default::default())?.is_none() {
        found.push(Notice::error(FindingKind::Outbox, "there is no table `kvsync_outbox`", MAKE_IT));
    }
    if table.triggers {
        found.extend(C::Backend::faults(conn, hub, table)?);
    }
    Ok(Some(Checked { findings: named(found), fit }))
}

/// Why not even the primary key of a written row can be read.
fn unidentified<DB: SyncBackend>(model: &ModelEntry<DB>, catalog: &Catalog) -> Option<Notice> {
    let columns = model.schema.primary_key.iter();
    let folded = columns.map(|column| DB::DIALECT.fold(Cow::Borrowed(*column))).collect::<Vec<_>>();
    let hidden =
        folded.iter().find(|column| !catalog.columns.iter().any(|other| other.readable && other.name == **column))?;
    let name = model.schema.model;
    let known = catalog.columns.iter().any(|column| column.name == **hidden);
    let (wrong, advice) = if known {
        ("may not be read by the role", format!("GRANT SELECT ({hidden}) ON it"))
    } else {
        ("is not there", "migrate the table, or mend the model".to_owned())
    };
    let message = format!("`{hidden}` of the primary key of `{name}` {wrong}, so no write of the table is captured");
    Some(Notice::error(FindingKind::Blind, message, advice))
}

/// The columns of the model's keys that the catalog does not list.
fn lacking<DB: SyncBackend>(model: &ModelEntry<DB>, catalog: &Catalog) -> Vec<&'static str> {
    let columns = model.schema.primary_key.iter().chain(model.schema.keys.iter().flat_map(|key| key.columns));
    let is_there = |column: &str| {
        let column = DB::DIALECT.fold(Cow::Borrowed(column));
        catalog.columns.iter().any(|other| other.name == column)
    };
    let mut lacks = Vec::new();
    for column in columns.copied().filter(|column| !is_there(column)) {
        // A column may be of several keys.
        if !lacks.contains(&column) {
            lacks.push(column);
        }
    }
    lacks
}

fn gone<DB: SyncBackend>(model: &ModelEntry<DB>, lacks: &[&str]) -> Notice {
    let message = format!(
        "`{}`, of which keys of `{}` are made, is not there, so its rows cannot be read, and their readers are sent to \
         the database",
        lacks.join("`, `"),
        model.schema.model
    );
    Notice::error(FindingKind::Unreadable, message, "migrate the table, or mend the model")
}

/// Why the model's columns cannot be read.
fn unreadable<C: Inner>(
    conn: &mut C,
    table: &Table<C::Backend>,
    model: &ModelEntry<C::Backend>,
    catalog: &Catalog,
) -> QueryResult<Option<Notice>> {
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
    let so = "so its rows can only be captured by key and their readers are sent to the database";
    let (message, advice) = if denied.is_empty() {
        (
            format!("`{name}` cannot be read from it ({error}), {so}"),
            "migrate the table, or sync a model of the columns it has".to_owned(),
        )
    } else {
        (
            format!("the role may not read what `{name}` needs, {so}"),
            format!("GRANT SELECT ({}) ON it, or register the model with `model_by_key`", denied.join(", ")),
        )
    };
    Ok(Some(Notice::error(FindingKind::Unreadable, message, advice)))
}

/// Why two rows may stand under one key.
fn ambiguous<DB: SyncBackend>(catalog: &Catalog, model: &ModelEntry<DB>, key: &KeySpec) -> Option<Notice> {
    let live_if = model.schema.live_if;
    if covering::<DB>(catalog, key.columns, live_if).is_some() {
        return None;
    }
    let columns = key.columns.join(", ");
    let head = format!("the key `{}` of `{}` may belong to two rows: ", key.name, model.schema.model);
    let tail = format!("or declare it `assume_unique`, if nothing ever writes two rows with the same {columns}");
    let within = |unique: &&Unique| is_within::<DB>(unique, key.columns);
    Some(match catalog.uniques.iter().find(within) {
        Some(Unique { name, deferrable: true, .. }) => Notice::error(
            FindingKind::Deferrable,
            format!("{head}`{name}` is DEFERRABLE, so the order in which rows give up and take a key is not known"),
            format!(
                "make it NOT DEFERRABLE (ALTER TABLE .. DROP CONSTRAINT {name}, ADD UNIQUE ({columns})); where it serves \
                 to swap values, go by way of NULL or a spare value"
            ),
        ),
        Some(Unique { name, predicate: Some(predicate), .. }) => {
            let live_if = live_if.map_or("none is declared".to_owned(), |live_if| format!("it is `{live_if}`"));
            let message =
                format!("{head}`{name}` holds only where {predicate}, which is not the model's `live_if` ({live_if})");
            Notice::error(FindingKind::Partial, message, format!("declare it as `live_if`, {tail}"))
        }
        _ => {
            let message = format!("{head}no unique constraint covers ({columns})");
            Notice::error(FindingKind::NotUnique, message, format!("add one, {tail}"))
        }
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
