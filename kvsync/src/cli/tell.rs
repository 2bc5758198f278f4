//! What a command has to say, for people and for programs.

use std::error::Error as StdError;
use std::io::Write;
use std::iter::successors;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, failure_text, without_passwords};

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

    /// Says for what a command waits before it begins.
    pub(super) fn waits(&self, error: &(dyn StdError + 'static)) {
        if self.json {
            say(&Value::Object(failed(error)));
        } else {
            let _ = writeln!(std::io::stderr(), "not begun yet: {}", without_passwords(&failure_text(error)));
        }
    }
}

/// Whether a retry may help. An error of the application's may have one of kvsync's as its cause.
pub(super) fn may_pass(error: &(dyn StdError + 'static)) -> bool {
    let own = successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref::<Error>());
    own.is_some_and(Error::is_retryable)
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

/// The fields of a failure.
fn failed(error: &(dyn StdError + 'static)) -> Map<String, Value> {
    let told = [("error", without_passwords(&failure_text(error)).into()), ("retryable", may_pass(error).into())];
    told.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect()
}
