//! Makes sure that the tools are on this machine.

use std::env;
use std::fs::File;
use std::io;
use std::process::Command;

use rustix::process::geteuid;
use xtask::tools::{Tool, install_command};
use xtask::{Error, Result};

use crate::run;

/// Installs what is missing when root runs this on Debian or Ubuntu; elsewhere the error says which command does it.
pub(crate) fn missing_tools() -> Result<()> {
    if missing().is_empty() {
        return Ok(());
    }
    if !geteuid().is_root() || Command::new("apt-get").arg("--version").output().is_err() {
        return Err(still_missing(&missing()));
    }
    // Two of us at once would disturb each other: `apt-get update` deletes packages that an install is about to use.
    let lock = env::temp_dir().join("kvsync-install.lock");
    let _locked = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Error::new(format!("cannot lock {}: {error}", lock.display())))?;
    let tools = missing();
    if tools.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = tools.iter().map(|tool| tool.debian_package()).collect();
    eprintln!("xtask: installing {}", packages.join(", "));
    if install(&packages).is_err() {
        run::succeed(&mut apt_get(&["update"]))?;
        install(&packages)?;
    }
    match missing() {
        tools if tools.is_empty() => Ok(()),
        tools => Err(still_missing(&tools)),
    }
}

fn missing() -> Vec<Tool> {
    Tool::ALL.into_iter().filter(|tool| tool.find().is_none()).collect()
}

fn still_missing(tools: &[Tool]) -> Error {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    Error::new(format!("the tests need {}; to install: {}", names.join(", "), install_command(tools)))
}

fn install(packages: &[&str]) -> Result<()> {
    run::succeed(apt_get(&["install", "-y", "--no-install-recommends"]).args(packages))
}

/// The packages register system services. Outside of run level 1 they would be started too, and under systemd they may be
/// all the same; we use private servers in any case.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    // Our own output may be read by a shell: `cargo xtask servers` prints `export` lines.
    command.stdout(io::stderr()).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}
