//! Cuts SQL text into tokens. Whitespace and comments are left out; nothing is allocated.

use super::Dialect;
#[cfg(feature = "fuzzing")]
use super::fuzzing::look_at;

/// Counts bytes that are looked at, where a fuzzer wants to know.
#[cfg(not(feature = "fuzzing"))]
#[inline(always)]
const fn look_at(_bytes: usize) {}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in quotes, backticks or brackets.
    Name,
    /// A literal in single or dollar quotes.
    Text,
    /// A number or a placeholder: nothing that a statement's shape depends on.
    Value,
    /// One character of anything else.
    Sign(u8),
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn is(self, sign: u8) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

/// The tokens of a text, from a position on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    dialect: Dialect,
    position: usize,
}

impl<'a> Lexer<'a> {
    /// A zero byte ends the text, as it does for the databases.
    pub(super) fn new(text: &'a str, dialect: Dialect) -> Self {
        Self { text: text.split('\0').next().unwrap_or_default(), dialect, position: 0 }
    }

    /// The same text from this position on, which must be a token's start.
    pub(super) fn moved_to(&self, position: usize) -> Self {
        Self { position, ..self.clone() }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The text of a token; empty for one that is not of this text.
    pub(super) fn text(&self, token: Token) -> &'a str {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// The byte `ahead` of the position; zero beyond the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.position + ahead).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, holds: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.position..).unwrap_or_default();
        let skipped = rest.iter().position(|&byte| !holds(byte)).unwrap_or(rest.len());
        look_at(skipped);
        self.position += skipped;
    }

    /// Moves behind the next `mark`, or to the end.
    fn skip_behind(&mut self, mark: &str) {
        let rest = self.text.get(self.position..).unwrap_or_default();
        self.position = rest.find(mark).map_or(self.text.len(), |at| self.position + at + mark.len());
    }

    /// Skips whitespace and comments, and says whether a line ended among them.
    fn skip_blank(&mut self) -> bool {
        let mut broken = false;
        loop {
            match self.peek(0) {
                b' ' | b'\t' | 0x0b | 0x0c => self.position += 1,
                b'\n' | b'\r' => {
                    broken = true;
                    self.position += 1;
                }
                b'-' if self.peek(1) == b'-' => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                b'/' if self.peek(1) == b'*' => self.skip_comment(),
                // SQLite takes a byte order mark for a space.
                0xef if self.dialect == Dialect::Sqlite && self.peek(1) == 0xbb && self.peek(2) == 0xbf => {
                    self.position += 3;
                }
                _ => return broken,
            }
        }
    }

    fn skip_comment(&mut self) {
        self.position += 2;
        if self.dialect == Dialect::Sqlite {
            return self.skip_behind("*/");
        }
        let mut depth = 1;
        while depth > 0 && self.peek(0) != 0 {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.position += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.position += 2;
                }
                _ => self.position += 1,
            }
        }
    }

    /// Skips a quoted text whose quotes are doubled inside it; `escapes`: a backslash too hides a quote.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) {
        self.position += 1;
        loop {
            self.skip_while(|byte| byte != quote && !(escapes && byte == b'\\'));
            match (self.peek(0), self.peek(1)) {
                (b'\\', _) if escapes => self.position = (self.position + 2).min(self.text.len()),
                (byte, next) if byte == quote && next == quote => self.position += 2,
                (byte, _) if byte == quote => {
                    self.position += 1;
                    return;
                }
                _ => return self.position = self.text.len(),
            }
        }
    }

    /// Skips `E'..'`, and the further parts that stand on lines of their own: they too are read with
    /// escapes.
    fn skip_escaped(&mut self) {
        loop {
            self.skip_quoted(b'\'', true);
            let end = self.position;
            if !(self.skip_blank() && self.peek(0) == b'\'') {
                return self.position = end;
            }
        }
    }

    /// Skips `$tag$..$tag$`; false when none stands here.
    fn skip_dollar_quoted(&mut self) -> bool {
        let start = self.position;
        self.position += 1;
        if !self.peek(0).is_ascii_digit() {
            self.skip_while(|byte| byte != b'$' && continues_word(byte));
            if self.peek(0) == b'$' {
                self.position += 1;
                let tag = self.text.get(start..self.position).unwrap_or_default();
                self.skip_behind(tag);
                return true;
            }
        }
        self.position = start;
        false
    }

    fn skip_number(&mut self) {
        if self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X') {
            self.position += 2;
            return self.skip_while(|byte| byte.is_ascii_hexdigit() || byte == b'_');
        }
        self.skip_while(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'_');
        let signed = usize::from(matches!(self.peek(1), b'+' | b'-'));
        if matches!(self.peek(0), b'e' | b'E') && self.peek(1 + signed).is_ascii_digit() {
            self.position += 1 + signed;
            self.skip_while(|byte| byte.is_ascii_digit() || byte == b'_');
        }
    }

    fn take(&mut self) -> Kind {
        let sqlite = self.dialect == Dialect::Sqlite;
        match self.peek(0) {
            b'e' | b'E' if !sqlite && self.peek(1) == b'\'' => {
                self.position += 1;
                self.skip_escaped();
                Kind::Text
            }
            byte if starts_word(byte) => {
                self.skip_while(continues_word);
                Kind::Word
            }
            b'0'..=b'9' => {
                self.skip_number();
                Kind::Value
            }
            b'\'' => {
                self.skip_quoted(b'\'', false);
                Kind::Text
            }
            b'"' => {
                self.skip_quoted(b'"', false);
                Kind::Name
            }
            b'`' if sqlite => {
                self.skip_quoted(b'`', false);
                Kind::Name
            }
            b'[' if sqlite => {
                self.skip_behind("]");
                Kind::Name
            }
            b'$' if !sqlite && self.skip_dollar_quoted() => Kind::Text,
            b'$' if !sqlite => self.take_placeholder(|byte| byte.is_ascii_digit()),
            b'?' if sqlite => self.take_placeholder(|byte| byte.is_ascii_digit()),
            b'$' | b':' | b'@' | b'#' if sqlite => self.take_placeholder(continues_word),
            sign => {
                self.position += 1;
                Kind::Sign(sign)
            }
        }
    }

    fn take_placeholder(&mut self, continues: impl Fn(u8) -> bool) -> Kind {
        self.position += 1;
        self.skip_while(continues);
        Kind::Value
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        let before = self.position;
        self.skip_blank();
        let start = self.position;
        if self.peek(0) == 0 {
            return None;
        }
        let kind = self.take();
        look_at(self.position - before);
        Some(Token { kind, start, end: self.position })
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}
