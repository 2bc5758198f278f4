//! What a command has to say, for people and for programs.

use std::error::Error as StdError;
use std::io::Write;
use std::iter::successors;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, failure_text};

/// What came of a command.
pub(super) struct Told {
    /// For programs.
    pub(super) json: Value,
    /// For people, a line each.
    pub(super) lines: Vec<String>,
    /// Whether all is well.
    pub(super) well: bool,
    /// Why it could not be done to its end.
    pub(super) failure: Option<Error>,
}

impl Told {
    pub(super) fn new(json: Value, lines: Vec<String>, well: bool) -> Self {
        Self { json, lines, well, failure: None }
    }
}

/// How things are said.
pub(super) struct Voice {
    pub(super) json: bool,
}

impl Voice {
    /// Says what came of a command.
    pub(super) fn tell(&self, told: Told) -> ExitCode {
        let Told { mut json, lines, well, failure } = told;
        if let (Some(error), Value::Object(fields)) = (&failure, &mut json) {
            fields.extend(failed(error));
        }
        if self.json {
            say(&json);
        } else if !lines.is_empty() {
            say(&lines.join("\n"));
        }
        match failure {
            Some(error) if !self.json => self.failed(&error),
            Some(_) => ExitCode::from(2),
            None if well => ExitCode::SUCCESS,
            None => ExitCode::from(1),
        }
    }

    /// Says why a command could not be done.
    pub(super) fn failed(&self, error: &(dyn StdError + 'static)) -> ExitCode {
        if self.json {
            say(&Value::Object(failed(error)));
        } else {
            let _ = writeln!(std::io::stderr(), "error: {}", without_passwords(&failure_text(error)));
        }
        ExitCode::from(2)
    }
}

/// Says in JSON which arguments are not understood, and ends the program.
pub(super) fn misunderstood(error: &clap::Error) -> ! {
    let text = error.to_string();
    let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    say(&Value::Object(failed(&Error::new(ErrorKind::Config, what))));
    std::process::exit(2)
}

/// Writes a line to the standard output. Nobody may be listening any more.
fn say(text: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The fields of a failure. An error of the application's may have one of kvsync's as its cause.
fn failed(error: &(dyn StdError + 'static)) -> Map<String, Value> {
    let own = successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref::<Error>());
    let told = [
        ("error", without_passwords(&failure_text(error)).into()),
        ("retryable", own.is_some_and(Error::is_retryable).into()),
    ];
    told.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect()
}

/// A text in which nothing stands between `://` and `@`. A factory of the application's may fail with its URL.
pub(super) fn without_passwords(text: &str) -> String {
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
