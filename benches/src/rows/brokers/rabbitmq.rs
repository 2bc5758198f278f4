//! RabbitMQ, against lapin on a runtime that the calling thread drives. A connection of lapin has a thread of its own.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, TryFutureExt as _};
use kvsync::transport::Message;
use kvsync::transport::rabbitmq::RabbitMq;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::runtime::{Builder, Runtime};

use super::{BATCH, Bare, Ends, PUBLISHERS, both, compare};
use crate::options::Options;
use crate::table::Figure;
use crate::{Result, servers};

/// The bare client's exchange and queue.
const NAME: &str = "bench-bare";
/// As many as a subscription of kvsync holds.
const PREFETCH: u16 = 500;
/// Messages that outlive a restart of the server.
const PERSISTENT: u8 = 2;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let url = servers::rabbitmq()?;
    let open = || {
        let builder = RabbitMq::builder([url.as_str()]).exchange("bench").queue("bench");
        let subscription = builder.clone().subscription()?;
        Ok(Ends { broker: builder.broker()?, subscription })
    };
    compare(options, "RabbitMQ", open, &mut Client::open(&url)?)
}

/// Publisher and consumer, each with a connection.
struct Client {
    url: String,
    publishers: Vec<Channel>,
    consumer: Consumer,
    acks: Channel,
    _connections: [Connection; 2],
    // Dropped last: the connections live on it.
    runtime: Runtime,
}

impl Client {
    fn open(url: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (publishers, acks, consumer, connections) = runtime.block_on(async {
            let sends = Connection::connect(url, ConnectionProperties::default()).await?;
            let takes = Connection::connect(url, ConnectionProperties::default()).await?;
            let acks = takes.create_channel().await?;
            declare(&acks).await?;
            acks.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = acks.basic_consume(NAME.into(), "".into(), options, none).await?;
            let mut publishers = Vec::new();
            for _ in 0..PUBLISHERS {
                let channel = sends.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                publishers.push(channel);
            }
            Ok::<_, lapin::Error>((publishers, acks, consumer, [sends, takes]))
        })?;
        Ok(Self { url: url.to_owned(), publishers, consumer, acks, _connections: connections, runtime })
    }
}

impl Bare for Client {
    fn pass(&mut self, messages: &[Message]) -> Result {
        let (acks, arriving, count) = (&self.acks, &mut self.consumer, messages.len());
        let parts = messages.chunks(count.div_ceil(PUBLISHERS));
        let publishers = parts.zip(&self.publishers).map(|(part, channel)| async move {
            for batch in part.chunks(BATCH) {
                let sent = join_all(batch.iter().map(|one| publish(channel, NAME, one))).await;
                let confirms = sent.into_iter().collect::<Result<Vec<_>, _>>()?;
                for confirm in confirms {
                    if !confirm.await?.is_ack() {
                        return Err("the server took no message".into());
                    }
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        // As many as have arrived are acknowledged by one word.
        let receiver = async {
            let (mut left, mut ready) = (count, arriving.ready_chunks(BATCH));
            while left > 0 {
                let arrived = ready.next().await.ok_or("the consumer ended")?;
                left = left.saturating_sub(arrived.len());
                let arrived = arrived.into_iter().collect::<Result<Vec<_>, _>>()?;
                if let Some(last) = arrived.last() {
                    acks.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        self.runtime.block_on(both(try_join_all(publishers).map_ok(drop), receiver))
    }

    /// To the exchange that drops what no queue wants.
    fn throw(&mut self, messages: &[Message]) -> Result {
        let url = &self.url;
        self.runtime.block_on(async {
            for message in messages {
                let connection = Connection::connect(url, ConnectionProperties::default()).await?;
                let channel = connection.create_channel().await?;
                publish(&channel, "amq.topic", message).await?;
                connection.close(200, "done".into()).await?;
            }
            Ok(())
        })
    }

    fn rest(&mut self) -> Result {
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}

/// An exchange and a queue as kvsync makes them.
async fn declare(channel: &Channel) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(NAME.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(NAME.into(), durable, arguments).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(NAME.into(), NAME.into(), "#".into(), options, FieldTable::default()).await
}

async fn publish(channel: &Channel, exchange: &str, message: &Message) -> lapin::Result<lapin::PublisherConfirm> {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.id.as_str().into())
        .with_content_type(message.content_type.into())
        .with_timestamp(1_700_000_000);
    let key = format!("{}.{}", message.table, message.action);
    let options = BasicPublishOptions { mandatory: exchange == NAME, ..Default::default() };
    channel.basic_publish(exchange.into(), key.as_str().into(), options, &message.body, properties).await
}
