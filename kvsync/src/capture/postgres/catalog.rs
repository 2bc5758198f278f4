//! What PostgreSQL says of a table.

use diesel::pg::Pg;
use diesel::sql_types::{Array, Bool, Nullable, Oid, Text};
use diesel::{OptionalExtension, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::{Inner, Inside};
use super::super::check::{Catalog, Column, Unique};
use super::super::finding::{FindingKind, Notice};
use super::super::hub::Hub;
use super::super::table::Table;
use super::place::{home, unknown_home};

#[derive(QueryableByName)]
struct Relation {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    unlogged: bool,
    #[diesel(sql_type = Bool)]
    policies: bool,
    /// Whether its policies count for the role.
    #[diesel(sql_type = Bool)]
    secured: bool,
}

/// A table that inherits, and is no partition.
#[derive(QueryableByName)]
struct Child {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Rule {
    #[diesel(sql_type = Text)]
    event: String,
}

#[derive(QueryableByName)]
struct Attribute {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    readable: bool,
}

#[derive(QueryableByName)]
struct Index {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    immediate: bool,
    #[diesel(sql_type = Nullable<Text>)]
    predicate: Option<String>,
    #[diesel(sql_type = Array<Text>)]
    columns: Vec<String>,
}

pub(super) fn catalog<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
) -> QueryResult<Option<Catalog>> {
    let Some(relation) = relation(conn, &table.sql)? else { return Ok(None) };
    let mut catalog = Catalog::default();
    let schema = relation.schema.clone();
    let Some(relation) = at_home(conn, hub, table, relation)? else {
        let [message, advice] = unknown_home(table, &schema);
        catalog.unfit = Some(Notice::error(FindingKind::Table, message, advice));
        return Ok(Some(catalog));
    };
    if !["r", "p"].contains(&relation.kind.as_str()) {
        catalog.unfit = Some(Notice::error(
            FindingKind::Table,
            "it is no table but a view or the like",
            "sync a model of the table behind it",
        ));
    }
    if relation.unlogged {
        catalog.warnings.push(Notice::warning(
            FindingKind::Unlogged,
            "it is UNLOGGED: a crash empties it, and what was synced stays",
            "ALTER TABLE .. SET LOGGED, or raise the epoch after a crash",
        ));
    }
    if relation.secured {
        catalog.warnings.push(Notice::warning(
            FindingKind::RowSecurity,
            "it has row security: an insert of rows that the role may not read is not captured but reported",
            "let the policy for SELECT cover what the role writes",
        ));
    }
    let children: Vec<Child> = sql_query(
        "SELECT c.oid::pg_catalog.regclass::text AS name FROM pg_catalog.pg_inherits i \
         JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1 AND NOT c.relispartition ORDER BY c.oid",
    )
    .bind::<Oid, _>(relation.oid)
    .get_results(conn)?;
    let seen = if table.triggers {
        "not synced, and its triggers do not see them"
    } else {
        "reported when written, and not synced"
    };
    catalog.warnings.extend(children.into_iter().map(|Child { name }| {
        let message = format!("`{name}` inherits from it; rows of that table are {seen}");
        Notice::warning(FindingKind::Child, message, "sync a model of that table, too, or use ONLY")
    }));
    catalog.secured = relation.policies;
    let rules: Vec<Rule> =
        sql_query("SELECT ev_type::text AS event FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND is_instead")
            .bind::<Oid, _>(relation.oid)
            .get_results(conn)?;
    catalog.instead = ["3", "2", "4"].map(|event| rules.iter().any(|rule| rule.event == event));
    catalog.columns = sql_query(
        "SELECT attname::text AS name, pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT') AS readable \
         FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND (attnum > 0 OR attname = 'tableoid') AND NOT attisdropped",
    )
    .bind::<Oid, _>(relation.oid)
    .get_results::<Attribute>(conn)?
    .into_iter()
    .map(|attribute| Column { name: attribute.name, readable: attribute.readable })
    .collect();
    // The capture of whole rows reads it, too.
    let denied = |column: &Column| column.name == "tableoid" && !column.readable;
    catalog.denied = if catalog.columns.iter().any(denied) { vec!["tableoid"] } else { Vec::new() };
    catalog.uniques = sql_query(
        "SELECT c.relname::text AS name, i.indimmediate AS immediate, \
         pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate, \
         ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE k.n <= i.indnkeyatts) AS columns \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND NOT 0 = ANY (i.indkey::int2[])",
    )
    .bind::<Oid, _>(relation.oid)
    .get_results::<Index>(conn)?
    .into_iter()
    .map(|Index { name, immediate, predicate, columns }| Unique { name, columns, predicate, deferrable: !immediate })
    .collect();
    Ok(Some(catalog))
}

/// The registered table, where there is one.
pub(super) fn table_oid<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
) -> QueryResult<Option<u32>> {
    let Some(relation) = relation(conn, &table.sql)? else { return Ok(None) };
    Ok(at_home(conn, hub, table, relation)?.map(|relation| relation.oid))
}

/// The registered table in place of one that the search path of now puts before it; nothing when it is
/// in none of the schemas of the default search path.
fn at_home<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
    relation: Relation,
) -> QueryResult<Option<Relation>> {
    if table.schema.is_some() || hub.scopes.is_some() {
        return Ok(Some(relation));
    }
    let Some(home) = home(conn, table)? else { return Ok(None) };
    let sql = format!("{}.{}", Pg::quote(&home), Pg::quote(&table.name));
    Ok(Some(self::relation(conn, &sql)?.unwrap_or(relation)))
}

/// The relation that a name means now.
fn relation<C: Inner<Backend = Pg>>(conn: &mut C, name: &str) -> QueryResult<Option<Relation>> {
    sql_query(
        "SELECT c.oid AS oid, n.nspname::text AS schema, c.relkind::text AS kind, \
         c.relpersistence = 'u' AS unlogged, c.relrowsecurity AS policies, pg_catalog.row_security_active(c.oid) AS secured \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = pg_catalog.to_regclass($1)::pg_catalog.oid",
    )
    .bind::<Text, _>(name)
    .get_result(conn)
    .optional()
}
