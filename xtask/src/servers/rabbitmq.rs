//! One RabbitMQ node, with a port mapper of its own.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::port::with_free_port;
use super::process::{Process, Spec};
use crate::error::Context;
use crate::tools::Tool;
use crate::{Error, Result};

/// How far above a node's port the port lies at which it would meet other nodes. It is free too: `port.rs`.
const DISTRIBUTION: u16 = 10_000;

/// How a RabbitMQ node is set up. The default is a plain port and the user `guest`, who may do everything.
#[derive(Clone, Debug, Default)]
pub struct RabbitMqOptions {
    /// Speak TLS, with a certificate of a fresh authority, and nothing else.
    pub tls: bool,
    /// Users beside `guest`.
    pub users: Vec<RabbitMqUser>,
    /// Further lines of the node's configuration file, such as `max_message_size = 65536`.
    pub settings: String,
}

/// A user of a RabbitMQ node. The rights are regular expressions over names of queues and exchanges.
#[derive(Clone, Debug)]
pub struct RabbitMqUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// What may be declared.
    pub configure: String,
    /// What may be published to, and bound.
    pub write: String,
    /// What may be consumed, and bound to.
    pub read: String,
}

/// A running RabbitMQ node; stopped, and its folder removed, when dropped.
pub struct RabbitMq {
    port: u16,
    mapper_port: u16,
    tls: bool,
    certificate: Option<Certificate>,
    // Before the port mapper, which a node that stops wants to tell.
    process: Process,
    _mapper: Process,
    folder: TempDir,
}

impl RabbitMq {
    /// Starts a node and waits until it accepts connections, which takes some seconds.
    ///
    /// # Errors
    /// When `rabbitmq-server` is missing or does not start; the message quotes its log.
    pub fn start(options: &RabbitMqOptions) -> Result<Self> {
        let folder =
            TempDir::with_prefix("kvsync-rabbitmq-").context(|| "cannot make a temporary folder".to_owned())?;
        let certificate = if options.tls { Some(Certificate::create(folder.path())?) } else { None };
        write(folder.path(), "plugins", "[].")?;
        write(folder.path(), "definitions.json", &definitions(options))?;
        let (mapper_port, mapper) =
            with_free_port(|port| Ok((port, Process::start(mapper(&mapper_folder(folder.path())?, port)?)?)))?;
        let (port, process) = with_free_port(|port| {
            write(folder.path(), "rabbitmq.conf", &configuration(options, folder.path(), certificate.as_ref(), port))?;
            Ok((port, Process::start(node(folder.path(), port, mapper_port)?)?))
        })?;
        Ok(Self { port, mapper_port, tls: options.tls, certificate, process, _mapper: mapper, folder })
    }

    /// The URL for clients, of the user `guest`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("guest", "guest")
    }

    /// The URL for clients, of this user.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("{}://{user}:{password}@127.0.0.1:{}", if self.tls { "amqps" } else { "amqp" }, self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate, in PEM, if the node speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.authority.as_path())
    }

    /// Has the node evaluate Erlang expressions, as its operator's tools do: raise an alarm, close connections, tell what
    /// stands. What it answers, as Erlang writes it.
    ///
    /// # Errors
    /// When the node does not run, or the evaluation fails.
    pub fn evaluate(&self, expressions: &str) -> Result<String> {
        let cookie = self.folder.path().join(".erlang.cookie");
        let cookie = std::fs::read_to_string(&cookie).context(|| format!("cannot read {}", cookie.display()))?;
        let mut command = Command::new(Tool::ErlCall.require()?);
        command.args(["-r", "-e", "-sname", &node_name(self.port), "-c", &cookie]);
        command.env("ERL_EPMD_PORT", self.mapper_port.to_string()).env("HOME", self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context(|| "cannot start erl_call".to_owned())?;
        if let Some(mut stdin) = child.stdin.take() {
            // Without the end of the line it takes the last expression for incomplete.
            writeln!(stdin, "{expressions}").context(|| "cannot tell erl_call what to evaluate".to_owned())?;
        }
        let output = child.wait_with_output().context(|| "cannot wait for erl_call".to_owned())?;
        let said = String::from_utf8_lossy(&output.stdout);
        match said.trim().strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}')) {
            Some(answer) if output.status.success() => Ok(answer.to_owned()),
            _ => {
                let errors = String::from_utf8_lossy(&output.stderr);
                Err(Error::new(format!("`{expressions}` was not evaluated: {} {}", said.trim(), errors.trim())))
            }
        }
    }

    /// Has the node write down which queues it keeps, as it does by itself when it has a moment. One that is killed before
    /// has forgotten what was just declared.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn settle(&self) -> Result<()> {
        self.evaluate("lists:foreach(fun dets:sync/1, dets:all()).").map(drop)
    }

    /// The node's folder, in which its queues stand.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Deref for RabbitMq {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Everyone who may log in, and where to.
fn definitions(options: &RabbitMqOptions) -> String {
    let everything = || ".*".to_owned();
    let guest = RabbitMqUser {
        name: "guest".to_owned(),
        password: "guest".to_owned(),
        configure: everything(),
        write: everything(),
        read: everything(),
    };
    let users: Vec<&RabbitMqUser> = [&guest].into_iter().chain(&options.users).collect();
    let login = |user: &&RabbitMqUser| serde_json::json!({ "name": user.name, "password": user.password, "tags": "" });
    let rights = |user: &&RabbitMqUser| {
        let RabbitMqUser { name, configure, write, read, .. } = user;
        serde_json::json!({ "user": name, "vhost": "/", "configure": configure, "write": write, "read": read })
    };
    let (logins, rights): (Vec<_>, Vec<_>) = (users.iter().map(login).collect(), users.iter().map(rights).collect());
    serde_json::json!({ "vhosts": [{ "name": "/" }], "users": logins, "permissions": rights }).to_string()
}

fn configuration(options: &RabbitMqOptions, folder: &Path, certificate: Option<&Certificate>, port: u16) -> String {
    let mut text = format!(
        "load_definitions = {}\nlog.console = true\nlog.file = false\ndisk_free_limit.absolute = 1MB\n\
         raft.wal_max_size_bytes = 16777216\n",
        folder.join("definitions.json").display()
    );
    // Writing into a string cannot fail.
    let _ = match certificate {
        None => writeln!(text, "listeners.tcp.1 = 127.0.0.1:{port}"),
        Some(Certificate { authority, server, key }) => writeln!(
            text,
            "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_none",
            authority.display(),
            server.display(),
            key.display()
        ),
    };
    text + &options.settings + "\n"
}

fn node(folder: &Path, port: u16, mapper: u16) -> Result<Spec> {
    let at = |name: &str| folder.join(name).into_os_string();
    let environment: [(&str, OsString); 16] = [
        ("HOME", folder.into()),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_NODENAME", node_name(port).into()),
        ("RABBITMQ_DIST_PORT", (port + DISTRIBUTION).to_string().into()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("ERL_EPMD_PORT", mapper.to_string().into()),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
        ("RABBITMQ_MNESIA_BASE", at("mnesia")),
        ("RABBITMQ_LOG_BASE", at("logs")),
        ("RABBITMQ_PID_FILE", at("pid")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", at("generated")),
        // Two cores are shared by many servers; one scheduler that does not spin is enough.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 +SDcpu 1:1 +SDio 4 +sbwt none +sbwtdcpu none +sbwtdio none \
             -kernel inet_dist_use_interface {127,0,0,1}"
                .into(),
        ),
        // Makes the shell that starts the node become the node, so that its pid is the one we know.
        ("RUNNING_UNDER_SYSTEMD", "true".into()),
        ("RABBITMQ_USE_LONGNAME", "false".into()),
    ];
    let assigned = |(name, value): (&str, OsString)| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    let mut arguments: Vec<OsString> = environment.into_iter().map(assigned).collect();
    arguments.push(Tool::RabbitMq.require()?.into());
    Ok(Spec {
        name: "rabbitmq-server",
        // It becomes the program that it is given, with these variables.
        program: "env".into(),
        arguments,
        identity: None,
        folder: folder.to_owned(),
        ready: "Server startup complete",
        stop: Signal::TERM,
        end: Signal::KILL,
    })
}

fn node_name(port: u16) -> String {
    format!("kvsync-{port}@localhost")
}

/// Erlang's port mapper, without which no node starts. One that a node started would outlive it.
fn mapper(folder: &Path, port: u16) -> Result<Spec> {
    let words = ["-d", "-address", "127.0.0.1", "-port", &port.to_string()].map(OsString::from);
    Ok(Spec {
        name: "epmd",
        program: Tool::Epmd.require()?,
        arguments: words.into(),
        identity: None,
        folder: folder.to_owned(),
        ready: "epmd running",
        stop: Signal::TERM,
        end: Signal::KILL,
    })
}

/// It has a log of its own, and its watchdog removes its folder.
fn mapper_folder(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("epmd");
    std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    std::fs::write(&file, text).context(|| format!("cannot write {}", file.display()))
}
