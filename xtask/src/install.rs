//! Makes sure that the tools are on this machine.

use std::env;
use std::fs::File;
use std::io;
use std::process::Command;
use std::{fs, thread};

use rustix::process::geteuid;
use xtask::tools::{Tool, dynoxide_root, install_command, install_dynoxide};
use xtask::{Error, Result};

use crate::run;

/// Begins to build dynoxide where it is missing, which takes minutes, beside whatever comes next. Whoever needs it
/// waits for it by [`dynoxide`], which also tells of a failure.
pub(crate) fn begin_dynoxide() {
    if Tool::Dynoxide.find().is_none() {
        thread::spawn(dynoxide);
    }
}

/// Builds dynoxide where it is missing, or waits for whoever builds it.
pub(crate) fn dynoxide() -> Result<()> {
    if Tool::Dynoxide.find().is_some() {
        return Ok(());
    }
    let root = dynoxide_root();
    let wrong = |error| Error::new(format!("cannot lock {}: {error}", root.display()));
    fs::create_dir_all(&root).map_err(wrong)?;
    let _locked = File::create(root.join("lock")).and_then(|file| file.lock().map(|()| file)).map_err(wrong)?;
    if Tool::Dynoxide.find().is_none() {
        eprintln!("xtask: building dynoxide, the tests' DynamoDB, into {}", root.display());
        let words = install_dynoxide();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run::succeed(run::cargo(&words).stdout(io::stderr()))?;
        // What it was built from is of no use any more.
        let _ = fs::remove_dir_all(root.join("target"));
    }
    Tool::Dynoxide.require().map(|_| ())
}

/// Installs what is missing of what the tests need.
pub(crate) fn missing_tools() -> Result<()> {
    tools(&Tool::ALL)
}

/// Installs what is missing when root runs this on Debian or Ubuntu; elsewhere the error says which command does it.
pub(crate) fn tools(wanted: &[Tool]) -> Result<()> {
    let missing = || -> Vec<Tool> { wanted.iter().copied().filter(|tool| tool.find().is_none()).collect() };
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

fn still_missing(tools: &[Tool]) -> Error {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    Error::new(format!("this needs {}; to install: {}", names.join(", "), install_command(tools)))
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
