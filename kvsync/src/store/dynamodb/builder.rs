//! Configures a store and connects it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use super::call::Effect;
use super::layout::Layout;
use super::plain::PlainTable;
use super::{DynamoDbStore, Inner, Settings, table};
use crate::bridge::{Bridge, Cut};
use crate::error::{Error, ErrorKind, Result};

/// How long DynamoDB may be out of reach before a table is created.
const REACH: Duration = Duration::from_secs(10);
/// How long a table may take to become active.
const CREATION: Duration = Duration::from_mins(2);

/// Configures a [`DynamoDbStore`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    table: String,
    prefix: String,
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Option<Credentials>,
    client: Option<Client>,
    connect_timeout: Duration,
    command_timeout: Duration,
    retry_for: Duration,
    batch: usize,
}

impl Builder {
    pub(super) fn new(table: String) -> Self {
        Self {
            table,
            prefix: String::new(),
            region: None,
            endpoint: None,
            credentials: None,
            client: None,
            connect_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_secs(3),
            retry_for: Duration::from_secs(5),
            batch: 100,
        }
    }

    /// What every hash key begins with, so that several stores share a table: nothing by default. None of them may
    /// begin with another.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The region, where it is not that of the environment or profile.
    pub fn region(self, region: impl Into<String>) -> Self {
        Self { region: Some(region.into()), ..self }
    }

    /// The URL of DynamoDB, where it is not that of the region: a local one, or an endpoint of a private network.
    pub fn endpoint(self, url: impl Into<String>) -> Self {
        Self { endpoint: Some(url.into()), ..self }
    }

    /// The credentials, where they are not those of the standard chain: for a local DynamoDB, which takes any.
    pub fn credentials(self, access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        let credentials = Credentials::new(access_key, secret_key, None, None, "kvsync");
        Self { credentials: Some(credentials), ..self }
    }

    /// A client of your own, used as it is; region, endpoint, credentials and the time to connect are its matter. Let
    /// it not retry by itself: the store does, and tells what is in doubt.
    pub fn client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// How long to wait for a connection: one second by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// How long a call that reads may take, retries included, and how long a request that writes waits for its
    /// answer: three seconds by default.
    pub fn command_timeout(self, timeout: Duration) -> Self {
        Self { command_timeout: timeout, ..self }
    }

    /// For how long a write is tried again after throttling, failures that may pass, and races with other writers:
    /// five seconds by default.
    pub fn retry_for(self, time: Duration) -> Self {
        Self { retry_for: time, ..self }
    }

    /// How many steps the workers should put into one call: 100 by default, which one request reads.
    pub fn max_batch(self, steps: usize) -> Self {
        Self { batch: steps.max(1), ..self }
    }

    /// Connects to the table. Blocks for some seconds at most.
    ///
    /// # Errors
    ///
    /// When the table is not there or has other keys, when no credentials or region are found, and when DynamoDB
    /// cannot be reached. The message says what to do.
    pub fn connect(self) -> Result<DynamoDbStore> {
        let wait = self.connect_timeout;
        let inner = self.inner()?;
        let budget = wait.saturating_add(inner.budget(Effect::Writes));
        inner.call(Effect::Reads, budget, |call| async move { table::check(&call).await })?;
        Ok(DynamoDbStore { inner })
    }

    /// Creates the table, unless there is one of this name, waits until it serves, and has DynamoDB remove what
    /// expires. Blocks for up to two minutes; some seconds in AWS.
    ///
    /// # Errors
    ///
    /// When rights are missing, when the table has other keys, and when DynamoDB cannot be reached for ten seconds.
    pub fn create_table(&self) -> Result<()> {
        let inner = self.clone().inner()?;
        let reach = REACH.max(self.command_timeout);
        inner.call(Effect::Reads, reach, |call| async move { table::reach(&call).await })?;
        let budget = CREATION.saturating_add(self.command_timeout);
        inner.call(Effect::Writes, budget, |call| async move {
            table::create(&call).await?;
            table::check(&call).await
        })
    }

    /// The table as one of strings under a partition key, as other programs keep them.
    ///
    /// # Errors
    ///
    /// When no credentials or region are found.
    pub fn plain(self) -> Result<PlainTable> {
        Ok(PlainTable::new(self.inner()?))
    }

    fn inner(self) -> Result<Arc<Inner>> {
        for (name, time) in [("connect_timeout", self.connect_timeout), ("command_timeout", self.command_timeout)] {
            if time.is_zero() {
                return Err(Error::new(ErrorKind::Config, format!("the {name} of a dynamodb store cannot be zero")));
            }
        }
        self.check()?;
        let bridge = Bridge::shared()?;
        let name = match &self.endpoint {
            Some(endpoint) => format!("dynamodb table {} at {endpoint}", self.table),
            None => format!("dynamodb table {}", self.table),
        };
        let settings = Settings { command_timeout: self.command_timeout, retry_for: self.retry_for, batch: self.batch };
        let (layout, table, wait) = (Layout::new(&self.prefix), self.table.clone(), self.connect_timeout);
        let client = match self.client.clone() {
            Some(client) => client,
            None => bridge.run(wait.saturating_add(Duration::from_secs(10)), self.load()).map_err(unloaded)??,
        };
        let (removes, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Inner { name, table, layout, client, bridge, settings, removes, closed }))
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        let name = &self.table;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_name = (3..=255).contains(&name.len()) && name.bytes().all(named);
        if !is_name && !name.starts_with("arn:") {
            return wrong(format!("`{name}` is no name of a table; take 3 to 255 letters, digits, `_`, `.` and `-`"));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        if endpoint.contains('@') {
            return wrong("the endpoint names a user; give credentials by `Builder::credentials`".to_owned());
        }
        if !is_endpoint(endpoint) {
            return wrong(format!(
                "`{endpoint}` is no endpoint of dynamodb; write `http://host:port` or `https://host`"
            ));
        }
        Ok(())
    }

    /// The client, by the standard chains for region and credentials.
    async fn load(self) -> Result<Client> {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(self.connect_timeout).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled());
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(credentials) = self.credentials {
            loader = loader.credentials_provider(credentials);
        }
        let local = self.endpoint.is_some();
        if let Some(endpoint) = self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let found = loader.load().await;
        let mut config = aws_sdk_dynamodb::config::Builder::from(&found);
        if found.region().is_none() {
            if !local {
                let message = "no AWS region is configured; set AWS_REGION, or give one to the builder";
                return Err(Error::new(ErrorKind::Config, message));
            }
            config = config.region(Region::new("us-east-1"));
        }
        Ok(Client::from_conf(config.build()))
    }
}

fn is_endpoint(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // An address in brackets has colons of its own.
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_host = !host.is_empty() && !host.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    let is_host = is_host && (host.starts_with('[') || !host.contains(':'));
    matches!(scheme, "http" | "https") && is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn unloaded(cut: Cut) -> Error {
    let message = match cut {
        Cut::Deadline => "the AWS configuration was not found in time",
        Cut::Panic => "the AWS configuration cannot be loaded; is `AWS_ENDPOINT_URL` a URL?",
        Cut::OwnThread => "a dynamodb store cannot be opened on a thread of another",
    };
    Error::new(ErrorKind::Unavailable, message)
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("table", &self.table).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        for url in
            ["http://127.0.0.1:8000", "https://dynamodb.eu-west-1.amazonaws.com/", "http://[::1]:8000", "http://[::1]"]
        {
            assert!(is_endpoint(url), "{url}");
        }
        for url in
            ["", "::::", "127.0.0.1:8000", "localhost", "http://", "http://:80", "ftp://h", "http://a b", "http://h:x"]
        {
            assert!(!is_endpoint(url), "{url}");
            let error = DynamoDbStore::builder("table").endpoint(url).connect().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        let error = DynamoDbStore::builder("table").endpoint("http://me:secret@host").connect().unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_name_that_no_table_can_have_is_told_before_anything_is_asked() {
        for name in ["", "ab", "a table", "a/b", &"x".repeat(256)] {
            let error = DynamoDbStore::builder(name).endpoint("http://127.0.0.1:1").connect().unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("name"), "{error}");
        }
    }
}
