//! What writes a table's rows unseen, and what makes a database forget.

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::sql_types::{Bool, Oid, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::finding::{FindingKind, Notice};
use super::super::hub::Hub;
use super::super::statement::{Dialect, tables_written};
use super::super::table::Table;
use super::catalog::table_oid;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// What a query that has the table for its parameter finds, and what to say of it.
struct Look {
    kind: FindingKind,
    query: &'static str,
    says: &'static str,
    advice: &'static str,
}

const LOOKS: [Look; 3] = [
    Look {
        kind: FindingKind::ForeignKey,
        query: "SELECT '`' || conname || '` on `' || confrelid::pg_catalog.regclass::text || '` (ON DELETE ' \
                || f.act[pg_catalog.strpos('arcnd', confdeltype::text)] || ', ON UPDATE ' \
                || f.act[pg_catalog.strpos('arcnd', confupdtype::text)] || ')' AS line FROM pg_catalog.pg_constraint, \
                (SELECT ARRAY['NO ACTION', 'RESTRICT', 'CASCADE', 'SET NULL', 'SET DEFAULT'] AS act) f \
                WHERE conrelid = $1 AND contype = 'f' \
                AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')) ORDER BY conname",
        says: "deletes or changes its rows unseen when the row that they refer to is deleted or changed",
        advice: "delete or change them first, by a statement of their own, or let triggers fill the outbox",
    },
    Look {
        kind: FindingKind::Rule,
        query: "SELECT '`' || rulename || '`' AS line FROM pg_catalog.pg_rewrite \
                WHERE ev_class = $1 AND rulename <> '_RETURN' ORDER BY rulename",
        says: "is a rule: what it does in place of a statement, or beside it, is not seen",
        advice: "use a trigger in its place",
    },
    Look {
        kind: FindingKind::View,
        query: "WITH RECURSIVE over (oid) AS (SELECT $1::pg_catalog.oid UNION \
                SELECT r.ev_class FROM over JOIN pg_catalog.pg_depend d ON d.refobjid = over.oid \
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
                JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid) \
                SELECT '`' || v.oid::pg_catalog.regclass::text || '`' AS line FROM over \
                JOIN pg_catalog.pg_class v ON v.oid = over.oid AND v.relkind = 'v' \
                WHERE pg_catalog.pg_relation_is_updatable(v.oid, true) & 28 <> 0 ORDER BY v.oid",
        says: "is a view through which its rows can be written; a write under that name is reported, not captured",
        advice: "write the table under its own name",
    },
];

pub(super) fn unseen<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
) -> QueryResult<Vec<Notice>> {
    let Some(oid) = table_oid(conn, hub, table)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for Look { kind, query, says, advice } in LOOKS {
        let lines: Vec<Line> = sql_query(query).bind::<Oid, _>(oid).get_results(conn)?;
        let notice = |Line { line }: Line| Notice::warning(kind, format!("{line} {says}"), advice);
        found.extend(lines.into_iter().map(notice));
    }
    found.extend(triggers(conn, hub, table, oid)?);
    found.extend(functions(conn, hub, table)?);
    found.extend(partitions(conn, oid)?);
    found.extend(namesakes(conn, hub, table, oid)?);
    Ok(found)
}

#[derive(QueryableByName)]
struct Trigger {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    relation: String,
    #[diesel(sql_type = Bool)]
    own: bool,
    #[diesel(sql_type = Bool)]
    before: bool,
    /// Whether its text says all that it does.
    #[diesel(sql_type = Bool)]
    open: bool,
    #[diesel(sql_type = Text)]
    source: String,
}

/// Triggers of the table, and those of others whose text writes it.
fn triggers<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
    oid: u32,
) -> QueryResult<Vec<Notice>> {
    let triggers: Vec<Trigger> = sql_query(
        "SELECT t.tgname::text AS name, t.tgrelid::pg_catalog.regclass::text AS relation, t.tgrelid = $1 AS own, \
         t.tgtype & 2 <> 0 AS before, l.lanname IN ('sql', 'plpgsql') AND p.prosrc !~* '\\mexecute\\M' AS open, \
         p.prosrc AS source FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname NOT LIKE 'kvsync\\_%' \
         AND (t.tgrelid = $1 OR pg_catalog.strpos(pg_catalog.lower(p.prosrc), $2) > 0) ORDER BY t.oid",
    )
    .bind::<Oid, _>(oid)
    .bind::<Text, _>(&table.name)
    .get_results(conn)?;
    let notice = |trigger: Trigger| {
        let Trigger { name, relation, own, before, open, source } = trigger;
        let written = hub.tables_among(&tables_written(&source, Dialect::Postgres));
        let names: Vec<&str> = written.iter().map(|table| table.name.as_str()).collect();
        if !own {
            let message = format!("`{name}`, a trigger of `{relation}`, writes it, unseen");
            let writes = names.contains(&table.name.as_str());
            return writes.then(|| Notice::warning(FindingKind::Trigger, message, BY_TRIGGER));
        }
        Some(if !names.is_empty() {
            let message = format!("`{name}` is a trigger of it that writes `{}`, unseen", names.join("`, `"));
            Notice::warning(FindingKind::Trigger, message, BY_TRIGGER)
        } else if !open {
            let message = format!("`{name}` is a trigger of it whose text does not tell which tables it writes");
            Notice::warning(FindingKind::Trigger, message, BY_TRIGGER)
        } else if before {
            let message = format!(
                "`{name}` is a trigger that runs before its rows are written: what it changes of them is captured, and an \
                 insert of values that it leaves out is reported"
            );
            Notice::note(FindingKind::Trigger, message, "")
        } else {
            let message = format!("`{name}` is a trigger of it, which writes no synced table as far as its text shows");
            Notice::note(FindingKind::Trigger, message, "")
        })
    };
    Ok(triggers.into_iter().filter_map(notice).collect())
}

const BY_TRIGGER: &str = "change the row in a BEFORE trigger by way of NEW, write other rows by statements of their own, or \
                          let generated triggers capture the table";

#[derive(QueryableByName)]
struct Function {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    body: String,
    #[diesel(sql_type = Text)]
    definition: String,
}

/// Functions whose text writes the table, as far as it can be read.
fn functions<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>, table: &Table<Pg>) -> QueryResult<Vec<Notice>> {
    let functions: Vec<Function> = sql_query(
        "SELECT p.oid::pg_catalog.regprocedure::text AS name, p.prosrc AS body, f.definition AS definition \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_functiondef(p.oid) AS definition) f \
         WHERE p.prokind IN ('f', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype) \
         AND p.proname NOT LIKE 'kvsync\\_%' AND pg_catalog.strpos(pg_catalog.lower(f.definition), $1) > 0 ORDER BY p.oid",
    )
    .bind::<Text, _>(&table.name)
    .get_results(conn)?;
    let writes = |text: &str| {
        let written = hub.tables_among(&tables_written(text, Dialect::Postgres));
        written.iter().any(|written| written.name == table.name && written.schema == table.schema)
    };
    // The body of one that was declared with BEGIN ATOMIC stands in its definition only.
    let functions = functions.into_iter().filter(|function| writes(&function.body) || writes(&function.definition));
    Ok(functions
        .map(|Function { name, .. }| {
            let message =
                format!("`{name}` is a function that writes it, to guess from its text; a call of it is not seen");
            Notice::warning(FindingKind::Function, message, "verify the table after calls, or let triggers capture it")
        })
        .collect())
}

fn partitions<C: Inner<Backend = Pg>>(conn: &mut C, oid: u32) -> QueryResult<Option<Notice>> {
    let lines: Vec<Line> = sql_query(
        "SELECT relid::pg_catalog.regclass::text AS line FROM pg_catalog.pg_partition_tree($1) WHERE relid <> $1 \
         ORDER BY relid",
    )
    .bind::<Oid, _>(oid)
    .get_results(conn)?;
    let Some(Line { line }) = lines.first() else { return Ok(None) };
    let message = format!(
        "it has {} partitions, such as `{line}`: their rows are captured; a write under a partition's own name is reported, \
         not captured",
        lines.len()
    );
    Ok(Some(Notice::note(FindingKind::Partition, message, "write the table under its own name")))
}

fn namesakes<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
    oid: u32,
) -> QueryResult<Vec<Notice>> {
    let lines: Vec<Line> = sql_query(
        "SELECT CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() THEN '' ELSE n.nspname::text END AS line \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = $1 AND c.oid <> $2 AND c.relkind IN ('r', 'p', 'v', 'f') \
         AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         AND (n.oid = pg_catalog.pg_my_temp_schema() OR NOT pg_catalog.pg_is_other_temp_schema(n.oid)) ORDER BY c.oid",
    )
    .bind::<Text, _>(&table.name)
    .bind::<Oid, _>(oid)
    .get_results(conn)?;
    let notice = |Line { line: schema }: Line| match schema.as_str() {
        "" => Some(Notice::warning(
            FindingKind::Namesake,
            "a temporary table of this connection has its name: what is written there is reported, not synced",
            "name the temporary table otherwise",
        )),
        // Each schema has its own scope, or rows there are reported.
        _ if hub.scopes.is_some() || table.schema.is_some() => None,
        schema => Some(Notice::warning(
            FindingKind::Namesake,
            format!("the schema `{schema}` has a table of its name: what is written there is reported, not synced"),
            "give each schema a scope (`Database::scopes`), or name the schema in `table!`",
        )),
    };
    Ok(lines.into_iter().filter_map(notice).collect())
}

/// What of the settings weakens a promise.
pub(super) fn settings<C: Inner<Backend = Pg>>(conn: &mut C) -> QueryResult<Vec<Notice>> {
    let mut found = Vec::new();
    for (name, what) in [
        ("synchronous_commit", "after a crash of the server committed transactions may be gone"),
        ("fsync", "after a crash of the machine committed transactions may be gone"),
    ] {
        let setting: String =
            sql::<Text>("SELECT pg_catalog.current_setting(").bind::<Text, _>(name).sql(")").get_result(conn)?;
        if setting == "off" {
            let message = format!("`{name}` is off: {what}, and the store keeps what was synced");
            let advice = "switch it on, or raise the epoch after such a loss";
            found.push(Notice::warning(FindingKind::Setting, message, advice));
        }
    }
    Ok(found)
}
