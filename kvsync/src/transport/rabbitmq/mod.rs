//! A transport through RabbitMQ.
//!
//! ```no_run
//! use kvsync::transport::rabbitmq::RabbitMq;
//!
//! # fn main() -> kvsync::Result<()> {
//! let url = "amqp://app:secret@127.0.0.1/";
//! // Shared by the program that commits and those that feed the store: both declare the queue, in the same way.
//! let redis = RabbitMq::builder([url]).queue("redis-eu");
//! let broker = redis.clone().broker()?; // publishes
//! let redis = redis.subscription()?; // receives
//! // Another store has a queue of its own.
//! let search = RabbitMq::builder([url]).queue("search").tables(["users"]).subscription()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where things stand
//!
//! With the exchange `kvsync`, which is the default, and the queue `redis-eu`:
//!
//! ```text
//!                  <table>.<action>          #
//!   publisher ───▶ kvsync ─────────────────────▶ redis-eu ───▶ consumers ───▶ store
//!                  (topic)                    ▶  (quorum)        │
//!                            delivered again  │                  │ cannot be dealt with
//!                                             └─ kvsync.dead ◀───┘
//!                                                (direct) ────▶ redis-eu.dead (quorum)
//! ```
//!
//! - Changes are published to the durable **topic exchange** `kvsync`, with the key `<table>.<action>`
//!   ([`routing_key`]), persistent, with `message_id`, `content_type` and `timestamp`.
//! - The durable **quorum queue** `redis-eu` is bound to it by `#`, or by what [`tables`](Builder::tables) and
//!   [`bindings`](Builder::bindings) say. Each store that is fed has a queue of its own; processes that feed the same
//!   store share one.
//! - **Dead letters** go through the direct exchange `kvsync.dead` to the quorum queue `redis-eu.dead`, with their key,
//!   queue, earlier deliveries, reason and time in the headers `x-kvsync-routing-key`, `x-kvsync-queue`,
//!   `x-kvsync-redelivered`, `x-kvsync-reason` and `x-kvsync-at`.
//! - **What has to wait** is held by its consumer, unacknowledged, for ten minutes at most, and then given back to its
//!   queue: sooner when the consumer closes or dies. It counts among the [`prefetch`](Builder::prefetch): when all that
//!   a consumer may hold is waiting, it takes nothing else until the first has waited. The server has queues whose messages
//!   expire and come back; they are not used, because one process of a node carries all of them, and when it ends (seen
//!   with 3.10.8 after many such queues were deleted; [issue 16652](https://github.com/rabbitmq/rabbitmq-server/issues/16652))
//!   none gives back what it has.
//!
//! All is declared idempotently by whoever connects first. With [`check_only`](Builder::check_only) nothing is: exchanges
//! and queues have to be there, and the queue has to be bound to `kvsync.dead` with the key `redis-eu.redrive`, for dead
//! letters that are delivered again. What is there is looked at by name; its arguments are not told to clients, so that a
//! queue with a time to live or a limit loses messages unnoticed: it is for the operator to see that it has none
//! (`rabbitmqctl list_queues name type durable arguments policy`).
//!
//! # What it promises
//!
//! - **Confirmed** means that a majority of the nodes that keep the queue have the message on their disks. What no queue
//!   wants is returned by the server and is an error; so is what a full queue refuses
//!   ([`max_messages`](Builder::max_messages)).
//! - **At least once.** What was taken and not acknowledged comes again: when it is dropped, when its consumer closes or
//!   dies, when a connection is lost. Order is not kept.
//! - **A dead letter is confirmed** before the message that it was is acknowledged. Between the two a crash leaves both.
//! - **A queue that was just declared** is not yet safe: 3.10.8 writes down half a second later, or when it has a moment,
//!   that it keeps the queue. A node that is killed before has forgotten all that was confirmed, and begins the queue anew
//!   without a leader: it confirms nothing, until the node is restarted or an operator has it elect one
//!   (`rabbitmqctl eval 'ra:trigger_election(..).'`). Declare queues before traffic flows.
//! - **The server gives nothing up** by itself: the queue's delivery limit is raised as far as it goes. Policies of
//!   the server that expire messages or drop them from a full queue break this; do not set any for these queues.
//!
//! # What happens when
//!
//! | what | publishing | receiving |
//! |---|---|---|
//! | the server is away, also at the start | connects again for [`retry_for`](Builder::retry_for), then [`Unavailable`](crate::ErrorKind::Unavailable); the next call tries again | [`Unavailable`](crate::ErrorKind::Unavailable) when nothing is left to take; connects again in the background, with pauses of up to five seconds |
//! | the connection is lost before a confirm | published again within `retry_for`, then [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome) | what was taken comes again |
//! | the server hangs | [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome) after [`confirm_timeout`](Builder::confirm_timeout) | noticed after two [heartbeats](Builder::heartbeat) |
//! | the server has an alarm of memory or disk | [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome) for what was on its way, then [`Unavailable`](crate::ErrorKind::Unavailable) after `retry_for`, and nothing is sent; [`health`](crate::transport::Broker::health) is down | goes on; dead letters are held and delivered again |
//! | the queue is full, or not yet up | [`Unavailable`](crate::ErrorKind::Unavailable), after three more attempts within a second; other queues of the exchange may have it, more than once | |
//! | the queue was deleted | it is declared again and published to within `retry_for` | it is declared again; what was in it is gone |
//! | the exchange was deleted | it is declared and bound again within `retry_for`; by a publisher [`without_queue`](Builder::without_queue) only declared | bound again once nothing has come for a heartbeat |
//! | an operator closes the connection | as when it is lost | as when it is lost |
//! | a message is held for longer than the server's `consumer_timeout` (30 minutes) | | the server closes the channel; what was taken on it comes again |
//! | a message is too large | [`Rejected`](crate::ErrorKind::Rejected), it alone | |
//! | no right, wrong password, no such virtual host | [`Config`](crate::ErrorKind::Config) | the same |
//! | something stands with other settings, or is missing with `check_only` | [`Config`](crate::ErrorKind::Config) | the same |
//!
//! # What operators should know
//!
//! - **Three nodes.** A quorum queue stands on as many nodes as the cluster had when it was declared, up to three, and goes
//!   on as long as a majority of them is up. On one node what is confirmed is as safe as that node's disk. RabbitMQ's
//!   documentation says so; the tests run one node.
//! - **Settings of a queue never change**: a queue that stands with other arguments is a
//!   [`Config`](crate::ErrorKind::Config) error until it is deleted, or another name is taken. Do not reach for `check_only`:
//!   what the queue was set to drop it would go on to drop. Change limits by a policy instead of
//!   [`max_messages`](Builder::max_messages) where they have to change.
//! - **One builder for both sides.** Publisher and consumer declare the same queue, so with the same settings.
//! - **No policy** may set `message-ttl`, `expires`, or a `max-length` without `overflow: reject-publish` for these queues:
//!   each has the server drop what it confirmed.
//! - **A queue that is deleted** takes its messages with it, also those that were confirmed. Whoever had seen it and
//!   declares it anew logs a warning: fill its store by a backfill, and repair it for rows deleted meanwhile. Its consumers find the new one
//!   by themselves; 3.10.8 may then hold back the first messages from a consumer that was there before, which takes them
//!   once nothing has come for a [`heartbeat`](Builder::heartbeat) and it holds nothing.
//! - **The dead letters** have no limit and no reader of ours: [`dead`](crate::transport::Subscription::dead) lists them, and
//!   [`redrive`](crate::transport::Subscription::redrive) delivers them again when the cause is mended
//!   (`consumer --dead`, `consumer --redrive`). While they are listed, nobody else sees them.
//! - **The client library logs** failed connections by itself, as errors, each attempt. What of it matters is logged by
//!   kvsync, once: filter it with `lapin=off` (in `RUST_LOG`, say).
//! - **Alarms** stop who publishes, on the whole cluster. Let the database's outbox hold changes meanwhile, or memory will.
//!
//! # What it needs
//!
//! - RabbitMQ 3.10 or newer with quorum queues (tested with 3.10.8).
//! - A user with these rights, in RabbitMQ's order of configure, write, read, here for a queue `kvsync`. A publisher with
//!   [`without_queue`](Builder::without_queue): `^kvsync$`, `^kvsync$`, `^$`. A publisher or consumer that declares:
//!   `^kvsync` three times. With `check_only` configure is `^$`; a publisher then writes to `^kvsync$`, a consumer to
//!   `^kvsync\.dead$` and reads `^kvsync$`; who lists dead letters, or delivers them again, also reads
//!   `^kvsync\.dead$`.
//! - A thread of the client's for each connection: a publisher has one connection; a subscription has one, and one
//!   more once something had to be put aside.
//! - `amqps://` needs the feature `rabbitmq-tls` (rustls with ring).

mod aside;
mod broker;
mod builder;
mod consume;
mod error;
mod health;
mod link;
mod publish;
mod routing;
mod settings;
mod subscription;
mod topology;

use std::future::Future;
use std::time::Duration;

pub use self::broker::RabbitMqBroker;
pub use self::builder::Builder;
pub use self::routing::{routing_key, routing_word};
pub use self::subscription::RabbitMqSubscription;
use crate::bridge::{Bridge, Cut};
use crate::error::{Error, ErrorKind, Result};

/// RabbitMQ, as a transport.
#[derive(Debug, Clone, Copy)]
pub struct RabbitMq;

impl RabbitMq {
    /// Begins to configure a publisher or a consumer of the nodes at these URLs,
    /// `amqp://[user:password@]host[:port][/vhost]`, or `amqps://` for TLS. Each connection is made to the first that
    /// answers.
    pub fn builder(urls: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(urls.into_iter().map(Into::into).collect())
    }
}

/// Runs a call on the bridge.
fn call<T: Send + 'static>(
    bridge: &Bridge,
    most: Duration,
    cut: ErrorKind,
    name: &str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match bridge.run(most, work) {
        Ok(answer) => answer,
        Err(Cut::Deadline) => Err(Error::new(cut, format!("{name} did not answer in time"))),
        Err(Cut::Panic) => {
            let message = format!("a call to {name} ended in a panic; this is a fault of kvsync");
            Err(Error::new(ErrorKind::UnknownOutcome, message))
        }
        Err(Cut::OwnThread) => {
            let message = "a transport was called on the thread of its own connections, which it would block";
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}
