//! Commands that can be interrupted: each leads a process group, which ends as a whole.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use xtask::{Error, Result};

use crate::interrupt;

/// A call of the cargo that runs us, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(arguments).current_dir(workspace_root());
    // What `cargo run` tells us about ourselves is not for the build scripts of others: some would run again for it.
    for (name, _) in env::vars_os().filter(|(name, _)| is_about_us(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end; an error if it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = finish(command, None)?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("`{}` failed ({status})", line_of(command)))) }
}

/// Runs a command to its end; an error if it cannot be run, takes longer than the limit, or the user wants to stop.
pub(crate) fn finish(command: &mut Command, limit: Option<Duration>) -> Result<ExitStatus> {
    interrupt::check()?;
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    let mut group = Group(child.map_err(|error| Error::new(format!("cannot run `{}`: {error}", line_of(command))))?);
    let start = Instant::now();
    loop {
        if let Some(status) = group.status()? {
            return Ok(status);
        }
        interrupt::check()?;
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            return Err(Error::new(format!("`{}` took longer than {limit:?} and was stopped", line_of(command))));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// As [`finish`]; what the command prints passes through, and each line is shown to `see` too. Both of its outputs
/// share one pipe, so that lines keep their order.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str) + Send) -> Result<ExitStatus> {
    let pipe = |error| Error::new(format!("cannot make a pipe for `{}`: {error}", line_of(command)));
    let (reader, writer) = io::pipe().map_err(pipe)?;
    let second = writer.try_clone().map_err(pipe)?;
    command.stdout(writer).stderr(second);
    thread::scope(|scope| {
        let printing = scope.spawn(move || copy_lines(BufReader::new(reader), &mut see));
        let status = finish(command, None);
        // The command keeps our ends of the pipe, and without closing them it never ends.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let printed = printing.join().map_err(|_| Error::new("the thread that prints panicked"))?;
        printed.map_err(|error| Error::new(format!("cannot pass on the output: {error}")))?;
        status
    })
}

/// How a command is written in a shell, nearly.
pub(crate) fn line_of(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    [program].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

fn is_about_us(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

fn workspace_root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().map(PathBuf::from).unwrap_or(package)
}

fn copy_lines(mut from: impl BufRead, see: &mut impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        see(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    io::stdout().flush()
}

/// A command and all that it started in its process group.
struct Group(Child);

impl Group {
    fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().map_err(|error| Error::new(format!("cannot wait for a command: {error}")))
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone already needs no signal.
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.status(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.status(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}
