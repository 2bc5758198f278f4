//! Cuts a text into its statements, as `batch_execute` runs them.

use super::lexer::{Kind, Lexer, Token};
use super::{Dialect, Scanned, scan};

/// Every statement of a text, without its `;`, and what it is.
pub(crate) fn scan_all(sql: &str, dialect: Dialect) -> impl Iterator<Item = (&str, Scanned<'_>)> {
    let mut lexer = Lexer::new(sql, dialect);
    std::iter::from_fn(move || {
        let (start, end) = Statement::new(dialect).span(&mut lexer)?;
        let text = sql.get(start..end)?;
        Some((text, scan(text, dialect)))
    })
}

/// Finds the end of one statement. A `;` in parentheses does not end it, and those of a body do not:
/// SQLite's `CREATE TRIGGER .. BEGIN ..; END`, Postgres's `CREATE FUNCTION .. BEGIN ATOMIC ..; END`.
struct Statement {
    dialect: Dialect,
    /// How far `CREATE [TEMP] TRIGGER` or `CREATE [OR REPLACE] FUNCTION` has been read.
    head: Head,
    /// Open parentheses.
    depth: usize,
    /// Open blocks of a function's body.
    blocks: usize,
    /// The two tokens before.
    last: [Last; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Head {
    Start,
    Create,
    Trigger,
    Function,
    Other,
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Semicolon,
    Begin,
    End,
    Other,
}

impl Statement {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, head: Head::Start, depth: 0, blocks: 0, last: [Last::Other; 2] }
    }

    fn span(mut self, lexer: &mut Lexer<'_>) -> Option<(usize, usize)> {
        let mut span = None;
        while let Some(token) = lexer.next() {
            if token.is(b';') && self.ends() {
                if span.is_some() {
                    return span;
                }
                continue;
            }
            let start = span.map_or(token.start, |(start, _)| start);
            span = Some((start, token.end));
            self.step(lexer, token);
        }
        span
    }

    fn ends(&self) -> bool {
        match self.head {
            Head::Trigger => self.last == [Last::Semicolon, Last::End],
            _ => self.depth == 0 && self.blocks == 0,
        }
    }

    fn step(&mut self, lexer: &Lexer<'_>, token: Token) {
        let word = if token.kind == Kind::Word { lexer.text(token) } else { "" };
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        let any = |keywords: &[&str]| keywords.iter().any(|keyword| is(keyword));
        self.head = match self.head {
            Head::Start if is("create") => Head::Create,
            // SQLite's EXPLAIN shows such a statement without running it.
            Head::Start if any(&["explain", "query", "plan"]) => Head::Start,
            Head::Create if any(&["temp", "temporary", "or", "replace"]) => Head::Create,
            Head::Create if self.dialect == Dialect::Sqlite && is("trigger") => Head::Trigger,
            Head::Create if self.dialect == Dialect::Postgres && any(&["function", "procedure"]) => Head::Function,
            Head::Start | Head::Create => Head::Other,
            head => head,
        };
        if token.is(b'(') {
            self.depth += 1;
        } else if token.is(b')') {
            self.depth = self.depth.saturating_sub(1);
        }
        let last = match token.kind {
            Kind::Sign(b';') => Last::Semicolon,
            _ if is("begin") => Last::Begin,
            _ if is("end") => Last::End,
            _ => Last::Other,
        };
        if self.head == Head::Function {
            let opens = (self.last[1] == Last::Begin && is("atomic")) || (self.blocks > 0 && is("case"));
            self.blocks = if opens { self.blocks + 1 } else { self.blocks.saturating_sub(usize::from(is("end"))) };
        }
        self.last = [self.last[1], last];
    }
}
