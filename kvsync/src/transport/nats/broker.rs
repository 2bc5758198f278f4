//! The side that publishes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::builder::{Builder, Timing};
use super::publish::publish;
use super::session::Session;
use super::{GRACE, HEADROOM, UNTOLD, health};
use crate::bridge::{self, Bridge};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::Link;
use crate::status::Health;
use crate::transport::{Broker, Message};

/// Publishes to a stream of NATS JetStream. See the [module](super) for what it promises, costs and needs.
pub struct NatsBroker {
    name: String,
    session: Arc<Session>,
    timing: Timing,
    closed: AtomicBool,
    // Dropped last: the connection lives on it.
    bridge: Arc<Bridge>,
}

impl NatsBroker {
    /// Begins to configure what publishes and receives, at these URLs, `nats://[user:password@]host[:port]`, or
    /// `tls://` for TLS. One server of a cluster is enough to find the others.
    pub fn builder(urls: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(urls.into_iter().map(Into::into).collect())
    }

    pub(super) fn new(session: Session, timing: Timing) -> Result<Self> {
        let name = format!("nats stream {} at {}", session.topology.stream, session.at());
        let session = Arc::new(session);
        Ok(Self { name, session, timing, closed: AtomicBool::new(false), bridge: Bridge::shared()? })
    }

    fn call<T: Send + 'static>(&self, within: Duration, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)));
        }
        self.bridge.run(within + GRACE, work).map_err(|cut| match cut {
            bridge::Cut::Deadline => {
                Error::new(ErrorKind::UnknownOutcome, format!("{} did not answer in time", self.name))
            }
            bridge::Cut::Panic => {
                let message = format!("a call to {} ended in a panic; this is a fault of kvsync", self.name);
                Error::new(ErrorKind::UnknownOutcome, message)
            }
            bridge::Cut::OwnThread => {
                let message = "a broker was called on the thread of its own connections, which it would block";
                Error::new(ErrorKind::Config, message)
            }
        })
    }
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBroker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Broker for NatsBroker {
    fn name(&self) -> &str {
        &self.name
    }

    /// What the server takes, less room for headers. It connects if it never did; without a server it is what servers
    /// take by default.
    fn max_body(&self) -> usize {
        let told = |link: &Link| link.nats.max_payload();
        let known = self.session.known().map(told).or_else(|| {
            let (session, within) = (Arc::clone(&self.session), self.session.connect_timeout());
            let asked = async move { session.link(Instant::now() + within).await.ok().map(told) };
            self.call(within, asked).ok().flatten()
        });
        known.unwrap_or(UNTOLD).saturating_sub(HEADROOM)
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let (session, timing, owned) = (Arc::clone(&self.session), self.timing.clone(), messages.to_vec());
        let within = timing.publish + timing.retry_for;
        let answers = self.call(within, async move { publish(&session, &timing, &owned).await });
        answers.unwrap_or_else(|error| messages.iter().map(|_| Err(error.clone())).collect())
    }

    fn health(&self, deadline: Duration) -> Health {
        health::of_broker(&self.session, &self.bridge, deadline)
    }

    fn close(&self) -> Result<()> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let session = Arc::clone(&self.session);
            let farewell = async move {
                if let Some(link) = session.known() {
                    link.close().await;
                }
            };
            // A connection that cannot be drained is dropped.
            let _ = self.bridge.run(self.timing.publish, farewell);
        }
        Ok(())
    }
}
