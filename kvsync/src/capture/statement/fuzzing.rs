//! What a fuzzer feeds with SQL text.

use std::cell::Cell;

use super::{Conflict, Dialect, Or, Scanned, TableName, Verb, rewrite, scan, scan_all, tables_written};

thread_local! {
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// Counts bytes that the lexer looks at.
pub(super) fn look_at(bytes: usize) {
    LOOKED_AT.set(LOOKED_AT.get().saturating_add(bytes));
}

/// Reads a text in every way that capture does, and returns how many bytes the lexer looked at.
pub(crate) fn statement(sql: &str, postgres: bool) -> usize {
    let dialect = if postgres { Dialect::Postgres } else { Dialect::Sqlite };
    let before = LOOKED_AT.get();
    check(sql, &scan(sql, dialect));
    for (text, scanned) in scan_all(sql, dialect) {
        check(text, &scanned);
    }
    tables_written(sql, dialect);
    LOOKED_AT.get().saturating_sub(before)
}

fn check(sql: &str, scanned: &Scanned<'_>) {
    let Scanned::Write(write) = scanned else { return };
    assert!(sql.is_char_boundary(write.end), "RETURNING goes between characters");
    if let Some(list) = &write.returning {
        assert!(sql.get(list.clone()).is_some_and(|list| !list.is_empty()), "a RETURNING list stands in the text");
    }
    write.columns_set();
    let text = rewrite(sql, write, "x");
    assert!(text.len() > sql.len(), "a rewritten statement returns more");
}

/// What a statement is taken for, for those who ask the database what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It writes no rows.
    Nothing,
    /// It writes rows of this table with these verbs of SQL, and is captured.
    Captured(String, &'static [&'static str]),
    /// It empties these tables, or with them all that refer to them.
    Truncated(Vec<String>, bool),
    /// It may write rows of these tables and is not captured; or of any, where its code cannot be seen.
    NotCaptured(Vec<String>, bool),
}

/// What the statements of a text are taken for; or, not as `batch`, what its first is.
pub(crate) fn seen(sql: &str, postgres: bool, batch: bool) -> Vec<Seen> {
    let dialect = if postgres { Dialect::Postgres } else { Dialect::Sqlite };
    if batch {
        scan_all(sql, dialect).map(|(_, scanned)| told(scanned)).collect()
    } else {
        vec![told(scan(sql, dialect))]
    }
}

fn told(scanned: Scanned<'_>) -> Seen {
    let names = |tables: Vec<TableName<'_>>| tables.into_iter().map(|table| table.name.into_owned()).collect();
    match scanned {
        Scanned::Read | Scanned::Schema { .. } | Scanned::Transaction => Seen::Nothing,
        Scanned::Truncate { tables, cascade } => Seen::Truncated(names(tables), cascade),
        Scanned::Uncapturable { reason, tables } => Seen::NotCaptured(names(tables), reason == super::classify::OPAQUE),
        Scanned::Write(write) => {
            let verbs: &[&str] = match (write.verb, write.conflict) {
                (Verb::Insert, Some(Conflict::Update)) => &["INSERT", "UPDATE"],
                (Verb::Insert, _) => &["INSERT"],
                (Verb::Update, _) if write.or == Some(Or::Replace) => &["UPDATE", "DELETE"],
                (Verb::Update, _) => &["UPDATE"],
                (Verb::Delete, _) => &["DELETE"],
                (Verb::Replace, _) => &["INSERT", "DELETE", "UPDATE"],
            };
            Seen::Captured(write.table.name.into_owned(), verbs)
        }
    }
}
