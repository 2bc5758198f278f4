//! One Postgres server.

use std::ffi::OsString;
use std::ops::Deref;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::port::with_free_port;
use super::process::{Process, Spec};
use crate::error::Context;
use crate::tools::Tool;
use crate::{Error, Result};

/// Every commit is acknowledged when its record is with the system, which outlives every death of the server's processes
/// that a test can cause; only `fsync`, which guards against the death of the machine, is off.
const SETTINGS: [(&str, &str); 5] = [
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "on"),
    ("max_connections", "200"),
];

/// A running Postgres server with the superuser `postgres` and no passwords; stopped, and its folder removed, when
/// dropped. Started by root, it runs as the user `postgres`.
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    process: Process,
    // Held for its drop, after that of the process.
    _folder: TempDir,
}

impl Postgres {
    /// Makes a database cluster, starts a server on it and waits until it accepts connections.
    ///
    /// # Errors
    /// When Postgres is missing or does not start; the message quotes its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// As [`Postgres::start`], with further settings by their name in `postgresql.conf`.
    ///
    /// # Errors
    /// When Postgres is missing or does not start; the message quotes its log.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        let program = Tool::Postgres.require()?;
        let programs = program.parent().unwrap_or(Path::new("/")).to_owned();
        let folder = TempDir::with_prefix("kvsync-postgres-");
        let folder = folder.context(|| "cannot make a temporary folder".to_owned())?;
        let identity = identity()?;
        if let Some((user, group)) = identity {
            chown(folder.path(), Some(user), Some(group))
                .context(|| format!("cannot give {} to the user postgres", folder.path().display()))?;
        }
        init(&programs.join("initdb"), folder.path(), identity)?;
        let (port, process) = with_free_port(|port| {
            let arguments = arguments(folder.path(), port, settings);
            let process = Process::start(Spec {
                name: "postgres",
                program: program.clone(),
                arguments,
                identity,
                folder: folder.path().to_owned(),
                ready: "database system is ready to accept connections",
                stop: Signal::INT,
                end: Signal::QUIT,
            })?;
            Ok((port, process))
        })?;
        Ok(Self { port, programs, process, _folder: folder })
    }

    /// The URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// The URL of a database of this server.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates a database and returns its URL.
    ///
    /// # Errors
    /// When the server refuses, for instance because the database exists.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.database_url(name))
    }

    /// Runs SQL by `psql` and returns the rows: one a line, columns separated by `|`.
    ///
    /// # Errors
    /// When the server does not run or refuses the statement.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.database_url(database)]);
        run(psql.args(["-c", statement])).context(|| format!("`{statement}` at {}", self.url()))
    }
}

impl Deref for Postgres {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn arguments(folder: &Path, port: u16, settings: &[(&str, &str)]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), folder.join("data").into(), "-p".into()];
    arguments.extend([port.to_string().into(), "-k".into(), folder.into()]);
    for (name, value) in SETTINGS.iter().chain(settings) {
        arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    arguments
}

fn init(initdb: &Path, folder: &Path, identity: Option<(u32, u32)>) -> Result<()> {
    let mut command = Command::new(initdb);
    command.arg("-D").arg(folder.join("data")).current_dir(folder).env("LC_ALL", "C");
    command.args(["-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]);
    if let Some((user, group)) = identity {
        command.uid(user).gid(group);
    }
    run(&mut command).map(drop)
}

/// Postgres refuses to run as root; then it is run as the user that its packages create.
fn identity() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let ask = |flag: &str| -> Result<u32> {
        let said = run(Command::new("id").args([flag, "postgres"]));
        let said = said.context(|| "Postgres cannot run as root; create a user `postgres` for it".to_owned())?;
        said.parse().context(|| format!("`id {flag} postgres` said `{said}`"))
    };
    Ok(Some((ask("-u")?, ask("-g")?)))
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::new(format!("{program} failed ({}): {said}", output.status)))
    }
}
