//! How messages travel between processes: the contract of a broker.
//!
//! One side publishes what was committed, the other receives it and writes it into stores. Messages may be
//! delivered twice and out of order: applying changes is idempotent and commutative, so at least once is enough.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::Result;
use crate::status::Health;

/// What is published: one change of one row, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The table of the row, by which consumers choose what they receive.
    pub table: Arc<str>,
    /// What was done to it: `create`, `update`, `upsert`, `delete` or `reread`; by which consumers choose, too.
    pub action: &'static str,
    /// The same for every copy of the same change, so that a broker that can may drop repetitions.
    pub id: String,
    /// The form of the body, as a media type.
    pub content_type: &'static str,
    /// The change.
    pub body: Bytes,
}

/// Publishes messages to a broker.
///
/// # Contract
///
/// - **Confirmed.** `Ok` means that the broker keeps the message, on its disk, in every queue that wants it,
///   and in one at least: what nobody would receive is [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable),
///   never a success.
/// - **Bounded.** A queue that is full is [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), after at most
///   the broker's own deadline. What was sent and not confirmed is
///   [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome); publishing it again is harmless.
/// - **Rejected is of one message.** [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) says that this message will
///   never be taken, whoever publishes it and whenever: it is too large. What concerns all messages (a wrong password,
///   no right, exchanges or streams that are missing or stand with other settings) is
///   [`ErrorKind::Config`](crate::ErrorKind::Config): whoever publishes keeps the message, tells of it, and publishes
///   again until somebody has mended it. So a change is given up for `Rejected`, and for nothing else.
/// - **It comes back.** A broker that is away, at the start too, fails calls and is connected to again, with
///   pauses that grow.
pub trait Broker: Send + Sync + fmt::Debug {
    /// How it is called in reports and in health.
    fn name(&self) -> &str;

    /// The largest body of a message, in bytes. A larger one is
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected), and the others of its call are published.
    fn max_body(&self) -> usize;

    /// Publishes messages and waits until each is confirmed, or the deadline of the broker has passed. Answers
    /// each, in order.
    fn publish(&self, messages: &[Message]) -> Vec<Result<()>>;

    /// Whether it can be published to; ends by the deadline.
    fn health(&self, deadline: Duration) -> Health;

    /// Publishes nothing more, and closes its connections.
    ///
    /// # Errors
    ///
    /// When the broker did not answer the farewell.
    fn close(&self) -> Result<()>;
}

/// A queue of a broker, from which several threads and processes may take.
///
/// # Contract
///
/// - **At least once.** What was taken is delivered again until it is acknowledged or a dead letter. An
///   [`Arrival`] that is dropped, and all that a process held when it died, is delivered again, to whoever asks.
/// - **A dead letter is kept** with its reason, where operators find it.
/// - **It comes back**, as [`Broker`] does.
pub trait Subscription: Send + Sync + fmt::Debug {
    /// How it is called in reports and in health.
    fn name(&self) -> &str;

    /// Up to `most` arrivals; waits for the first for up to `wait`. Empty when none came.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the broker is away, and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it refuses: call again, after a pause.
    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>>;

    /// What the queue holds, as far as the broker tells.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    fn backlog(&self) -> Result<Backlog>;

    /// Up to so many dead letters of this queue, the oldest first. They stay where they are; while they are being read
    /// another call may not see them. Holds all of them in memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the broker is away, and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it refuses.
    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>>;

    /// Delivers up to so many dead letters of this queue again, the oldest first: whoever takes from it receives them as
    /// if they had just been published, and nobody is told any more that they were dead. A letter goes only when the
    /// broker has confirmed that it keeps the message: cut off in between, it is kept twice, and delivered again for
    /// each. Returns how many were delivered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the broker is away or does not confirm; some may
    /// have been delivered.
    fn redrive(&self, most: usize) -> Result<usize>;

    /// Whether it can be received from; ends by the deadline.
    fn health(&self, deadline: Duration) -> Health;

    /// Receives nothing more, gives back what was not acknowledged, and closes its connections.
    ///
    /// # Errors
    ///
    /// When the broker did not answer the farewell.
    fn close(&self) -> Result<()>;
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Backlog {
    /// Messages that wait.
    pub waiting: u64,
    /// Messages that were taken and not yet acknowledged: by any process, or by this subscription where the broker tells
    /// nothing of others.
    pub taken: u64,
    /// Dead letters; 0 where the broker does not tell.
    pub dead: u64,
}

/// A message that could not be dealt with, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadMessage {
    /// The body, which anyone may have written.
    pub body: Bytes,
    /// The form that the body claims to have.
    pub content_type: Option<String>,
    /// The id that it was published with.
    pub id: Option<String>,
    /// Why it could not be dealt with.
    pub reason: String,
    /// How often it was delivered, as far as the broker told.
    pub deliveries: u32,
    /// When it became a dead letter, as far as that is known.
    pub at: Option<SystemTime>,
}

/// A message that was received. Dropping it means that it is delivered again.
#[derive(Debug)]
pub struct Arrival {
    body: Bytes,
    content_type: Option<String>,
    id: Option<String>,
    redelivered: u32,
    tag: u64,
    origin: Arc<dyn Ends>,
    ended: bool,
}

/// How an arrival ends, told to whom it came from. None of these waits for the broker: what could not be told to it
/// is delivered again.
pub trait Ends: Send + Sync + fmt::Debug {
    /// These have been dealt with.
    fn done(&self, tags: Vec<u64>);
    /// It has to be delivered again, not sooner than `after` from now.
    fn again(&self, tag: u64, after: Duration);
    /// It is to be kept with the dead letters.
    fn dead(&self, tag: u64, reason: &str);
}

impl Arrival {
    /// An arrival, for subscriptions. `redelivered` is how often it was delivered before, as far as the broker
    /// tells; `tag` is what `origin` knows it by.
    #[must_use]
    pub fn new(body: Bytes, content_type: Option<String>, redelivered: u32, tag: u64, origin: Arc<dyn Ends>) -> Self {
        Self { body, content_type, id: None, redelivered, tag, origin, ended: false }
    }

    /// The same with the id that it was published with.
    #[must_use]
    pub fn with_id(mut self, id: Option<String>) -> Self {
        self.id = id;
        self
    }

    /// The body, which anyone may have written.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The form that the body claims to have.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The id that it was published with ([`Message::id`]), as far as the broker tells.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How often it was delivered before, as far as the broker tells.
    #[must_use]
    pub const fn redelivered(&self) -> u32 {
        self.redelivered
    }

    /// Says that these have been dealt with, together.
    pub fn ack_all(arrivals: Vec<Self>) {
        let Some(origin) = arrivals.first().map(|arrival| Arc::clone(&arrival.origin)) else { return };
        let mut tags = Vec::with_capacity(arrivals.len());
        for mut arrival in arrivals {
            arrival.ended = true;
            if Arc::ptr_eq(&arrival.origin, &origin) {
                tags.push(arrival.tag);
            } else {
                arrival.origin.done(vec![arrival.tag]);
            }
        }
        origin.done(tags);
    }

    /// Says that it has been dealt with.
    pub fn ack(self) {
        Self::ack_all(vec![self]);
    }

    /// Says that it has to be delivered again, not sooner than `after` from now.
    pub fn again(mut self, after: Duration) {
        self.ended = true;
        self.origin.again(self.tag, after);
    }

    /// Says that it cannot be dealt with, and why: it is kept with the dead letters.
    pub fn dead(mut self, reason: &str) {
        self.ended = true;
        self.origin.dead(self.tag, reason);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.ended {
            self.origin.again(self.tag, Duration::ZERO);
        }
    }
}
