//! RabbitMQ on a real node. Each topic has an exchange and a queue of its own.
//! What the suite cannot show has trials here: rights, settings, what the server keeps.

mod checks;
mod nodes;
mod raw;
mod recovery;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::transport::conformance::{Dead, Harness, Own, Topic};
use kvsync::transport::rabbitmq::{Builder, RabbitMq};
use kvsync::transport::{Broker, Subscription};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env as servers_env};
use libtest_mimic::{Failed, Trial};

use crate::taker::{is_child, taken_and_killed};

/// Says to this program that it is the consumer who is killed: where it connects, and how much it takes.
const CHILD: &str = "KVSYNC_BROKERS_CHILD";

struct Fresh {
    url: String,
}

/// A topic on this node, of this name.
pub(crate) struct Place {
    url: String,
    name: String,
    builder: Builder,
}

struct Node {
    // Before its server is somebody else's.
    topic: Arc<Place>,
    server: nodes::Lent,
}

pub(crate) fn broker() -> crate::Broker {
    let fresh = servers_env::rabbitmq_url().map_err(|missing| missing.to_string());
    ("rabbitmq", fresh.map(|url| Arc::new(Fresh { url }) as Arc<dyn Harness>))
}

/// What only this broker has to show.
pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($file:ident::$name:ident),* $(,)?) => {
            [$((concat!("rabbitmq_broker::", stringify!($name)), $file::$name as fn() -> Tested)),*]
        };
    }
    let trials = trials![
        checks::a_message_that_the_server_finds_too_large_is_rejected_alone,
        checks::a_queue_of_another_kind_is_refused_unless_it_is_only_looked_at,
        checks::a_queue_receives_the_tables_that_it_wants,
        checks::messages_are_persistent_and_say_what_they_are,
        checks::messages_of_others_arrive_and_can_be_put_aside,
        checks::rights_are_those_that_the_documentation_names,
        checks::tls_with_an_authority_of_ones_own,
        checks::no_more_is_sent_than_the_prefetch,
        checks::what_is_declared_is_what_the_documentation_says,
        checks::what_waits_outlives_its_consumer_and_the_server,
        recovery::a_consumer_of_a_queue_that_is_deleted_begins_anew,
        recovery::a_consumer_that_hears_nothing_begins_anew,
        recovery::a_queue_that_is_deleted_is_declared_again,
        recovery::an_alarm_is_told_and_does_not_stop_consumers,
        recovery::an_exchange_that_is_deleted_is_declared_again,
        recovery::connections_that_an_operator_closes_are_made_again,
        recovery::what_a_queue_does_not_take_is_sent_again_a_few_times,
        recovery::what_is_held_for_too_long_comes_again,
    ];
    let trial = |(name, run): (&str, fn() -> Tested)| {
        Trial::test(name, move || run().map_err(|error| Failed::from(error.to_string())))
    };
    trials.into_iter().map(trial).collect()
}

/// A name that no other topic has, in any process.
pub(crate) fn name() -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    format!("brokers-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// For servers that go away: calls end soon.
pub(crate) fn soon(builder: Builder) -> Builder {
    let builder = builder.connect_timeout(Duration::from_secs(5)).confirm_timeout(Duration::from_secs(3));
    builder.retry_for(Duration::from_secs(1)).heartbeat(Duration::from_secs(5))
}

/// A topic of its own on this node; the machine may be busy.
pub(crate) fn place(url: &str, change: impl FnOnce(Builder) -> Builder) -> Place {
    let name = name();
    let builder = RabbitMq::builder([url]).exchange(&name).queue(&name);
    let patient = builder.connect_timeout(LONG).confirm_timeout(LONG).max_body(1 << 20);
    Place { url: url.to_owned(), name, builder: change(patient) }
}

/// A server that many share keeps little of a topic that is over.
impl Drop for Place {
    fn drop(&mut self) {
        if servers_env::rabbitmq_url().is_ok_and(|shared| shared == self.url) {
            // What is left is left to the end of the server.
            let _ = raw::forget(&self.url, &self.name);
        }
    }
}

impl Harness for Fresh {
    fn patience(&self) -> Duration {
        LONG
    }

    fn fresh(&self) -> Arc<dyn Topic> {
        Arc::new(place(&self.url, |builder| builder))
    }

    fn bounded(&self, most: u64) -> Option<Arc<dyn Topic>> {
        Some(Arc::new(place(&self.url, |builder| builder.max_messages(most))))
    }

    fn unrouted(&self) -> Option<Arc<dyn Broker>> {
        Some(place(&self.url, Builder::without_queue).broker())
    }

    fn forbidden(&self) -> Option<Arc<dyn Broker>> {
        Some(place(&self.url, |builder| builder.user_and_password("guest", "wrong")).broker())
    }

    fn own(&self) -> Option<Box<dyn Own>> {
        let server = nodes::lend().unwrap();
        let topic = Arc::new(place(&server.url(), soon));
        Some(Box::new(Node { topic, server }))
    }
}

impl Topic for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.builder.clone().broker().unwrap())
    }

    fn subscribe(&self) -> Arc<dyn Subscription> {
        Arc::new(self.builder.clone().subscription().unwrap())
    }

    fn dead(&self) -> Vec<Dead> {
        let kept = raw::peek(&self.url, &format!("{}.dead", self.name)).unwrap();
        let of = |letter: raw::Letter| Dead { reason: letter.text("x-kvsync-reason"), body: letter.body };
        kept.into_iter().map(of).collect()
    }

    fn taken_and_killed(&self, most: usize) -> Option<Vec<Bytes>> {
        Some(taken_and_killed(CHILD, &self.url, &self.name, most))
    }
}

/// Whether this is the consumer who is killed.
pub(crate) fn child() -> bool {
    is_child(CHILD, |url, name| {
        let builder = RabbitMq::builder([url]).exchange(name).queue(name).connect_timeout(LONG);
        Box::new(builder.subscription().unwrap())
    })
}

impl Own for Node {
    fn topic(&self) -> Arc<dyn Topic> {
        Arc::clone(&self.topic) as _
    }

    fn stop(&self) {
        self.server.stop().unwrap();
    }

    /// The node is not to forget the queue: 3.10.8 writes down somewhat later that it keeps one.
    fn kill(&self) {
        self.server.settle().unwrap();
        self.server.kill().unwrap();
    }

    fn start(&self) {
        self.server.restart().unwrap();
    }

    fn pause(&self) {
        self.server.pause().unwrap();
    }

    fn resume(&self) {
        self.server.resume().unwrap();
    }
}
