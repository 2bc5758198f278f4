//! Reads lists of SQL literals, as SQLite's `quote` writes them, and nothing else: what stands in a row of
//! the outbox becomes a part of a statement, and must not be one of its own.

use crate::error::{Error, ErrorKind, Result};

/// How many values a list has at most: SQLite takes no more columns.
const MOST: usize = 2000;

/// A list such as `1, 'a'` or `1 AS "id", 'a' AS "name"` as the columns of a SELECT. Values without a name
/// get those of `names`, in their order.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] for whatever is not a list of literals.
pub(in super::super) fn columns(list: &str, names: &[&str]) -> Result<String> {
    let mut scanner = Scanner { rest: list };
    let mut sql = String::with_capacity(list.len() + 32);
    for place in 0..MOST {
        let literal = scanner.literal().ok_or_else(wrong)?;
        let name = match scanner.name().ok_or_else(wrong)? {
            Some(name) => name,
            None => names.get(place).map(|name| (*name).to_owned()).ok_or_else(wrong)?,
        };
        let comma = if place == 0 { "" } else { ", " };
        sql.extend([comma, literal, " AS \"", &name.replace('"', "\"\""), "\""]);
        scanner.blanks();
        if scanner.rest.is_empty() {
            return Ok(sql);
        }
        scanner.rest = scanner.rest.strip_prefix(',').ok_or_else(wrong)?;
    }
    Err(wrong())
}

fn wrong() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "a row of the outbox shows a row that is no list of SQL literals, as `quote()` makes them",
    )
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// The next `length` bytes, which are ASCII or end where a character does.
    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn literal(&mut self) -> Option<&'a str> {
        self.blanks();
        let bytes = self.rest.as_bytes();
        match *bytes.first()? {
            b'\'' => self.quoted('\''),
            b'x' | b'X' if bytes.get(1) == Some(&b'\'') => {
                let digits = bytes.iter().skip(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                (digits % 2 == 0 && bytes.get(2 + digits) == Some(&b'\'')).then_some(())?;
                self.take(digits + 3)
            }
            b'n' | b'N' => {
                let word = self.take(4)?;
                (word.eq_ignore_ascii_case("null") && !self.in_word()).then_some(word)
            }
            _ => self.number(),
        }
    }

    /// Text in quotes, which stand doubled within it.
    fn quoted(&mut self, quote: char) -> Option<&'a str> {
        let inner = self.rest.strip_prefix(quote)?;
        let mut from = 0;
        loop {
            let end = from + inner.get(from..)?.find(quote)?;
            if inner.get(end + 1..)?.starts_with(quote) {
                from = end + 2;
            } else {
                return self.take(end + 2);
            }
        }
    }

    /// `-12`, `1.5e-3` and the like.
    fn number(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
        let mut length = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
        let whole = digits(length);
        (whole > 0).then_some(())?;
        length += whole;
        if bytes.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'-' | b'+')));
            let exponent = digits(length + 1 + sign);
            (exponent > 0).then_some(())?;
            length += 1 + sign + exponent;
        }
        let number = self.take(length)?;
        (!self.in_word()).then_some(number)
    }

    /// `AS` and a name, if that is what follows; nothing in place of a wrong one.
    #[allow(clippy::option_option, reason = "wrong, absent, or there")]
    fn name(&mut self) -> Option<Option<String>> {
        self.blanks();
        let begins = self.rest.get(..2).is_some_and(|word| word.eq_ignore_ascii_case("as"));
        if !begins {
            return Some(None);
        }
        self.take(2)?;
        self.blanks();
        let quote = self.rest.chars().next()?;
        if quote == '"' || quote == '`' {
            let quoted = self.quoted(quote)?;
            let inner = quoted.get(1..quoted.len() - 1)?;
            let twice: String = [quote, quote].iter().collect();
            return (!inner.is_empty()).then(|| Some(inner.replace(&twice, &quote.to_string())));
        }
        let length = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = self.take(length)?;
        (!name.is_empty() && !self.in_word()).then(|| Some(name.to_owned()))
    }

    /// Whether a word goes on here.
    fn in_word(&self) -> bool {
        self.rest.chars().next().is_some_and(|next| next.is_alphanumeric() || "_$.".contains(next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(list: &str, names: &[&str]) -> String {
        columns(list, names).unwrap()
    }

    #[test]
    fn what_quote_writes_is_read() {
        assert_eq!(ok("1", &["id"]), "1 AS \"id\"");
        assert_eq!(
            ok("-1,'it''s', X'0aFF' ,NULL", &["a", "b", "c", "d\""]),
            "-1 AS \"a\", 'it''s' AS \"b\", X'0aFF' AS \"c\", NULL AS \"d\"\"\""
        );
        assert_eq!(ok("1.5e-3 AS \"a b\", '' AS n, 9.0 as `x`", &[]), "1.5e-3 AS \"a b\", '' AS \"n\", 9.0 AS \"x\"");
        assert_eq!(ok("'é'", &["id"]), "'é' AS \"id\"");
    }

    #[test]
    fn nothing_else_is() {
        for hostile in [
            "",
            " ",
            ",",
            "1,",
            "1 2",
            "id",
            "1 + 1",
            "(1)",
            "'a",
            "X'0'",
            "X'0g'",
            "'a' || 'b'",
            "1; DROP TABLE users",
            "1 --",
            "1 /* */",
            "(SELECT 1)",
            "randomblob(9)",
            "NULLIF",
            "nul",
            "1 AS",
            "1 AS \"",
            "1 AS \"\"",
            "1 AS a b",
            "1 AS a.b",
            "1e",
            "- 1",
            ".5",
            "1_0",
            "0x1G",
            "1 FROM users",
            "'a' COLLATE NOCASE",
            "\"id\"",
            "1 AS 'a'",
            "1 AS \"a\" FROM users",
            "?1",
            ":a",
            "é",
            "'\u{0}",
            "1\u{0}",
            "1 ASé",
        ] {
            assert!(columns(hostile, &["id", "other"]).is_err(), "{hostile}");
        }
        assert!(columns("1, 2", &["id"]).is_err(), "a value without a name");
    }

    fn literal() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| {
                format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat())
            }),
            Just("NULL".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn every_list_of_literals_is_read_as_it_is(list in prop::collection::vec((literal(), "[^\u{0}]{1,5}"), 1..5)) {
            let named = |(literal, name): &(String, String)| format!("{literal} AS \"{}\"", name.replace('"', "\"\""));
            let sql: Vec<String> = list.iter().map(named).collect();
            prop_assert_eq!(columns(&sql.join(", "), &[])?, sql.join(", "));
        }

        #[test]
        fn no_text_makes_it_panic_or_grow(text in "[-1eX'\",.aAsS` é]{0,24}") {
            if let Ok(sql) = columns(&text, &["a", "b"]) {
                prop_assert!(sql.len() <= text.len() * 8 + 16);
            }
        }
    }
}
