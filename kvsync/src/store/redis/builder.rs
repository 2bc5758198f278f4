//! Configures a store and connects it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::connection::Login;
use super::error::{Cure, Failure};
use super::node::{Node, Settings};
use super::sentinel::Sentinel;
use super::servers::{Cluster, Servers};
use super::{Inner, RedisStore, check};
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};

/// Configures a [`RedisStore`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    urls: Vec<String>,
    prefix: String,
    data_prefix: Option<String>,
    username: Option<String>,
    password: Option<String>,
    sentinel_login: Option<(Option<String>, String)>,
    master_tls: Option<bool>,
    client_name: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    retry_for: Duration,
    connections: usize,
    batch: usize,
    ca_file: Option<PathBuf>,
}

impl Builder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            prefix: "kvsync:".to_owned(),
            data_prefix: None,
            username: None,
            password: None,
            sentinel_login: None,
            master_tls: None,
            client_name: "kvsync".to_owned(),
            connect_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(5),
            connections: 16,
            batch: 512,
            ca_file: None,
        }
    }

    /// What the key of every row begins with, and what the store keeps for itself; `kvsync:` by default. With a `{tag}` in it a cluster keeps all
    /// keys on one node.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// What the keys of [`DataCommands`](crate::store::data::DataCommands) begin with: by default the
    /// [`prefix`](Self::prefix) and `=`, which no key of a row begins with. With an empty one, they stand in Redis as they
    /// are, beside those of other programs; those that begin with the prefix are
    /// [`Rejected`](crate::ErrorKind::Rejected), because rows stand there. One that is the prefix, or goes on from it
    /// without `=`, is refused when the store connects. In a cluster a prefix with a {tag} and a data prefix have the same
    /// one, or there are no sorted hashes.
    pub fn data_prefix(self, prefix: impl Into<String>) -> Self {
        Self { data_prefix: Some(prefix.into()), ..self }
    }

    /// The user, where the URL names none. The default user has no name.
    pub fn username(self, username: impl Into<String>) -> Self {
        Self { username: Some(username.into()), ..self }
    }

    /// The password, where it should not stand in the URL.
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The password of the sentinels, where it should not stand in their URLs. Without a user name it is that of
    /// the default user.
    pub fn sentinel_login(self, username: Option<String>, password: impl Into<String>) -> Self {
        Self { sentinel_login: Some((username, password.into())), ..self }
    }

    /// Whether the master that [`sentinel`](Self::sentinel)s name is reached by TLS, where they are not reached the same way:
    /// by default it is as their URLs say.
    pub fn master_tls(self, tls: bool) -> Self {
        Self { master_tls: Some(tls), ..self }
    }

    /// What `CLIENT LIST` calls the connections: `kvsync` by default, without spaces.
    pub fn client_name(self, name: impl Into<String>) -> Self {
        Self { client_name: name.into(), ..self }
    }

    /// How long to wait for a connection, login included: one second by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// How long to wait for the answers to one batch: two seconds by default.
    pub fn command_timeout(self, timeout: Duration) -> Self {
        Self { command_timeout: timeout, ..self }
    }

    /// For how long a write is tried again after failures that may pass: five seconds by default. A
    /// failover takes the `cluster-node-timeout` of a cluster, or the `down-after-milliseconds` of sentinels (30
    /// seconds unless it was changed), and a second or two.
    pub fn retry_for(self, time: Duration) -> Self {
        Self { retry_for: time, ..self }
    }

    /// How many unused connections to keep open to each server: 16 by default. There are as many as there
    /// are calls at a time; this many stay for the next ones.
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// How many steps the workers should put into one call: 512 by default.
    pub fn max_batch(self, steps: usize) -> Self {
        Self { batch: steps, ..self }
    }

    /// The certificate, in PEM, of the authority that signed the server's; by default those are trusted
    /// that the operating system trusts.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// Connects to one server.
    ///
    /// # Errors
    ///
    /// As [`RedisStore::connect`].
    pub fn connect(self) -> Result<RedisStore> {
        let [url] = self.urls.as_slice() else {
            let message = format!("one server has one URL, and {} were given; is it a cluster?", self.urls.len());
            return Err(Error::new(ErrorKind::Config, message));
        };
        let (info, login) = self.parse(url)?;
        let opener = self.opener(is_tls(&info))?;
        let settings = self.settings(login)?;
        let node = Node::new(opener.client(info.addr().clone())?, Arc::clone(&settings));
        let name = format!("redis at {}", node.address);
        let inner = self.into_inner(name, Servers::One(Arc::new(node)), settings);
        check::one(&inner)?;
        Ok(RedisStore { inner: Arc::new(inner) })
    }

    /// Connects to a cluster.
    ///
    /// # Errors
    ///
    /// As [`RedisStore::cluster`].
    pub fn cluster(self) -> Result<RedisStore> {
        let mut seeds = Vec::new();
        let mut first = None;
        for url in &self.urls {
            let (info, login) = self.parse(url)?;
            if info.redis_settings().db() != 0 {
                let message = "a redis cluster has the database 0 only; leave the number out of the URL";
                return Err(Error::new(ErrorKind::Config, message));
            }
            let opener = self.opener(is_tls(&info))?;
            // The nodes that are found later are taken to be set up as the first.
            let (_, settings) = match &first {
                Some(first) => first,
                None => first.insert((opener.clone(), self.settings(login.clone())?)),
            };
            let settings = if settings.login == login { Arc::clone(settings) } else { self.settings(login)? };
            seeds.push(Arc::new(Node::new(opener.client(info.addr().clone())?, settings)));
        }
        let Some((opener, settings)) = first else {
            return Err(Error::new(ErrorKind::Config, "a redis cluster needs the URL of one node at least"));
        };
        let name = format!("redis cluster of {}", seeds.first().map_or("", |node| node.address.as_str()));
        let open = Box::new(move |host: &str, port| opener.client(opener.at(host, port)));
        let cluster = Cluster::new(seeds, open);
        cluster.refresh(None, Instant::now() + settings.connect_timeout + settings.command_timeout, &settings)?;
        let inner = self.into_inner(name, Servers::Cluster(cluster), settings);
        check::cluster(&inner)?;
        Ok(RedisStore { inner: Arc::new(inner) })
    }

    /// Connects to the master of this name that the sentinels at these URLs watch over, and follows it when another
    /// takes its place.
    ///
    /// The URLs are those of sentinels, and so are the user and the password in them; those of the master are given
    /// by [`username`](Self::username) and [`password`](Self::password). The number of a database in the URLs is that
    /// of the master's. With `rediss://` the sentinels and the master are all reached by TLS, unless
    /// [`master_tls`](Self::master_tls) says otherwise of the master; their certificates have to hold for the addresses
    /// that the sentinels name (see `sentinel announce-hostnames`).
    ///
    /// # Errors
    ///
    /// As [`RedisStore::connect`]; when no sentinel answers, or none of those that do knows the name.
    pub fn sentinel(self, name: impl Into<String>) -> Result<RedisStore> {
        let name = name.into();
        let mut sentinels = Vec::new();
        let mut first = None;
        for url in &self.urls {
            let (info, _) = self.parse(url)?;
            let told = info.redis_settings();
            let opener = self.opener(is_tls(&info))?;
            let (username, password) = match &self.sentinel_login {
                Some((username, password)) => (username.clone(), Some(password.clone())),
                None => (told.username().map(str::to_owned), told.password().map(str::to_owned)),
            };
            let client_name = self.client_name.clone();
            let login = Login { username, password, database: 0, client_name, primary_only: false };
            let settings = self.settings(login)?;
            sentinels.push(Arc::new(Node::new(opener.client(info.addr().clone())?, settings)));
            if *first.get_or_insert((opener.tls, told.db())) != (opener.tls, told.db()) {
                let message = "the URLs of the sentinels differ in TLS or in the number of the database";
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        let (Some(url), Some((_, database))) = (self.urls.first(), first) else {
            return Err(Error::new(ErrorKind::Config, "a master is found by the URL of one sentinel at least"));
        };
        let sentinels_tls = is_tls(&self.parse(url)?.0);
        let opener = self.opener(self.master_tls.unwrap_or(sentinels_tls))?;
        let (username, password) = (self.username.clone(), self.password.clone());
        let client_name = self.client_name.clone();
        let settings = self.settings(Login { username, password, database, client_name, primary_only: true })?;
        let open = Box::new(move |host: &str, port| opener.client(opener.at(host, port)));
        let sentinel = Sentinel::find(name.clone(), sentinels, Arc::clone(&settings), open)?;
        let inner = self.into_inner(format!("redis master {name}"), Servers::Sentinel(sentinel), settings);
        check::one(&inner)?;
        Ok(RedisStore { inner: Arc::new(inner) })
    }

    fn into_inner(self, name: String, servers: Servers, settings: Arc<Settings>) -> Inner {
        let data_prefix = self.data_prefix.unwrap_or_else(|| data_prefix(&self.prefix));
        let (prefix, batch, closed) = (self.prefix, self.batch.max(1), AtomicBool::new(false));
        Inner { name, prefix, data_prefix, batch, servers, settings, closed }
    }

    fn settings(&self, login: Login) -> Result<Arc<Settings>> {
        if let Some(data) = self.data_prefix.as_deref().filter(|data| data.starts_with(&self.prefix)) {
            let own = data_prefix(&self.prefix);
            if !data.starts_with(&own) {
                let message = format!(
                    "data under `{data}` would stand among the rows, which begin with `{}`; take a data prefix that \
                     begins otherwise, or with `{own}`",
                    self.prefix
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        for (name, time) in [("connect_timeout", self.connect_timeout), ("command_timeout", self.command_timeout)] {
            if time.is_zero() {
                return Err(Error::new(ErrorKind::Config, format!("the {name} of a redis store cannot be zero")));
            }
        }
        Ok(Arc::new(Settings {
            login,
            connect_timeout: self.connect_timeout.min(FOR_EVER),
            command_timeout: self.command_timeout.min(FOR_EVER),
            retry_for: self.retry_for.min(FOR_EVER),
            connections: self.connections,
        }))
    }

    /// What a URL says. The URL is never quoted: it may hold a password.
    fn parse(&self, url: &str) -> Result<(ConnectionInfo, Login)> {
        let info = url.into_connection_info().map_err(|error| {
            let tls = url.starts_with("rediss:") && !cfg!(feature = "redis-tls");
            let message = if tls {
                "a `rediss://` URL needs the feature `redis-tls` of kvsync"
            } else {
                "this is no redis URL; write `redis://host:port`, `rediss://host:port` or `redis+unix:///path`"
            };
            Error::new(ErrorKind::Config, message).with_source(error)
        })?;
        let told = info.redis_settings();
        let login = Login {
            username: self.username.clone().or_else(|| told.username().map(str::to_owned)),
            password: self.password.clone().or_else(|| told.password().map(str::to_owned)),
            database: told.db(),
            client_name: self.client_name.clone(),
            primary_only: false,
        };
        Ok((info, login))
    }

    fn opener(&self, tls: bool) -> Result<Opener> {
        let authority = match &self.ca_file {
            Some(path) if tls => Some(std::fs::read(path).map_err(|error| {
                let message = format!("the certificate of the authority, {}, cannot be read", path.display());
                Error::new(ErrorKind::Config, message).with_source(error)
            })?),
            _ => None,
        };
        Ok(Opener { tls, authority })
    }
}

/// Where data stand beside rows of this prefix: no key of a row begins with `=`.
fn data_prefix(prefix: &str) -> String {
    format!("{prefix}=")
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// Makes clients of redis-rs: how an address is reached, without any login.
#[derive(Clone)]
struct Opener {
    tls: bool,
    /// In PEM.
    #[cfg_attr(not(feature = "redis-tls"), allow(dead_code, reason = "no address is one of TLS"))]
    authority: Option<Vec<u8>>,
}

impl Opener {
    fn at(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.tls {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }

    #[cfg_attr(not(feature = "redis-tls"), allow(clippy::unused_self, reason = "only TLS has settings of its own"))]
    fn client(&self, address: ConnectionAddr) -> Result<Client, Failure> {
        let wrong =
            |error| Failure::new(ErrorKind::Config, Cure::None, "redis cannot be reached as configured").because(error);
        let info = address
            .into_connection_info()
            .map_err(wrong)?
            .set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name())
            .set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
        #[cfg(feature = "redis-tls")]
        if self.tls {
            // Whoever chose a provider for the process keeps it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            if let Some(authority) = &self.authority {
                let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(authority.clone()) };
                return Client::build_with_tls(info, certificates).map_err(wrong);
            }
        }
        Client::open(info).map_err(wrong)
    }
}
