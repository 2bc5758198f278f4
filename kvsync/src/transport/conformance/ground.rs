//! What the cases are made of.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{ErrorKind, failure_text};
use crate::transport::{Arrival, Broker, Message, Subscription};

/// Fails the case when something does not hold.
macro_rules! check {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

pub(super) use check;

/// What a case returns: why the broker is wrong.
pub(super) type Checked<T = ()> = Result<T, String>;

thread_local! {
    /// Of the case that runs on this thread.
    static PATIENCE: Cell<Duration> = const { Cell::new(Duration::from_mins(5)) };
}

/// How long this thread waits for what should happen.
pub(super) fn patience() -> Duration {
    PATIENCE.get()
}

/// A case that starts threads tells them.
pub(super) fn set_patience(patience: Duration) {
    PATIENCE.set(patience);
}

/// How long one call waits for arrivals. It decides nothing.
pub(super) const WAIT: Duration = Duration::from_millis(200);

/// A message with this body, of a change that no other message is of: a broker may drop what has the same id.
pub(super) fn message(body: impl Into<Bytes>) -> Message {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let (table, content_type) = (Arc::from("users"), "application/vnd.kvsync.test");
    let id = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    Message { table, action: "update", id, content_type, body: body.into() }
}

/// Messages of which each has a body of its own.
pub(super) fn messages(name: &str, count: usize) -> Vec<Message> {
    (0..count).map(|number| message(format!("{name} {number}"))).collect()
}

pub(super) fn bodies(messages: &[Message]) -> BTreeSet<Bytes> {
    messages.iter().map(|message| message.body.clone()).collect()
}

/// Publishes, and each has to be confirmed.
pub(super) fn publish(broker: &dyn Broker, messages: &[Message]) -> Checked {
    let answers = broker.publish(messages);
    check!(answers.len() == messages.len(), "{} messages and {} answers", messages.len(), answers.len());
    answers.into_iter().try_for_each(|answer| answer.map_err(|error| failure_text(&error)))
}

/// Publishes until each is confirmed, as those do who lose nothing: for a server that comes back.
pub(super) fn publish_at_last(broker: &dyn Broker, messages: &[Message]) -> Checked {
    let deadline = Instant::now() + patience();
    let mut left = messages.to_vec();
    loop {
        let answers = broker.publish(&left);
        check!(answers.len() == left.len(), "{} messages and {} answers", left.len(), answers.len());
        let mut last = None;
        left = left
            .into_iter()
            .zip(answers)
            .filter_map(|(message, answer)| {
                answer.err().map(|error| {
                    last = Some(error);
                    message
                })
            })
            .collect();
        let Some(error) = last else { return Ok(()) };
        check!(error.is_retryable(), "a server that comes back is no reason for {}", failure_text(&error));
        check!(Instant::now() < deadline, "not published after {:?}: {}", patience(), failure_text(&error));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One call; that the broker is away is no failure.
pub(super) fn receive(queue: &dyn Subscription, most: usize) -> Checked<Vec<Arrival>> {
    match queue.receive(most, WAIT) {
        Ok(arrivals) => {
            check!(arrivals.len() <= most, "asked for {most} and got {}", arrivals.len());
            Ok(arrivals)
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Vec::new()),
        Err(error) => Err(failure_text(&error)),
    }
}

/// This many arrivals.
pub(super) fn take(queue: &dyn Subscription, count: usize) -> Checked<Vec<Arrival>> {
    let deadline = Instant::now() + patience();
    let mut taken = Vec::new();
    while taken.len() < count {
        check!(Instant::now() < deadline, "{} of {count} arrived within {:?}", taken.len(), patience());
        taken.extend(receive(queue, count - taken.len())?);
    }
    Ok(taken)
}

/// The only one that arrives.
pub(super) fn one(queue: &dyn Subscription) -> Checked<Arrival> {
    take(queue, 1)?.pop().ok_or_else(|| "nothing arrived".to_owned())
}

/// Receives and acknowledges until all of these have arrived; what arrived may be more.
pub(super) fn drain(queue: &dyn Subscription, wanted: &BTreeSet<Bytes>) -> Checked {
    let deadline = Instant::now() + patience();
    let mut missing = wanted.clone();
    while !missing.is_empty() {
        check!(Instant::now() < deadline, "{} of {} never arrived: {missing:?}", missing.len(), wanted.len());
        let arrivals = receive(queue, 100)?;
        for arrival in &arrivals {
            missing.remove(arrival.body());
        }
        Arrival::ack_all(arrivals);
    }
    Ok(())
}

/// That none of these arrives any more: what is published now arrives, and they do not.
pub(super) fn gone(broker: &dyn Broker, queue: &dyn Subscription, gone: &BTreeSet<Bytes>) -> Checked {
    let last = message("the last");
    publish(broker, std::slice::from_ref(&last))?;
    let deadline = Instant::now() + patience();
    let mut quiet = false;
    while !quiet {
        check!(Instant::now() < deadline, "what is published does not arrive");
        let arrivals = receive(queue, 100)?;
        for arrival in arrivals {
            check!(!gone.contains(arrival.body()), "what was acknowledged arrived again: {:?}", arrival.body());
            quiet |= *arrival.body() == last.body;
            arrival.ack();
        }
    }
    // Order is not promised: what stands behind it may still come.
    for arrival in receive(queue, 100)? {
        check!(!gone.contains(arrival.body()), "what was acknowledged arrived again: {:?}", arrival.body());
        arrival.ack();
    }
    Ok(())
}

/// Waits until something is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Checked {
    let deadline = Instant::now() + patience();
    while !is_so() {
        check!(Instant::now() < deadline, "waited for {:?}, and never: {what}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
