//! Tells what a statement is, by its first words.

use super::cursor::Cursor;
use super::lexer::Kind;
use super::write::{self, Stopped};
use super::{Dialect, Or, Scanned, TableName};

const SEVERAL: &str = "several statements in one string";
const IN_CTE: &str = "a statement that writes stands inside another";
const MERGE: &str = "MERGE";
const COPY: &str = "COPY FROM";
pub(super) const OPAQUE: &str = "code whose writes cannot be seen";
const EXPLAIN: &str = "EXPLAIN ANALYZE runs the statement that it explains";
const OR_FAIL: &str = "OR FAIL: when it fails, what it wrote before stays and is not returned";
const NOT_UNDERSTOOD: &str = "a statement that is not understood";

/// What this statement is. Decided by the first word where that is SELECT: Diesel runs the first
/// statement of a string on SQLite, and Postgres refuses more than one, except in `batch_execute`, for
/// which there is [`super::scan_all`].
pub(crate) fn scan(sql: &str, dialect: Dialect) -> Scanned<'_> {
    let mut cursor = Cursor::new(sql, dialect);
    while cursor.is_sign(b';') || cursor.is_sign(b'(') {
        cursor.advance();
    }
    if cursor.is_any(&["select", "values", "table", "show", "set", "pragma", "declare"]) || cursor.token.is_none() {
        return Scanned::Read;
    }
    statement(sql, cursor)
}

fn statement<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    let dialect = cursor.dialect;
    if cursor.is_any(&["insert", "update", "delete", "replace"]) {
        return written(sql, cursor, false);
    }
    if cursor.eat("with") {
        return with(sql, cursor);
    }
    if cursor.is_any(&["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"]) {
        return Scanned::Transaction;
    }
    if cursor.is_any(&["create", "alter", "drop", "comment", "grant", "revoke", "reassign", "security", "import"]) {
        return schema(sql, cursor);
    }
    if cursor.is("truncate") {
        return truncate(sql, cursor);
    }
    if cursor.eat("explain") {
        return explain(sql, cursor);
    }
    if cursor.is("merge") {
        return Scanned::Uncapturable { reason: MERGE, tables: tables_written(sql, dialect) };
    }
    if cursor.eat("copy") {
        return copy(sql, cursor);
    }
    if cursor.is_any(&["do", "call", "execute", "refresh"]) {
        return Scanned::Uncapturable { reason: OPAQUE, tables: all_names(sql, dialect) };
    }
    if cursor.eat("prepare") && cursor.is("transaction") {
        return Scanned::Transaction;
    }
    not_understood(sql, dialect)
}

fn written<'a>(sql: &'a str, cursor: Cursor<'a>, with: bool) -> Scanned<'a> {
    let dialect = cursor.dialect;
    let reason = match write::write(cursor, with) {
        Ok(write) if write.or == Some(Or::Fail) => {
            return Scanned::Uncapturable { reason: OR_FAIL, tables: vec![write.table] };
        }
        Ok(write) => return Scanned::Write(write),
        Err(Stopped::NotUnderstood) => return not_understood(sql, dialect),
        Err(Stopped::Several) => SEVERAL,
        Err(Stopped::Nested) => IN_CTE,
    };
    Scanned::Uncapturable { reason, tables: tables_written(sql, dialect) }
}

/// `WITH [RECURSIVE] name [(..)] AS [[NOT] MATERIALIZED] (..), ..` and the statement behind it.
fn with<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    let dialect = cursor.dialect;
    let mut writes = false;
    cursor.eat("recursive");
    loop {
        cursor.advance();
        if cursor.is_sign(b'(') {
            cursor.skip_group();
        }
        if !cursor.eat("as") {
            return not_understood(sql, dialect);
        }
        cursor.eat("not");
        cursor.eat("materialized");
        if !cursor.is_sign(b'(') {
            return not_understood(sql, dialect);
        }
        let Some(group) = cursor.skip_group() else { return not_understood(sql, dialect) };
        writes |= group;
        if !cursor.eat_sign(b',') {
            break;
        }
    }
    if writes {
        Scanned::Uncapturable { reason: IN_CTE, tables: tables_written(sql, dialect) }
    } else if cursor.is_any(&["select", "values", "table"]) || cursor.is_sign(b'(') {
        Scanned::Read
    } else if cursor.is_any(&["insert", "update", "delete", "replace"]) {
        written(sql, cursor, true)
    } else if cursor.is("merge") {
        Scanned::Uncapturable { reason: MERGE, tables: tables_written(sql, dialect) }
    } else {
        not_understood(sql, dialect)
    }
}

/// A change of the schema; one that also fills its table from a statement that writes is not only that.
fn schema<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    let creates = cursor.is("create");
    let names_tables = cursor.is_any(&["alter", "drop"]);
    cursor.advance();
    if creates {
        while cursor.is_any(&["temp", "temporary", "global", "local", "unlogged"]) {
            cursor.advance();
        }
        if !cursor.is("table") {
            return Scanned::Schema { tables: Vec::new() };
        }
        while cursor.token.is_some() {
            if !cursor.is_sign(b'(') {
                cursor.advance();
            } else if cursor.skip_group() == Some(true) {
                return Scanned::Uncapturable { reason: IN_CTE, tables: tables_written(sql, cursor.dialect) };
            }
        }
        return Scanned::Schema { tables: Vec::new() };
    }
    cursor.eat("foreign");
    if !names_tables || !cursor.eat("table") {
        return Scanned::Schema { tables: Vec::new() };
    }
    if cursor.eat("if") {
        cursor.eat("exists");
    }
    Scanned::Schema { tables: table_list(&mut cursor) }
}

fn truncate<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    cursor.advance();
    cursor.eat("table");
    let tables = table_list(&mut cursor);
    if tables.is_empty() {
        return not_understood(sql, cursor.dialect);
    }
    while cursor.token.is_some() && !cursor.is("cascade") {
        cursor.advance();
    }
    Scanned::Truncate { tables, cascade: cursor.is("cascade") }
}

/// `[ONLY] table [*], ..`
fn table_list<'a>(cursor: &mut Cursor<'a>) -> Vec<TableName<'a>> {
    let mut tables = Vec::new();
    loop {
        if cursor.dialect == Dialect::Postgres {
            cursor.eat("only");
        }
        let Some(table) = cursor.eat_table() else { return tables };
        tables.push(table);
        cursor.eat_sign(b'*');
        if !cursor.eat_sign(b',') {
            return tables;
        }
    }
}

/// Only Postgres runs what it explains, and only with ANALYZE.
fn explain<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    if cursor.dialect == Dialect::Sqlite {
        return Scanned::Read;
    }
    let mut runs = false;
    if cursor.eat_sign(b'(') {
        while cursor.token.is_some() && !cursor.eat_sign(b')') {
            if cursor.is_any(&["analyze", "analyse"]) {
                cursor.advance();
                runs = !(cursor.is_any(&["false", "off"])
                    || cursor.token.is_some_and(|token| cursor.lexer.text(token) == "0"));
            } else {
                cursor.advance();
            }
        }
    } else {
        runs = cursor.eat("analyze") || cursor.eat("analyse");
        cursor.eat("verbose");
    }
    if !runs || cursor.is_any(&["select", "values", "table", "declare"]) || cursor.token.is_none() {
        return Scanned::Read;
    }
    match statement(sql, cursor) {
        Scanned::Write(write) => Scanned::Uncapturable { reason: EXPLAIN, tables: vec![write.table] },
        other => other,
    }
}

/// `COPY table [(..)] FROM ..` writes, `COPY table TO ..` reads, `COPY (..) TO ..` does what it holds.
fn copy<'a>(sql: &'a str, mut cursor: Cursor<'a>) -> Scanned<'a> {
    let dialect = cursor.dialect;
    if cursor.is_sign(b'(') {
        return match cursor.skip_group() {
            Some(true) => Scanned::Uncapturable { reason: IN_CTE, tables: tables_written(sql, dialect) },
            Some(false) => Scanned::Read,
            None => not_understood(sql, dialect),
        };
    }
    let Some(table) = cursor.eat_table() else { return not_understood(sql, dialect) };
    if cursor.is_sign(b'(') {
        cursor.skip_group();
    }
    if cursor.is("to") { Scanned::Read } else { Scanned::Uncapturable { reason: COPY, tables: vec![table] } }
}

/// What to think of a statement that nothing else fits: it is a read only if no verb of writing is in it.
fn not_understood(sql: &str, dialect: Dialect) -> Scanned<'_> {
    let mut cursor = Cursor::new(sql, dialect);
    while cursor.token.is_some() {
        if cursor.is_any(&["insert", "update", "delete", "merge", "replace", "truncate", "copy", "into"]) {
            return Scanned::Uncapturable { reason: NOT_UNDERSTOOD, tables: all_names(sql, dialect) };
        }
        cursor.advance();
    }
    Scanned::Read
}

/// The tables that a text writes, however many statements it holds.
pub(crate) fn tables_written(sql: &str, dialect: Dialect) -> Vec<TableName<'_>> {
    let mut cursor = Cursor::new(sql, dialect);
    let mut tables = Vec::new();
    while cursor.token.is_some() {
        let verb = cursor.word();
        cursor.advance();
        if verb.eq_ignore_ascii_case("truncate") {
            cursor.eat("table");
            tables.append(&mut table_list(&mut cursor));
            continue;
        }
        let is = |keyword: &str| verb.eq_ignore_ascii_case(keyword);
        if is("update") {
            if cursor.eat("or") {
                cursor.advance();
            }
            // `DO UPDATE SET`, and `FOR UPDATE` at the end of a query.
            if cursor.is_any(&["set", "of", "nowait", "skip"]) {
                continue;
            }
        } else {
            let names = is("into") || is("copy") || (is("delete") && cursor.eat("from"));
            if !names {
                continue;
            }
        }
        if dialect == Dialect::Postgres && cursor.eat("only") {
            cursor.eat_sign(b'(');
        }
        tables.extend(cursor.eat_table());
    }
    tables
}

/// Every name in a text, also in the bodies that it quotes.
fn all_names(sql: &str, dialect: Dialect) -> Vec<TableName<'_>> {
    let mut tables = Vec::new();
    collect_names(sql, dialect, 3, &mut tables);
    tables
}

/// `levels` bounds the bodies within bodies.
fn collect_names<'a>(sql: &'a str, dialect: Dialect, levels: usize, tables: &mut Vec<TableName<'a>>) {
    let mut cursor = Cursor::new(sql, dialect);
    while let Some(token) = cursor.token {
        if token.kind == Kind::Text && levels > 0 {
            collect_names(body(cursor.lexer.text(token)), dialect, levels - 1, tables);
        }
        match cursor.eat_table() {
            Some(table) => tables.push(table),
            None => cursor.advance(),
        }
    }
}

/// What stands between the quotes of a text: `'..'`, `E'..'`, `$tag$..$tag$`.
fn body(text: &str) -> &str {
    if let Some(tag) = text.strip_prefix('$').and_then(|rest| rest.split_once('$')).map(|(tag, _)| tag.len() + 2) {
        let inner = text.get(tag..).unwrap_or_default();
        return inner.get(..inner.len().saturating_sub(tag)).unwrap_or(inner);
    }
    text.trim_start_matches(['e', 'E']).trim_matches('\'')
}
