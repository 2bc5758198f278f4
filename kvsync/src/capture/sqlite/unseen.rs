//! What writes a table's rows unseen, and what makes a database forget.

use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::finding::{FindingKind, Notice};
use super::super::hub::Hub;
use super::super::statement::{Dialect, tables_written};
use super::super::table::Table;

#[derive(QueryableByName)]
struct ForeignKey {
    #[diesel(sql_type = Text)]
    parent: String,
    #[diesel(sql_type = Text)]
    on_delete: String,
    #[diesel(sql_type = Text)]
    on_update: String,
}

#[derive(QueryableByName)]
struct Object {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    own: String,
    #[diesel(sql_type = Nullable<Text>)]
    source: Option<String>,
}

#[derive(QueryableByName)]
struct Layout {
    #[diesel(sql_type = Bool)]
    without_rowid: bool,
}

pub(super) fn unseen<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    table: &Table<Sqlite>,
) -> QueryResult<Vec<Notice>> {
    let schema = table.schema.as_deref().unwrap_or("main");
    let mut found = foreign_keys(conn, table, schema)?;
    found.extend(triggers(conn, hub, table, schema)?);
    let hidden: i64 = sql::<BigInt>("SELECT count(*) FROM temp.sqlite_master WHERE lower(name) = ")
        .bind::<Text, _>(&table.name)
        .get_result(conn)?;
    if hidden > 0 {
        found.push(Notice::warning(
            FindingKind::Namesake,
            "a temporary table or view of this connection has its name: what is written there is reported, not synced",
            format!("name the table as `{schema}.{}`, or the temporary one otherwise", table.name),
        ));
    }
    let layout: Option<Layout> = sql_query("SELECT wr AS without_rowid FROM pragma_table_list(?) WHERE schema = ?")
        .bind::<Text, _>(&table.name)
        .bind::<Text, _>(schema)
        .get_result(conn)
        // Before SQLite 3.37 there is no such list, and nobody to ask.
        .optional()
        .unwrap_or_default();
    if layout.is_some_and(|layout| layout.without_rowid) {
        let message = "it is WITHOUT ROWID: it is synced like any other, by its declared primary key";
        found.push(Notice::note(FindingKind::WithoutRowid, message, ""));
    }
    let recursive: i64 = sql::<BigInt>("PRAGMA recursive_triggers").get_result(conn)?;
    if recursive == 0 && table.displaces() {
        found.push(Notice::note(
            FindingKind::Setting,
            "`recursive_triggers` is off: a row that REPLACE displaces is deleted without its triggers",
            "use upserts; where triggers capture the table, switch it on for every connection",
        ));
    }
    Ok(found)
}

fn foreign_keys<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    table: &Table<Sqlite>,
    schema: &str,
) -> QueryResult<Vec<Notice>> {
    let keys: Vec<ForeignKey> = sql_query(
        "SELECT DISTINCT id, \"table\" AS parent, on_delete, on_update FROM pragma_foreign_key_list(?, ?) \
         WHERE on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT') \
         ORDER BY id DESC",
    )
    .bind::<Text, _>(&table.name)
    .bind::<Text, _>(schema)
    .get_results(conn)?;
    Ok(keys
        .into_iter()
        .map(|ForeignKey { parent, on_delete, on_update }| {
            let message = format!(
                "a foreign key on `{parent}` (ON DELETE {on_delete}, ON UPDATE {on_update}) deletes or changes its rows \
                 unseen when the row that they refer to is deleted or changed"
            );
            Notice::warning(FindingKind::ForeignKey, message, FIRST)
        })
        .collect())
}

const FIRST: &str = "delete or change them first, by a statement of their own, or let triggers fill the outbox";

/// Triggers of the table, and those of others whose text writes it.
fn triggers<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    table: &Table<Sqlite>,
    schema: &str,
) -> QueryResult<Vec<Notice>> {
    let master = format!("\"{}\".sqlite_master", schema.replace('"', "\"\""));
    let triggers: Vec<Object> = sql_query(format!(
        "SELECT name, tbl_name AS own, sql AS source FROM {master} WHERE type = 'trigger' \
         UNION ALL SELECT name, tbl_name, sql FROM temp.sqlite_master WHERE type = 'trigger'"
    ))
    .get_results(conn)?;
    let mut found = Vec::new();
    for Object { name, own, source } in triggers {
        let source = source.unwrap_or_default();
        let body = source.to_ascii_lowercase().find("begin").and_then(|at| source.get(at..)).unwrap_or_default();
        let written = hub.tables_among(&tables_written(body, Dialect::Sqlite));
        let names: Vec<&str> = written.iter().map(|table| table.name.as_str()).collect();
        if Dialect::Sqlite.fold(own.as_str().into()) == table.name {
            found.push(if names.is_empty() {
                let message =
                    format!("`{name}` is a trigger of it, which writes no synced table as far as its text shows");
                Notice::note(FindingKind::Trigger, message, "")
            } else {
                let message = format!("`{name}` is a trigger of it that writes `{}`, unseen", names.join("`, `"));
                Notice::warning(FindingKind::Trigger, message, BY_TRIGGER)
            });
        } else if names.contains(&table.name.as_str()) {
            let message = format!("`{name}`, a trigger of `{own}`, writes it, unseen");
            found.push(Notice::warning(FindingKind::Trigger, message, BY_TRIGGER));
        }
    }
    Ok(found)
}

const BY_TRIGGER: &str = "write those rows by statements of their own, or let generated triggers capture the table";

/// What of the settings weakens a promise.
pub(super) fn settings<C: Inner<Backend = Sqlite>>(conn: &mut C) -> QueryResult<Vec<Notice>> {
    let mut found = Vec::new();
    let counters: i64 =
        sql::<BigInt>("SELECT count(*) FROM main.sqlite_master WHERE name = 'kvsync_counter'").get_result(conn)?;
    if counters == 0 {
        found.push(Notice::warning(
            FindingKind::Versions,
            "there is no `kvsync_counter`: versions are ordered within one process only",
            "run `SQLITE_COUNTER` once, as a migration, if several processes write the database",
        ));
    }
    found.extend(forgetful(conn)?);
    Ok(found)
}

/// Whether the database may lose transactions that it committed when the power fails.
pub(super) fn forgetful<C: Inner<Backend = Sqlite>>(conn: &mut C) -> QueryResult<Option<Notice>> {
    let journal: String = sql::<Text>("PRAGMA main.journal_mode").get_result(conn)?;
    let synchronous: i64 = sql::<BigInt>("PRAGMA main.synchronous").get_result(conn)?;
    let why = match (journal.as_str(), synchronous) {
        // A database in memory promises nothing that outlives the process.
        ("memory", _) if is_in_memory(conn)? => return Ok(None),
        ("memory" | "off", _) => format!("`journal_mode` is {journal}: a crash may damage the database"),
        (_, 0) => "`synchronous` is OFF: when the power fails, committed transactions may be lost".to_owned(),
        ("wal", 1) => {
            "`synchronous` is NORMAL in WAL mode: when the power fails, committed transactions may be lost".to_owned()
        }
        _ => return Ok(None),
    };
    let advice = "set `PRAGMA synchronous = FULL` on every connection, or raise the epoch after such a loss";
    Ok(Some(Notice::warning(FindingKind::Setting, format!("{why}, and the store keeps what was synced"), advice)))
}

fn is_in_memory<C: Inner<Backend = Sqlite>>(conn: &mut C) -> QueryResult<bool> {
    let file: String = sql::<Text>("SELECT file FROM pragma_database_list WHERE name = 'main'").get_result(conn)?;
    Ok(file.is_empty())
}
