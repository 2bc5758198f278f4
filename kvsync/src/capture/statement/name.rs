//! Names of tables and columns, as the database compares them.

use std::borrow::Cow;

use super::Dialect;
use super::lexer::{Kind, Lexer, Token};

/// The name of a table as a statement gives it, folded as the database folds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TableName<'a> {
    /// The schema, where one is written.
    pub(crate) schema: Option<Cow<'a, str>>,
    /// The table.
    pub(crate) name: Cow<'a, str>,
}

impl Dialect {
    /// A name whose quotes are already off, as the database compares it: SQLite does not heed the case
    /// of ASCII letters, Postgres heeds the first 63 bytes only.
    pub(crate) fn fold(self, name: Cow<'_, str>) -> Cow<'_, str> {
        match self {
            Self::Sqlite => lower(name),
            Self::Postgres => match name {
                Cow::Borrowed(name) => Cow::Borrowed(head(name)),
                Cow::Owned(mut name) => {
                    name.truncate(head(&name).len());
                    Cow::Owned(name)
                }
            },
        }
    }

    /// The name that this token stands for; nothing when it is no name. SQLite takes text in single
    /// quotes for a name where only a name can stand.
    pub(super) fn name<'a>(self, lexer: &Lexer<'a>, token: Token) -> Option<Cow<'a, str>> {
        let text = lexer.text(token);
        match token.kind {
            Kind::Word => Some(self.fold(lower(Cow::Borrowed(text)))),
            Kind::Name => Some(self.fold(unquote(text)?)),
            Kind::Text if self == Self::Sqlite => Some(self.fold(unquote(text)?)),
            _ => None,
        }
    }
}

/// The content of a quoted name; nothing when the closing quote is missing.
fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let mut inner = text.chars();
    let (open, close) = (inner.next()?, inner.next_back()?);
    let (content, twice, once) = match (open, close) {
        ('[', ']') => return Some(Cow::Borrowed(inner.as_str())),
        ('"', '"') => (inner.as_str(), "\"\"", "\""),
        ('`', '`') => (inner.as_str(), "``", "`"),
        ('\'', '\'') => (inner.as_str(), "''", "'"),
        _ => return None,
    };
    Some(if content.contains(twice) { Cow::Owned(content.replace(twice, once)) } else { Cow::Borrowed(content) })
}

fn lower(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { name }
}

/// The part of a name that Postgres heeds.
fn head(name: &str) -> &str {
    const LONGEST: usize = 63;
    name.get(..name.floor_char_boundary(LONGEST)).unwrap_or(name)
}
