//! Exchanges and streams of their own, on the brokers that tests share.

use std::time::Duration;

use kvsync::consumer::ConsumerBuilder;
use kvsync::store::MemoryStore;
use kvsync::transport::Subscription;
use kvsync::transport::nats::NatsBroker;
use kvsync::transport::rabbitmq::RabbitMq;
use kvsync::{Builder, Consumer, KvSync};
use kvsync_tests::servers::Proxy;
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{env, nats};

/// An exchange of RabbitMQ, or a stream of NATS.
#[derive(Clone)]
pub struct Place {
    pub url: String,
    pub name: String,
}

impl Place {
    pub fn rabbitmq() -> Self {
        Self::at(env::rabbitmq_url().unwrap())
    }

    pub fn nats() -> Self {
        Self::at(env::nats_url().unwrap())
    }

    fn at(url: String) -> Self {
        Self { url, name: format!("consumer-{}-{}", std::process::id(), rand::random::<u32>()) }
    }

    /// The same place, behind a proxy.
    pub fn behind_a_proxy(&self) -> (Self, Proxy) {
        let proxy = Proxy::start(self.port()).unwrap();
        (Self { url: proxy.url(&self.url), name: self.name.clone() }, proxy)
    }

    /// Waits until a stream has forgotten what every queue has acknowledged: a new queue is told of it no more.
    pub fn until_forgotten(&self) {
        let count = || nats::count(self.port(), &self.name);
        until("the broker keeps nothing", || !self.is_nats() || count().is_ok_and(|kept| kept == 0));
    }

    fn port(&self) -> u16 {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn is_nats(&self) -> bool {
        self.url.starts_with("nats")
    }

    /// Publishes there, and makes no queue.
    pub fn publishing(&self) -> Builder {
        if self.is_nats() {
            KvSync::builder().broker(self.of_nats().broker().unwrap())
        } else {
            KvSync::builder().broker(self.of_rabbitmq().without_queue().broker().unwrap())
        }
    }

    /// Receives from a queue of these tables, or of all.
    pub fn consuming(&self, queue: &str, tables: &[&str]) -> ConsumerBuilder {
        if self.is_nats() {
            let builder = self.of_nats().tables(tables.iter().copied());
            Consumer::builder().subscription(ready(builder.queue(queue).unwrap()))
        } else {
            let builder = self.of_rabbitmq().queue(format!("{}.{queue}", self.name));
            let builder = if tables.is_empty() { builder } else { builder.tables(tables) };
            Consumer::builder().subscription(ready(builder.subscription().unwrap()))
        }
    }

    /// Makes a queue of all tables, from which nobody receives yet.
    pub fn declare(&self, queue: &str) {
        let ended = self.consuming(queue, &[]).store(MemoryStore::new()).build().unwrap().shutdown(LONG);
        assert!(ended.is_clean(), "{ended}");
    }

    /// What is published fails soon, and is published again by whoever keeps it.
    fn of_rabbitmq(&self) -> kvsync::transport::rabbitmq::Builder {
        RabbitMq::builder([&*self.url]).exchange(&*self.name).retry_for(Duration::from_millis(50))
    }

    fn of_nats(&self) -> kvsync::transport::nats::Builder {
        let builder = NatsBroker::builder([&*self.url]).stream(&*self.name).prefix(&*self.name);
        builder.retry_for(Duration::from_millis(50))
    }
}

/// Once the queue is there: what is published from now on reaches it.
fn ready<S: Subscription>(queue: S) -> S {
    until("the queue is there", || queue.backlog().is_ok());
    queue
}

/// The cases of a module, over each broker.
macro_rules! over_each_broker {
    ($($case:ident),* $(,)?) => {
        mod rabbitmq {
            $(#[test]
            fn $case() {
                super::$case(&crate::places::Place::rabbitmq());
            })*
        }

        mod nats {
            $(#[test]
            fn $case() {
                super::$case(&crate::places::Place::nats());
            })*
        }
    };
}

pub(crate) use over_each_broker;
