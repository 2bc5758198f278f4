//! `cargo xtask torture`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use xtask::{Error, Result};

use crate::install;
use crate::run::{self, cargo};
use crate::test::EVERYTHING;

const PROGRAM: &str = "kvsync-torture";

/// Builds the program and runs it; it starts its own servers.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    install::missing_tools()?;
    run::succeed(Command::new(program()?).args(arguments))
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
