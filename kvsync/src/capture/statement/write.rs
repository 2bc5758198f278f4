//! Reads INSERT, UPDATE, DELETE and REPLACE: their target and their top-level clauses.

use std::borrow::Cow;
use std::ops::Range;

use super::cursor::Cursor;
use super::lexer::{Kind, Lexer};
use super::{Conflict, Dialect, Or, Verb, Write};

/// Why a statement that writes was not read to its end.
pub(super) enum Stopped {
    NotUnderstood,
    /// Another statement follows.
    Several,
    /// A statement in parentheses writes, too.
    Nested,
}

/// Reads a statement whose verb is the cursor's token; `with` says whether `WITH ..` stands before it.
pub(super) fn write(mut cursor: Cursor<'_>, with: bool) -> Result<Write<'_>, Stopped> {
    let mut write = target(&mut cursor, with).ok_or(Stopped::NotUnderstood)?;
    first_clause(&mut cursor, &mut write)?;
    Clauses::default().read(&mut cursor, &mut write)?;
    Ok(write)
}

/// Reads up to the alias.
fn target<'a>(cursor: &mut Cursor<'a>, with: bool) -> Option<Write<'a>> {
    let mut verb = match cursor.word().as_bytes().first()? {
        b'i' | b'I' => Verb::Insert,
        b'u' | b'U' => Verb::Update,
        b'd' | b'D' => Verb::Delete,
        _ => Verb::Replace,
    };
    cursor.advance();
    let from = cursor.behind;
    let or = if verb != Verb::Delete && cursor.eat("or") { Some(or(cursor)?) } else { None };
    if verb == Verb::Insert && or == Some(Or::Replace) {
        verb = Verb::Replace;
    }
    match verb {
        Verb::Insert | Verb::Replace => cursor.eat("into").then_some(())?,
        Verb::Delete => cursor.eat("from").then_some(())?,
        Verb::Update => {}
    }
    if cursor.dialect == Dialect::Postgres {
        cursor.eat("only");
    }
    let table = cursor.eat_table()?;
    cursor.eat_sign(b'*');
    let alias = if cursor.eat("as") || at_alias(cursor, verb) { Some(cursor.eat_written_name()?) } else { None };
    Some(Write {
        verb,
        or,
        table,
        alias,
        conflict: None,
        joined: false,
        with,
        rows: None,
        returning: None,
        end: 0,
        target: from..from,
        filter: 0..0,
        set: None,
    })
}

fn or(cursor: &mut Cursor<'_>) -> Option<Or> {
    let or = match cursor.word().to_ascii_lowercase().as_str() {
        "abort" => Or::Abort,
        "fail" => Or::Fail,
        "ignore" => Or::Ignore,
        "replace" => Or::Replace,
        "rollback" => Or::Rollback,
        _ => return None,
    };
    cursor.advance();
    Some(or)
}

/// Whether an alias stands here without AS: only Postgres's UPDATE and DELETE take one.
fn at_alias(cursor: &Cursor<'_>, verb: Verb) -> bool {
    let Some(token) = cursor.token else { return false };
    cursor.dialect == Dialect::Postgres
        && match verb {
            Verb::Update => matches!(token.kind, Kind::Word | Kind::Name) && !cursor.is("set"),
            Verb::Delete => {
                matches!(token.kind, Kind::Word | Kind::Name) && !cursor.is_any(&["using", "where", "returning"])
            }
            Verb::Insert | Verb::Replace => false,
        }
}

/// Checks that what stands behind the target can stand there, and steps over SET.
fn first_clause<'a>(cursor: &mut Cursor<'a>, write: &mut Write<'a>) -> Result<(), Stopped> {
    if cursor.eat("indexed") || (cursor.is("not") && write.verb != Verb::Insert) {
        // `INDEXED BY index`, `NOT INDEXED`
        cursor.advance();
        if !cursor.is_any(&["set", "where", "returning"]) {
            cursor.eat_written_name();
        }
    }
    let fits = match write.verb {
        Verb::Update => {
            write.target.end = cursor.behind;
            let set = cursor.eat("set");
            write.set = cursor.lexer_here();
            set
        }
        Verb::Delete => {
            cursor.token.is_none_or(|token| token.is(b';'))
                || cursor.is_any(&["where", "using", "returning", "order", "limit"])
        }
        Verb::Insert | Verb::Replace => {
            cursor.is_sign(b'(') || cursor.is_any(&["default", "values", "select", "with", "overriding", "table"])
        }
    };
    if fits { Ok(()) } else { Err(Stopped::NotUnderstood) }
}

/// What is known while the clauses are read.
#[derive(Default)]
struct Clauses {
    /// Where an INSERT's rows come from.
    source: Source,
    /// Behind WHERE.
    filtered: bool,
    on_conflict: bool,
    returning: Option<usize>,
    /// Where SQLite's ORDER BY or LIMIT begins: RETURNING stands before it.
    tail: Option<usize>,
}

#[derive(Default, PartialEq)]
enum Source {
    #[default]
    Unread,
    /// The rows of VALUES are being read.
    Values,
    Other,
}

impl Clauses {
    fn read<'a>(mut self, cursor: &mut Cursor<'a>, write: &mut Write<'a>) -> Result<(), Stopped> {
        // Whether the token before makes a name of the word that follows it, or `FROM` an operator.
        let (mut names, mut distinct) = (false, false);
        while let Some(token) = cursor.token {
            match token.kind {
                Kind::Sign(b';') => break,
                Kind::Sign(b')') => return Err(Stopped::NotUnderstood),
                Kind::Sign(b'(') => {
                    if self.source == Source::Values {
                        write.rows = write.rows.map(|rows| rows + 1);
                    }
                    if cursor.skip_group().ok_or(Stopped::NotUnderstood)? {
                        return Err(Stopped::Nested);
                    }
                    (names, distinct) = (false, false);
                    continue;
                }
                Kind::Word if names || (distinct && cursor.is("from")) => {}
                Kind::Word => self.word(cursor, write)?,
                _ => {}
            }
            names = cursor.is_sign(b'.') || cursor.is("as");
            distinct = cursor.is("distinct");
            cursor.advance();
        }
        if names {
            return Err(Stopped::NotUnderstood);
        }
        write.end = self.tail.unwrap_or(cursor.behind);
        write.returning = self.returning.map(|start| start..write.end);
        write.filter = match (self.filtered, self.returning) {
            (false, _) => 0..0,
            (true, None) => write.filter.start..write.end,
            (true, Some(_)) => write.filter.clone(),
        };
        if write.returning.as_ref().is_some_and(Range::is_empty) {
            return Err(Stopped::NotUnderstood);
        }
        while cursor.eat_sign(b';') {}
        if cursor.token.is_some() { Err(Stopped::Several) } else { Ok(()) }
    }

    /// Heeds a word that stands outside of parentheses; leaves the cursor on its last token.
    fn word<'a>(&mut self, cursor: &mut Cursor<'a>, write: &mut Write<'a>) -> Result<(), Stopped> {
        if cursor.is("returning") {
            let list = cursor.lexer.clone().next().map(|token| token.start);
            if self.returning.is_some() || self.tail.is_some() || list.is_none() {
                return Err(Stopped::NotUnderstood);
            }
            self.returning = list;
            write.filter.end = cursor.behind;
            self.source = Source::Other;
            return Ok(());
        }
        match write.verb {
            Verb::Insert | Verb::Replace if self.returning.is_none() => self.word_of_insert(cursor, write),
            Verb::Insert | Verb::Replace => {}
            Verb::Update | Verb::Delete => {
                if cursor.dialect == Dialect::Sqlite && self.tail.is_none() && cursor.is_any(&["order", "limit"]) {
                    self.tail = Some(cursor.behind);
                } else if cursor.is("where") && !self.filtered {
                    self.filtered = true;
                    write.filter.start = cursor.token.map_or(0, |token| token.start);
                } else if !self.filtered && self.returning.is_none() {
                    write.joined |= cursor.is(if write.verb == Verb::Update { "from" } else { "using" });
                }
            }
        }
        Ok(())
    }

    fn word_of_insert<'a>(&mut self, cursor: &mut Cursor<'a>, write: &mut Write<'a>) {
        if self.source == Source::Unread {
            if cursor.is("overriding") {
                // `OVERRIDING SYSTEM VALUE`
                cursor.advance();
                cursor.advance();
                return;
            }
            self.source = Source::Other;
            if cursor.is("values") {
                self.source = Source::Values;
                write.rows = Some(0);
            } else if cursor.eat("default") {
                write.rows = Some(1);
            }
        } else if cursor.is("on") {
            if next_word_is(cursor, "conflict") {
                self.on_conflict = true;
                self.source = Source::Other;
            }
        } else if self.on_conflict && cursor.is("do") {
            if next_word_is(cursor, "nothing") {
                write.conflict = write.conflict.or(Some(Conflict::Nothing));
            } else if next_word_is(cursor, "update") {
                cursor.advance();
                if next_word_is(cursor, "set") {
                    cursor.advance();
                }
                write.conflict = Some(Conflict::Update);
                write.set = write.set.take().or_else(|| Some(cursor.lexer.clone()));
            }
        } else if self.source == Source::Values {
            // More than a list of rows: `VALUES (..) UNION ..`
            self.source = Source::Other;
            write.rows = None;
        }
    }
}

fn next_word_is(cursor: &Cursor<'_>, keyword: &str) -> bool {
    let mut next = cursor.clone();
    next.advance();
    next.is(keyword)
}

/// The columns that are set, from behind the first SET on.
pub(super) fn columns_set(lexer: Lexer<'_>) -> Vec<Cow<'_, str>> {
    const ENDS: [&str; 6] = ["from", "where", "returning", "order", "limit", "on"];
    let (dialect, text) = (lexer.dialect(), lexer.clone());
    let mut columns = Vec::new();
    // Whether a column's name is due; in how many parentheses and brackets; whether in a list of names.
    let (mut due, mut depth, mut list, mut within, mut distinct) = (true, 0_usize, false, true, false);
    for token in lexer {
        let word = if token.kind == Kind::Word { text.text(token) } else { "" };
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        match token.kind {
            Kind::Sign(b';') => break,
            Kind::Sign(b'(' | b'[') => {
                depth += 1;
                list |= due && within;
            }
            Kind::Sign(b')' | b']') => {
                depth = depth.saturating_sub(1);
                list &= depth > 0;
            }
            Kind::Sign(b',') if within => due = depth == 0 || (list && depth == 1),
            Kind::Word if depth == 0 && is("returning") => break,
            Kind::Word if depth == 0 && !within && is("set") => (within, due) = (true, true),
            Kind::Word if depth == 0 && !distinct && ENDS.iter().any(|end| is(end)) => within = false,
            _ if due && within => {
                columns.extend(dialect.name(&text, token));
                due = false;
            }
            _ => {}
        }
        distinct = is("distinct");
    }
    columns
}
