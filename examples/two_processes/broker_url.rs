//! The broker that a URL names: `nats://HOST:PORT` is NATS JetStream, `amqp://USER:PASSWORD@HOST:PORT` RabbitMQ. A program
//! that has one broker needs a line of this.
//!
//! | variable | what it names | default |
//! |---|---|---|
//! | `KVSYNC_BROKER` | the broker | `amqp://guest:guest@127.0.0.1:5672` |
//! | `KVSYNC_EXCHANGE` | the exchange of RabbitMQ, the stream of NATS | `kvsync` |
//! | `KVSYNC_QUEUE` | the queue of one store: consumers that feed the same share one | `redis` |

use std::time::Duration;

use kvsync::consumer::ConsumerBuilder;
use kvsync::transport::nats::NatsBroker;
use kvsync::transport::rabbitmq::RabbitMq;
use kvsync::{Builder, Result};

/// A variable, or what it is without it.
pub fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

/// Lets a handle publish there. It makes the queue, too: what is published before the first consumer comes waits in it.
pub fn publish(handle: Builder) -> Result<Builder> {
    let (url, exchange, queue) = from_env();
    Ok(if url.starts_with("nats:") {
        handle.broker(nats(url, &exchange).with_queue(queue).broker()?)
    } else {
        handle.broker(rabbitmq(url, exchange, queue).broker()?)
    })
}

/// Lets a consumer receive from there.
pub fn receive(consumer: ConsumerBuilder) -> Result<ConsumerBuilder> {
    let (url, exchange, queue) = from_env();
    Ok(if url.starts_with("nats:") {
        consumer.subscription(nats(url, &exchange).queue(queue)?)
    } else {
        consumer.subscription(rabbitmq(url, exchange, queue).subscription()?)
    })
}

fn from_env() -> (String, String, String) {
    let url = setting("KVSYNC_BROKER", "amqp://guest:guest@127.0.0.1:5672");
    (url, setting("KVSYNC_EXCHANGE", "kvsync"), setting("KVSYNC_QUEUE", "redis"))
}

/// Both sides declare the queue, and it has to be the same one: limits belong here.
fn rabbitmq(url: String, exchange: String, queue: String) -> kvsync::transport::rabbitmq::Builder {
    RabbitMq::builder([url]).exchange(exchange).queue(queue)
}

fn nats(url: String, stream: &str) -> kvsync::transport::nats::Builder {
    // What a consumer held that was killed comes again after this time.
    NatsBroker::builder([url]).stream(stream).prefix(stream).ack_wait(Duration::from_secs(5))
}
