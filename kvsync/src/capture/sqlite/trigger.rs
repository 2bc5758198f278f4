//! The triggers of a table on SQLite.
//!
//! They run after each row that is inserted, updated or deleted, cascades included, under the write lock,
//! and take their version from the counter of the outbox's migration. Rows that REPLACE displaces are
//! deleted without a trigger, unless `PRAGMA recursive_triggers` is on; of these the one with the same
//! primary key is known all the same, because it is written anew.
//!
//! SQLite promises no order among a table's triggers. In practice the one that was made last runs first:
//! make these after those of your own that hand a row's key to another row of the table.

use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::finding::{FindingKind, Notice};
use super::super::table::Table;
use super::super::triggers::TriggersSql;

/// The clock in milliseconds since the Unix epoch.
const MILLIS: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// What the triggers' names begin with.
const NAMES: &str = "kvsync_outbox_";

/// A trigger: its name, and its SQL behind `CREATE TRIGGER`.
struct Trigger {
    name: String,
    rest: String,
}

pub(super) fn triggers_sql(table: &Table<Sqlite>) -> TriggersSql {
    let triggers = triggers(table);
    let drops: Vec<String> =
        triggers.iter().map(|Trigger { name, .. }| format!("DROP TRIGGER IF EXISTS main.{name};\n")).collect();
    let drops = drops.concat();
    let says = format!("what is done to {} into the outbox of kvsync", table.sql.replace('\n', " "));
    let creates: Vec<String> =
        triggers.iter().map(|Trigger { name, rest }| format!("CREATE TRIGGER main.{name} {rest};\n")).collect();
    TriggersSql {
        up: format!(
            "-- Write {says}. Generated: make them anew when the table's columns or its models' keys change.\n{drops}{}",
            creates.concat()
        ),
        down: format!("-- No longer write {says}.\n{drops}"),
    }
}

fn triggers(table: &Table<Sqlite>) -> Vec<Trigger> {
    let name = quote(&table.name);
    let moved = differ(table.primary_key.iter().map(String::as_str)).unwrap_or_else(|| "0".to_owned());
    let left = differ(table.key_columns().into_iter());
    let left =
        left.map_or_else(|| "NULL".to_owned(), |left| format!("CASE WHEN {left} THEN {} END", row(&table.columns)));
    let [old_key, new_key] = ["OLD.", "NEW."].map(|of| image(&table.primary_key, of));
    let old_row = row(&table.columns);
    let write = |action: &str, key: &str, old: &str| {
        format!(
            "
    INSERT INTO kvsync_counter (id, last) VALUES (0, {MILLIS} * 1000)
        ON CONFLICT (id) DO UPDATE SET last = max(last + 1, excluded.last);
    INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, action, primary_key, old_row)
        VALUES ({MILLIS}, 0, (SELECT last FROM kvsync_counter WHERE id = 0), {}, '{action}', {key}, {old});",
            literal(&table.name)
        )
    };
    let delete = write("delete", &old_key, &old_row);
    let insert = write("insert", &new_key, "NULL");
    // Also where nothing changed: that is how a row is synced anew.
    let update = write("update", &new_key, &left);
    [
        ("insert", format!("AFTER INSERT ON {name}"), insert.clone()),
        ("update", format!("AFTER UPDATE ON {name} WHEN NOT ({moved})"), update),
        ("move", format!("AFTER UPDATE ON {name} WHEN {moved}"), delete.clone() + &insert),
        ("delete", format!("AFTER DELETE ON {name}"), delete),
    ]
    .map(|(action, head, work)| Trigger {
        name: quote(&format!("{NAMES}{}_{action}", table.name)),
        rest: format!("{head} BEGIN{work}\nEND"),
    })
    .into()
}

/// Whether one of these columns has changed: byte for byte, because keys are made of what stands there,
/// and a collation may take two keys for one.
fn differ<'a>(columns: impl Iterator<Item = &'a str>) -> Option<String> {
    let differ = |column: &str| {
        let column = quote(column);
        format!("OLD.{column} COLLATE BINARY IS NOT NEW.{column}")
    };
    columns.map(differ).reduce(|one, other| format!("{one} OR {other}"))
}

/// The primary key of a row, as it stands in the outbox.
pub(super) fn image(primary_key: &[String], of: &str) -> String {
    let columns: Vec<String> = primary_key.iter().map(|column| format!("quote({of}{})", quote(column))).collect();
    columns.join(" || ',' || ")
}

/// The row as it was before.
fn row(columns: &[String]) -> String {
    let named = |column: &String| {
        let column = quote(column);
        format!("quote(OLD.{column}) || {}", literal(&format!(" AS {column}")))
    };
    let columns: Vec<String> = columns.iter().map(named).collect();
    columns.join(" || ', ' || ")
}

/// As `sqlite_master` keeps names whatever is done to the table: with the standard's quotes.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn install<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<()> {
    if is_there(conn, table)? && state(&stored(conn, table)?, table) != State::Current {
        conn.transaction(|conn| conn.batch_execute(&triggers_sql(table).up))?;
    }
    Ok(())
}

fn is_there<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<bool> {
    let count: Count =
        sql_query("SELECT count(*) AS n FROM main.sqlite_master WHERE type = 'table' AND lower(name) = ?")
            .bind::<Text, _>(&table.name)
            .get_result(conn)?;
    Ok(count.n > 0)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    sql: String,
}

fn stored<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<Vec<Stored>> {
    sql_query(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = ? AND name LIKE 'kvsync\\_outbox\\_%' ESCAPE '\\'",
    )
    .bind::<Text, _>(&table.name)
    .get_results(conn)
}

/// The worst of a table's triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Current,
    /// They were made for other columns or models.
    Outdated,
    /// One does not fill the outbox: it was emptied, or its outbox has been renamed.
    Unsound,
    /// There are none, or one is missing.
    Missing,
}

fn state(stored: &[Stored], table: &Table<Sqlite>) -> State {
    let state = |Trigger { name, rest }: &Trigger| {
        let Some(found) = stored.iter().find(|stored| quote(&stored.name) == *name) else { return State::Missing };
        // A table that was renamed, and then given its name back, stands in quotes in its triggers.
        let sql =
            found.sql.replace("\"kvsync_outbox\"", "kvsync_outbox").replace("\"kvsync_counter\"", "kvsync_counter");
        if sql == format!("CREATE TRIGGER {name} {rest}") {
            State::Current
        } else if sql.starts_with(&format!("CREATE TRIGGER {name} AFTER ")) && sql.contains("INSERT INTO kvsync_outbox")
        {
            State::Outdated
        } else {
            State::Unsound
        }
    };
    triggers(table).iter().map(state).max().unwrap_or(State::Current)
}

/// Whether rows that REPLACE displaces are deleted with their triggers.
pub(super) fn is_recursive<C: Inner<Backend = Sqlite>>(conn: &mut C) -> QueryResult<bool> {
    sql::<Bool>("PRAGMA recursive_triggers").get_result(conn)
}

/// What is wrong with the triggers of a table.
pub(super) fn faults<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<Vec<Notice>> {
    let error = |message: &str, advice| Ok(vec![Notice::error(FindingKind::Trigger, message.to_owned(), advice)]);
    if table.schema.as_deref().is_some_and(|schema| schema != "main") {
        let message = "triggers cannot write from an attached database into the outbox of another";
        return error(message, "register its models with `model`, without triggers");
    }
    let found: Count = sql_query(
        "SELECT count(*) AS n FROM main.sqlite_master WHERE type = 'table' AND name IN ('kvsync_outbox', 'kvsync_counter')",
    )
    .get_result(conn)?;
    if found.n < 2 {
        return error("its triggers have no outbox to fill", "run the migration that makes it");
    }
    let mend = "run the migration of `Database::triggers_sql` anew, or `install_triggers`";
    let mut faults = Vec::new();
    match state(&stored(conn, table)?, table) {
        State::Current => {}
        State::Missing => return error("it lacks triggers of kvsync, so what is written to it may be lost", mend),
        State::Unsound => {
            let message =
                "a trigger of kvsync on it does not fill `kvsync_outbox`, so what is written to it may be lost";
            return error(message, mend);
        }
        // Rows and primary keys are written all the same, and while a program is replaced two want their own.
        State::Outdated => {
            let message = "its triggers of kvsync were made for other columns or models: a row that leaves a key may not \
                           say so";
            faults.push(Notice::warning(FindingKind::Trigger, message, mend));
        }
    }
    if table.displaces() && !is_recursive(conn)? {
        let message = "it has a second unique key, and rows that REPLACE displaces by it are deleted without a trigger";
        let advice = "use an upsert, or set `PRAGMA recursive_triggers = ON` on every connection";
        faults.push(Notice::warning(FindingKind::Trigger, message, advice));
    }
    Ok(faults)
}
