//! Configures a store and connects it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use tokio::time::Instant;

use super::bucket::Bucket;
use super::client::Client;
use super::subject::{MAX_BUCKET, MAX_PREFIX, Subjects};
use super::update::Turns;
use super::{Inner, NatsStore};
use crate::bridge::Bridge;
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};

/// Room for what goes with an entry: the name of a header and a revision.
const HEADERS: usize = 128;

/// Configures a [`NatsStore`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    urls: Vec<String>,
    bucket: Bucket,
    prefix: String,
    login: Login,
    tls: bool,
    ca_file: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    client_name: String,
    inbox_prefix: Option<String>,
    connect_timeout: Duration,
    command_timeout: Duration,
    retry_for: Duration,
    concurrency: usize,
}

/// Who we are.
#[derive(Clone, Default)]
enum Login {
    #[default]
    OfUrl,
    User(String, String),
    Token(String),
    NKey(String),
    Credentials(PathBuf),
}

impl Builder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        let name = "kvsync".to_owned();
        let bucket = Bucket { name: name.clone(), create: true, replicas: 1, in_memory: false, max_bytes: None };
        Self {
            urls,
            bucket,
            prefix: name.clone(),
            login: Login::OfUrl,
            tls: false,
            ca_file: None,
            certificate: None,
            client_name: name,
            inbox_prefix: None,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(5),
            concurrency: 128,
        }
    }

    /// The bucket, `kvsync` by default: letters, digits, `-` and `_`, at most 128.
    pub fn bucket(self, name: impl Into<String>) -> Self {
        Self { bucket: Bucket { name: name.into(), ..self.bucket }, ..self }
    }

    /// What sets the store apart from others in its bucket, `kvsync` by default: at most 64 bytes.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Whether the bucket is made where it is missing, also after it was removed: it is by default.
    pub fn create(self, create: bool) -> Self {
        Self { bucket: Bucket { create, ..self.bucket }, ..self }
    }

    /// How many servers keep the bucket that is made: one by default, three or five in a cluster.
    pub fn replicas(self, replicas: usize) -> Self {
        Self { bucket: Bucket { replicas, ..self.bucket }, ..self }
    }

    /// Keeps the bucket that is made in the memory of its servers, which forget it when they stop. By default it is
    /// on their disks.
    pub fn in_memory(self) -> Self {
        Self { bucket: Bucket { in_memory: true, ..self.bucket }, ..self }
    }

    /// The most bytes of the bucket that is made; it refuses writes when it is full. Without limit by default; some
    /// accounts require one.
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { bucket: Bucket { max_bytes: Some(bytes), ..self.bucket }, ..self }
    }

    /// The user and password, in place of those of the URL.
    pub fn user_and_password(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { login: Login::User(user.into(), password.into()), ..self }
    }

    /// The token, for servers that want one.
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { login: Login::Token(token.into()), ..self }
    }

    /// The seed of an nkey.
    pub fn nkey(self, seed: impl Into<String>) -> Self {
        Self { login: Login::NKey(seed.into()), ..self }
    }

    /// A file of credentials, as `nsc` writes it.
    pub fn credentials_file(self, path: impl Into<PathBuf>) -> Self {
        Self { login: Login::Credentials(path.into()), ..self }
    }

    /// Speaks TLS or does not connect, also to servers with a `nats://` URL.
    pub fn require_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// The certificate, in PEM, of an authority that is trusted beside those of the operating system.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// Our own certificate and its key, in PEM, for servers that want to see one.
    pub fn client_certificate(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: Some((certificate.into(), key.into())), ..self }
    }

    /// What the servers call the connection: `kvsync` by default.
    pub fn client_name(self, name: impl Into<String>) -> Self {
        Self { client_name: name.into(), ..self }
    }

    /// What the subjects of answers begin with, for users that may not subscribe to `_INBOX.>`.
    pub fn inbox_prefix(self, prefix: impl Into<String>) -> Self {
        Self { inbox_prefix: Some(prefix.into()), ..self }
    }

    /// How long connecting may take, with the look at the bucket: five seconds by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// How long to wait for the answer to one reading or one write: two seconds by default.
    pub fn command_timeout(self, timeout: Duration) -> Self {
        Self { command_timeout: timeout, ..self }
    }

    /// For how long a write is tried again after failures that may pass, or while others write the same key: five
    /// seconds by default.
    pub fn retry_for(self, time: Duration) -> Self {
        Self { retry_for: time, ..self }
    }

    /// How many keys of one call are read or written at a time: 128 by default.
    pub fn concurrency(self, keys: usize) -> Self {
        Self { concurrency: keys.max(1), ..self }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`NatsStore::connect`].
    pub fn connect(mut self) -> Result<NatsStore> {
        self.check()?;
        for time in [&mut self.connect_timeout, &mut self.command_timeout, &mut self.retry_for] {
            *time = (*time).min(FOR_EVER);
        }
        let servers = self.servers()?;
        let at =
            servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect::<Vec<_>>().join(", ");
        let options = self.options(&servers)?;
        let bridge = Bridge::shared()?;
        let (bucket, command_timeout) = (self.bucket.clone(), self.command_timeout);
        let (subjects, place) = (Subjects::new(&bucket.name, &self.prefix), at.clone());
        let (probe, within) = (subjects.epoch(), self.connect_timeout);
        let connected = bridge.run(within + super::GRACE, async move {
            let until = Instant::now() + within;
            let client = Client::connect(options, servers, &place, bucket, command_timeout, until).await?;
            let info = client.open(until).await?;
            client.bucket.check(&info.config)?;
            client.probe(&probe, until).await?;
            let most = client.max_payload(&info).saturating_sub(HEADERS);
            Ok::<_, Error>((client, most))
        });
        let late = |_| Error::new(ErrorKind::Unavailable, format!("nats at {at} did not answer in time"));
        let (client, most) = connected.map_err(late)??;
        let inner = Inner {
            name: format!("nats bucket {} at {at}", client.bucket.name),
            client,
            subjects,
            turns: Turns::new(),
            most,
            concurrency: self.concurrency,
            command_timeout,
            retry_for: self.retry_for,
            closed: AtomicBool::new(false),
            bridge,
        };
        Ok(NatsStore { inner: Arc::new(inner) })
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        let name = &self.bucket.name;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > MAX_BUCKET || !name.bytes().all(named) {
            return wrong(format!("`{name}` is no name of a bucket; take letters, digits, `-` and `_`"));
        }
        if self.prefix.len() > MAX_PREFIX {
            return wrong(format!("the prefix `{}` is longer than {MAX_PREFIX} bytes", self.prefix));
        }
        for (what, time) in [("connect_timeout", self.connect_timeout), ("command_timeout", self.command_timeout)] {
            if time.is_zero() {
                return wrong(format!("the {what} of a nats store cannot be zero"));
            }
        }
        Ok(())
    }

    fn servers(&self) -> Result<Vec<ServerAddr>> {
        if self.urls.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a nats store needs the URL of one server at least"));
        }
        let server = |url: &String| {
            let wrong = |error| {
                Error::new(ErrorKind::Config, "this is no nats URL; write `nats://host:port` or `tls://host:port`")
                    .with_source(error)
            };
            url.parse().map_err(|error: std::io::Error| wrong(error))
        };
        self.urls.iter().map(server).collect()
    }

    fn options(&self, servers: &[ServerAddr]) -> Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .name(&self.client_name)
            .connection_timeout(self.connect_timeout)
            .require_tls(self.tls)
            // A server that was restarted is found soon, and is not overrun.
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(10 << attempts.saturating_sub(1).min(6)).min(Duration::from_millis(500))
            });
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if let Some(path) = &self.ca_file {
            readable(path)?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            readable(certificate)?;
            readable(key)?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        match &self.login {
            Login::OfUrl => Ok(of_url(options, servers)),
            Login::User(user, password) => Ok(options.user_and_password(user.clone(), password.clone())),
            Login::Token(token) => Ok(options.token(token.clone())),
            Login::NKey(seed) => Ok(options.nkey(seed.clone())),
            Login::Credentials(path) => options.credentials(&readable(path)?).map_err(|error| {
                let message = format!("{} holds no credentials of nats", path.display());
                Error::new(ErrorKind::Config, message).with_source(error)
            }),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("bucket", &self.bucket).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The user and password of the first URL that has them, or its token, which stands there alone. The client library
/// leaves them where they are.
fn of_url(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let named = servers.iter().find_map(|server| Some((decoded(server.username()?), server.password().map(decoded))));
    match named {
        None => options,
        Some((user, Some(password))) => options.user_and_password(user, password),
        Some((token, None)) => options.token(token),
    }
}

/// A part of a URL without its percent signs.
fn decoded(part: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), part.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        let of_two = |two: &[u8]| std::str::from_utf8(two).ok().and_then(|two| u8::from_str_radix(two, 16).ok());
        let escaped = behind.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escaped.and_then(|(two, behind)| Some((of_two(two)?, behind)));
        let (byte, behind) = escaped.unwrap_or((*byte, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text of a file that the connection will need.
fn readable(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("{} cannot be read, and the connection to nats needs it", path.display());
        Error::new(ErrorKind::Config, message).with_source(error)
    })
}
