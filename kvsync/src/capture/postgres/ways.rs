//! The other names under which registered tables are written on PostgreSQL.

use diesel::pg::Pg;
use diesel::sql_types::{Array, Bool, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::statement::TableName;
use super::super::ways::{By, Trigger, Way, cascade};

#[derive(QueryableByName)]
struct Dependent {
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    base_schema: String,
    #[diesel(sql_type = Text)]
    base: String,
}

#[derive(QueryableByName)]
struct ForeignKey {
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    child_schema: String,
    #[diesel(sql_type = Text)]
    child: String,
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Bool)]
    deletes: bool,
    #[diesel(sql_type = Bool)]
    updates: bool,
    /// Whether rows are deleted with those that they refer to.
    #[diesel(sql_type = Bool)]
    removes: bool,
    #[diesel(sql_type = Array<Text>)]
    columns: Vec<String>,
    /// The columns that refer to these.
    #[diesel(sql_type = Array<Text>)]
    own: Vec<String>,
}

/// Views over the tables and over such views, tables with rules that write them, and partitions; then
/// tables with a trigger whose function writes them, as far as its text shows.
pub(super) fn ways<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>) -> QueryResult<Vec<Way>> {
    let tables: Vec<&str> = hub.tables.iter().map(|table| table.name.as_str()).collect();
    let dependents: Vec<Dependent> = sql_query(
        "WITH RECURSIVE way (oid, base) AS ( \
             SELECT c.oid, c.oid FROM pg_catalog.pg_class c WHERE c.relname = ANY ($1) AND c.relkind IN ('r', 'p') \
             UNION \
             SELECT next.oid, way.base FROM way JOIN LATERAL ( \
                 SELECT r.ev_class AS oid FROM pg_catalog.pg_depend d \
                 JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid \
                 WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = way.oid \
                 UNION ALL \
                 SELECT i.inhrelid FROM pg_catalog.pg_inherits i \
                 JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid AND p.relispartition WHERE i.inhparent = way.oid \
             ) AS next ON true \
         ) \
         SELECT DISTINCT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, \
             m.nspname::text AS base_schema, b.relname::text AS base \
         FROM way JOIN pg_catalog.pg_class c ON c.oid = way.oid AND c.relkind IN ('v', 'r', 'p', 'f') \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_class b ON b.oid = way.base JOIN pg_catalog.pg_namespace m ON m.oid = b.relnamespace \
         WHERE way.oid <> way.base",
    )
    .bind::<Array<Text>, _>(&tables)
    .get_results(conn)?;
    let triggers: Vec<Trigger> = sql_query(
        "SELECT n.nspname::text AS schema, c.relname::text AS name, p.prosrc AS source FROM pg_catalog.pg_trigger t \
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal \
         AND EXISTS (SELECT FROM pg_catalog.unnest($1) AS name WHERE pg_catalog.strpos(pg_catalog.lower(p.prosrc), name) > 0)",
    )
    .bind::<Array<Text>, _>(&tables)
    .get_results(conn)?;
    let mut ways: Vec<Way> = dependents.into_iter().filter_map(|dependent| by_catalog(hub, dependent)).collect();
    for trigger in &triggers {
        let own = TableName { schema: Some(trigger.schema.as_str().into()), name: trigger.name.as_str().into() };
        ways.extend(trigger.ways(hub, &own, true));
    }
    let keys: Vec<ForeignKey> = sql_query(
        "SELECT n.nspname::text AS schema, p.relname::text AS name, m.nspname::text AS child_schema, k.confdeltype = 'c' AS removes, \
             c.relname::text AS child, k.conname::text AS key, k.confdeltype IN ('c', 'n', 'd') AS deletes, \
             k.confupdtype IN ('c', 'n', 'd') AS updates, \
             ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = p.oid AND a.attnum = ANY (k.confkey)) AS columns, \
             ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)) AS own \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class p ON p.oid = k.confrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace \
         WHERE k.contype = 'f' AND c.relname = ANY ($1) \
         AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))",
    )
    .bind::<Array<Text>, _>(&tables)
    .get_results(conn)?;
    ways.extend(keys.into_iter().flat_map(|key| by_foreign_key(hub, key)));
    Ok(ways)
}

fn by_foreign_key(hub: &Hub<Pg>, found: ForeignKey) -> Vec<Way> {
    let ForeignKey { schema, name, child_schema, child, key, deletes, updates, removes, columns, own } = found;
    let child = TableName { schema: Some(child_schema.into()), name: child.into() };
    // What triggers catch is not unseen.
    let Some(table) = hub.table(&child).filter(|table| !table.triggers) else { return Vec::new() };
    let way = |by| {
        let (schema, name) = (schema.clone(), name.clone());
        Way { reason: cascade(&table.name, &key, &name), schema, name, table: table.name.clone(), counts: true, by }
    };
    // What no model reads, no store holds.
    let reads = table.reads(&own);
    let by_delete = (removes || (deletes && reads)).then(|| way(By::Delete));
    by_delete.into_iter().chain((updates && reads).then(|| way(By::Set(columns.clone())))).collect()
}

fn by_catalog(hub: &Hub<Pg>, dependent: Dependent) -> Option<Way> {
    let Dependent { schema, name, kind, base_schema, base } = dependent;
    let table = hub.table(&TableName { schema: Some(base_schema.into()), name: base.into() })?.name.clone();
    let what = match kind.as_str() {
        "v" => "the view",
        "p" | "r" | "f" => "the partition or the table with a rule",
        _ => "the relation",
    };
    let reason = format!("a statement may write `{table}` by way of {what} `{schema}.{name}`; write `{table}` itself");
    Some(Way { schema, name, table, reason, counts: true, by: By::Any })
}
