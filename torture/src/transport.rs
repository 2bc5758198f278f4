//! How a process reaches the broker.

use std::time::Duration;

use kvsync::Builder;
use kvsync::consumer::ConsumerBuilder;
use kvsync::transport::nats::{self, NatsBroker};
use kvsync::transport::rabbitmq::{self, RabbitMq};
use kvsync::transport::{Broker, Status, Subscription};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::open::patiently;

/// Where the broker is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum TransportAt {
    RabbitMq(String),
    Nats(String),
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    Publishers,
    Consumers,
}

/// The queue of the store.
const QUEUE: &str = "store";
/// Shorter than many faults, so that what was not confirmed has to be published again.
const PATIENCE: Duration = Duration::from_millis(500);
const CONFIRM: Duration = Duration::from_secs(3);
/// Shorter than many pauses of a consumer: who wakes finds that others have got what it holds.
const ACK_WAIT: Duration = Duration::from_secs(2);

impl TransportAt {
    /// Lets what this builder makes publish.
    pub(crate) fn publishing(&self, builder: Builder) -> Outcome<Builder> {
        Ok(match self {
            Self::RabbitMq(url) => builder.broker(rabbitmq(url).broker()?),
            Self::Nats(url) => builder.broker(nats(url).broker()?),
        })
    }

    /// Lets what this builder makes receive.
    pub(crate) fn receiving(&self, builder: ConsumerBuilder) -> Outcome<ConsumerBuilder> {
        Ok(match self {
            Self::RabbitMq(url) => builder.subscription(rabbitmq(url).subscription()?),
            Self::Nats(url) => builder.subscription(nats(url).queue(QUEUE)?),
        })
    }

    /// Makes whatever has to stand on the broker before anybody publishes.
    pub(crate) fn declare(&self) -> Outcome {
        let (broker, queue): (Box<dyn Broker>, Box<dyn Subscription>) = match self {
            Self::RabbitMq(url) => (Box::new(rabbitmq(url).broker()?), Box::new(rabbitmq(url).subscription()?)),
            Self::Nats(url) => (Box::new(nats(url).broker()?), Box::new(nats(url).queue(QUEUE)?)),
        };
        patiently(|| {
            for health in [queue.health(CONFIRM), broker.health(CONFIRM)] {
                if health.status != Status::Up {
                    return Err(health.details.join("; ").into());
                }
            }
            Ok(())
        })?;
        queue.close()?;
        Ok(broker.close()?)
    }
}

fn rabbitmq(url: &str) -> rabbitmq::Builder {
    let builder = RabbitMq::builder([url]).queue(QUEUE).heartbeat(Duration::from_secs(1)).prefetch(200);
    builder.confirm_timeout(CONFIRM).retry_for(PATIENCE)
}

fn nats(url: &str) -> nats::Builder {
    NatsBroker::builder([url]).publish_timeout(CONFIRM).retry_for(PATIENCE).ack_wait(ACK_WAIT).prefetch(200)
}
