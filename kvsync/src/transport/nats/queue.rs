//! The side that receives, as its callers see it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::builder::Timing;
use super::pump::{Command, Pump};
use super::redrive::{self, Course};
use super::session::Session;
use super::{GRACE, health};
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::status::Health;
use crate::transport::inbox::Inbox;
use crate::transport::{Arrival, Backlog, DeadMessage, Ends, Subscription};

/// A queue of a stream of NATS JetStream. See the [module](super) for what it promises, costs and needs.
pub struct NatsQueue {
    name: String,
    queue: String,
    session: Arc<Session>,
    inbox: Arc<Inbox>,
    desk: Arc<dyn Ends>,
    timeout: Duration,
    /// Stops the pump: by a word, which is answered when it has stopped, or by being dropped.
    stop: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>>,
    // Dropped last: the connection lives on it.
    bridge: Arc<Bridge>,
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
        let unreached = Error::new(ErrorKind::Unavailable, format!("{name} was not reached yet"));
        let inbox = Arc::new(Inbox::new(&name, Some(unreached)));
        let pump = Pump::new(Arc::clone(&session), queue.to_owned(), Arc::clone(&inbox), told, timing);
        bridge.spawn(pump.run(stopped, begun));
        // Whatever became of the first attempt: calls tell.
        let _ = bridge.run(session.connect_timeout(), first);
        Ok(Self {
            name,
            queue: queue.to_owned(),
            session,
            inbox,
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
        self.inbox.take(most, wait, &self.desk)
    }

    fn backlog(&self) -> Result<Backlog> {
        self.inbox.is_open()?;
        let (session, queue, timeout) = (Arc::clone(&self.session), self.queue.clone(), self.timeout);
        let asked = async move { health::backlog(&session, &queue, tokio::time::Instant::now() + timeout).await };
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{} did not answer in time", self.name));
        self.bridge.run(self.timeout + GRACE, asked).map_err(late)?
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.inbox.is_open()?;
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
        self.inbox.is_open()?;
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
        let health = health::of_queue(&self.session, &self.queue, self.inbox.why(), &self.bridge, deadline);
        self.inbox.add_to(health)
    }

    fn close(&self) -> Result<()> {
        self.inbox.close();
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
