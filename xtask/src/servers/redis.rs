//! One Redis server.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::port::{BUS_OFFSET, with_free_port};
use super::process::{Process, Spec};
use crate::error::Context;
use crate::tools::Tool;
use crate::{Error, Result};

/// How a Redis server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port of the loopback interface.
    #[default]
    Tcp,
    /// A unix socket in the server's folder, and no port.
    Socket,
    /// A TLS port of the loopback interface, with a certificate of a fresh authority, and no plain port.
    Tls,
}

/// A user beside the default one, with every command allowed on some keys.
#[derive(Clone, Debug)]
pub struct AclUser {
    /// Letters and digits: it becomes part of the URL as it is.
    pub name: String,
    /// Letters and digits: it becomes part of the URL as it is.
    pub password: String,
    /// The pattern of the keys, such as `app:*`.
    pub keys: String,
}

/// How a Redis server is set up. The default is a plain port, no password, nothing on disk.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// How it is reached.
    pub listen: Listen,
    /// The password of the default user; letters and digits.
    pub password: Option<String>,
    /// A further user, as whom [`Redis::url`] then connects.
    pub user: Option<AclUser>,
    /// Keep every write in an append-only file, fsynced before it is acknowledged.
    pub appendonly: bool,
    /// The limit of memory in bytes and the policy on reaching it, such as `noeviction` or `allkeys-lru`.
    pub maxmemory: Option<(u64, String)>,
    /// Further settings by their name in `redis.conf`.
    pub settings: Vec<(String, String)>,
}

/// A running Redis server; stopped, and its folder removed, when dropped.
pub struct Redis {
    options: RedisOptions,
    port: Option<u16>,
    certificate: Option<Certificate>,
    process: Process,
    folder: TempDir,
}

impl Redis {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not start; the message quotes its log.
    pub fn start(options: RedisOptions) -> Result<Self> {
        Self::start_with(options, None, None)
    }

    /// Starts a server with a certificate that it shares with others, or a sentinel with this configuration.
    pub(super) fn start_with(
        options: RedisOptions,
        certificate: Option<Certificate>,
        sentinel: Option<&str>,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("kvsync-redis-").context(|| "cannot make a temporary folder".to_owned())?;
        let shared = certificate.clone();
        let certificate = match (options.listen, certificate) {
            (Listen::Tls, None) => Some(Certificate::create(folder.path())?),
            (Listen::Tls, shared) => shared,
            (Listen::Tcp | Listen::Socket, _) => None,
        };
        let start = |port| {
            Process::start(match sentinel {
                Some(lines) => sentinel_spec(lines, options.listen, shared.as_ref(), folder.path(), port)?,
                None => spec(&options, folder.path(), port, certificate.as_ref())?,
            })
        };
        let (port, process) = match options.listen {
            Listen::Socket => (None, start(0)?),
            Listen::Tcp | Listen::Tls => with_free_port(|port| Ok((Some(port), start(port)?)))?,
        };
        Ok(Self { options, port, certificate, process, folder })
    }

    /// The URL for clients, with the user and password if there are any.
    #[must_use]
    pub fn url(&self) -> String {
        let (user, password) = self.credentials();
        let place = self.port.map(|port| format!("127.0.0.1:{port}")).unwrap_or_default();
        let before = match password {
            Some(password) => format!("{user}:{password}@"),
            None => String::new(),
        };
        match self.options.listen {
            Listen::Tcp => format!("redis://{before}{place}/"),
            Listen::Tls => format!("rediss://{before}{place}/"),
            Listen::Socket => {
                let after = match (user, password) {
                    (_, None) => String::new(),
                    ("", Some(password)) => format!("&pass={password}"),
                    (user, Some(password)) => format!("&user={user}&pass={password}"),
                };
                format!("redis+unix://{}?db=0{after}", self.socket_path().display())
            }
        }
    }

    /// The port, unless the server listens on a unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The unix socket, if the server listens on one.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        (self.options.listen == Listen::Socket).then(|| self.socket_path())
    }

    /// The authority's certificate, in PEM, if the server speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.authority.as_path())
    }

    /// Runs one command by `redis-cli`, as the default user. An error reply of the server is returned as its text.
    ///
    /// # Errors
    /// When `redis-cli` is missing or cannot connect.
    pub fn cli(&self, command: &[&str]) -> Result<String> {
        let mut cli = Command::new(Tool::RedisCli.require()?);
        match self.port {
            Some(port) => cli.args(["-h", "127.0.0.1", "-p", &port.to_string()]),
            None => cli.arg("-s").arg(self.socket_path()),
        };
        if let Some(certificate) = &self.certificate {
            cli.arg("--tls").arg("--cacert").arg(&certificate.authority);
        }
        if let Some(password) = &self.options.password {
            cli.env("REDISCLI_AUTH", password);
        }
        let output = cli.args(command).output().context(|| "cannot run redis-cli".to_owned())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            let said = format!("{} {}", text(&output.stdout), text(&output.stderr));
            Err(Error::new(format!("redis-cli {} at {}: {}", command.join(" "), self.url(), said.trim())))
        }
    }

    fn credentials(&self) -> (&str, Option<&str>) {
        match &self.options.user {
            Some(user) => (&user.name, Some(&user.password)),
            None => ("", self.options.password.as_deref()),
        }
    }

    fn socket_path(&self) -> PathBuf {
        socket_in(self.folder.path())
    }
}

impl Deref for Redis {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("socket")
}

fn spec(options: &RedisOptions, folder: &Path, port: u16, certificate: Option<&Certificate>) -> Result<Spec> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut set = |name: &str, values: &[OsString]| {
        arguments.push(format!("--{name}").into());
        arguments.extend_from_slice(values);
    };
    set("bind", &["127.0.0.1".into()]);
    set("dir", &[folder.into()]);
    set("save", &["".into()]);
    set("port", &[if options.listen == Listen::Tcp { port.to_string() } else { "0".to_owned() }.into()]);
    match (options.listen, certificate) {
        (Listen::Tls, Some(certificate)) => {
            set("tls-port", &[port.to_string().into()]);
            set("tls-cert-file", &[certificate.server.as_os_str().into()]);
            set("tls-key-file", &[certificate.key.as_os_str().into()]);
            set("tls-ca-cert-file", &[certificate.authority.as_os_str().into()]);
            set("tls-auth-clients", &["no".into()]);
        }
        (Listen::Socket, _) => set("unixsocket", &[socket_in(folder).into()]),
        _ => {}
    }
    if let Some(password) = &options.password {
        set("requirepass", &[password.into()]);
    }
    if let Some(AclUser { name, password, keys }) = &options.user {
        let rights = ["on".to_owned(), format!(">{password}"), format!("~{keys}"), "&*".to_owned(), "+@all".to_owned()];
        let mut words = vec![OsString::from(name)];
        words.extend(rights.map(OsString::from));
        set("user", &words);
    }
    set("appendonly", &[if options.appendonly { "yes" } else { "no" }.into()]);
    set("appendfsync", &["always".into()]);
    if let Some((bytes, policy)) = &options.maxmemory {
        set("maxmemory", &[bytes.to_string().into()]);
        set("maxmemory-policy", &[policy.into()]);
    }
    for (name, value) in &options.settings {
        set(name, &[value.into()]);
    }
    Ok(Spec {
        name: "redis-server",
        program: Tool::RedisServer.require()?,
        arguments,
        identity: None,
        folder: folder.to_owned(),
        // Capital on a port, "now ready" on a socket.
        ready: "eady to accept connections",
        stop: Signal::TERM,
        end: Signal::KILL,
    })
}

/// A sentinel is a Redis server with a file that it writes itself. With a certificate it speaks TLS to masters and to
/// other sentinels, whatever clients speak.
fn sentinel_spec(
    configuration: &str,
    listen: Listen,
    certificate: Option<&Certificate>,
    folder: &Path,
    port: u16,
) -> Result<Spec> {
    let file = folder.join("sentinel.conf");
    let ports = match (listen, certificate) {
        (_, None) => format!("port {port}"),
        (Listen::Tls, Some(_)) => format!("port 0\ntls-port {port}"),
        // A port that is free has a second one that is.
        (Listen::Tcp | Listen::Socket, Some(_)) => format!("port {port}\ntls-port {}", port + BUS_OFFSET),
    };
    let tls = certificate.map(|Certificate { authority, server, key }| {
        let (authority, server, key) = (authority.display(), server.display(), key.display());
        format!(
            "tls-cert-file {server}\ntls-key-file {key}\ntls-ca-cert-file {authority}\ntls-auth-clients no\n\
             tls-replication yes"
        )
    });
    let (tls, folder_of) = (tls.unwrap_or_default(), folder.display());
    let text = format!("{ports}\nbind 127.0.0.1\ndir {folder_of}\n{tls}\n{configuration}\n");
    std::fs::write(&file, text).context(|| format!("cannot write {}", file.display()))?;
    Ok(Spec {
        name: "redis-server --sentinel",
        program: Tool::RedisServer.require()?,
        arguments: vec![file.into(), "--sentinel".into()],
        identity: None,
        folder: folder.to_owned(),
        ready: "+monitor master",
        stop: Signal::TERM,
        end: Signal::KILL,
    })
}
