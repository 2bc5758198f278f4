//! How changes travel from those who commit to those who write: the contracts, and when to use what.
//!
//! # Queue, outbox or broker
//!
//! | | in-memory queue | outbox | broker | outbox and broker |
//! |---|---|---|---|---|
//! | turned on by | nothing | [`Database::outbox`](crate::capture::Database::outbox) | [`Builder::broker`](crate::Builder::broker) | both |
//! | who writes the stores | the process that commits | any process with the database and the store | any consumer | any consumer |
//! | who needs the store's address | every writer | every relay | consumers only | consumers only |
//! | a write costs more by | nothing | a row in its transaction | nothing | a row in its transaction |
//! | told of every change | [`on_report`](crate::Builder::on_report), in the process | the same | hooks ([`on_change`](crate::consumer::ConsumerBuilder::on_change)), anywhere | the same |
//!
//! What is lost when a part is killed (`kill -9`), and which tests show it:
//!
//! | killed | in-memory queue | outbox | broker | outbox and broker |
//! |---|---|---|---|---|
//! | the process that commits | what was queued¹ | nothing² | what was not confirmed yet³ | nothing⁴ |
//! | the broker | | | nothing it has confirmed⁵; the rest waits in memory as with a store that is down | nothing⁴ |
//! | a consumer | | | nothing⁶ | nothing⁶ |
//! | the store | nothing while memory lasts; then rows are read again⁷ | nothing⁸ | nothing: the broker keeps it⁹ | nothing⁹ |
//! | the store, and it forgets | everything, until `backfill`; noticed¹⁰ | what is kept is replayed¹¹ | everything, until `backfill` by who has database and store | the same |
//!
//! The broker is killed as a process. What one keeps of its confirmed messages when its machine loses power is for its own
//! settings and replicas: the pages of `rabbitmq` and `nats` say which.
//!
//! ¹ `verify::writes_past_kvsync` finds it. ² `outbox::when_a_relay_is_killed_in_the_middle_another_delivers_what_it_held`.
//! ³ `consumer::what_was_not_confirmed_is_published_again`, as long as the process lives.
//! ⁴ `consumer::with_an_outbox_nothing_is_lost_when_publishers_and_consumers_come_and_go`,
//! `consumer::an_outbox_keeps_what_no_broker_has_confirmed`. ⁵ `brokers`, the case
//! `restarts_and_kills_lose_nothing_that_was_confirmed`. ⁶ `brokers`, the case `what_a_killed_consumer_took_comes_back`;
//! `consumer::every_store_is_what_the_database_is_after_duplicates_reordering_and_deaths`. ⁷ `pressure::a_store_that_refuses_connections`,
//! `workers::what_has_no_room_is_read_again`. ⁸ `outbox::a_store_that_is_down_loses_nothing_fills_no_memory_and_holds_up_no_other`.
//! ⁹ `consumer::a_store_that_is_down_acknowledges_nothing`, `consumer::a_redis_that_takes_nothing_makes_no_dead_letters`.
//! ¹⁰ `eviction::a_restart_without_persistence_is_noticed_and_rows_are_filled_in`. ¹¹ `outbox::a_replay_refills_a_store_that_forgot`.
//!
//! - **The queue** is enough where one process, or a few alike, write to one store, and where a row that is missing after
//!   a crash may wait for its next write, or for `verify` and `repair`.
//! - **The outbox** is for whoever must lose nothing, and has the database and the stores in one place.
//! - **A broker** is for stores elsewhere (another region, a replica beside each service), for writers that must not
//!   reach the stores, and for others that want to be told of changes: search, webhooks, programs in other languages. It
//!   keeps what it has confirmed; between the COMMIT and the confirm a change is in the memory of the publisher.
//! - **Both together** close that gap: a row of the outbox is delivered once the broker has confirmed it, so that
//!   publisher, broker and consumer may each be killed at any moment.
//!
//! Only what a broker refuses for what the message is ([`Rejected`](crate::ErrorKind::Rejected)) is given up. Whatever else it
//! says, that a user lacks a right for instance, it says to all: changes wait, [`health`](crate::KvSync::health) and `flush`
//! say why, and in the memory of a process they wait as long as it lasts, then as primary keys, then as dirty tables.
//!
//! A handle may have stores and brokers beside each other; each is fed by workers of its own and holds up no other.
//!
//! With a broker, [`flush`](crate::KvSync::flush) and [`wait`](crate::KvSync::wait) mean that it has confirmed, not that a
//! consumer has written: whoever has to read its own writes keeps a store beside it, or asks the database.
//!
//! A change for which there was no room, or of a commit in doubt, is published as unknown and then, once its row was read
//! again, as `reread`: hooks are told of the row as it is, and not of every change in between.
//!
//! A table that lost a deletion for want of memory, or in a bulk, stays dirty in the publisher's health: its row's entries
//! are found only where a consumer's store is.
//!
//! Verifying, repairing and sweeping concern stores, so a consumer's store is compared and mended by a process that has
//! the database and that store: `KvSync::builder().store(..).database(..)`, for instance the command line
//! (`kvsync::cli`). A backfill is published to brokers, too, and fills the stores behind them.
//!
//! # Two processes
//!
//! ```no_run
//! # #[cfg(all(feature = "sqlite", feature = "rabbitmq", feature = "redis"))]
//! # mod of {
//! # use diesel::prelude::*;
//! # use diesel::sqlite::Sqlite;
//! # use kvsync::capture::Database;
//! # use kvsync::consumer::ConsumerBuilder;
//! # use kvsync::store::RedisStore;
//! # use kvsync::transport::rabbitmq::{self, RabbitMq};
//! # use kvsync::{Consumer, KvSync, Result, Syncable};
//! # use serde::{Deserialize, Serialize};
//! # diesel::table! { users (id) { id -> Integer, username -> Text } }
//! # #[derive(Queryable, Selectable, Identifiable, Syncable, Serialize, Deserialize)]
//! # #[diesel(table_name = users)]
//! # #[sync_key(name = "id", fmt = "user:id:<id>")]
//! # struct User { id: i32, username: String }
//! /// What both share, so that both declare the same queue; limits belong here.
//! fn rabbitmq() -> rabbitmq::Builder {
//!     RabbitMq::builder(["amqp://app:secret@127.0.0.1/"]).queue("redis")
//! }
//!
//! /// The process that commits: a row of the outbox is done when the broker has confirmed it.
//! fn publisher() -> Result<KvSync> {
//!     let open = || SqliteConnection::establish("app.db");
//!     let database = Database::<Sqlite>::new("main", open).model::<User>().outbox();
//!     KvSync::builder().broker(rabbitmq().broker()?).database(database).build()
//! }
//!
//! /// The process that keeps a store: `kvsync::cli::consume(consumer)` makes a program of it.
//! fn consumer() -> Result<ConsumerBuilder> {
//!     let queue = rabbitmq().subscription()?;
//!     Ok(Consumer::builder().subscription(queue).store(RedisStore::connect("redis://127.0.0.1/")?))
//! }
//! # }
//! ```
//!
//! The examples `publisher` and `consumer` are the same, whole.
//!
//! Nothing can be published before there is a queue: changes wait, and the log, [`health`](crate::KvSync::health) and `flush`
//! say so. So the publisher names the queue, too, as here; or NATS's `with_queue`; or start a consumer first.
//!
//! # While a broker takes nothing
//!
//! What is committed waits, in the outbox or in memory. The log has a warning when that begins, with the broker, the cause
//! and where changes wait meanwhile, and a line when it is over, with how long it was; neither for each attempt, and
//! no more than one warning a minute. [`health`](crate::KvSync::health) is degraded, never down: what commits is of use.
//! [`flush`](crate::KvSync::flush) fails with the broker's name, and its last error as the source. The client libraries
//! log each attempt as an error by themselves: filter them (`lapin=off`, `async_nats=off`).
//!
//! # Several stores
//!
//! Each store has a queue of its own, with a consumer, or several that share it. One that is down holds up no other, and
//! catches up when it is back.
//!
//! **A queue that is made later** is told of nothing that was published before (NATS: of little). Its store is
//! filled through the broker: make the queue, start its consumer, and then run [`backfill`](crate::KvSync::backfill) for
//! each model in a publisher, or from the command line of a program with the publisher's brokers and databases. That
//! publishes every row as a `reread`, to all queues: where a store has the row, or a newer one, nothing changes. The order
//! matters: what is deleted while rows are being read is told to queues that are there.
//!
//! **A store that missed messages** (a queue was removed, or a limit of the broker dropped some) is filled in the same way,
//! but for entries of rows that were deleted meanwhile: a backfill tells of rows that are there. **`verify` and `repair`
//! do not go through a broker.** Empty the store first, or repair it by a process that reaches it and the database.
//!
//! **A queue of some tables** gets no others. A table that no queue wants at all is not passed over: its changes
//! wait at the publisher, in memory or in the outbox, and are tried again until somebody makes a queue. They hold up no
//! other. Give such tables a queue, or a handle without the broker.
//!
//! # The epoch
//!
//! Every message carries the epoch of its publisher in its version. One with a store takes it from there
//! ([`raise_epoch`](crate::KvSync::raise_epoch)); one with brokers only is told by
//! [`Builder::epoch`](crate::Builder::epoch). The store of a consumer follows the highest epoch that it is told of; what
//! comes with a lower one afterwards is a dead letter.
//!
//! # The message
//!
//! [`message`] has its names, one by one, for readers in other languages.

mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod inbox;
mod memory;
pub mod message;
#[cfg(feature = "nats")]
pub mod nats;
mod outbox;
mod queue;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::broker::{Arrival, Backlog, Broker, DeadMessage, Ends, Message, Subscription};
pub use self::memory::{MemoryBroker, MemoryDeadLetter, MemoryQueue};
pub use self::message::{ChangeMessage, MessageFormat};
pub use self::outbox::{Claimed, DeadLetter, Failing, Failure, Outbox, OutboxDepth};
pub use self::queue::Queue;
use crate::change::Change;
pub use crate::error::failure_text;
pub use crate::status::{Health, Status};

/// Carries changes to workers.
///
/// # Contract
///
/// - **At least once.** A part that was taken is delivered until it is acknowledged. It may be
///   delivered twice and out of order: applying changes is idempotent and commutative.
/// - **Bounded in bytes.** [`publish`](Self::publish) gives a part back that it has no room for.
/// - **A delivery ends once.** [`Delivery::ack`] and [`Delivery::nack`] consume it; a delivery that is
///   dropped, by a panic for instance, is delivered again.
///
/// What leaves the process is encoded: [`Broker`] and [`Subscription`].
pub trait Transport: Send + Sync + fmt::Debug {
    /// Takes a part, waiting for room until the deadline.
    ///
    /// # Errors
    ///
    /// The part itself, when there was no room or the transport has been closed.
    fn publish(&self, part: Part, deadline: Instant) -> Result<(), Part>;

    /// The next delivery; `None` when there was none within `wait`, or when the transport has been
    /// closed.
    fn receive(&self, wait: Duration) -> Option<Delivery>;

    /// What it holds.
    fn depth(&self) -> Depth;

    /// Takes nothing more and delivers nothing more; whoever waits in it returns.
    fn close(&self);
}

/// Some or all changes of one commit.
#[derive(Debug, Clone)]
pub struct Part {
    /// The commit's place among the commits of its process.
    pub commit: u64,
    /// When it was published.
    pub published: Instant,
    /// The changes, in the order of the commit's statements.
    pub changes: Arc<[Change]>,
}

impl Part {
    /// About how many bytes of memory it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + 64 + self.changes.iter().map(|change| change.size).sum::<usize>()
    }
}

/// What a transport holds: what it has not delivered, and what is delivered and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Depth {
    /// Changes.
    pub changes: usize,
    /// Bytes.
    pub bytes: usize,
}

/// A part on its way to a store. Dropping it means that it is delivered again.
#[derive(Debug)]
pub struct Delivery {
    part: Part,
    redelivered: u32,
    origin: Arc<dyn Origin>,
    ended: bool,
}

/// Where a delivery came from, and returns to.
pub trait Origin: Send + Sync + fmt::Debug {
    /// The parts have been dealt with.
    fn done(&self, parts: Vec<Part>);
    /// The part has to be delivered again.
    fn again(&self, part: Part, redelivered: u32);
}

impl Delivery {
    /// A delivery of this part, for transports. `redelivered` is how often it was delivered before.
    #[must_use]
    pub fn new(part: Part, redelivered: u32, origin: Arc<dyn Origin>) -> Self {
        Self { part, redelivered, origin, ended: false }
    }

    /// What is delivered.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// How often it was delivered before.
    #[must_use]
    pub fn redelivered(&self) -> u32 {
        self.redelivered
    }

    /// Says that the part has been dealt with.
    pub fn ack(self) {
        Self::ack_all(vec![self]);
    }

    /// Says that the parts have been dealt with: together, so that publishers wait for a lock but once.
    pub fn ack_all(deliveries: Vec<Self>) {
        let Some(first) = deliveries.first() else { return };
        let origin = Arc::clone(&first.origin);
        let mut parts = Vec::with_capacity(deliveries.len());
        for mut delivery in deliveries {
            delivery.ended = true;
            if Arc::ptr_eq(&delivery.origin, &origin) {
                parts.push(delivery.part.clone());
            } else {
                delivery.origin.done(vec![delivery.part.clone()]);
            }
        }
        origin.done(parts);
    }

    /// Says that the part has to be delivered again.
    pub fn nack(self) {}
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.ended {
            self.origin.again(self.part.clone(), self.redelivered.saturating_add(1));
        }
    }
}
