//! The suite that every broker passes: one table of cases, run over any of them.
//!
//! A transport of your own passes it too: give a [`Harness`] and run each of [`cases`] as a test of its own, or all of
//! them with [`run`]. A case waits for as long as a slow and busy machine may need, and asserts no times but those that
//! the contract names.

mod delivery;
mod ends;
mod ground;
mod limits;
mod outages;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Broker, Subscription};

/// Makes what the suite runs on.
pub trait Harness: Send + Sync {
    /// How long a case waits for what has to happen, before it says that it never does: minutes for a broker that may be
    /// right, on a machine that may be busy.
    fn patience(&self) -> Duration;

    /// A topic with one empty queue, that no other case sees, on a server that other cases share.
    fn fresh(&self) -> Arc<dyn Topic>;

    /// The same, whose queue takes no more than about this many messages; `None` where a queue cannot be bounded.
    fn bounded(&self, most: u64) -> Option<Arc<dyn Topic>>;

    /// A publisher whose messages no queue wants; `None` where such a thing cannot be.
    fn unrouted(&self) -> Option<Arc<dyn Broker>>;

    /// A publisher whom the server refuses: with a wrong password, or without the right to publish. `None` where everyone
    /// may.
    fn forbidden(&self) -> Option<Arc<dyn Broker>>;

    /// A topic on a running server of its own, which the case stops and starts; `None` where there is no server.
    fn own(&self) -> Option<Box<dyn Own>>;
}

/// A topic and its queue, for one case.
pub trait Topic: Send + Sync {
    /// One more publisher, with connections of its own.
    fn broker(&self) -> Arc<dyn Broker>;

    /// One more consumer of the queue, with connections of its own.
    fn subscribe(&self) -> Arc<dyn Subscription>;

    /// The dead letters that are kept, without taking them away.
    fn dead(&self) -> Vec<Dead>;

    /// Has a process of its own take this many messages, and kills it; what it took. `None` where consumers cannot
    /// live in other processes.
    fn taken_and_killed(&self, most: usize) -> Option<Vec<Bytes>>;
}

/// A dead letter, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The body of the message.
    pub body: Bytes,
    /// Why it could not be dealt with.
    pub reason: String,
}

/// A topic on a server that a case may stop. The server is gone when this is dropped.
pub trait Own: Send + Sync {
    /// The topic.
    fn topic(&self) -> Arc<dyn Topic>;

    /// Stops the server in good order.
    fn stop(&self);

    /// Ends the server as a crash does.
    fn kill(&self);

    /// Starts the server again after either, and waits until it accepts connections.
    fn start(&self);

    /// Freezes the server: connections stay open and nothing is answered.
    fn pause(&self);

    /// Wakes a frozen server.
    fn resume(&self);
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The broker is right.
    Passed,
    /// The case asks for something that the broker does not have; this says what.
    NotApplicable(&'static str),
    /// The broker is wrong; this says where.
    Failed(String),
}

/// One case of the suite.
#[derive(Debug)]
pub struct Case {
    /// What has to hold, in words, without spaces.
    pub name: &'static str,
    run: Run,
}

/// What a case runs on.
#[derive(Debug)]
enum Run {
    Topic(fn(&dyn Topic) -> Result<(), String>),
    /// A queue that takes [`limits::ROOM`] messages.
    Bounded(fn(&dyn Topic) -> Result<(), String>),
    Unrouted(fn(&dyn Broker) -> Result<(), String>),
    Forbidden(fn(&dyn Broker) -> Result<(), String>),
    /// A consumer in a process that was killed.
    Killed(fn(&dyn Topic) -> Result<Option<()>, String>),
    Own(fn(&dyn Own) -> Result<(), String>),
}

impl Case {
    /// Runs the case on a topic of its own.
    #[must_use]
    pub fn run(&self, harness: &dyn Harness) -> Verdict {
        ground::set_patience(harness.patience());
        let answer = match self.run {
            Run::Topic(run) => run(&*harness.fresh()).map(|()| None),
            Run::Bounded(run) => match harness.bounded(limits::ROOM) {
                Some(topic) => run(&*topic).map(|()| None),
                None => Ok(Some("its queues cannot be bounded")),
            },
            Run::Unrouted(run) => match harness.unrouted() {
                Some(broker) => run(&*broker).map(|()| None),
                None => Ok(Some("somebody always receives")),
            },
            Run::Forbidden(run) => match harness.forbidden() {
                Some(broker) => run(&*broker).map(|()| None),
                None => Ok(Some("everyone may publish")),
            },
            Run::Killed(run) => run(&*harness.fresh())
                .map(|ran| if ran.is_some() { None } else { Some("its consumers cannot live in other processes") }),
            Run::Own(run) => match harness.own() {
                Some(own) => run(&*own).map(|()| None),
                None => Ok(Some("it has no server")),
            },
        };
        match answer {
            Ok(None) => Verdict::Passed,
            Ok(Some(why)) => Verdict::NotApplicable(why),
            Err(why) => Verdict::Failed(why),
        }
    }
}

/// All cases, in the order of the contract.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [delivery::CASES, ends::CASES, limits::CASES, outages::CASES].into_iter().flatten()
}

/// Runs all cases, each on a topic of its own.
pub fn run(harness: &dyn Harness) -> Vec<(&'static str, Verdict)> {
    cases().map(|case| (case.name, case.run(harness))).collect()
}
