//! Reads the shape of a statement from its SQL text: what it does, to which table, with which
//! top-level clauses.
//!
//! This is no parser. Whatever it does not recognise is [`Scanned::Uncapturable`] and obeys the
//! policy; only a text that holds no verb of writing is taken for a read. A function that writes
//! cannot be seen.

mod classify;
mod cursor;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod lexer;
mod name;
mod rewrite;
mod split;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;
use std::ops::Range;

pub(crate) use self::classify::{scan, tables_written};
use self::lexer::{Kind, Lexer};
pub(crate) use self::name::TableName;
pub(crate) use self::rewrite::rewrite;
pub(crate) use self::split::scan_all;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    /// SQLite's.
    Sqlite,
    /// PostgreSQL's, with `standard_conforming_strings` on, as it is by default.
    Postgres,
}

/// What a statement is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scanned<'a> {
    /// It writes no rows, unless a function that it calls does.
    Read,
    /// It changes the schema.
    Schema {
        /// The tables that ALTER TABLE or DROP TABLE name; empty for other statements.
        tables: Vec<TableName<'a>>,
    },
    /// It writes rows of one table, and can be captured.
    Write(Write<'a>),
    /// It empties tables.
    Truncate {
        /// The tables that it names.
        tables: Vec<TableName<'a>>,
        /// Whether it empties the tables that refer to them, too.
        cascade: bool,
    },
    /// It begins or ends a transaction or a savepoint.
    Transaction,
    /// It writes rows in a way that cannot be captured, or may.
    Uncapturable {
        /// Why, in a few words.
        reason: &'static str,
        /// The tables that it writes; where that cannot be told, all names that could be a table's.
        tables: Vec<TableName<'a>>,
    },
}

/// A statement that writes rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write<'a> {
    /// What it does.
    pub(crate) verb: Verb,
    /// SQLite's `OR ..` behind the verb. `INSERT OR REPLACE` is [`Verb::Replace`] besides.
    pub(crate) or: Option<Or>,
    /// The table.
    pub(crate) table: TableName<'a>,
    /// The table's alias as it is written, quotes included.
    pub(crate) alias: Option<&'a str>,
    /// Its ON CONFLICT clauses; of several, `DO UPDATE` is told.
    pub(crate) conflict: Option<Conflict>,
    /// Whether other tables are joined: `UPDATE .. FROM`, `DELETE .. USING`.
    pub(crate) joined: bool,
    /// Whether it begins with `WITH`. None of the common table expressions writes.
    pub(crate) with: bool,
    /// How many rows an INSERT gives in VALUES; nothing where that cannot be told.
    pub(crate) rows: Option<usize>,
    /// Where its RETURNING list stands, without the keyword.
    pub(crate) returning: Option<Range<usize>>,
    /// Where a RETURNING clause goes, or more of its list: in front of trailing `;` and comments, and
    /// of SQLite's ORDER BY and LIMIT.
    pub(crate) end: usize,
    /// Of an UPDATE: its target, from behind the verb to SET.
    pub(crate) target: Range<usize>,
    /// Of an UPDATE or DELETE: its WHERE, keyword included; empty where there is none.
    pub(crate) filter: Range<usize>,
    /// Stands behind the first top-level SET.
    set: Option<Lexer<'a>>,
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// INSERT; may update, with [`Conflict::Update`].
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// SQLite's REPLACE or INSERT OR REPLACE: rows in the way are deleted unseen.
    Replace,
}

/// What SQLite does where a constraint is violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Or {
    /// The statement is undone: as without the clause.
    Abort,
    /// The statement stops; what it did before stays. So it is never [`Scanned::Write`].
    Fail,
    /// The row is left out.
    Ignore,
    /// The rows in the way are deleted.
    Replace,
    /// The transaction is rolled back.
    Rollback,
}

/// What ON CONFLICT does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// DO NOTHING.
    Nothing,
    /// DO UPDATE.
    Update,
}

impl<'a> Write<'a> {
    /// The tokens from SET to WHERE or the end that are numbers or placeholders.
    pub(crate) fn values_set(&self) -> Vec<&'a str> {
        let Some(set) = self.set.clone() else { return Vec::new() };
        let end = if self.filter.is_empty() { self.end } else { self.filter.start };
        let text = set.clone();
        set.take_while(|token| token.start < end)
            .filter(|token| token.kind == Kind::Value)
            .map(|token| text.text(token))
            .collect()
    }

    /// The columns that UPDATE or DO UPDATE sets, folded as the database folds them.
    pub(crate) fn columns_set(&self) -> Vec<Cow<'a, str>> {
        self.set.clone().map(write::columns_set).unwrap_or_default()
    }
}
