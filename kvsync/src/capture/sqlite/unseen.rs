//! What writes a table's rows unseen.

use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::{Inner, Unseen};
use super::super::check::FindingKind;
use super::super::table::Table;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

pub(super) fn unseen<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<Vec<Unseen>> {
    let schema = table.schema.as_deref().unwrap_or("main");
    let master = format!("\"{}\".sqlite_master", schema.replace('"', "\"\""));
    let keys: Vec<Line> = sql_query(
        "SELECT DISTINCT \"table\" AS line FROM pragma_foreign_key_list(?, ?) \
         WHERE on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT')",
    )
    .bind::<Text, _>(&table.name)
    .bind::<Text, _>(schema)
    .get_results(conn)?;
    let triggers: Vec<Line> = sql_query(format!(
        "SELECT name AS line FROM {master} WHERE type = 'trigger' AND lower(tbl_name) = ? AND upper(sql) NOT LIKE '%BEFORE%'"
    ))
    .bind::<Text, _>(&table.name)
    .get_results(conn)?;
    let keys = keys.into_iter().map(|Line { line }| {
        let message = format!(
            "a foreign key on `{line}` deletes or changes its rows unseen when the row that they refer to is deleted or \
             changed; delete or change them first, by a statement of their own"
        );
        (FindingKind::ForeignKey, message)
    });
    let triggers = triggers.into_iter().map(|Line { line }| {
        let message = format!(
            "`{line}` is a trigger that runs after the row was returned; if it changes rows of synced tables, nobody \
             sees it"
        );
        (FindingKind::Trigger, message)
    });
    Ok(keys.chain(triggers).collect())
}
