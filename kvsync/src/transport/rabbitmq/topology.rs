//! What stands on the server: declared, where it is missing, or only looked at.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::error::{failed, is_no_queue};
use super::settings::{Names, Settings};
use crate::error::{Error, Result};
use crate::transport::Backlog;

/// How often a message is redelivered before the server gives it up: never, as far as it can be told so. Newer servers
/// give up after 20, and the message would be gone.
const DELIVERY_LIMIT: u32 = i32::MAX as u32;

/// Declares what is missing, or with `check_only` looks whether it is there.
pub(super) async fn ensure(connection: &Connection, settings: &Settings, place: &str) -> Result<()> {
    let names = &settings.names;
    let ground = Ground { channel: open(connection, place).await?, passive: settings.check_only, place };
    ground.exchange(&names.exchange, ExchangeKind::Topic).await?;
    if let Some(queue) = &names.queue {
        let (dead_exchange, dead_queue) = (names.dead_exchange(), Names::dead_queue(queue));
        ground.exchange(&dead_exchange, ExchangeKind::Direct).await?;
        // Who lists dead letters has them delivered, too.
        let unlimited = || vec![("x-delivery-limit", DELIVERY_LIMIT.into())];
        ground.queue(&dead_queue, unlimited()).await?;
        ground.bind(&dead_queue, &dead_exchange, queue).await?;
        let mut arguments: Vec<(&str, AMQPValue)> = unlimited();
        if let Some(most) = settings.max_messages {
            // Those that find it full are told; the default would drop what came first.
            arguments.push(("x-max-length", i64::try_from(most).unwrap_or(i64::MAX).into()));
            arguments.push(("x-overflow", text("reject-publish")));
        }
        ground.queue(queue, arguments).await?;
        // Through it a dead letter is delivered again to its own queue only.
        ground.bind(queue, &dead_exchange, &Names::redrive_key(queue)).await?;
        for pattern in &names.bindings {
            ground.bind(queue, &names.exchange, pattern).await?;
        }
    }
    ground.end().await;
    Ok(())
}

/// What the queue and its dead letters hold.
pub(super) async fn backlog(connection: &Connection, queue: &str, place: &str) -> Result<Backlog> {
    let ground = Ground { channel: open(connection, place).await?, passive: true, place };
    let waiting = ground.queue(queue, Vec::new()).await?;
    let dead = ground.queue(&Names::dead_queue(queue), Vec::new()).await?;
    ground.end().await;
    Ok(Backlog { waiting: waiting.into(), taken: 0, dead: dead.into() })
}

/// Whether a queue is certainly not there.
pub(super) async fn lacks(connection: &Connection, queue: &str, place: &str) -> Result<bool> {
    let channel = open(connection, place).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let looked = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
    Ground { channel, passive: true, place }.end().await;
    Ok(looked.is_err_and(|error| is_no_queue(&error)))
}

/// Fails when the exchange is not there.
pub(super) async fn look(connection: &Connection, exchange: &str, place: &str) -> Result<()> {
    let ground = Ground { channel: open(connection, place).await?, passive: true, place };
    ground.exchange(exchange, ExchangeKind::Topic).await?;
    ground.end().await;
    Ok(())
}

/// A channel for questions. The first refusal closes it, so that each round has one of its own.
struct Ground<'a> {
    channel: Channel,
    passive: bool,
    place: &'a str,
}

async fn open(connection: &Connection, place: &str) -> Result<Channel> {
    connection.create_channel().await.map_err(|error| failed("opening a channel", place, error))
}

impl Ground<'_> {
    async fn exchange(&self, name: &str, kind: ExchangeKind) -> Result<()> {
        let options = ExchangeDeclareOptions { passive: self.passive, durable: true, ..Default::default() };
        let declared = self.channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
        declared.map_err(|error| self.failed("exchange", name, error))
    }

    /// How many messages wait in it.
    async fn queue(&self, name: &str, arguments: Vec<(&str, AMQPValue)>) -> Result<u32> {
        let mut table = FieldTable::default();
        if !self.passive {
            table.insert("x-queue-type".into(), text("quorum"));
            for (name, value) in arguments {
                table.insert(name.into(), value);
            }
        }
        let options = QueueDeclareOptions { passive: self.passive, durable: true, ..Default::default() };
        let declared = self.channel.queue_declare(name.into(), options, table).await;
        declared.map(|queue| queue.message_count()).map_err(|error| self.failed("queue", name, error))
    }

    async fn bind(&self, queue: &str, exchange: &str, pattern: &str) -> Result<()> {
        if self.passive {
            return Ok(());
        }
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self.channel.queue_bind(queue.into(), exchange.into(), pattern.into(), options, none).await;
        bound.map_err(|error| failed(&format!("binding the queue `{queue}` to `{exchange}`"), self.place, error))
    }

    fn failed(&self, kind: &str, name: &str, error: lapin::Error) -> Error {
        let what = if self.passive { "looking for" } else { "declaring" };
        failed(&format!("{what} the {kind} `{name}`"), self.place, error)
    }

    async fn end(self) {
        // A channel that cannot be closed is gone with its connection.
        let _ = self.channel.close(200, "done".into()).await;
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
