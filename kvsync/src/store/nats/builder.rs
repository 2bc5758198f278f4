//! Configures a store and connects it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::client::Client;
use super::subject::{MAX_BUCKET, MAX_PREFIX, Subjects};
use super::update::Turns;
use super::{Inner, NatsStore};
use crate::bridge::Bridge;
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Connect, connect_methods};

/// Room for what goes with an entry: the name of a header and a revision.
const HEADERS: usize = 128;

/// Configures a [`NatsStore`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    connect: Connect,
    bucket: Bucket,
    prefix: String,
    command_timeout: Duration,
    retry_for: Duration,
    concurrency: usize,
}

impl Builder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        let name = "kvsync".to_owned();
        let bucket = Bucket { name: name.clone(), create: true, replicas: 1, in_memory: false, max_bytes: None };
        Self {
            connect: Connect::new(urls),
            bucket,
            prefix: name,
            command_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(5),
            concurrency: 128,
        }
    }

    connect_methods!();

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
        for time in [&mut self.command_timeout, &mut self.retry_for] {
            *time = (*time).min(FOR_EVER);
        }
        let servers = self.connect.servers()?;
        let at = servers.at.clone();
        let bridge = Bridge::shared()?;
        let (bucket, command_timeout) = (self.bucket.clone(), self.command_timeout);
        let subjects = Subjects::new(&bucket.name, &self.prefix);
        let (probe, within) = (subjects.epoch(), servers.timeout);
        let connected = bridge.run(within + super::GRACE, async move {
            let until = Instant::now() + within;
            let client = Client::connect(servers, bucket, command_timeout, until).await?;
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
        if self.command_timeout.is_zero() {
            return wrong("the command_timeout of a nats store cannot be zero".to_owned());
        }
        Ok(())
    }
}
