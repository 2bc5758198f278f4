//! The triggers of a table on PostgreSQL.
//!
//! One function for each table, in the table's schema, owned by whoever made it and run with its rights,
//! so that every role's writes are caught. Two triggers call it: after each row that is inserted, updated
//! or deleted, and before a TRUNCATE, which is written down as the deletion of each row.
//!
//! The version is taken in the trigger, while the row is locked by the transaction that wrote it: a later
//! writer of the row takes a higher one. For rows of one transaction the order is that in which triggers
//! run; ours come first among a table's, because they are run in the order of their names.
//!
//! They are enabled ALWAYS, so that they run under `session_replication_role = replica` as well, as in
//! workers of logical replication. Partitions get the triggers of their table from PostgreSQL itself,
//! except the one of TRUNCATE: truncating a partition by its own name is not caught.

use diesel::pg::Pg;
use diesel::sql_types::{Bool, Nullable, Oid, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::{Inner, Inside};
use super::super::finding::{FindingKind, Notice};
use super::super::hub::Hub;
use super::super::table::Table;
use super::super::triggers::TriggersSql;
use super::place::{home, schema_of};

/// The outbox's name.
const OUTBOX: &str = "kvsync_outbox";
/// The triggers' names. Digits come before letters: at the same row, others run later.
const ROWS: &str = "0_kvsync_outbox";
const TRUNCATE: &str = "0_kvsync_outbox_truncate";

/// Where the function's text names what is known when it is made, and no earlier.
const PLACES: [&str; 3] = ["{outbox}", "{table}", "{schema}"];

pub(super) fn sql(table: &Table<Pg>) -> TriggersSql {
    TriggersSql { up: up(table, &table.sql, OUTBOX), down: down(table, &table.sql) }
}

/// Makes the triggers of a table that stands in SQL as `target`.
fn up(table: &Table<Pg>, target: &str, outbox: &str) -> String {
    let body = body(table);
    let quote = dollars(&body);
    let routine = literal(&routine(table));
    let [rows, truncate] = [ROWS, TRUNCATE].map(Pg::quote);
    let [to_outbox, to_table, to_schema] = PLACES;
    let work = format!(
        "{LOOKUP}
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO STRICT outbox
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = {outbox}::pg_catalog.regclass;
    body := replace(replace(replace({quote}{body}{quote},
        '{to_outbox}', outbox), '{to_table}', target), '{to_schema}', pg_catalog.quote_literal(home));
    EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION %I.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp SET row_security = off AS %L', home, {routine}, body);
    EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %I.%I() FROM PUBLIC', home, {routine});
    EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS {rows} ON %s', target);
    EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS {truncate} ON %s', target);
    EXECUTE pg_catalog.format('CREATE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION %I.%I()', target, home, {routine});
    EXECUTE pg_catalog.format('CREATE TRIGGER {truncate} BEFORE TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION %I.%I()', target, home, {routine});
    EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER {rows}', target);
    EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER {truncate}', target);",
        outbox = literal(outbox),
    );
    block(&format!("Writes what is done to {} into the outbox of kvsync", table.sql), target, &work)
}

fn down(table: &Table<Pg>, target: &str) -> String {
    let routine = literal(&routine(table));
    let [rows, truncate] = [ROWS, TRUNCATE].map(Pg::quote);
    let work = format!(
        "{LOOKUP}
    EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS {rows} ON %s', target);
    EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS {truncate} ON %s', target);
    EXECUTE pg_catalog.format('DROP FUNCTION IF EXISTS %I.%I()', home, {routine});"
    );
    block(&format!("What is done to {} is no longer written into the outbox of kvsync", table.sql), target, &work)
}

/// Finds the table, as the search path of now finds it where no schema is named.
const LOOKUP: &str = "
    SELECT n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname) INTO STRICT home, target
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = named::pg_catalog.regclass;";

fn block(says: &str, target: &str, work: &str) -> String {
    let text = format!(
        "
DECLARE
    named CONSTANT text := {};
    home text;
    target text;
    outbox text;
    body text;
BEGIN{work}
END
",
        literal(target)
    );
    let quote = dollars(&text);
    let says = says.replace('\n', " ");
    format!(
        "-- {says}. Generated: make it anew when the table's columns or its models' keys change.\nDO {quote}{text}{quote};\n"
    )
}

/// The text of the function.
fn body(table: &Table<Pg>) -> String {
    let moved = differ(&mut table.primary_key.iter().map(String::as_str)).unwrap_or_else(|| "false".to_owned());
    let left = differ(&mut table.key_columns().into_iter());
    let left = left.map_or_else(|| "NULL".to_owned(), |left| format!("CASE WHEN {left} THEN {} END", row("OLD")));
    let insert = "INSERT INTO {outbox}
            (captured_at, timeline, sequence, table_schema, table_name, action, primary_key, old_row)";
    let head = format!(
        "(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::bigint,
            ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
            (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint,
            {{schema}}, {}",
        literal(&table.name)
    );
    let [old_key, new_key, each_key] = ["OLD", "NEW", "t"].map(|of| image(&table.primary_key, of));
    let [old_row, each_row] = ["OLD", "t"].map(row);
    format!(
        "
BEGIN
    IF TG_OP = 'INSERT' THEN
        {insert}
        VALUES ({head}, 'insert', {new_key}, NULL);
    ELSIF TG_OP = 'DELETE' THEN
        {insert}
        VALUES ({head}, 'delete', {old_key}, {old_row});
    ELSIF TG_OP = 'UPDATE' AND ({moved}) THEN
        {insert}
        VALUES ({head}, 'delete', {old_key}, {old_row});
        {insert}
        VALUES ({head}, 'insert', {new_key}, NULL);
    ELSIF TG_OP = 'UPDATE' THEN
        -- Also where nothing changed: that is how a row is synced anew.
        {insert}
        VALUES ({head}, 'update', {new_key}, {left});
    ELSE
        {insert}
        SELECT {head}, 'delete', {each_key}, {each_row} FROM {{table}} AS t;
        IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
            -- Rows that were committed since the snapshot was taken are gone, and cannot be seen here.
            {insert}
            VALUES ({head}, 'truncate', NULL, NULL);
        END IF;
    END IF;
    RETURN NULL;
END
"
    )
}

/// Whether one of these columns has changed: as text, because keys are made of text, and what a type
/// takes for equal may be two keys.
fn differ(columns: &mut dyn Iterator<Item = &str>) -> Option<String> {
    let differ = |column: &str| {
        let column = Pg::quote(column);
        format!("OLD.{column}::text IS DISTINCT FROM NEW.{column}::text")
    };
    columns.map(differ).reduce(|one, other| format!("{one} OR {other}"))
}

/// The primary key of a row, as it stands in the outbox.
pub(super) fn image(primary_key: &[String], of: &str) -> String {
    let pairs: Vec<String> =
        primary_key.iter().map(|column| format!("{}, {of}.{}", literal(column), Pg::quote(column))).collect();
    format!("pg_catalog.json_build_object({})::text", pairs.join(", "))
}

fn row(of: &str) -> String {
    format!("pg_catalog.row_to_json({of})::text")
}

/// The function's name: no longer than PostgreSQL keeps it.
fn routine(table: &Table<Pg>) -> String {
    const LONGEST: usize = 63;
    let name = format!("kvsync_outbox_{}", table.name);
    if name.len() <= LONGEST {
        return name;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut cut = LONGEST - 9;
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{hash:08x}", name.get(..cut).unwrap_or_default())
}

/// Quotes that the text does not hold.
fn dollars(text: &str) -> String {
    let quotes = std::iter::once("$kvsync$".to_owned()).chain((1..).map(|number| format!("$kvsync{number}$")));
    quotes.into_iter().find(|quote| !text.contains(quote.as_str())).unwrap_or_default()
}

pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A table that has to have triggers.
#[derive(QueryableByName)]
struct Target {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    name: String,
}

/// The registered table, or those of all schemas that have a scope.
fn targets<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>, table: &Table<Pg>) -> QueryResult<Vec<Target>> {
    let named: Vec<Target> = sql_query(
        "SELECT c.oid AS oid, n.nspname::text AS schema, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'",
    )
    .bind::<Text, _>(&table.name)
    .get_results(conn)?;
    let home = match (&table.schema, &hub.scopes) {
        (None, Some(_)) => None,
        (Some(schema), _) => Some(schema.clone()),
        (None, None) => Some(home(conn, table)?.unwrap_or_default()),
    };
    let is_ours = |target: &Target| match (&home, &hub.scopes) {
        (Some(home), _) => *home == target.schema,
        (None, scopes) => scopes.as_ref().is_some_and(|scopes| scopes(&target.schema).is_some()),
    };
    Ok(named.into_iter().filter(is_ours).collect())
}

/// The outbox as it stands in SQL; nothing where there is none.
pub(super) fn outbox<C: Inner<Backend = Pg>>(conn: &mut C) -> QueryResult<Option<String>> {
    let schema = schema_of(conn, OUTBOX)?;
    Ok(schema.map(|schema| format!("{}.{}", Pg::quote(&schema), Pg::quote(OUTBOX))))
}

pub(super) fn install<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>, table: &Table<Pg>) -> QueryResult<()> {
    let outbox = outbox(conn)?.unwrap_or_else(|| OUTBOX.to_owned());
    for target in targets(conn, hub, table)? {
        if !of_target(conn, table, &target, &outbox)?.is_empty() {
            conn.batch_execute(&up(table, &target.name, &outbox))?;
        }
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Trigger {
    #[diesel(sql_type = Text)]
    relation: String,
    #[diesel(sql_type = Nullable<Text>)]
    enabled: Option<String>,
    #[diesel(sql_type = Bool)]
    sound: bool,
    /// Whether its function is the one that these models need.
    #[diesel(sql_type = Bool)]
    current: bool,
    #[diesel(sql_type = Bool)]
    may: bool,
}

/// What is wrong with the triggers of a table and of its partitions.
pub(super) fn faults<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    table: &Table<Pg>,
) -> QueryResult<Vec<Notice>> {
    let Some(outbox) = outbox(conn)? else {
        let message = "its triggers have no outbox to fill: there is no table `kvsync_outbox` in the schemas of the \
                       default search path";
        return Ok(vec![Notice::error(FindingKind::Trigger, message, "run the migration that makes it")]);
    };
    let mut faults = Vec::new();
    for target in targets(conn, hub, table)? {
        faults.extend(of_target(conn, table, &target, &outbox)?);
    }
    Ok(faults)
}

const MEND: &str = "run the migration of `Database::triggers_sql` anew, or `install_triggers`";

fn of_target<C: Inner<Backend = Pg>>(
    conn: &mut C,
    table: &Table<Pg>,
    target: &Target,
    outbox: &str,
) -> QueryResult<Vec<Notice>> {
    let [to_outbox, to_table, to_schema] = PLACES.map(literal);
    let found: Vec<Trigger> = sql_query(format!(
        "SELECT r.oid::pg_catalog.regclass::text AS relation, t.tgenabled::text AS enabled, \
         coalesce(t.tgtype = k.type AND t.tgqual IS NULL AND t.tgattr = '' AND p.prosecdef \
             AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp', 'row_security=off'] \
             AND pg_catalog.strpos(p.prosrc, 'INSERT INTO ' || o.name || E'\\n') > 0, false) AS sound, \
         coalesce(p.prosrc = replace(replace(replace($1, {to_outbox}, o.name), {to_table}, $2), \
             {to_schema}, pg_catalog.quote_literal($3)), false) AS current, \
         coalesce(pg_catalog.has_table_privilege(p.proowner, o.oid, 'INSERT'), false) AS may \
         FROM (SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = pg_catalog.to_regclass($4)::pg_catalog.oid) AS o \
         CROSS JOIN (VALUES ({rows}, 29, true), ({truncate}, 34, false)) AS k (name, type, inherited) \
         JOIN (SELECT $5 AS oid UNION SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($5)) AS r \
             ON k.inherited OR r.oid = $5 \
         LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid AND t.tgname = k.name \
         LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid",
        rows = literal(ROWS),
        truncate = literal(TRUNCATE),
    ))
    .bind::<Text, _>(body(table))
    .bind::<Text, _>(&target.name)
    .bind::<Text, _>(&target.schema)
    .bind::<Text, _>(outbox)
    .bind::<Oid, _>(target.oid)
    .get_results(conn)?;
    let fault = |Trigger { relation, enabled, sound, current, may }: Trigger| {
        let (error, warning) = (Notice::error, Notice::warning);
        let (notice, message, advice): (fn(_, _, _) -> _, _, _) = match enabled.as_deref() {
            None => {
                (error, format!("`{relation}` lacks a trigger of kvsync, so what is written to it may be lost"), MEND)
            }
            Some(_) if !sound => {
                (error, format!("a trigger of kvsync on `{relation}` does not fill the outbox as it should"), MEND)
            }
            Some(_) if !may => {
                let message = format!("the owner of the trigger of kvsync on `{relation}` may not write the outbox");
                (error, message, "GRANT INSERT ON it")
            }
            Some("A") if current => return None,
            // Rows and primary keys are written all the same, and while a program is replaced two want their own.
            Some("A" | "O") if !current => {
                let message = format!(
                    "a trigger of kvsync on `{relation}` was made for other columns or models: a row that leaves a key \
                     may not say so"
                );
                (warning, message, MEND)
            }
            Some("O") => {
                let message = format!(
                    "a trigger of kvsync on `{relation}` is not enabled ALWAYS: nothing is caught under \
                     `session_replication_role = replica`"
                );
                (warning, message, MEND)
            }
            Some(_) => {
                let message = format!("a trigger of kvsync on `{relation}` is disabled");
                (error, message, "enable it ALWAYS, and verify the table")
            }
        };
        Some(notice(FindingKind::Trigger, message, advice))
    };
    let mut faults: Vec<Notice> = found.into_iter().filter_map(fault).collect();
    faults.dedup();
    Ok(faults)
}
