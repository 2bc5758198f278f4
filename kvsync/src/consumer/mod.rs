//! The consumer: receives what publishers committed, writes it into a store, and tells hooks of it.
//!
//! It needs no database and no model: a message holds keys, versions and bytes. Any number of consumers, threads and
//! processes take from one queue, in any order, and any message may come twice: applying changes is idempotent and
//! commutative. Several queues of one exchange or stream feed several stores, each by a consumer of its own.
//!
//! ```
//! use std::time::Duration;
//!
//! use kvsync::Consumer;
//! use kvsync::store::MemoryStore;
//! use kvsync::transport::MemoryBroker;
//!
//! let broker = MemoryBroker::new(); // RabbitMQ or NATS JetStream in earnest
//! let consumer = Consumer::builder()
//!     .subscription(broker.queue("eu"))
//!     .store(MemoryStore::new())
//!     .workers(4)
//!     .build()?;
//! // .. until the program is told to stop
//! let ended = consumer.shutdown(Duration::from_secs(10));
//! assert!(ended.is_clean());
//! # Ok::<(), kvsync::Error>(())
//! ```
//!
//! # What becomes of a message
//!
//! | | |
//! |---|---|
//! | it is in the store, or something newer is, and every hook has returned `Ok` | it is acknowledged |
//! | the store does not answer | nothing is received until it does; what is held is given back after a while |
//! | the store refuses everything: a password or a right is missing | the same; [`health`](Consumer::health) says why |
//! | a hook fails or panics | it is delivered again after a pause, and every hook of it is called again; after [`attempts`](ConsumerBuilder::attempts) it is a dead letter |
//! | it is damaged, foreign, or of a format that this version does not read | a dead letter |
//! | the store refuses this one, and takes others: a right for its table is missing | it is delivered again after a pause, until somebody has mended that; readers of its row are sent to the database, and [`health`](Consumer::health) names the table |
//! | a value of another type stands under one of its keys, or it is larger than the store takes | a dead letter; readers of its row are sent to the database, and of a key with another type are told an error |
//! | its row has other fields than the hook's model, or another codec | a dead letter, and the store has it |
//! | it was captured longer ago than half of [`Retention::dead`](crate::worker::Retention) | a dead letter: what would refuse it, if it is outdated, may have been forgotten |
//! | it is of an epoch before the store's | a dead letter: it is from before the database was restored |
//! | it is of an epoch more than 16 above the store's | it is delivered again after a pause; after [`attempts`](ConsumerBuilder::attempts) it is a dead letter |
//!
//! A dead letter is kept until somebody removes it, or puts it back: [`Consumer::dead`] lists them, and
//! [`Consumer::redrive`] has them delivered again, once their cause is mended. It leaves its row as the store has it. What cures a row is its next write, or a backfill or repair by a
//! process that has the database.
//!
//! A change that tells no content ([`ChangeMessage::is_unknown`](crate::transport::ChangeMessage::is_unknown)) makes its row unknown: readers ask
//! the database until the publisher has read the row again and published that.
//!
//! # Deploys
//!
//! Without hooks a consumer knows no model: publishers may change theirs as they like. A hook reads a row if the publisher
//! wrote all fields that the hook's model has, with equal types. So where a field is **added**, publishers go first, and
//! then the consumers whose hook wants it; where one is **removed**, consumers go first. A message in between is a dead letter
//! whose reason names the field; the store has it. It lacks the field for good: have it delivered again to a consumer that
//! can read it, or backfill the table, which tells hooks of every row.
//!
//! # What it logs
//!
//! Through `tracing`: each dead letter (an error, with table, primary key, version, message id, deliveries and reason); and
//! once when it begins (a warning) and once when it is over, however many messages that concerns: nothing can be received,
//! the store takes nothing, the store refuses changes of a table, a hook fails, dead letters cannot be kept.
//! [`health`](Consumer::health) says the same for as long as it lasts.
//!
//! # When a message waits
//!
//! What is delivered again after a pause waits at the broker (NATS JetStream), or is held by this consumer, unacknowledged
//! (RabbitMQ: ten minutes at most, it counts among the prefetch, and comes back at once when the consumer ends). Either way
//! it is in the backlog, so that [`drain`](Consumer::drain) waits for it.
//!
//! # The epoch
//!
//! After a restore of the database its epoch is raised ([`raise_epoch`](crate::KvSync::raise_epoch)), and every message
//! that is published then carries the new one. The store follows it, and refuses what is older. An epoch is never
//! lowered, so a mistaken one would shut out all other publishers for good. What can be believed is the store's own,
//! what the consumer is told by [`epoch`](ConsumerBuilder::epoch), and a message that is little ahead of these: epochs are
//! raised by one, and a consumer that was away for 16 restores of a database has missed more than messages. So a
//! message that is damaged, or comes from a program that counts versions in another way, changes nothing. A publisher that
//! is told the next epoch by mistake is believed: the others then have to follow it. Whoever may publish can write what
//! it likes into the store in any case; who may is for the broker to say.
//!
//! # Metrics
//!
//! [`health`](Consumer::health) has figures. With the feature `metrics` the facade of that name is told of them, too:
//! `kvsync_consumer_messages_total` counts messages by `queue` and `outcome` (`done`, `again`, `dead`), and
//! `kvsync_consumer_lag_seconds` is a histogram, by `queue`, of the time from the capture of a change to its
//! acknowledgement.

mod builder;
mod counts;
mod end;
mod fit;
mod health;
mod hook;
mod meet;
#[cfg(all(test, feature = "metrics"))]
mod tests;
mod trouble;
mod work;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use self::builder::ConsumerBuilder;
pub use self::health::ConsumerHealth;
pub use self::hook::{HookError, Received};

use self::counts::Counts;
use self::hook::Hook;
use self::trouble::Troubles;
use crate::clock::{Clock, from_now};
use crate::error::{Error, ErrorKind, Result, failure_text, without_passwords};
use crate::store::SyncStore;
use crate::sync::{AtomicBool, Mutex};
use crate::transport::{DeadMessage, Subscription};
use crate::worker::{Backoff, Pool, Probe, Reporter, Retention, Stop};

/// How long threads that were told to stop are waited for beyond a deadline that has passed.
const GRACE: Duration = Duration::from_millis(250);
/// How often a queue is asked whether it is empty.
const LOOK: Duration = Duration::from_millis(20);

/// Takes changes from a queue and writes them into a store. Dropping it shuts it down, within
/// [`drop_deadline`](ConsumerBuilder::drop_deadline).
pub struct Consumer {
    shared: Arc<Shared>,
    probes: Probes,
    pool: Pool,
    /// Ends after the others, so that what they report is still told.
    listener: Pool,
    listener_stop: Stop,
    drop_deadline: Duration,
    ended: Mutex<Option<ConsumerEnd>>,
}

/// Who is asked for health.
struct Probes {
    store: Option<Probe>,
    queue: Probe,
    backlog: Probe,
}

/// What all workers of a consumer share.
struct Shared {
    subscription: Arc<dyn Subscription>,
    name: Arc<str>,
    store: Option<Arc<dyn SyncStore>>,
    hooks: Vec<Hook>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    batch: usize,
    backoff: Backoff,
    attempts: u32,
    pauses: Backoff,
    /// The store's, or a higher one that a message told.
    epoch: Arc<AtomicU32>,
    /// Whether the epoch of the store was read and it has answered since.
    met: AtomicBool,
    /// Whether the store has refused something, and nothing was seen to be taken since.
    refused: AtomicBool,
    /// When what is held is given back, once the consumer was told to end.
    ends_at: Mutex<Option<Instant>>,
    counts: Counts,
    reporter: Reporter,
    stop: Stop,
    /// The last error of the store, and of the queue, while it lasts.
    store_error: Mutex<Option<Arc<Error>>>,
    queue_error: Mutex<Option<Arc<Error>>>,
    /// How the store was seen to have forgotten what it acknowledged.
    forgot: Mutex<Option<String>>,
    troubles: Troubles,
}

/// An error and its causes, without its kind: a sentence about one message.
fn reason(error: &Error) -> String {
    let text = failure_text(error);
    text.strip_prefix(&format!("{}: ", error.kind().as_str())).map_or(text.clone(), str::to_owned)
}

/// What a consumer did, and what it left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerEnd {
    /// Messages that were acknowledged since the start.
    pub acknowledged: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages that threads still held at the deadline: they are delivered again.
    pub held: u64,
    /// Threads that were still busy, in a store or a hook that did not return.
    pub threads: usize,
    /// Why the queue did not take leave, if it did not: what was acknowledged last may be delivered again, which is
    /// harmless.
    pub error: Option<Error>,
}

impl Consumer {
    /// Begins to configure a consumer.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::new()
    }

    /// Waits until the queue is empty, as far as the broker tells, and nothing of it is held here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when it took too long; the source is the last error met.
    pub fn drain(&self, deadline: Duration) -> Result<()> {
        let until = from_now(deadline);
        // One that was just taken is told of neither by some brokers nor by a worker yet.
        let mut empty = 0;
        let mut failure = None;
        while empty < 2 {
            match self.shared.subscription.backlog() {
                Ok(backlog) if backlog.waiting == 0 && backlog.taken == 0 && self.shared.counts.held() == 0 => {
                    empty += 1;
                }
                Ok(_) => empty = 0,
                Err(error) => {
                    empty = 0;
                    failure = Some(error);
                }
            }
            if empty < 2 && (Instant::now() >= until || self.shared.stop.wait(LOOK)) {
                let error = Error::new(ErrorKind::Deadline, format!("{} is not empty yet", self.shared.name));
                let last = self.shared.store_error.lock().clone().map(|error| (*error).clone());
                return Err(match failure.or(last) {
                    Some(last) => error.with_source(last),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// Up to so many dead letters of the queue, the oldest first, which stay there. All are held in memory.
    ///
    /// # Errors
    ///
    /// When the broker is away or refuses.
    pub fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.shared.subscription.dead(most)
    }

    /// Has up to so many dead letters of the queue delivered again, the oldest first, to whoever takes from it: for those
    /// whose cause was mended. Returns how many. One that still cannot be dealt with becomes a dead letter again.
    ///
    /// # Errors
    ///
    /// When the broker is away or does not confirm; some may have been delivered.
    pub fn redrive(&self, most: usize) -> Result<usize> {
        self.shared.subscription.redrive(most)
    }

    /// Receives nothing more, finishes what is held until the deadline, and closes the subscription. What is not
    /// finished then is given back and delivered again; of a hook that is being called, the end is not waited for. A
    /// second call says the same as the first.
    #[allow(clippy::must_use_candidate, reason = "a program may end without asking what was left")]
    pub fn shutdown(&self, deadline: Duration) -> ConsumerEnd {
        let mut ended = self.ended.lock();
        if let Some(ended) = &*ended {
            return ended.clone();
        }
        let deadline = from_now(deadline);
        *self.shared.ends_at.lock() = Some(deadline);
        self.shared.stop.stop();
        let mut threads = self.pool.join(deadline.max(Instant::now() + GRACE));
        let error = self.shared.subscription.close().err();
        if let Some(error) = &error {
            let error = without_passwords(&failure_text(error));
            tracing::warn!(queue = &*self.shared.name, error, "the queue was left without its farewell");
        }
        self.listener_stop.stop();
        threads += self.listener.join(deadline.max(Instant::now() + GRACE));
        let counts = &self.shared.counts;
        let outcome = ConsumerEnd {
            acknowledged: counts.acknowledged(),
            dead: counts.dead.load(Ordering::Relaxed),
            held: counts.held(),
            threads,
            error,
        };
        *ended = Some(outcome.clone());
        outcome
    }
}

impl ConsumerEnd {
    /// Whether nothing is left to be delivered again that was held here.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.held == 0 && self.threads == 0
    }
}

impl fmt::Display for ConsumerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages acknowledged, {} dead letters", self.acknowledged, self.dead)?;
        if self.held > 0 {
            write!(f, "; {} were held and are delivered again", self.held)?;
        }
        if self.threads > 0 {
            write!(f, "; {} threads were still busy", self.threads)?;
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, "; {error}"))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let ended = self.shutdown(self.drop_deadline);
        if !ended.is_clean() {
            tracing::warn!("a consumer was dropped, and not everything was in order: {ended}");
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("subscription", &self.shared.subscription).finish_non_exhaustive()
    }
}
