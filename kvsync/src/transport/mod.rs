//! How changes travel from those who commit to those who write: the contract.

mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod outbox;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::broker::{Arrival, Backlog, Broker, Ends, Message, Subscription};
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
/// A transport that leaves the process carries encoded changes: [`Broker`] and [`Subscription`].
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
