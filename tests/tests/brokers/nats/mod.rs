//! NATS JetStream on a real server. Each topic has a stream and a queue of its own.
//! What the suite cannot show has trials here: streams of others, rights, dead letters, what is told to the server.

mod checks;
mod limits;
mod outages;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use kvsync::transport::conformance::{Dead, Harness, Own, Topic};
use kvsync::transport::nats::{Builder, NatsBroker};
use kvsync::transport::{Broker, Health, Message, Subscription};
use kvsync_tests::nats::kept;
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env as servers_env};
use libtest_mimic::{Failed, Trial};

use crate::taker::{is_child, taken_and_killed};

/// Says to this program that it is the consumer who is killed: where it connects, and how much it takes.
const CHILD: &str = "KVSYNC_BROKERS_NATS_CHILD";
/// The queue of every topic.
const QUEUE: &str = "queue";

struct Fresh {
    url: String,
}

/// A stream with a queue.
struct Place {
    url: String,
    name: String,
    builder: Builder,
}

/// A server of its own, and a stream there.
struct Node {
    server: Nats,
    topic: Arc<Place>,
}

pub(crate) fn broker() -> crate::Broker {
    let fresh = servers_env::nats_url().map_err(|missing| missing.to_string());
    ("nats", fresh.map(|url| Arc::new(Fresh { url }) as Arc<dyn Harness>))
}

/// What only this broker has to show.
pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($file:ident::$name:ident),* $(,)?) => {
            [$((concat!("nats_broker::", stringify!($name)), $file::$name as fn() -> Tested)),*]
        };
    }
    let trials = trials![
        checks::a_copy_of_a_message_is_kept_once,
        checks::a_dead_letter_says_what_it_was,
        checks::a_dead_letter_that_cannot_be_kept_is_no_end_of_its_message,
        checks::a_publisher_makes_the_queues_that_it_names,
        checks::a_queue_of_one_table_gets_no_other_and_holds_back_no_other,
        checks::a_server_that_is_not_there_is_told_with_the_cause,
        checks::a_server_without_jetstream_is_told,
        checks::a_stream_in_which_messages_are_lost_is_refused,
        checks::a_stream_or_queue_that_is_removed_is_made_again,
        checks::dead_letters_are_delivered_again_to_their_own_queue_alone,
        checks::every_queue_gets_everything_and_what_all_have_acknowledged_goes,
        checks::more_time_is_asked_for_what_is_held,
        checks::nothing_is_lost_and_nothing_stays_when_servers_are_killed,
        checks::nothing_is_made_where_it_is_only_checked,
        checks::rights_are_as_documented_and_the_lack_of_them_is_told,
        checks::two_that_deliver_dead_letters_again_are_not_in_each_others_way,
        checks::tls_with_an_authority_of_ones_own,
        checks::what_cannot_be_a_name_is_refused_at_once,
        checks::what_many_threads_make_for_the_first_time_was_not_removed,
        checks::what_nobody_would_receive_is_not_confirmed,
        limits::a_bound_in_bytes_is_refused_where_the_server_would_forget,
        limits::a_copy_that_comes_too_late_is_delivered_once_more,
        limits::a_message_that_the_stream_finds_too_large_is_rejected_alone,
        limits::a_token_and_an_nkey_let_in,
        limits::too_many_that_are_held_hold_up_the_queue,
        limits::what_another_stream_would_take_is_not_confirmed,
        limits::what_is_held_is_given_back_at_once_when_its_queue_closes,
        limits::what_was_dead_and_is_put_back_is_not_swallowed,
        outages::what_three_servers_confirmed_outlives_those_that_lead,
        outages::what_was_confirmed_outlives_a_server_in_lame_duck_mode,
    ];
    let trial = |(name, run): (&str, fn() -> Tested)| {
        Trial::test(name, move || run().map_err(|error| Failed::from(error.to_string())))
    };
    trials.into_iter().map(trial).collect()
}

/// A stream of this name, for a machine that may be busy.
fn builder(url: &str, name: &str) -> Builder {
    let builder = NatsBroker::builder([url]).stream(name).prefix(name).connect_timeout(LONG).publish_timeout(LONG);
    // What a killed process held comes back after that.
    builder.ack_wait(Duration::from_secs(10))
}

/// A stream that no other topic has, in any process.
fn place(url: &str, change: impl FnOnce(Builder) -> Builder) -> Place {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    // A process of this number may have left streams there before.
    let begun = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    let name = format!("brokers-{}-{begun}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let builder = change(builder(url, &name));
    Place { url: url.to_owned(), name, builder }
}

impl Place {
    /// With the queue, so that there is one before anybody publishes.
    fn made(self) -> Self {
        self.builder.queue(QUEUE).unwrap().close().unwrap();
        self
    }

    fn port(&self) -> u16 {
        self.url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok()).unwrap()
    }
}

impl Harness for Fresh {
    fn patience(&self) -> Duration {
        LONG
    }

    fn fresh(&self) -> Arc<dyn Topic> {
        Arc::new(place(&self.url, |builder| builder).made())
    }

    fn bounded(&self, most: u64) -> Option<Arc<dyn Topic>> {
        let hasty = |builder: Builder| builder.max_messages(most).retry_for(Duration::from_millis(50));
        Some(Arc::new(place(&self.url, hasty).made()))
    }

    fn unrouted(&self) -> Option<Arc<dyn Broker>> {
        Some(place(&self.url, |builder| builder.retry_for(Duration::from_millis(50))).broker())
    }

    fn forbidden(&self) -> Option<Arc<dyn Broker>> {
        let settings = r#"authorization { users = [
            { user: reader, password: secret, permissions: { publish: "$JS.API.>" } }
        ] }"#;
        let server = Nats::start(&NatsOptions { settings: settings.into(), ..NatsOptions::default() }).unwrap();
        let builder = builder(&server.url(), "kvsync").user_and_password("reader", "secret");
        // There is a queue, so that it is the right that is missing.
        builder
            .check_only()
            .broker()
            .map(|broker| Arc::new(Guarded { broker, _server: server }) as Arc<dyn Broker>)
            .ok()
    }

    fn own(&self) -> Option<Box<dyn Own>> {
        let server = Nats::start(&NatsOptions::default()).unwrap();
        let hasty = |builder: Builder| {
            let builder = builder.connect_timeout(Duration::from_secs(5)).publish_timeout(Duration::from_secs(3));
            builder.retry_for(Duration::from_secs(2))
        };
        let topic = Arc::new(place(&server.url(), hasty).made());
        Some(Box::new(Node { server, topic }))
    }
}

impl Topic for Place {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.builder.broker().unwrap())
    }

    fn subscribe(&self) -> Arc<dyn Subscription> {
        Arc::new(self.builder.queue(QUEUE).unwrap())
    }

    fn dead(&self) -> Vec<Dead> {
        let reason = |headers: &str| {
            let reason = headers.lines().find_map(|line| line.strip_prefix("Kvsync-Reason: "));
            reason.unwrap_or_default().to_owned()
        };
        let kept = kept(self.port(), &format!("{}-dead", self.name)).unwrap();
        kept.into_iter().map(|letter| Dead { reason: reason(&letter.headers), body: letter.body.into() }).collect()
    }

    fn taken_and_killed(&self, most: usize) -> Option<Vec<Bytes>> {
        Some(taken_and_killed(CHILD, &self.url, &self.name, most))
    }
}

/// Whether this is the consumer who is killed.
pub(crate) fn child() -> bool {
    is_child(CHILD, |url, name| Box::new(builder(url, name).queue(QUEUE).unwrap()))
}

impl Own for Node {
    fn topic(&self) -> Arc<dyn Topic> {
        Arc::clone(&self.topic) as _
    }

    fn stop(&self) {
        self.server.stop().unwrap();
    }

    fn kill(&self) {
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

/// A broker, and the server that refuses it.
struct Guarded {
    broker: NatsBroker,
    _server: Nats,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.broker.fmt(f)
    }
}

impl Broker for Guarded {
    fn name(&self) -> &str {
        self.broker.name()
    }

    fn max_body(&self) -> usize {
        self.broker.max_body()
    }

    fn publish(&self, messages: &[Message]) -> Vec<kvsync::Result<()>> {
        self.broker.publish(messages)
    }

    fn health(&self, deadline: Duration) -> Health {
        self.broker.health(deadline)
    }

    fn close(&self) -> kvsync::Result<()> {
        self.broker.close()
    }
}
