//! What a fuzzer feeds with SQL text.

use std::cell::Cell;

use super::{Dialect, Scanned, rewrite, scan, scan_all, tables_written};

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
