//! The side that receives, as its callers see it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, mpsc, oneshot};

use super::builder::Timing;
use super::pump::{Command, Pump};
use super::redrive::{self, Course};
use super::session::Session;
use super::{GRACE, health};
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result, failure_text};
use crate::status::{Health, Status};
use crate::transport::{Arrival, Backlog, DeadMessage, Ends, Subscription};

/// A queue of a stream of NATS JetStream. See the [module](super) for what it promises, costs and needs.
pub struct NatsQueue {
    name: String,
    queue: String,
    session: Arc<Session>,
    basket: Arc<Basket>,
    desk: Arc<Desk>,
    timeout: Duration,
    /// Stops the pump: by a word, which is answered when it has stopped, or by being dropped.
    stop: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>>,
    // Dropped last: the connection lives on it.
    bridge: Arc<Bridge>,
}

/// What arrived and nobody has taken yet. Filled by the pump.
pub(super) struct Basket {
    inside: Mutex<Inside>,
    filled: Condvar,
    /// Tells the pump that somebody wants more.
    pub(super) wanted: Notify,
}

struct Inside {
    fresh: VecDeque<Fresh>,
    /// Whether anybody ever asked: nothing is taken from the server before.
    asked: bool,
    /// Why nothing comes, and why dead letters are not kept.
    failure: Option<Error>,
    unkept: Option<Error>,
    closed: bool,
}

/// An arrival that nobody has taken.
pub(super) struct Fresh {
    pub(super) tag: u64,
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) id: Option<String>,
    pub(super) redelivered: u32,
}

/// Tells the pump how arrivals ended.
#[derive(Debug)]
struct Desk {
    commands: mpsc::UnboundedSender<Command>,
}

impl NatsQueue {
    pub(super) fn new(session: Arc<Session>, queue: &str, timing: &Timing) -> Result<Self> {
        let bridge = Bridge::shared()?;
        let name = format!("nats queue {queue} of the stream {} at {}", session.topology.stream, session.at());
        let (commands, told) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (begun, first) = oneshot::channel();
        let basket = Arc::new(Basket::new(&name));
        let pump = Pump::new(Arc::clone(&session), queue.to_owned(), Arc::clone(&basket), told, timing);
        bridge.spawn(pump.run(stopped, begun));
        // Whatever became of the first attempt: calls tell.
        let _ = bridge.run(session.connect_timeout(), first);
        Ok(Self {
            name,
            queue: queue.to_owned(),
            session,
            basket,
            desk: Arc::new(Desk { commands }),
            timeout: timing.publish,
            stop: Mutex::new(Some(stop)),
            bridge,
        })
    }
}

impl NatsQueue {
    /// An answer, within the time that connecting and one question may take.
    fn asked<T, A>(&self, question: impl FnOnce(tokio::time::Instant) -> A) -> Result<T>
    where
        T: Send + 'static,
        A: Future<Output = Result<T>> + Send + 'static,
    {
        let within = self.session.connect_timeout() + self.timeout;
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{} did not answer in time", self.name));
        self.bridge.run(within + GRACE, question(tokio::time::Instant::now() + within)).map_err(late)?
    }
}

impl fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsQueue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Subscription for NatsQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        if most == 0 {
            return self.basket.open(&self.name).map(|()| Vec::new());
        }
        let taken = self.basket.take(most, wait, &self.name)?;
        let arrival = |fresh: Fresh| {
            let origin = Arc::clone(&self.desk) as Arc<dyn Ends>;
            Arrival::new(fresh.body, fresh.content_type, fresh.redelivered, fresh.tag, origin).with_id(fresh.id)
        };
        Ok(taken.into_iter().map(arrival).collect())
    }

    fn backlog(&self) -> Result<Backlog> {
        self.basket.open(&self.name)?;
        let (session, queue, timeout) = (Arc::clone(&self.session), self.queue.clone(), self.timeout);
        let asked = async move { health::backlog(&session, &queue, tokio::time::Instant::now() + timeout).await };
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{} did not answer in time", self.name));
        self.bridge.run(self.timeout + GRACE, asked).map_err(late)?
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.basket.open(&self.name)?;
        let (mut letters, mut from) = (Vec::new(), 1);
        while letters.len() < most {
            let part = (most - letters.len()).min(redrive::AT_ONCE);
            let (session, queue) = (Arc::clone(&self.session), self.queue.clone());
            let (some, next) =
                self.asked(|until| async move { redrive::list(&session, &queue, from, part, until).await })?;
            let ended = some.len() < part;
            letters.extend(some);
            from = next;
            if ended {
                break;
            }
        }
        Ok(letters)
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        self.basket.open(&self.name)?;
        let mut course = Course::new(most);
        while course.left > 0 {
            let (session, queue) = (Arc::clone(&self.session), self.queue.clone());
            let (next, more) = self.asked(|until| async move { course.go_on(&session, &queue, until).await })?;
            course = next;
            if !more {
                break;
            }
        }
        Ok(course.delivered)
    }

    fn health(&self, deadline: Duration) -> Health {
        let failure = self.basket.failure();
        let mut health = health::of_queue(&self.session, &self.queue, failure, &self.bridge, deadline);
        if let Some(error) = &self.basket.inside.lock().unkept {
            health.status = health.status.max(Status::Degraded);
            health.details.push(format!("dead letters cannot be kept: {}", failure_text(error)));
        }
        health
    }

    fn close(&self) -> Result<()> {
        self.basket.close();
        let Some(stop) = self.stop.lock().take() else { return Ok(()) };
        let (told, stopped) = oneshot::channel();
        if stop.send(told).is_err() {
            return Ok(());
        }
        self.bridge.run(self.timeout + GRACE, stopped).map(|_| ()).map_err(|_| {
            let message = format!("{} did not answer the farewell; what was held is delivered again later", self.name);
            Error::new(ErrorKind::Unavailable, message)
        })
    }
}

impl Ends for Desk {
    // A pump that has stopped has given everything back.
    fn done(&self, tags: Vec<u64>) {
        let _ = self.commands.send(Command::Done(tags));
    }

    fn again(&self, tag: u64, after: Duration) {
        let _ = self.commands.send(Command::Again(tag, after));
    }

    fn dead(&self, tag: u64, reason: &str) {
        let _ = self.commands.send(Command::Dead(tag, reason.to_owned()));
    }
}

impl Basket {
    fn new(name: &str) -> Self {
        let failure = Some(Error::new(ErrorKind::Unavailable, format!("{name} was not reached yet")));
        let inside = Inside { fresh: VecDeque::new(), asked: false, failure, unkept: None, closed: false };
        Self { inside: Mutex::new(inside), filled: Condvar::new(), wanted: Notify::new() }
    }

    /// What is there, waiting for the first.
    fn take(&self, most: usize, wait: Duration, name: &str) -> Result<Vec<Fresh>> {
        let until = Instant::now().checked_add(wait);
        let mut inside = self.inside.lock();
        if !inside.asked {
            inside.asked = true;
            self.wanted.notify_one();
        }
        loop {
            if inside.closed {
                return Err(closed(name));
            }
            if !inside.fresh.is_empty() {
                let count = most.min(inside.fresh.len());
                let taken = inside.fresh.drain(..count).collect();
                if inside.fresh.is_empty() {
                    self.wanted.notify_one();
                }
                return Ok(taken);
            }
            let late = if let Some(until) = until {
                self.filled.wait_until(&mut inside, until).timed_out()
            } else {
                self.filled.wait(&mut inside);
                false
            };
            if late && inside.fresh.is_empty() && !inside.closed {
                return inside.failure.clone().map_or(Ok(Vec::new()), Err);
            }
        }
    }

    pub(super) fn put(&self, arrived: Vec<Fresh>) {
        let mut inside = self.inside.lock();
        inside.fresh.extend(arrived);
        self.filled.notify_all();
    }

    /// Whether anybody waits, or will: something was asked for, and all of it was taken.
    pub(super) fn is_wanting(&self) -> bool {
        let inside = self.inside.lock();
        inside.asked && inside.fresh.is_empty()
    }

    /// Whether anybody ever asked.
    pub(super) fn was_asked(&self) -> bool {
        self.inside.lock().asked
    }

    /// Why nothing comes, from now on.
    pub(super) fn fail(&self, failure: Option<Error>) {
        self.inside.lock().failure = failure;
    }

    /// Why dead letters are not kept, from now on. Whether that is news.
    pub(super) fn keep(&self, failure: Option<Error>) -> bool {
        let mut inside = self.inside.lock();
        let news = inside.unkept.is_none() != failure.is_none();
        inside.unkept = failure;
        news
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.inside.lock().failure.clone()
    }

    pub(super) fn close(&self) {
        let mut inside = self.inside.lock();
        inside.closed = true;
        inside.fresh.clear();
        self.filled.notify_all();
    }

    fn open(&self, name: &str) -> Result<()> {
        if self.inside.lock().closed { Err(closed(name)) } else { Ok(()) }
    }
}

fn closed(name: &str) -> Error {
    Error::new(ErrorKind::Closed, format!("{name} was closed"))
}
