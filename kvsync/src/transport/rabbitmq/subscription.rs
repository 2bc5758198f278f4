//! The receiving side, as its callers see it: threads that take what the [task](super::consume) has brought.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot};

use super::aside::Aside;
use super::consume::Task;
use super::link::Link;
use super::settings::Settings;
use super::{call, health, topology};
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result, failure_text};
use crate::status::{Health, Status};
use crate::transport::{Arrival, Backlog, DeadMessage, Ends, Subscription};

/// How many dead letters are in hand at a time.
const REDRIVEN: usize = 32;

/// Receives from a queue of RabbitMQ.
///
/// See the [module](super) for what it promises, costs and needs.
pub struct RabbitMqSubscription {
    name: String,
    queue: String,
    link: Arc<Link>,
    aside: Arc<Aside>,
    inbox: Arc<Inbox>,
    words: Arc<Words>,
    bridge: Arc<Bridge>,
}

/// What has arrived and nobody has taken.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Condvar,
    /// How many have arrived and have not ended.
    pub(super) open: AtomicU64,
    /// Whether anybody ever asked.
    asked: AtomicBool,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<Arrived>,
    /// Why nothing arrives, and why dead letters are not kept.
    trouble: Option<Error>,
    unkept: Option<Error>,
    closed: bool,
}

/// A message that nobody has taken.
pub(super) struct Arrived {
    pub(super) tag: u64,
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) id: Option<String>,
    pub(super) redelivered: u32,
}

/// What callers tell the task.
#[derive(Debug)]
pub(super) enum Word {
    /// Somebody asks for messages.
    Wanted,
    /// These have been dealt with.
    Done(Vec<u64>),
    /// Deliver it again, not sooner than that.
    Again(u64, Duration),
    /// Keep it with the dead letters.
    Dead(u64, String),
    /// End, and say so.
    Close(Option<oneshot::Sender<Result<()>>>),
}

/// The way to the task.
pub(super) struct Words {
    name: String,
    pub(super) to: mpsc::UnboundedSender<Word>,
}

impl RabbitMqSubscription {
    pub(super) fn new(settings: &Arc<Settings>, queue: String) -> Result<Self> {
        let name = format!("rabbitmq queue {queue} at {}", settings.place());
        let (bridge, inbox) = (Bridge::shared()?, Arc::new(Inbox::default()));
        let (to, from) = mpsc::unbounded_channel();
        let words = Arc::new(Words { name: name.clone(), to });
        let link = Arc::new(Link::new(Arc::clone(settings), "consumer"));
        let side = Arc::new(Link::new(Arc::clone(settings), "publisher of the consumer"));
        let aside = Arc::new(Aside::new(side, &queue));
        let task = Task::new(Arc::clone(&link), &queue, Arc::clone(&inbox), Arc::clone(&aside));
        let held = Arc::clone(&bridge);
        bridge.spawn(async move {
            task.run(from).await;
            // The connections live on it.
            drop(held);
        });
        Ok(Self { name, queue, link, aside, inbox, words, bridge })
    }
}

impl Subscription for RabbitMqSubscription {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        if !self.inbox.asked.swap(true, Ordering::AcqRel) {
            self.words.say(Word::Wanted);
        }
        let taken = self.inbox.take(most, wait)?;
        let arrival = |Arrived { tag, body, content_type, id, redelivered }| {
            Arrival::new(body, content_type, redelivered, tag, Arc::clone(&self.words) as Arc<dyn Ends>).with_id(id)
        };
        Ok(taken.into_iter().map(arrival).collect())
    }

    fn backlog(&self) -> Result<Backlog> {
        let (link, queue) = (Arc::clone(&self.link), self.queue.clone());
        let most = link.settings.connect_timeout;
        let stands = call(&self.bridge, most, ErrorKind::Unavailable, &self.name, async move {
            let connection = link.connection().await?;
            topology::backlog(&connection, &queue, &link.place).await
        })?;
        // The server tells only those who ask for what waits; of what was taken this much is known.
        Ok(Backlog { taken: self.inbox.open.load(Ordering::Acquire), ..stands })
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        if self.inbox.is_closed() {
            return Err(self.link.closed());
        }
        let (aside, link) = (Arc::clone(&self.aside), Arc::clone(&self.link));
        let deadline = self.link.settings.connect_timeout * 3;
        call(&self.bridge, deadline, ErrorKind::Unavailable, &self.name, async move { aside.list(&link, most).await })
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        if self.inbox.is_closed() {
            return Err(self.link.closed());
        }
        let timing = &self.link.settings;
        let deadline = (timing.connect_timeout + timing.confirm_timeout) * 2 + timing.retry_for;
        // No more than there are now: what is delivered may soon be dead again.
        let mut left = most.min(usize::try_from(self.backlog()?.dead).unwrap_or(usize::MAX));
        let mut delivered = 0;
        while left > 0 {
            let (aside, link, part) = (Arc::clone(&self.aside), Arc::clone(&self.link), left.min(REDRIVEN));
            let moved = call(&self.bridge, deadline, ErrorKind::Unavailable, &self.name, async move {
                aside.redrive(&link, part).await
            })?;
            delivered += moved;
            left -= part;
            if moved < part {
                break;
            }
        }
        Ok(delivered)
    }

    fn health(&self, deadline: Duration) -> Health {
        let mut health =
            health::of_subscription(&self.bridge, Arc::clone(&self.link), self.queue.clone(), &self.name, deadline);
        if let Some(error) = &self.inbox.state.lock().unkept {
            health.status = health.status.max(Status::Degraded);
            health.details.push(format!("dead letters cannot be kept: {}", failure_text(error)));
        }
        health
    }

    fn close(&self) -> Result<()> {
        if !self.inbox.close() {
            return Ok(());
        }
        let (told, tell) = oneshot::channel();
        // A task that has ended has closed.
        let _ = self.words.to.send(Word::Close(Some(told)));
        // What was to be published to retry or dead letters is published first.
        let most = (self.link.settings.connect_timeout + self.link.settings.confirm_timeout) * 2;
        call(&self.bridge, most, ErrorKind::Unavailable, &self.name, async move { tell.await.unwrap_or(Ok(())) })
    }
}

impl Drop for RabbitMqSubscription {
    fn drop(&mut self) {
        if self.inbox.close() {
            let _ = self.words.to.send(Word::Close(None));
        }
    }
}

impl fmt::Debug for RabbitMqSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSubscription").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Up to `most`; the first is waited for.
    fn take(&self, most: usize, wait: Duration) -> Result<Vec<Arrived>> {
        let until = Instant::now().checked_add(wait);
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, "the subscription was closed"));
            }
            if most == 0 || !state.arrived.is_empty() {
                let count = most.min(state.arrived.len());
                return Ok(state.arrived.drain(..count).collect());
            }
            let timed_out = if let Some(until) = until {
                self.news.wait_until(&mut state, until).timed_out()
            } else {
                self.news.wait(&mut state);
                false
            };
            if timed_out && state.arrived.is_empty() && !state.closed {
                return state.trouble.clone().map_or_else(|| Ok(Vec::new()), Err);
            }
        }
    }

    /// Puts down what came.
    pub(super) fn put(&self, arrived: Arrived) {
        self.state.lock().arrived.push_back(arrived);
        self.news.notify_one();
    }

    /// It flows.
    pub(super) fn well(&self) {
        self.state.lock().trouble = None;
    }

    /// Nothing arrives; what did and was not taken will come again.
    pub(super) fn trouble(&self, why: Error) {
        let mut state = self.state.lock();
        state.arrived.clear();
        state.trouble = Some(why);
    }

    /// Remembers whether dead letters are kept. Tells it when that is news: why not, or that they are.
    pub(super) fn kept(&self, answer: Result<()>) -> Option<String> {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.unkept, answer.err());
        match (&before, &state.unkept) {
            (None, Some(error)) => Some(failure_text(error)),
            (Some(_), None) => Some(String::new()),
            _ => None,
        }
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether it was open.
    fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.arrived.clear();
        self.news.notify_all();
        !std::mem::replace(&mut state.closed, true)
    }
}

impl Ends for Words {
    fn done(&self, tags: Vec<u64>) {
        self.say(Word::Done(tags));
    }

    fn again(&self, tag: u64, after: Duration) {
        self.say(Word::Again(tag, after));
    }

    fn dead(&self, tag: u64, reason: &str) {
        self.say(Word::Dead(tag, reason.to_owned()));
    }
}

impl Words {
    fn say(&self, word: Word) {
        // Once the task has ended, the server delivers again what it was not told of.
        let _ = self.to.send(word);
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Words").field(&self.name).finish()
    }
}
