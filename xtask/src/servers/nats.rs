//! NATS servers: one, or three that keep everything together.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::port::{BUS_OFFSET, with_free_port};
use super::process::{Process, Spec};
use crate::Result;
use crate::error::Context;
use crate::tools::Tool;

/// How a NATS server is set up. The default is a plain port, no password, and JetStream in the server's folder.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Without JetStream, which all that is stored needs.
    pub without_jetstream: bool,
    /// Speak TLS, with a certificate of a fresh authority.
    pub tls: bool,
    /// With TLS: let in only clients that show a certificate of that authority, too.
    pub verify_clients: bool,
    /// Further lines of the server's configuration file, such as `max_payload: 64KB` or an `authorization` block.
    pub settings: String,
}

/// A running NATS server; stopped, and its folder removed, when dropped.
pub struct Nats {
    port: u16,
    tls: bool,
    certificate: Option<Certificate>,
    settings: String,
    process: Process,
    folder: TempDir,
}

impl Nats {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    /// When `nats-server` is missing or does not start; the message quotes its log.
    pub fn start(options: &NatsOptions) -> Result<Self> {
        with_free_port(|port| Self::start_at(port, options))
    }

    fn start_at(port: u16, options: &NatsOptions) -> Result<Self> {
        let folder = TempDir::with_prefix("kvsync-nats-").context(|| "cannot make a temporary folder".to_owned())?;
        let certificate = if options.tls { Some(Certificate::create(folder.path())?) } else { None };
        let file = folder.path().join("nats.conf");
        let settings = configuration(options, folder.path(), certificate.as_ref());
        write(&file, &settings)?;
        let process = Process::start(spec(folder.path(), &file, port)?)?;
        Ok(Self { port, tls: options.tls, certificate, settings, process, folder })
    }

    /// The URL for clients, without a user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "tls" } else { "nats" }, self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate, in PEM, if the server speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.authority.as_path())
    }

    /// A certificate of the authority and its key, in PEM, for clients of a server that speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_ref().map(|certificate| (certificate.server.as_path(), certificate.key.as_path()))
    }

    /// Has the server close all connections but one, and refuse others for a moment, as an operator does who lowers the
    /// limit and raises it again.
    ///
    /// # Errors
    /// When the server does not run, or does not read its configuration again.
    pub fn close_connections(&self) -> Result<()> {
        let file = self.folder.path().join("nats.conf");
        for settings in [format!("{}\nmax_connections: 1\n", self.settings), self.settings.clone()] {
            write(&file, &settings)?;
            self.process.reload("Reloaded server configuration")?;
        }
        Ok(())
    }

    /// The folder in which JetStream keeps what is stored.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("js")
    }
}

impl Deref for Nats {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Three NATS servers that elect leaders; stopped when dropped.
pub struct NatsCluster {
    nodes: [Nats; 3],
}

impl NatsCluster {
    /// Starts the servers. They find each other and elect leaders later; until then they answer no question about a
    /// bucket.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start() -> Result<Self> {
        with_free_port(|a| {
            with_free_port(|b| {
                with_free_port(|c| {
                    let ports = [a, b, c];
                    let node = |port| {
                        Nats::start_at(port, &NatsOptions { settings: member(port, ports), ..NatsOptions::default() })
                    };
                    Ok(Self { nodes: [node(a)?, node(b)?, node(c)?] })
                })
            })
        })
    }

    /// The servers.
    #[must_use]
    pub fn nodes(&self) -> &[Nats; 3] {
        &self.nodes
    }

    /// The URL of each server.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Nats::url).collect()
    }

    /// The server that calls itself so in its answers.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&Nats> {
        self.nodes.iter().find(|node| name_of(node.port) == name)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).context(|| format!("cannot write {}", file.display()))
}

fn name_of(port: u16) -> String {
    format!("nats-{port}")
}

/// What makes a server one of some.
fn member(port: u16, all: [u16; 3]) -> String {
    // A port that is free has a second one that is.
    let place = |port: u16| format!("127.0.0.1:{}", port + BUS_OFFSET);
    let routes: Vec<String> =
        all.iter().filter(|other| **other != port).map(|other| format!("nats://{}", place(*other))).collect();
    format!(
        "server_name: {}\ncluster {{ name: kvsync, listen: \"{}\", routes: [{}] }}",
        name_of(port),
        place(port),
        routes.join(", ")
    )
}

fn configuration(options: &NatsOptions, folder: &Path, certificate: Option<&Certificate>) -> String {
    let jetstream = format!("jetstream {{ store_dir: \"{}\" }}", folder.join("js").display());
    let tls = certificate.map(|certificate| {
        let (server, key) = (certificate.server.display(), certificate.key.display());
        let authority = certificate.authority.display();
        let clients =
            if options.verify_clients { format!(", verify: true, ca_file: \"{authority}\"") } else { String::new() };
        format!("tls {{ cert_file: \"{server}\", key_file: \"{key}\"{clients} }}")
    });
    let jetstream = if options.without_jetstream { String::new() } else { jetstream };
    [jetstream, tls.unwrap_or_default(), options.settings.clone(), String::new()].join("\n")
}

fn spec(folder: &Path, file: &Path, port: u16) -> Result<Spec> {
    let words: [OsString; 8] = [
        "-a".into(),
        "127.0.0.1".into(),
        "-p".into(),
        port.to_string().into(),
        "-P".into(),
        folder.join("pid").into(),
        "-c".into(),
        file.into(),
    ];
    Ok(Spec {
        name: "nats-server",
        program: Tool::NatsServer.require()?,
        arguments: words.to_vec(),
        identity: None,
        folder: folder.to_owned(),
        ready: "Server is ready",
        stop: Signal::TERM,
        end: Signal::KILL,
    })
}
