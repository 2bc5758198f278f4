//! `cargo xtask torture`.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;
use xtask::{Error, Result};

use crate::install;
use crate::run::{self, cargo};
use crate::steps::Steps;
use crate::test::EVERYTHING;

const PROGRAM: &str = "kvsync-torture";

/// Builds the program and runs it; it starts its own servers. How it ends is how we end.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    install::missing_tools()?;
    let status = run::finish(Command::new(program()?).args(arguments), None)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map(ExitCode::from).ok_or_else(|| Error::new(format!("the torture ended with {status}")))
}

/// A few seconds for each of these, with scripts that are always the same; longer runs draw their own.
const SHORT_RUNS: [&str; 5] = [
    "--store redis --db postgres --delivery memory --seconds 4 --seed 1",
    "--store redis --db postgres --delivery triggers --seconds 4 --seed 2",
    "--store embedded --db sqlite --delivery outbox --seconds 3 --seed 3",
    "--store embedded --db sqlite --delivery outbox --transport nats --seconds 4 --seed 6",
    "--store redis --db sqlite --delivery outbox --transport rabbitmq --seconds 3 --seed 12",
];

/// Longer than a short run takes on a slow machine.
const SHORT_LIMIT: Duration = Duration::from_mins(10);

/// Takes a step for each short run.
pub(crate) fn short_runs(steps: &mut Steps) -> Result<()> {
    let program = program()?;
    for run in SHORT_RUNS {
        steps.take(&format!("torture {run}"), || {
            let status = run::finish(Command::new(&program).args(run.split(' ')), Some(SHORT_LIMIT))?;
            if status.success() { Ok(()) } else { Err(Error::new(format!("it ended with {status}"))) }
        })?;
    }
    Ok(())
}

/// Where the program is, built with the features that the tests have, so that nothing is compiled twice.
pub(crate) fn program() -> Result<PathBuf> {
    let mut command = cargo(&["build", "--bin", PROGRAM, "--message-format=json-render-diagnostics"]);
    let output = command.args(EVERYTHING).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| Error::new(format!("cannot run cargo: {error}")))?;
    if !output.status.success() {
        return Err(Error::new(format!("`{}` failed ({})", run::line_of(&command), output.status)));
    }
    let built = String::from_utf8_lossy(&output.stdout).lines().find_map(executable);
    built.ok_or_else(|| Error::new(format!("cargo built no `{PROGRAM}`; is the package still in the workspace?")))
}

/// The path of the program, if this message of cargo announces it.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    (message.get("target")?.get("name")? == PROGRAM).then_some(())?;
    Some(message.get("executable")?.as_str()?.into())
}
