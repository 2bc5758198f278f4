//! Keeps passwords out of what the database's library says: libpq quotes the URL that it cannot read.

use std::error::Error as StdError;

type Cause = Box<dyn StdError + Send + Sync>;

/// The same error; or its text alone, masked, where it or its causes would show a part of a URL that may be
/// a password.
pub(super) fn masked(error: Cause) -> Cause {
    let (mut text, mut tells) = (String::new(), false);
    let mut next: Option<&(dyn StdError + 'static)> = Some(&*error);
    while let Some(cause) = next {
        let (shown, debugged) = (cause.to_string(), format!("{cause:?}"));
        // What stands in front of a zero byte is printed as numbers.
        tells |= debugged.contains("NulError(") || [&shown, &debugged].into_iter().any(|form| mask(form) != *form);
        text += if text.is_empty() { "" } else { ": " };
        text += &mask(&shown);
        next = cause.source();
    }
    if tells { text.into() } else { error }
}

/// Texts of libpq that are followed by a piece of the URL, in quotes.
const QUOTES: [&str; 4] = [
    "percent-encoded token: \"",
    "percent-encoded value: \"",
    "invalid integer value \"",
    "unexpected spaces found in \"",
];
/// Names of settings whose values are secret, at the end of a longer name too.
const SECRETS: [&str; 4] = ["password=", "passwd=", "pass=", "pwd="];
const MASK: &str = "***";

/// A text in which nothing is left that may be a password; more is masked than needs to be.
fn mask(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        text = format!("{scheme}://{MASK}@{host}");
    } else if let Some((before, quoted)) = text.split_once('"')
        && let Some((_, host)) = quoted.rsplit_once('@')
    {
        text = format!("{before}\"{MASK}@{host}");
    }
    for before in QUOTES {
        text = replace_behind(&text, before, |value| value.find('"').unwrap_or(value.len()));
    }
    for name in SECRETS {
        text = replace_behind(&text, name, |value| match value.strip_prefix('\'') {
            Some(quoted) => quoted.rfind('\'').map_or(value.len(), |end| end + 2),
            None => value.find([' ', '&', '"']).unwrap_or(value.len()),
        });
    }
    text
}

/// Masks what stands behind each `mark`, up to where `end` says.
fn replace_behind(text: &str, mark: &str, end: impl Fn(&str) -> usize) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += mark;
        out += MASK;
        out += part.get(end(part)..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_password_is_masked() {
        for (text, shown) in [
            (
                r#"invalid port number: "postgres://app:hunter2@host:x/db""#,
                r#"invalid port number: "postgres://***@host:x/db""#,
            ),
            (r#"no "]" in "postgres://app:hun@ter2@[::1/db""#, r#"no "]" in "postgres://***@[::1/db""#),
            (
                r#"could not translate host name "ter2@host" to address"#,
                r#"could not translate host name "***@host" to address"#,
            ),
            (r#"invalid percent-encoded token: "hun%ter2""#, r#"invalid percent-encoded token: "***""#),
            ("missing \"=\" in host=a password='hun ter2' x", "missing \"=\" in host=a password=*** x"),
            ("postgres:///db?password=hunter2&user=app", "postgres:///db?password=***&user=app"),
            ("connection to server at \"127.0.0.1\", port 1 failed: refused", ""),
        ] {
            let expected = if shown.is_empty() { text } else { shown };
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn an_error_without_one_is_kept_as_it_is() {
        assert!(masked(std::io::Error::other("refused").into()).is::<std::io::Error>());
        let shown = std::io::Error::other("postgres://app:hunter2@host");
        assert_eq!(format!("{:?}", masked(shown.into())), "\"postgres://***@host\"");
    }
}
