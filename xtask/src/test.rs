//! `cargo xtask test`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use xtask::{Error, Result};

use crate::install;
use crate::outcome::Outcome;
use crate::run::{self, cargo};
use crate::steps::Steps;
use crate::suite::Suite;
use crate::torture;

/// Every task builds the whole workspace with one set of features, all but `foundationdb`, which cannot be linked here: with one feature set nothing is compiled twice.
pub(crate) const EVERYTHING: [&str; 3] = ["--workspace", "--features", "full"];

/// Longer than any example should take on a slow machine; one that waits for something is stopped.
const EXAMPLE_LIMIT: Duration = Duration::from_mins(10);

/// Examples that end when they are told to, or work together; the tests start them, ask them and end them.
const SERVICES: [&str; 3] = ["consumer", "person_api", "publisher"];

/// Runs the tests against real servers, then the examples, and says what ran against what.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    install::missing_tools()?;
    install::begin_dynoxide();
    // Compiled before the servers start, so that a mistake shows at once and no server idles.
    run::succeed(cargo(&["test", "--no-run"]).args(scope(arguments)).args(before_dashes(arguments)))?;
    let suite = Suite::start()?;
    let mut outcome = Outcome::default();
    let mut steps = Steps::default();
    steps.take("tests", || tests(&suite, arguments, &mut outcome))?;
    if arguments.is_empty() {
        examples(&suite, &mut steps)?;
        torture::short_runs(&mut steps)?;
    }
    println!("\n== What ran\nAgainst:\n{}\nTests:\n{outcome}\nSteps:", suite.describe());
    let verdict = steps.finish();
    if !arguments.is_empty() {
        println!("  the examples and the torture did not run, because arguments were given");
    }
    verdict
}

fn tests(suite: &Suite, arguments: &[String], outcome: &mut Outcome) -> Result<()> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(scope(arguments)).args(arguments).envs(suite.variables());
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let status = run::watch(&mut command, |line| outcome.see(line))?;
    let mut complaints = outcome.complaints();
    if !status.success() && complaints.is_empty() {
        complaints.push(format!("`{}` failed ({status})", run::line_of(&command)));
    }
    if complaints.is_empty() { Ok(()) } else { Err(Error::new(complaints.join("; "))) }
}

fn examples(suite: &Suite, steps: &mut Steps) -> Result<()> {
    let examples = built_examples()?;
    if examples.is_empty() {
        return Err(Error::new("found no example to run; is the package `examples` still in the workspace?"));
    }
    for (name, program) in examples.into_iter().filter(|(name, _)| !SERVICES.contains(&name.as_str())) {
        steps.take(&format!("example {name}"), || {
            let mut command = Command::new(&program);
            let status = run::finish(command.envs(suite.variables()), Some(EXAMPLE_LIMIT))?;
            if status.success() { Ok(()) } else { Err(Error::new(format!("it ended with {status}"))) }
        })?;
    }
    Ok(())
}

/// The examples, as `cargo test` has built them.
fn built_examples() -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo(&["build", "--examples", "--message-format=json-render-diagnostics"]);
    let output = command.args(EVERYTHING).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| Error::new(format!("cannot run cargo: {error}")))?;
    if !output.status.success() {
        return Err(Error::new(format!("`{}` failed ({})", run::line_of(&command), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(example).collect())
}

/// The name and path of an example, if this message of cargo announces one.
fn example(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    if !target.get("kind")?.as_array()?.iter().any(|kind| kind == "example") {
        return None;
    }
    Some((target.get("name")?.as_str()?.to_owned(), message.get("executable")?.as_str()?.into()))
}

/// The whole workspace, unless the arguments name packages, with the features that they name.
fn scope(arguments: &[String]) -> &'static [&'static str] {
    let names_packages = |argument: &String| argument.starts_with("-p") || argument.starts_with("--package");
    if before_dashes(arguments).iter().any(names_packages) { &[] } else { &EVERYTHING }
}

/// The arguments for cargo, without those for the test binaries.
fn before_dashes(arguments: &[String]) -> &[String] {
    arguments.split(|argument| argument == "--").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{EVERYTHING, example, scope};

    #[test]
    fn an_example_is_found_in_the_messages_of_cargo() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"quickstart"},
            "executable":"target/debug/examples/quickstart"}"#;
        let found = example(message);
        assert_eq!(found, Some(("quickstart".into(), "target/debug/examples/quickstart".into())));
        assert_eq!(example(&message.replace("[\"example\"]", "[\"bin\"]")), None);
        assert_eq!(example(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn named_packages_replace_the_workspace() {
        let scope = |line: &str| scope(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(scope("--test stores -- -p"), EVERYTHING);
        assert!(scope("-p kvsync").is_empty());
        assert!(scope("--package=kvsync").is_empty());
    }
}
