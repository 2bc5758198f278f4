//! The receiving side, as its callers see it: threads that take what the [task](super::consume) has brought.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::aside::Aside;
use super::consume::Task;
use super::link::Link;
use super::settings::Settings;
use super::{call, health, topology};
use crate::bridge::Bridge;
use crate::error::{ErrorKind, Result};
use crate::status::Health;
use crate::transport::inbox::Inbox;
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
    /// How many have arrived and have not ended.
    open: Arc<AtomicU64>,
    words: Arc<Words>,
    bridge: Arc<Bridge>,
}

/// What callers tell the task.
#[derive(Debug)]
pub(super) enum Word {
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
        let (bridge, inbox, open) = (Bridge::shared()?, Arc::new(Inbox::new(&name, None)), Arc::default());
        let (to, from) = mpsc::unbounded_channel();
        let words = Arc::new(Words { name: name.clone(), to });
        let link = Arc::new(Link::new(Arc::clone(settings), "consumer"));
        let side = Arc::new(Link::new(Arc::clone(settings), "publisher of the consumer"));
        let aside = Arc::new(Aside::new(side, &queue));
        let task = Task::new(Arc::clone(&link), &queue, Arc::clone(&inbox), Arc::clone(&open), Arc::clone(&aside));
        let held = Arc::clone(&bridge);
        bridge.spawn(async move {
            task.run(from).await;
            // The connections live on it.
            drop(held);
        });
        Ok(Self { name, queue, link, aside, inbox, open, words, bridge })
    }
}

impl Subscription for RabbitMqSubscription {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        self.inbox.take(most, wait, &(Arc::clone(&self.words) as Arc<dyn Ends>))
    }

    fn backlog(&self) -> Result<Backlog> {
        let (link, queue) = (Arc::clone(&self.link), self.queue.clone());
        let most = link.settings.connect_timeout;
        let stands = call(&self.bridge, most, ErrorKind::Unavailable, &self.name, async move {
            let connection = link.connection().await?;
            topology::backlog(&connection, &queue, &link.place).await
        })?;
        // The server tells only those who ask for what waits; of what was taken this much is known.
        Ok(Backlog { taken: self.open.load(Ordering::Acquire), ..stands })
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.inbox.is_open()?;
        let (aside, link) = (Arc::clone(&self.aside), Arc::clone(&self.link));
        let deadline = self.link.settings.connect_timeout * 3;
        call(&self.bridge, deadline, ErrorKind::Unavailable, &self.name, async move { aside.list(&link, most).await })
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        self.inbox.is_open()?;
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
        let (link, queue) = (Arc::clone(&self.link), self.queue.clone());
        self.inbox.add_to(health::of_subscription(&self.bridge, link, queue, &self.name, deadline))
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
