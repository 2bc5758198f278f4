//! The other names under which registered tables are written on SQLite: whatever has a trigger that
//! writes them; a view can be written in no other way.

use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::statement::{Dialect, TableName};
use super::super::table::Table;
use super::super::ways::{By, Trigger, Way, cascade};

/// A column of a foreign key.
#[derive(QueryableByName)]
struct ForeignKey {
    #[diesel(sql_type = Text)]
    parent: String,
    #[diesel(sql_type = Nullable<Text>)]
    referred: Option<String>,
    #[diesel(sql_type = Bool)]
    deletes: bool,
    #[diesel(sql_type = Bool)]
    updates: bool,
    /// Whether rows are deleted with those that they refer to.
    #[diesel(sql_type = Bool)]
    removes: bool,
    /// The column that refers to it.
    #[diesel(sql_type = Text)]
    own: String,
}

pub(super) fn ways<C: Inner<Backend = Sqlite>>(conn: &mut C, hub: &Hub<Sqlite>) -> QueryResult<Vec<Way>> {
    let triggers: Vec<Trigger> = sql_query(
        "SELECT 'main' AS schema, tbl_name AS name, sql AS source FROM main.sqlite_master WHERE type = 'trigger' \
         UNION ALL SELECT 'temp', tbl_name, sql FROM temp.sqlite_master WHERE type = 'trigger'",
    )
    .get_results(conn)?;
    let mut ways = Vec::new();
    for trigger in &triggers {
        let own = TableName { schema: None, name: Dialect::Sqlite.fold(trigger.name.as_str().into()) };
        // SQLite does not count what INSTEAD OF triggers write.
        ways.extend(trigger.ways(hub, &own, false));
    }
    let enforced: i64 = sql::<BigInt>("PRAGMA foreign_keys").get_result(conn)?;
    // What triggers catch is not unseen.
    for table in hub.tables.iter().filter(|table| enforced != 0 && !table.triggers) {
        let keys: Vec<ForeignKey> = sql_query(
            "SELECT lower(k.\"table\") AS parent, lower(coalesce(k.\"to\", p.name)) AS referred, \
             k.on_delete IN ('SET NULL', 'SET DEFAULT') AS deletes, \
             k.seq = 0 AND k.on_delete = 'CASCADE' AS removes, lower(k.\"from\") AS own, \
             k.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT') AS updates \
             FROM pragma_foreign_key_list(?, ?) k LEFT JOIN pragma_table_info(k.\"table\") p \
             ON k.\"to\" IS NULL AND p.pk = k.seq + 1 ORDER BY k.id, k.seq",
        )
        .bind::<Text, _>(&table.name)
        .bind::<Text, _>(table.schema.as_deref().unwrap_or("main"))
        .get_results(conn)?;
        ways.extend(keys.into_iter().flat_map(|key| by_foreign_key(table, &key)));
    }
    Ok(ways)
}

fn by_foreign_key(table: &Table<Sqlite>, key: &ForeignKey) -> Vec<Way> {
    let ForeignKey { parent, referred, deletes, updates, removes, own } = key;
    // What no model reads, no store holds.
    let reads = table.reads(std::slice::from_ref(own));
    let way = |by| Way {
        schema: "main".to_owned(),
        name: parent.clone(),
        table: table.name.clone(),
        reason: cascade(&table.name, referred.as_deref().unwrap_or_default(), parent),
        counts: true,
        by,
    };
    let by_delete = (*removes || (*deletes && reads)).then(|| way(By::Delete));
    by_delete
        .into_iter()
        .chain((*updates && reads).then(|| way(By::Set(referred.clone().into_iter().collect()))))
        .collect()
}
