//! One NATS server.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::port::with_free_port;
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
    /// Further lines of the server's configuration file, such as `max_payload: 64KB` or an `authorization` block.
    pub settings: String,
}

/// A running NATS server; stopped, and its folder removed, when dropped.
pub struct Nats {
    port: u16,
    tls: bool,
    certificate: Option<Certificate>,
    process: Process,
    folder: TempDir,
}

impl Nats {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    /// When `nats-server` is missing or does not start; the message quotes its log.
    pub fn start(options: &NatsOptions) -> Result<Self> {
        let folder = TempDir::with_prefix("kvsync-nats-").context(|| "cannot make a temporary folder".to_owned())?;
        let certificate = if options.tls { Some(Certificate::create(folder.path())?) } else { None };
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, configuration(options, folder.path(), certificate.as_ref()))
            .context(|| format!("cannot write {}", file.display()))?;
        let (port, process) = with_free_port(|port| Ok((port, Process::start(spec(folder.path(), &file, port)?)?)))?;
        Ok(Self { port, tls: options.tls, certificate, process, folder })
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

fn configuration(options: &NatsOptions, folder: &Path, certificate: Option<&Certificate>) -> String {
    let jetstream = format!("jetstream {{ store_dir: \"{}\" }}", folder.join("js").display());
    let tls = certificate.map(|certificate| {
        let (server, key) = (certificate.server.display(), certificate.key.display());
        format!("tls {{ cert_file: \"{server}\", key_file: \"{key}\" }}")
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
