//! What writes a table's rows unseen.

use diesel::pg::Pg;
use diesel::sql_types::{Oid, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::{Inner, Unseen};
use super::super::check::FindingKind;
use super::super::hub::Hub;
use super::super::table::Table;
use super::catalog::table_oid;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// A sentence for each: a query whose parameter is the table, and whose result a name, and what to say of it.
const LOOKS: [(FindingKind, &str, &str); 5] = [
    (
        FindingKind::ForeignKey,
        "SELECT conname || '` on `' || confrelid::pg_catalog.regclass::text AS line FROM pg_catalog.pg_constraint \
         WHERE conrelid = $1 AND contype = 'f' \
         AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))",
        "deletes or changes its rows unseen when the row that they refer to is deleted or changed; delete or change \
         them first, by a statement of their own",
    ),
    (
        FindingKind::Trigger,
        "SELECT tgname::text AS line FROM pg_catalog.pg_trigger \
         WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 66 = 0",
        "is a trigger that runs after the row was returned; if it changes rows of synced tables, nobody sees it: make \
         it a BEFORE trigger that changes NEW",
    ),
    (
        FindingKind::Rule,
        "SELECT rulename::text AS line FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN'",
        "is a rule: what it does in place of a statement, or beside it, is not seen",
    ),
    (
        FindingKind::View,
        "SELECT DISTINCT v.oid::pg_catalog.regclass::text AS line FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = r.ev_class \
         WHERE d.refobjid = $1 AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND v.relkind = 'v' \
         AND pg_catalog.pg_relation_is_updatable(v.oid, true) & 28 <> 0",
        "is a view through which its rows can be written; what is written under that name is not seen",
    ),
    (
        FindingKind::Child,
        "SELECT c.oid::pg_catalog.regclass::text AS line FROM pg_catalog.pg_inherits i \
         JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1 AND NOT c.relispartition",
        "inherits from it; rows of that table are not synced",
    ),
];

pub(super) fn unseen<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
) -> QueryResult<Vec<Unseen>> {
    let Some(oid) = table_oid(conn, hub, table)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (kind, query, says) in LOOKS {
        let lines: Vec<Line> = sql_query(query).bind::<Oid, _>(oid).get_results(conn)?;
        found.extend(lines.into_iter().map(|Line { line }| (kind, format!("`{line}` {says}"))));
    }
    Ok(found)
}
