//! The other names under which registered tables are written on SQLite: whatever has a trigger that
//! writes them; a view can be written in no other way.

use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::statement::{Dialect, TableName, tables_written};
use super::super::ways::Way;

#[derive(QueryableByName)]
struct Trigger {
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    source: String,
}

pub(super) fn ways<C: Inner<Backend = Sqlite>>(conn: &mut C, hub: &Hub<Sqlite>) -> QueryResult<Vec<Way>> {
    let triggers: Vec<Trigger> = sql_query(
        "SELECT 'main' AS schema, tbl_name AS name, sql AS source FROM main.sqlite_master WHERE type = 'trigger' \
         UNION ALL SELECT 'temp', tbl_name, sql FROM temp.sqlite_master WHERE type = 'trigger'",
    )
    .get_results(conn)?;
    Ok(triggers.iter().flat_map(|trigger| by_trigger(hub, trigger)).collect())
}

fn by_trigger(hub: &Hub<Sqlite>, trigger: &Trigger) -> Vec<Way> {
    let name = Dialect::Sqlite.fold(trigger.name.as_str().into()).into_owned();
    if hub.table(&TableName { schema: None, name: name.as_str().into() }).is_some() {
        return Vec::new();
    }
    let written = tables_written(&trigger.source, Dialect::Sqlite);
    let tables = written.iter().filter_map(|written| hub.table(written));
    tables
        .map(|table| Way {
            schema: trigger.schema.clone(),
            name: name.clone(),
            table: table.name.clone(),
            reason: format!("a trigger of `{name}` writes `{}`, unseen", table.name),
            // SQLite does not count what INSTEAD OF triggers write.
            counts: false,
        })
        .collect()
}
