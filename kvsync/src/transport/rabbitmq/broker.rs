//! The publishing side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::types::{FieldTable, ShortString};

use super::link::Link;
use super::publish::{Letter, Publisher, now, persistent};
use super::routing::routing_key;
use super::settings::Settings;
use super::{call, health};
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::status::Health;
use crate::transport::{Broker, Message};

/// Publishes to a topic exchange of RabbitMQ. Clones share its connection.
///
/// See the [module](super) for what it promises, costs and needs.
#[derive(Clone)]
pub struct RabbitMqBroker {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    exchange: ShortString,
    publisher: Arc<Publisher>,
    closed: AtomicBool,
    bridge: Arc<Bridge>,
}

impl RabbitMqBroker {
    pub(super) fn new(settings: Arc<Settings>) -> Result<Self> {
        let name = format!("rabbitmq exchange {} at {}", settings.names.exchange, settings.place());
        let exchange = settings.names.exchange.as_str().into();
        let publisher = Arc::new(Publisher::new(Arc::new(Link::new(settings, "publisher"))));
        let closed = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { name, exchange, publisher, closed, bridge: Bridge::shared()? }) })
    }
}

impl Broker for RabbitMqBroker {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn max_body(&self) -> usize {
        self.inner.publisher.link.settings.max_body
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        if self.inner.closed.load(Ordering::Acquire) {
            return messages.iter().map(|_| Err(self.inner.publisher.link.closed())).collect();
        }
        let letters: Vec<Result<Letter>> = messages.iter().map(|message| self.inner.letter(message)).collect();
        let fit: Vec<Letter> = letters.iter().flatten().cloned().collect();
        if fit.is_empty() {
            return letters.into_iter().map(|letter| letter.map(drop)).collect();
        }
        let publisher = Arc::clone(&self.inner.publisher);
        let settings = &self.inner.publisher.link.settings;
        // The last attempt begins before `retry_for` has passed, and may connect first. Each message that the server
        // refuses for itself has the others sent one by one.
        let most = settings.retry_for + (settings.connect_timeout + settings.confirm_timeout) * 2;
        let sent = call(&self.inner.bridge, most, ErrorKind::UnknownOutcome, &self.inner.name, async move {
            Ok(publisher.publish(&fit).await)
        });
        let mut sent = match sent {
            Ok(answers) => answers,
            Err(error) => letters.iter().map(|_| Err(error.clone())).collect(),
        }
        .into_iter();
        let answer = |letter: Result<Letter>| {
            letter.and_then(|_| sent.next().unwrap_or_else(|| Err(self.inner.publisher.link.closed())))
        };
        letters.into_iter().map(answer).collect()
    }

    fn health(&self, deadline: Duration) -> Health {
        let link = Arc::clone(&self.inner.publisher.link);
        health::of_publisher(&self.inner.bridge, link, &self.inner.name, deadline)
    }

    fn close(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let link = Arc::clone(&self.inner.publisher.link);
        let most = link.settings.connect_timeout;
        call(&self.inner.bridge, most, ErrorKind::Unavailable, &self.inner.name, async move { link.close().await })
    }
}

impl Inner {
    fn letter(&self, message: &Message) -> Result<Letter> {
        let most = self.publisher.link.settings.max_body;
        if message.body.len() > most {
            let text = format!("a message of {} bytes; {} takes {most} (`max_body`)", message.body.len(), self.name);
            return Err(Error::new(ErrorKind::Rejected, text));
        }
        let short = |text: &str| ShortString::try_new(text).ok();
        let properties = persistent(FieldTable::default()).with_timestamp(now());
        let properties = match (short(&message.id), short(message.content_type)) {
            (Some(id), Some(form)) => properties.with_message_id(id).with_content_type(form),
            (None, Some(form)) => properties.with_content_type(form),
            _ => properties,
        };
        let key = routing_key(&message.table, message.action);
        let key = short(&key).ok_or_else(|| Error::new(ErrorKind::Rejected, format!("`{key}` is no routing key")))?;
        Ok(Letter { exchange: self.exchange.clone(), key, properties, body: message.body.clone() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Acquire) {
            let (link, bridge) = (Arc::clone(&self.publisher.link), Arc::clone(&self.bridge));
            self.bridge.spawn(async move {
                // Nobody is left who could be told.
                let _ = link.close().await;
                drop(bridge);
            });
        }
    }
}

impl fmt::Debug for RabbitMqBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBroker").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
