//! The task that consumes: one for a subscription, on the bridge, for as long as the subscription lives.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::aside::{Aside, Kept};
use super::error::interrupted;
use super::link::Link;
use super::subscription::Word;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::inbox::{Arrived, Inbox};

/// How long to wait before a dead letter is given back that could not be kept.
const PUT_BACK: Duration = Duration::from_secs(1);
/// The longest that a message is held until it is given back: a server takes away what is held for longer than its
/// `consumer_timeout`, half an hour, together with all that its channel holds.
const LONGEST: Duration = Duration::from_mins(10);

/// Who is told that all is closed, if anyone.
type Told = Option<oneshot::Sender<Result<()>>>;

/// Consumes, acknowledges, holds what has to wait, and puts aside what is dead.
pub(super) struct Task {
    link: Arc<Link>,
    queue: String,
    inbox: Arc<Inbox>,
    /// How many are open, for those who ask.
    count: Arc<AtomicU64>,
    aside: Arc<Aside>,
    /// Tags up to here are of channels that are gone: the server delivers again what they were.
    base: u64,
    /// The highest number of this channel so far; its tag is that and the base.
    highest: u64,
    /// What was delivered on this channel and has not ended, by its number.
    open: BTreeMap<u64, Kept>,
    /// What is open and waits until it is given back, by when that is. The server could let it wait, too: through queues
    /// whose messages expire and come back. All such queues of a node lean on one process that may end, and then all hold
    /// what they have (rabbitmq/rabbitmq-server issue 16652; seen with 3.10.8).
    waiting: BTreeSet<(Instant, u64)>,
    /// What is being put with the dead letters, by its tag, and what became of it.
    moving: JoinSet<(u64, Result<()>)>,
}

/// Why a channel came to its end.
enum End {
    Lost(Error),
    /// Nothing came for a while, and nothing is held. A server that deleted the queue, and made another of its name, may
    /// hold back from this consumer what it believes to have sent: the end of the channel has it sent again.
    Quiet,
    Closed(Told),
}

impl Task {
    pub(super) fn new(
        link: Arc<Link>,
        queue: &str,
        inbox: Arc<Inbox>,
        count: Arc<AtomicU64>,
        aside: Arc<Aside>,
    ) -> Self {
        let queue = queue.to_owned();
        let (open, waiting, moving) = (BTreeMap::new(), BTreeSet::new(), JoinSet::new());
        Self { link, queue, inbox, count, aside, base: 0, highest: 0, open, waiting, moving }
    }

    /// Runs until it is told to close, or nobody is left who could tell.
    pub(super) async fn run(mut self, mut words: mpsc::UnboundedReceiver<Word>) {
        if let Some(told) = self.stand_by(&mut words).await {
            return self.close(told).await;
        }
        loop {
            let end = match self.consume().await {
                Ok((connection, channel, consumer)) => {
                    self.inbox.trouble(None);
                    let end = self.flow(&channel, consumer, &mut words).await;
                    match &end {
                        End::Lost(_) => self.link.renew(&connection).await,
                        End::Quiet => self.leave(&connection, &channel).await,
                        End::Closed(_) => {}
                    }
                    end
                }
                Err(error) => End::Lost(error),
            };
            self.base += self.highest;
            self.highest = 0;
            self.open.clear();
            self.waiting.clear();
            self.count();
            match end {
                End::Closed(told) => return self.close(told).await,
                // What nothing comes from may have been deleted, or unbound with its exchange.
                End::Quiet => self.link.look_again().await,
                End::Lost(error) => {
                    // Whoever asks for messages is told, and says so once.
                    tracing::debug!(queue = %self.queue, %error, "nothing is received; trying again");
                    self.inbox.forget();
                    self.inbox.trouble(Some(error));
                    // What is wrong may be the topology.
                    self.link.look_again().await;
                    if let Some(told) = self.pause(&mut words).await {
                        return self.close(told).await;
                    }
                }
            }
        }
    }

    /// Sees to it that the queue stands, and waits until somebody asks for a message: what is consumed, others do not get.
    /// `Some` when told to close.
    async fn stand_by(&self, words: &mut mpsc::UnboundedReceiver<Word>) -> Option<Told> {
        loop {
            let failure = self.link.connection().await.err();
            let again = if failure.is_some() { Some(self.link.next().await) } else { None };
            self.inbox.trouble(failure);
            tokio::select! {
                word = words.recv() => match word {
                    None => return Some(None),
                    Some(Word::Close(told)) => return Some(told),
                    // Nothing was taken yet that another word could be of.
                    Some(_) => {}
                },
                () = self.inbox.wanted() => return None,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    /// Waits before the next attempt. What is told meanwhile is of messages that come again. `Some` when told to close.
    async fn pause(&self, words: &mut mpsc::UnboundedReceiver<Word>) -> Option<Told> {
        let next = self.link.next().await;
        while let Ok(word) = timeout_at(next, words.recv()).await {
            match word {
                None => return Some(None),
                Some(Word::Close(told)) => return Some(told),
                Some(_) => {}
            }
        }
        None
    }

    async fn close(&self, told: Told) {
        let (aside, consumer) = (self.aside.close().await, self.link.close().await);
        if let Some(told) = told {
            // Whoever asked may have stopped waiting.
            let _ = told.send(consumer.and(aside));
        }
    }

    async fn consume(&self) -> Result<(Arc<Connection>, Channel, Consumer)> {
        let connection = self.link.connection().await?;
        let asked = async {
            let channel = connection.create_channel().await?;
            channel.basic_qos(self.link.settings.prefetch, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(self.queue.as_str().into(), "".into(), options, none).await?;
            Ok((channel, consumer))
        };
        let what = format!("consuming the queue `{}`", self.queue);
        let asked = async { asked.await.map_err(|error| interrupted(&what, &self.link.place, error)) };
        match self.link.within(&what, asked).await {
            Ok((channel, consumer)) => Ok((connection, channel, consumer)),
            Err(error) => {
                self.link.suspect(&connection).await;
                Err(error)
            }
        }
    }

    /// Brings what arrives and tells the server what has ended, until either stops.
    async fn flow(
        &mut self,
        channel: &Channel,
        mut consumer: Consumer,
        words: &mut mpsc::UnboundedReceiver<Word>,
    ) -> End {
        let quiet = self.link.settings.quiet;
        let mut heard = Instant::now();
        loop {
            let due = self.waiting.first().map(|(due, _)| *due);
            let told = tokio::select! {
                word = words.recv() => match word {
                    Some(word) => self.obey(channel, word, words).await,
                    None => Ok(Some(None)),
                },
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        heard = Instant::now();
                        self.arrived(delivery);
                        Ok(None)
                    }
                    Some(Err(error)) => Err(interrupted("consuming", &self.link.place, error)),
                    None => Err(self.cancelled()),
                },
                Some(moved) = self.moving.join_next() => self.moved(channel, moved).await.map(|()| None),
                () = sleep_until(due.unwrap_or(heard)), if due.is_some() => self.give_back_due(channel).await.map(|()| None),
                () = sleep_until(heard + quiet) => {
                    if self.open.is_empty() {
                        return End::Quiet;
                    }
                    heard = Instant::now();
                    Ok(None)
                }
            };
            self.count();
            match told {
                Ok(None) => {}
                Ok(Some(told)) => {
                    self.last(channel).await;
                    return End::Closed(told);
                }
                Err(error) => return End::Lost(error),
            }
        }
    }

    /// Closes the channel, so that the server sends again what it sent on it.
    async fn leave(&self, connection: &Arc<Connection>, channel: &Channel) {
        let closing = async {
            let closed = channel.close(200, "nothing came".into()).await;
            closed.map_err(|error| interrupted("closing a channel", &self.link.place, error))
        };
        if self.link.within("closing a channel", closing).await.is_err() {
            self.link.renew(connection).await;
        }
    }

    fn count(&self) {
        self.count.store(u64::try_from(self.open.len()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn arrived(&mut self, delivery: Delivery) {
        let number = delivery.delivery_tag;
        let kept = Kept::new(delivery);
        self.highest = self.highest.max(number);
        self.inbox.put([Arrived {
            tag: self.base + number,
            body: kept.body.clone(),
            content_type: kept.content_type.clone(),
            id: kept.id(),
            redelivered: kept.redelivered,
        }]);
        self.open.insert(number, kept);
    }

    /// Does what was asked, with all that was asked meanwhile. `Some` when it was asked to close.
    async fn obey(
        &mut self,
        channel: &Channel,
        first: Word,
        words: &mut mpsc::UnboundedReceiver<Word>,
    ) -> Result<Option<Told>> {
        let (mut done, mut next, mut close) = (Vec::new(), Some(first), None);
        while let Some(word) = next {
            match word {
                Word::Done(tags) => done.extend(tags.into_iter().filter_map(|tag| self.number(tag))),
                Word::Again(tag, after) => {
                    if let Some(number) = self.number(tag).filter(|number| self.open.contains_key(number)) {
                        self.waiting.insert((Instant::now() + after.min(LONGEST), number));
                    }
                }
                Word::Dead(tag, reason) => self.put_aside(tag, reason),
                Word::Close(told) => {
                    close = Some(told);
                    break;
                }
            }
            next = words.try_recv().ok();
        }
        self.acknowledge(channel, done).await?;
        self.give_back_due(channel).await?;
        Ok(close)
    }

    /// What the channel calls it, if it is of this channel.
    fn number(&self, tag: u64) -> Option<u64> {
        tag.checked_sub(self.base).filter(|number| *number > 0)
    }

    /// Acknowledges these: with one word as far as all before them have ended, too.
    async fn acknowledge(&mut self, channel: &Channel, mut numbers: Vec<u64>) -> Result<()> {
        numbers.retain(|number| self.open.remove(number).is_some());
        numbers.sort_unstable();
        let first_open = self.open.keys().next().copied().unwrap_or(u64::MAX);
        let together = numbers.partition_point(|number| *number < first_open);
        let alone = numbers.split_off(together);
        let all = numbers.last().map(|last| (*last, true));
        for (number, multiple) in all.into_iter().chain(alone.into_iter().map(|number| (number, false))) {
            self.say("acknowledging", channel.basic_ack(number, BasicAckOptions { multiple })).await?;
        }
        Ok(())
    }

    /// Gives back what has waited long enough.
    async fn give_back_due(&mut self, channel: &Channel) -> Result<()> {
        while let Some((due, number)) = self.waiting.first().copied()
            && due <= Instant::now()
        {
            self.waiting.remove(&(due, number));
            if self.open.remove(&number).is_some() {
                self.give_back(channel, number).await?;
            }
        }
        Ok(())
    }

    async fn give_back(&self, channel: &Channel, number: u64) -> Result<()> {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.say("giving back a message", channel.basic_nack(number, options)).await
    }

    /// Waits until the word is on its way. A connection that takes none any more must not hold up the task.
    async fn say(&self, what: &str, word: impl Future<Output = lapin::Result<()>>) -> Result<()> {
        let said = async { word.await.map_err(|error| interrupted(what, &self.link.place, error)) };
        self.link.within(what, said).await
    }

    /// Publishes it to the dead letters. It stays open until that is confirmed.
    fn put_aside(&mut self, tag: u64, reason: String) {
        let Some(kept) = self.number(tag).and_then(|number| self.open.get(&number)).cloned() else { return };
        let aside = Arc::clone(&self.aside);
        self.moving.spawn(async move {
            let moved = aside.dead(&kept, &reason).await;
            if moved.is_err() {
                sleep(PUT_BACK).await;
            }
            (tag, moved)
        });
    }

    /// What was put aside is acknowledged; what could not be is given back.
    async fn moved(&mut self, channel: &Channel, moved: Result<(u64, Result<()>), JoinError>) -> Result<()> {
        // One that panicked stays open, and comes back when the channel ends.
        let Ok((tag, moved)) = moved else { return Ok(()) };
        let kept = moved.is_ok();
        self.inbox.kept(moved);
        match self.number(tag) {
            Some(number) if kept => self.acknowledge(channel, vec![number]).await,
            Some(number) if self.open.remove(&number).is_some() => self.give_back(channel, number).await,
            _ => Ok(()),
        }
    }

    /// Waits for what is being put aside, before all is closed.
    async fn last(&mut self, channel: &Channel) {
        let most = self.link.settings.confirm_timeout;
        let finish = async {
            while let Some(moved) = self.moving.join_next().await {
                self.moved(channel, moved).await?;
            }
            Ok::<_, Error>(())
        };
        // What is not finished comes back.
        let _ = timeout(most, finish).await;
    }

    fn cancelled(&self) -> Error {
        let message =
            format!("rabbitmq at {} stopped the consumer of `{}`; was it deleted?", self.link.place, self.queue);
        Error::new(ErrorKind::Unavailable, message)
    }
}
