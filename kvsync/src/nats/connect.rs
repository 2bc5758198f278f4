//! How servers are reached, and who we are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};

/// What a connection is made of, as it was configured.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) urls: Vec<String>,
    pub(crate) login: Login,
    pub(crate) tls: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) client_name: String,
    pub(crate) inbox_prefix: Option<String>,
    pub(crate) timeout: Duration,
}

/// Who we are.
#[derive(Clone, Default)]
pub(crate) enum Login {
    #[default]
    OfUrl,
    User(String, String),
    Token(String),
    NKey(String),
    Credentials(PathBuf),
}

/// What a connection is made of, checked.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) options: ConnectOptions,
    /// The servers, without what is secret.
    pub(crate) at: String,
    pub(crate) timeout: Duration,
}

impl Connect {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            login: Login::OfUrl,
            tls: false,
            ca_file: None,
            certificate: None,
            client_name: "kvsync".to_owned(),
            inbox_prefix: None,
            timeout: Duration::from_secs(5),
        }
    }

    /// Fails for what no connection can be made of. Connects to nothing.
    pub(crate) fn servers(&self) -> Result<Servers> {
        if self.timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "the connect_timeout of nats cannot be zero"));
        }
        let addresses = self.addresses()?;
        let options = self.options(&addresses)?;
        let named = addresses.iter().map(|server| format!("{}:{}", server.host(), server.port()));
        let at = named.collect::<Vec<_>>().join(", ");
        Ok(Servers { addresses, options, at, timeout: self.timeout.min(FOR_EVER) })
    }

    fn addresses(&self) -> Result<Vec<ServerAddr>> {
        if self.urls.is_empty() {
            return Err(Error::new(ErrorKind::Config, "nats needs the URL of one server at least"));
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
            .connection_timeout(self.timeout)
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

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("client_name", &self.client_name).finish_non_exhaustive()
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

/// The methods by which every builder says how servers are reached: of one that has a [`Connect`] in `connect`.
macro_rules! connect_methods {
    () => {
        /// The user and password, in place of those of the URL.
        pub fn user_and_password(self, user: impl Into<String>, password: impl Into<String>) -> Self {
            self.login($crate::nats::Login::User(user.into(), password.into()))
        }

        /// The token, for servers that want one.
        pub fn token(self, token: impl Into<String>) -> Self {
            self.login($crate::nats::Login::Token(token.into()))
        }

        /// The seed of an nkey.
        pub fn nkey(self, seed: impl Into<String>) -> Self {
            self.login($crate::nats::Login::NKey(seed.into()))
        }

        /// A file of credentials, as `nsc` writes it.
        pub fn credentials_file(self, path: impl Into<std::path::PathBuf>) -> Self {
            self.login($crate::nats::Login::Credentials(path.into()))
        }

        /// Speaks TLS or does not connect, also to servers with a `nats://` URL.
        pub fn require_tls(mut self) -> Self {
            self.connect.tls = true;
            self
        }

        /// The certificate, in PEM, of an authority that is trusted beside those of the operating system.
        pub fn ca_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
            self.connect.ca_file = Some(path.into());
            self
        }

        /// Our own certificate and its key, in PEM, for servers that want to see one.
        pub fn client_certificate(
            mut self,
            certificate: impl Into<std::path::PathBuf>,
            key: impl Into<std::path::PathBuf>,
        ) -> Self {
            self.connect.certificate = Some((certificate.into(), key.into()));
            self
        }

        /// What the servers call the connection: `kvsync` by default.
        pub fn client_name(mut self, name: impl Into<String>) -> Self {
            self.connect.client_name = name.into();
            self
        }

        /// What the subjects of answers begin with, for users that may not subscribe to `_INBOX.>`.
        pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
            self.connect.inbox_prefix = Some(prefix.into());
            self
        }

        /// How long connecting may take, with the look at what is there: five seconds by default.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.connect.timeout = timeout;
            self
        }

        fn login(mut self, login: $crate::nats::Login) -> Self {
            self.connect.login = login;
            self
        }
    };
}
pub(crate) use connect_methods;
