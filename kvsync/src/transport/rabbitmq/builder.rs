//! Configures both sides.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};

use super::broker::RabbitMqBroker;
use super::routing::routing_word;
use super::settings::{Names, Settings};
use super::subscription::RabbitMqSubscription;
use crate::error::{Error, ErrorKind, Result};

/// For ever, as far as clocks can add it up.
const LONGEST: Duration = Duration::from_hours(24 * 365);
/// The longest name, with room for what is put behind it.
const MAX_NAME: usize = 200;
/// What a message may be at most where newer servers are left as they are.
const MAX_BODY: usize = 16 << 20;

/// Configures a [`RabbitMqBroker`] or a [`RabbitMqSubscription`], or one of each.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    urls: Vec<String>,
    exchange: String,
    queue: Option<String>,
    bindings: Vec<String>,
    login: Option<(String, String)>,
    ca_file: Option<PathBuf>,
    client_name: String,
    heartbeat: Duration,
    check_only: bool,
    max_messages: Option<u64>,
    max_body: usize,
    prefetch: u16,
    connect_timeout: Duration,
    confirm_timeout: Duration,
    retry_for: Duration,
}

impl Builder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            exchange: "kvsync".to_owned(),
            queue: Some("kvsync".to_owned()),
            bindings: Vec::new(),
            login: None,
            ca_file: None,
            client_name: "kvsync".to_owned(),
            heartbeat: Duration::from_secs(10),
            check_only: false,
            max_messages: None,
            max_body: MAX_BODY,
            prefetch: 500,
            connect_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(5),
        }
    }

    /// The exchange, `kvsync` by default. At most 200 bytes.
    pub fn exchange(self, name: impl Into<String>) -> Self {
        Self { exchange: name.into(), ..self }
    }

    /// The queue, `kvsync` by default: each store that is fed has one of its own. At most 200 bytes. A publisher
    /// declares it, too, so that nothing is published before it is there.
    pub fn queue(self, name: impl Into<String>) -> Self {
        Self { queue: Some(name.into()), ..self }
    }

    /// For a publisher that leaves all queues to their consumers. What it publishes before there is one is an error.
    pub fn without_queue(self) -> Self {
        Self { queue: None, ..self }
    }

    /// Only changes of these tables reach the queue; of all tables by default. What the queue wanted before it goes on
    /// to want: the server keeps bindings until they are removed.
    pub fn tables(self, tables: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let patterns = tables.into_iter().map(|table| format!("{}.*", routing_word(table.as_ref())));
        self.bindings(patterns.collect::<Vec<_>>())
    }

    /// Only what these patterns of [routing keys](super::routing_key) match reaches the queue, such as `*.delete`; `#`
    /// by default.
    pub fn bindings(self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { bindings: patterns.into_iter().map(Into::into).collect(), ..self }
    }

    /// The user and password, for URLs that name none, or in their place.
    pub fn user_and_password(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { login: Some((user.into(), password.into())), ..self }
    }

    /// The certificate, in PEM, of an authority that is trusted beside those of the operating system, for `amqps://`.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// What the server calls the connections: `kvsync` by default.
    pub fn client_name(self, name: impl Into<String>) -> Self {
        Self { client_name: name.into(), ..self }
    }

    /// How long a connection may be silent before either side takes it for lost, twice over: ten seconds by default,
    /// one at least. A consumer to which nothing came for that long, and which holds nothing, begins anew.
    pub fn heartbeat(self, time: Duration) -> Self {
        Self { heartbeat: time, ..self }
    }

    /// Declares nothing: looks whether exchanges and queues are there, and fails where one is missing. For users who
    /// may not configure anything; see the [module](super) for what has to be there. **How a queue is set is not
    /// told to clients**, so nothing notices one that drops messages: see that
    /// `rabbitmqctl list_queues name type durable arguments policy` shows a durable quorum queue without a time to live,
    /// without `max-length` unless with `reject-publish`, and with a high `delivery-limit`.
    pub fn check_only(self) -> Self {
        Self { check_only: true, ..self }
    }

    /// The most messages of a queue that is declared; one that is full refuses more, and publishing is an error. The
    /// server counts what it has stored: what is on its way at that moment it still takes. Without limit by default. Publisher and consumer both declare the queue, so both need the same: whoever comes second with
    /// another fails. Make one builder, and of it both.
    pub fn max_messages(self, most: u64) -> Self {
        Self { max_messages: Some(most), ..self }
    }

    /// The largest body of a message, in bytes: 16 MiB by default. The server has a limit of its own, `max_message_size`:
    /// 128 MiB by default in 3.x and 16 MiB in 4.x, by its documentation.
    pub fn max_body(self, bytes: usize) -> Self {
        Self { max_body: bytes, ..self }
    }

    /// How many messages a consumer is sent before it has acknowledged any: 500 by default.
    pub fn prefetch(self, messages: u16) -> Self {
        Self { prefetch: messages.max(1), ..self }
    }

    /// How long connecting may take, and the answer to any question but a publication: five seconds by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// How long to wait until the server has confirmed what one call published: ten seconds by default.
    pub fn confirm_timeout(self, timeout: Duration) -> Self {
        Self { confirm_timeout: timeout, ..self }
    }

    /// For how long a call goes on to connect, and to publish again what a lost connection took with it: five seconds
    /// by default.
    pub fn retry_for(self, time: Duration) -> Self {
        Self { retry_for: time, ..self }
    }

    /// The publishing side. Connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it could never work as it stands. That the server is away is
    /// an error of the calls.
    pub fn broker(self) -> Result<RabbitMqBroker> {
        RabbitMqBroker::new(Arc::new(self.settings()?))
    }

    /// The receiving side. Connects in the background.
    ///
    /// # Errors
    ///
    /// As [`broker`](Self::broker), and without a queue.
    pub fn subscription(self) -> Result<RabbitMqSubscription> {
        let Some(queue) = self.queue.clone() else {
            return Err(Error::new(ErrorKind::Config, "a subscription of rabbitmq needs a queue; name one"));
        };
        RabbitMqSubscription::new(&Arc::new(self.settings()?), queue)
    }

    fn settings(self) -> Result<Settings> {
        for (what, name) in [("exchange", Some(&self.exchange)), ("queue", self.queue.as_ref())] {
            if name.is_some_and(|name| name.is_empty() || name.len() > MAX_NAME || name.starts_with("amq.")) {
                let message = format!("no name for a {what}: give one of 1 to {MAX_NAME} bytes that is not `amq.`'s");
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        if let Some(pattern) = self.bindings.iter().find(|pattern| pattern.len() > 255) {
            let message = format!("the binding `{pattern}` is longer than 255 bytes; bind to `#` or to an action");
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.connect_timeout.is_zero() || self.confirm_timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "the timeouts of rabbitmq cannot be zero"));
        }
        let servers: Vec<AMQPUri> = self.urls.iter().map(|url| self.server(url)).collect::<Result<_>>()?;
        if servers.is_empty() {
            return Err(Error::new(ErrorKind::Config, "rabbitmq needs the URL of one node at least"));
        }
        let secure = servers.iter().any(|server| server.scheme == AMQPScheme::AMQPS);
        if secure && !cfg!(feature = "rabbitmq-tls") {
            return Err(Error::new(ErrorKind::Config, "an `amqps://` URL needs kvsync's feature `rabbitmq-tls`"));
        }
        let cert_chain = self.ca_file.as_deref().map(readable).transpose()?;
        let bindings = if self.bindings.is_empty() { vec!["#".to_owned()] } else { self.bindings };
        Ok(Settings {
            servers,
            tls: OwnedTLSConfig { identity: None, cert_chain },
            client_name: self.client_name,
            quiet: self.heartbeat.clamp(Duration::from_secs(1), LONGEST),
            names: Names { exchange: self.exchange, queue: self.queue, bindings },
            check_only: self.check_only,
            max_messages: self.max_messages,
            max_body: self.max_body,
            prefetch: self.prefetch,
            connect_timeout: self.connect_timeout.min(LONGEST),
            confirm_timeout: self.confirm_timeout.min(LONGEST),
            retry_for: self.retry_for.min(LONGEST),
        })
    }

    fn server(&self, url: &str) -> Result<AMQPUri> {
        // What the client says of a URL that it cannot read may be all of it, with the password.
        let mut server: AMQPUri = url.parse().map_err(|_| {
            let message = "this is no URL of rabbitmq; write `amqp://user:password@host:port/vhost`, or `amqps://`";
            Error::new(ErrorKind::Config, message)
        })?;
        // The client takes an address in brackets for none.
        if let Some((_, rest)) = url.split_once('[')
            && let Some((address, _)) = rest.split_once(']')
        {
            address.clone_into(&mut server.authority.host);
        }
        // A slash with nothing behind it is meant as the default.
        if server.vhost.is_empty() {
            "/".clone_into(&mut server.vhost);
        }
        if let Some((user, password)) = &self.login {
            user.clone_into(&mut server.authority.userinfo.username);
            password.clone_into(&mut server.authority.userinfo.password);
        }
        let seconds = self.heartbeat.as_secs().max(1);
        server.query.heartbeat = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        Ok(server)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Builder");
        shown.field("exchange", &self.exchange).field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// The text of a file that the connection will need.
fn readable(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("{} cannot be read, and the connection to rabbitmq needs it", path.display());
        Error::new(ErrorKind::Config, message).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(url: &str) -> Builder {
        Builder::new(vec![url.to_owned()])
    }

    #[test]
    fn what_could_never_work_is_told_without_passwords() {
        let of = |builder: Builder| builder.settings().map(|_| ()).unwrap_err();
        for wrong in [
            builder("user:secret@host"),
            builder("http://user:secret@host"),
            builder("amqp://h").exchange(""),
            builder("amqp://h").queue("amq.mine"),
            builder("amqp://h").bindings(["x".repeat(256)]),
            builder("amqp://h").confirm_timeout(Duration::ZERO),
            builder("amqps://h").ca_file("/nowhere/ca.pem"),
            Builder::new(Vec::new()),
        ] {
            let shown = format!("{wrong:?}");
            let error = of(wrong);
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(!format!("{error:?} {error} {shown}").contains("secret"), "{error:?} {shown}");
        }
        let error = builder("amqp://h").without_queue().subscription().unwrap_err();
        assert!(error.to_string().contains("needs a queue"), "{error}");
    }

    #[test]
    fn urls_say_where_and_who() {
        let of = |builder: Builder| builder.settings().unwrap().servers.remove(0);
        let read = of(builder("amqp://me:p%40ss@host:1/%2Fv"));
        assert_eq!((read.authority.host.as_str(), read.authority.port, read.vhost.as_str()), ("host", 1, "/v"));
        assert_eq!(read.authority.userinfo.password, "p@ss");
        assert_eq!(of(builder("amqp://host/")).vhost, "/");
        assert_eq!(of(builder("amqp://[::1]:2")).authority.host, "::1");
        let other = of(builder("amqp://me:secret@host").user_and_password("you", "hidden"));
        assert_eq!(other.authority.userinfo.username, "you");
        assert_eq!(other.query.heartbeat, Some(10));
    }
}
