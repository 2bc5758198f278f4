//! A place among the tokens of a statement, with one token of sight.

use super::lexer::{Kind, Lexer, Token};
use super::{Dialect, TableName};

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    pub(super) dialect: Dialect,
    /// Stands behind `token`.
    pub(super) lexer: Lexer<'a>,
    pub(super) token: Option<Token>,
    /// Where the token before `token` ends.
    pub(super) behind: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(sql: &'a str, dialect: Dialect) -> Self {
        let mut lexer = Lexer::new(sql, dialect);
        let token = lexer.next();
        Self { dialect, lexer, token, behind: 0 }
    }

    // The lexer is inlined here and only here: a token handed on through memory doubles the cost of a scan.
    #[inline(never)]
    pub(super) fn advance(&mut self) {
        self.behind = self.token.map_or(self.behind, |token| token.end);
        self.token = self.lexer.next();
    }

    /// A lexer whose next token is this one.
    pub(super) fn lexer_here(&self) -> Option<Lexer<'a>> {
        Some(self.lexer.moved_to(self.token?.start))
    }

    /// The token's text when it is a word, else nothing.
    pub(super) fn word(&self) -> &'a str {
        match self.token {
            Some(token) if token.kind == Kind::Word => self.lexer.text(token),
            _ => "",
        }
    }

    pub(super) fn is(&self, keyword: &str) -> bool {
        self.word().eq_ignore_ascii_case(keyword)
    }

    pub(super) fn is_any(&self, keywords: &[&str]) -> bool {
        let word = self.word();
        keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn is_sign(&self, sign: u8) -> bool {
        self.token.is_some_and(|token| token.is(sign))
    }

    /// Steps over this keyword, if it stands here.
    pub(super) fn eat(&mut self, keyword: &str) -> bool {
        let found = self.is(keyword);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn eat_sign(&mut self, sign: u8) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    /// Steps over a table's name, as written: `table`, `schema.table`, `database.schema.table`.
    pub(super) fn eat_table(&mut self) -> Option<TableName<'a>> {
        let mut table = TableName { schema: None, name: self.eat_name()? };
        for _ in 0..2 {
            if !self.eat_sign(b'.') {
                break;
            }
            table = TableName { schema: Some(table.name), name: self.eat_name()? };
        }
        Some(table)
    }

    fn eat_name(&mut self) -> Option<std::borrow::Cow<'a, str>> {
        let name = self.dialect.name(&self.lexer, self.token?)?;
        self.advance();
        Some(name)
    }

    /// Steps over a name, or a text that stands for one, and gives it as it is written.
    pub(super) fn eat_written_name(&mut self) -> Option<&'a str> {
        let token = self.token?;
        let written = matches!(token.kind, Kind::Word | Kind::Name).then(|| self.lexer.text(token))?;
        self.advance();
        Some(written)
    }

    /// Whether a statement that writes begins here: two words are needed to tell, since each of these
    /// verbs is also a name in Postgres.
    pub(super) fn at_write(&self) -> bool {
        if !self.is_any(&["insert", "update", "delete", "merge", "replace"]) {
            return false;
        }
        let mut next = self.clone();
        next.advance();
        match next.token {
            Some(token) if self.is("update") => matches!(token.kind, Kind::Word | Kind::Name | Kind::Text),
            Some(_) if self.is("delete") => next.is("from"),
            Some(_) if self.is("insert") => next.is_any(&["into", "or"]),
            Some(_) => next.is("into"),
            None => false,
        }
    }

    /// Steps over what is in parentheses, from the opening one on, and says whether a statement in
    /// parentheses within it writes; nothing when the last one is not closed.
    pub(super) fn skip_group(&mut self) -> Option<bool> {
        let (mut depth, mut writes) = (0_usize, false);
        while self.token.is_some() {
            if self.eat_sign(b'(') {
                depth += 1;
            } else if self.eat_sign(b')') {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(writes);
                }
            } else {
                self.advance();
                continue;
            }
            // Behind `)`: the statement of a WITH that stands in the parentheses.
            writes |= self.at_write();
        }
        None
    }
}
