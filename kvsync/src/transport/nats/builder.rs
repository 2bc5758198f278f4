//! Configures what publishes to a stream, and what receives from it.

use std::sync::Arc;
use std::time::Duration;

use super::broker::NatsBroker;
use super::queue::NatsQueue;
use super::session::Session;
use super::subject::Subjects;
use super::topology::{Topology, named};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Connect, connect_methods};

/// For ever, as far as clocks can add it up.
const LONGEST: Duration = Duration::from_hours(24 * 365);
/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 128;

/// Configures a [`NatsBroker`], which publishes, and [`NatsQueue`]s, which receive: begun by [`NatsBroker::builder`].
///
/// Both sides are given the same stream and prefix. What is made of it has a connection of its own each.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it makes a broker or a queue"]
pub struct Builder {
    connect: Connect,
    topology: Topology,
    pub(super) timing: Timing,
}

/// How long things may take, and how much may be under way.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    pub(super) publish: Duration,
    pub(super) retry_for: Duration,
    pub(super) prefetch: usize,
}

impl Builder {
    pub(super) fn new(urls: Vec<String>) -> Self {
        let topology = Topology {
            stream: "kvsync".to_owned(),
            prefix: "kvsync".to_owned(),
            tables: Vec::new(),
            queues: Vec::new(),
            replicas: 1,
            max_age: Duration::ZERO,
            max_messages: None,
            max_bytes: None,
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 8192,
            check_only: false,
        };
        let timing = Timing { publish: Duration::from_secs(5), retry_for: Duration::from_secs(5), prefetch: 512 };
        Self { connect: Connect::new(urls), topology, timing }
    }

    connect_methods!();

    /// The stream, `kvsync` by default: letters, digits, `-` and `_`, at most 128. Its dead letters are in the stream
    /// of this name with `-dead` behind it.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.topology.stream = name.into();
        self
    }

    /// What the subjects of the stream begin with, `kvsync` by default: letters, digits, `-` and `_`, and dots between
    /// them.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.topology.prefix = prefix.into();
        self
    }

    /// Queues get the changes of these tables only; by default of all. One table works with every server, more need
    /// one of version 2.10.
    pub fn tables(mut self, tables: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.topology.tables = tables.into_iter().map(Into::into).collect();
        self
    }

    /// A queue that the broker makes, too, where it is missing, of these tables: what is published before its first
    /// consumer comes waits in it. Without any, publishing fails until a consumer has made a queue. Call it again for more.
    pub fn with_queue(mut self, name: impl Into<String>) -> Self {
        self.topology.queues.push(name.into());
        self
    }

    /// How many servers keep the streams that are made: one by default, three or five in a cluster.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.topology.replicas = replicas;
        self
    }

    /// How long the stream that is made keeps a message that some queue has not acknowledged; without limit by default.
    /// **What is older is lost for that queue**, and nobody is told: take at least the longest outage of a consumer
    /// that you will bear.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.topology.max_age = age;
        self
    }

    /// The most messages of the stream that is made. A stream that is full refuses messages, and forgets none. Without
    /// limit by default.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.topology.max_messages = Some(messages);
        self
    }

    /// The most bytes of the stream that is made, likewise; some accounts require a limit. Servers below 2.10 are
    /// refused then: those measured (2.9.10) forget their oldest message when the last bytes are filled.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.topology.max_bytes = Some(bytes);
        self
    }

    /// After how long the server delivers a message again that a consumer took and was not heard of since, because it
    /// died or cannot be reached: 30 seconds by default. Consumers that live ask for more time while they hold one. A
    /// queue that is there already keeps what it was made with.
    pub fn ack_wait(mut self, time: Duration) -> Self {
        self.topology.ack_wait = time;
        self
    }

    /// How many messages of a queue may be taken and not acknowledged, by all its consumers together, those whose retry
    /// is delayed included: 8192 by default. When there are as many, nothing is delivered.
    pub fn max_ack_pending(mut self, messages: usize) -> Self {
        self.topology.max_ack_pending = messages.max(1);
        self
    }

    /// How many messages one consumer holds at most, taken from the server and not acknowledged: 512 by default.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.timing.prefetch = messages.max(1);
        self
    }

    /// How long to wait for the confirmation of a message, or for another answer: five seconds by default.
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.timing.publish = timeout;
        self
    }

    /// For how long publishing is tried again after failures that may pass, a full stream among them: five seconds by
    /// default.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.timing.retry_for = time;
        self
    }

    /// Makes nothing on the servers: streams and queues that are missing are an error. For users without the rights to
    /// make them.
    pub fn check_only(mut self) -> Self {
        self.topology.check_only = true;
        self
    }

    /// What publishes to the stream. Connects at the first call.
    ///
    /// # Errors
    ///
    /// For a configuration that cannot work: a URL, a name, a file that cannot be read.
    pub fn broker(&self) -> Result<NatsBroker> {
        let builder = self.checked()?;
        NatsBroker::new(builder.session()?, builder.timing)
    }

    /// What receives from the queue of this name: letters, digits, `-` and `_`, at most 128. Each queue gets every
    /// message; consumers of one queue share its messages.
    ///
    /// Waits until the queue was found or made, or the first attempt has failed, for
    /// [`connect_timeout`](Self::connect_timeout) at most. It is tried again in the background, and calls fail until then:
    /// a server that is away is no error here.
    ///
    /// # Errors
    ///
    /// For a configuration that cannot work: a URL, a name, a file that cannot be read.
    pub fn queue(&self, name: impl Into<String>) -> Result<NatsQueue> {
        let (builder, name) = (self.checked()?, name.into());
        named("queue", &name)?;
        NatsQueue::new(Arc::new(builder.session()?), &name, &builder.timing)
    }

    fn session(&self) -> Result<Session> {
        Ok(Session::new(self.connect.servers()?, self.topology.clone(), self.timing.publish))
    }

    fn checked(&self) -> Result<Self> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        named("stream", &self.topology.stream)?;
        self.topology.queues.iter().try_for_each(|queue| named("queue", queue))?;
        let prefix = &self.topology.prefix;
        if prefix.len() > MAX_PREFIX || !Subjects::is_prefix(prefix) {
            return wrong(format!(
                "`{prefix}` is no prefix of subjects; take letters, digits, `-` and `_`, with dots between, at most \
                 {MAX_PREFIX}"
            ));
        }
        for (what, time) in [("publish_timeout", self.timing.publish), ("ack_wait", self.topology.ack_wait)] {
            if time.is_zero() {
                return wrong(format!("the {what} of a nats stream cannot be zero"));
            }
        }
        let mut builder = self.clone();
        for time in [&mut builder.timing.publish, &mut builder.timing.retry_for, &mut builder.topology.ack_wait] {
            *time = (*time).min(LONGEST);
        }
        Ok(builder)
    }
}
