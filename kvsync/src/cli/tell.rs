//! What a command has to say, for people and for programs.

use std::error::Error as StdError;
use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

/// What came of a command.
pub(super) struct Told {
    /// For programs.
    pub(super) json: Value,
    /// For people, a line each.
    pub(super) lines: Vec<String>,
    /// Whether all is well.
    pub(super) well: bool,
}

/// How things are said.
pub(super) struct Voice {
    pub(super) json: bool,
}

impl Voice {
    /// Says what came of a command.
    pub(super) fn tell(&self, told: &Told) -> ExitCode {
        let text = if self.json { told.json.to_string() } else { told.lines.join("\n") };
        // Nobody may be listening any more.
        let _ = writeln!(std::io::stdout(), "{text}");
        if told.well { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    /// Says why a command could not be done.
    pub(super) fn failed(&self, error: &dyn StdError, retryable: bool) -> ExitCode {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let text = without_passwords(&text);
        if self.json {
            let _ = writeln!(std::io::stdout(), "{}", json!({ "error": text, "retryable": retryable }));
        } else {
            let _ = writeln!(std::io::stderr(), "error: {text}");
        }
        ExitCode::from(2)
    }
}

/// A text in which nothing stands between `://` and `@`. A factory of the application's may fail with its URL.
fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|character: char| character.is_whitespace() || "\"'`<>".contains(character));
        let (url, behind) = after.split_at(end.unwrap_or(after.len()));
        // A password may hold what stands behind it in a URL, an `@` not last of all.
        let (secret, shown) = url.rsplit_once('@').map_or(("", url), |(secret, shown)| (secret, shown));
        if !secret.is_empty() {
            out.push_str("***@");
        }
        out.push_str(shown);
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::without_passwords;

    #[test]
    fn no_password_is_told() {
        for (text, told) in [
            ("no redis at redis://user:pass@host:1/0; is it up?", "no redis at redis://***@host:1/0; is it up?"),
            ("`postgres://u:p@ss/w@h/db` and http://plain/x", "`postgres://***@h/db` and http://plain/x"),
            ("nothing here: a@b", "nothing here: a@b"),
        ] {
            assert_eq!(without_passwords(text), told);
        }
    }
}
