//! What goes on behind a queue: it asks the server for messages, holds them, and tells the server how they ended.
//!
//! One question for messages is open at a time, for as many as there is room for. A message is held from its arrival
//! until its end was told, and the server is asked for more time for it meanwhile. Words to the server that say how a
//! message ended wait while there is no connection; those that are lost cost a redelivery. It is long because asking,
//! holding and telling are one task over the same state.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::future::{BoxFuture, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use super::builder::Timing;
use super::redrive::ONLY;
use super::session::Session;
use super::{CONTENT_TYPE, dead, of_all, sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::Link;
use crate::transport::inbox::{Arrived, Inbox};

/// How long one question for messages is open.
const OPEN: Duration = Duration::from_secs(20);
/// How often the server says that it still knows the question.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often what all queues have acknowledged is removed.
const SWEEP: Duration = Duration::from_secs(1);
/// How often it is looked for after an acknowledgement, of which the server may know only a moment later.
const SWEEPS: u32 = 5;
/// The pauses between attempts to find the queue.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// After how long a message comes again whose dead letter could not be written.
const BURIED_LATER: Duration = Duration::from_secs(5);
/// How many messages are taken before anything else is looked at.
const AT_ONCE: usize = 256;

/// How arrivals ended.
#[derive(Debug)]
pub(super) enum Command {
    Done(Vec<u64>),
    Again(u64, Duration),
    Dead(u64, String),
}

/// A message that was taken from the server, and whose end was not told yet.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) subject: Subject,
    pub(super) headers: Option<HeaderMap>,
    pub(super) body: Bytes,
    /// Where its end is told.
    pub(super) reply: Subject,
    pub(super) place: Place,
    since: Instant,
}

/// What a server says of a message that it delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// How often it was delivered, this time included.
    pub(super) delivered: u64,
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// When it was published: with the number it names the message also where the stream was made again.
    pub(super) time: u64,
}

/// What goes on beside, and has ended.
enum Beside {
    Buried(u64, Result<()>),
    Swept(Result<()>),
}

pub(super) struct Pump {
    session: Arc<Session>,
    queue: String,
    inbox: Arc<Inbox>,
    commands: mpsc::UnboundedReceiver<Command>,
    prefetch: usize,
    timeout: Duration,
    held: HashMap<u64, Held>,
    tags: u64,
    /// What is to be told to the server.
    words: VecDeque<(Subject, AckKind)>,
    beside: FuturesUnordered<BoxFuture<'static, Beside>>,
    /// How often to look for what can be removed, and whether that is under way.
    sweeps: u32,
    sweeping: bool,
}

type Stop = oneshot::Receiver<oneshot::Sender<()>>;

impl Pump {
    pub(super) fn new(
        session: Arc<Session>,
        queue: String,
        inbox: Arc<Inbox>,
        commands: mpsc::UnboundedReceiver<Command>,
        timing: &Timing,
    ) -> Self {
        Self {
            session,
            queue,
            inbox,
            commands,
            prefetch: timing.prefetch,
            timeout: timing.publish,
            held: HashMap::new(),
            tags: 0,
            words: VecDeque::new(),
            beside: FuturesUnordered::new(),
            sweeps: SWEEPS,
            sweeping: false,
        }
    }

    /// Runs until it is stopped. Says when the first attempt to find the queue has ended.
    pub(super) async fn run(mut self, mut stop: Stop, first: oneshot::Sender<()>) {
        let (mut first, mut pause) = (Some(first), PAUSES.0);
        loop {
            let until = Instant::now() + self.session.connect_timeout() + self.timeout;
            let session = Arc::clone(&self.session);
            let found = tokio::select! {
                word = &mut stop => return self.farewell(word.ok(), None).await,
                found = session.open(&self.queue, until) => found,
            };
            let failed = match found {
                Ok((link, ack_wait)) => {
                    self.inbox.trouble(None);
                    pause = PAUSES.0;
                    first.take();
                    match self.serve(link, ack_wait, &mut stop).await {
                        Ok(told) => return self.farewell(told, Some(link)).await,
                        Err(failed) => failed,
                    }
                }
                Err(failed) => failed,
            };
            // Whoever asks for messages is told, and says so once.
            tracing::debug!(error = %failed, "the queue {} cannot be received from; it is tried again", self.queue);
            self.inbox.trouble(Some(failed));
            first.take();
            tokio::select! {
                word = &mut stop => return self.farewell(word.ok(), None).await,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Serves until it is told to stop, or fails.
    async fn serve(&mut self, link: &Link, ack_wait: Duration, stop: &mut Stop) -> Result<Option<oneshot::Sender<()>>> {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.session.topology.stream, self.queue);
        let ends = self.session.topology.ends(&self.queue);
        // Rights may be taken away later: who cannot tell how messages ended would get them for ever.
        let mut cut = select(link.cut(&next).boxed(), link.cut_below(&ends).boxed());
        let answers = link.nats.new_inbox();
        let subscribed = link.nats.subscribe(answers.clone()).await;
        let mut messages = subscribed.map_err(|error| lost(&self.queue).with_source(error))?;
        let (mut open, mut heard) = (0_usize, Instant::now());
        let third = ack_wait / 3;
        let (mut extend, mut sweep) = (interval(third.max(Duration::from_millis(1))), interval(SWEEP));
        let inbox = Arc::clone(&self.inbox);
        loop {
            self.tell(link).await;
            let room = self.room();
            if open == 0 && room > 0 {
                let question = question(room);
                if link.nats.publish_with_reply(next.clone(), answers.clone(), question).await.is_ok() {
                    (open, heard) = (room, Instant::now());
                }
            }
            tokio::select! {
                word = &mut *stop => {
                    let _ = messages.unsubscribe().await;
                    self.take_all(&mut messages);
                    return Ok(word.ok());
                }
                cut = &mut cut => {
                    self.take_all(&mut messages);
                    return Err(of_all(link.unanswered(cut.factor_first().0)));
                }
                Some(command) = self.commands.recv() => self.obey(command),
                message = messages.next() => {
                    let Some(message) = message else { return Err(lost(&self.queue)) };
                    heard = Instant::now();
                    open = self.hear(message, &mut messages, open)?;
                }
                Some(ended) = self.beside.next() => self.note(ended),
                () = inbox.wanted() => {}
                _ = extend.tick() => self.extend(third),
                _ = sweep.tick(), if self.sweeps > 0 && !self.sweeping => self.sweep(),
                () = sleep_until(heard + HEARTBEAT * 3), if open > 0 => return Err(lost(&self.queue)),
            }
        }
    }

    /// For how many messages to ask now.
    fn room(&self) -> usize {
        let room = self.prefetch.saturating_sub(self.held.len());
        // Many at a time, or whatever there is room for when somebody waits.
        let worth = room >= self.prefetch.div_ceil(4) && self.inbox.was_asked();
        if worth || self.inbox.is_wanting() { room } else { 0 }
    }

    /// Takes what has arrived. Returns for how many more the question is open.
    fn hear(&mut self, message: Message, more: &mut Subscriber, mut open: usize) -> Result<usize> {
        let (mut arrived, mut next, mut failed) = (Vec::new(), Some(message), None);
        while let Some(message) = next {
            match message.status {
                None | Some(StatusCode::OK) => {
                    open = open.saturating_sub(1);
                    arrived.extend(self.hold(message));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                // The question is over.
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => open = 0,
                Some(status) => {
                    let why = message.description.unwrap_or_default().to_lowercase();
                    let message = format!("the queue {} gave nothing: {status} {why}", self.queue);
                    failed = Some(Error::new(ErrorKind::Unavailable, message));
                    break;
                }
            }
            next = if arrived.len() < AT_ONCE { more.next().now_or_never().flatten() } else { None };
        }
        if !arrived.is_empty() {
            self.inbox.put(arrived);
        }
        failed.map_or(Ok(open), Err)
    }

    /// Takes what has arrived already, so that it need not come again.
    fn take_all(&mut self, messages: &mut Subscriber) {
        let mut arrived = Vec::new();
        while let Some(Some(message)) = messages.next().now_or_never() {
            if matches!(message.status, None | Some(StatusCode::OK)) {
                arrived.extend(self.hold(message));
            }
        }
        self.inbox.put(arrived);
    }

    fn hold(&mut self, message: Message) -> Option<Arrived> {
        let reply = message.reply?;
        let place = place(&reply)?;
        let only = message.headers.as_ref().and_then(|headers| headers.get(ONLY));
        if only.is_some_and(|only| only.as_str() != self.queue) {
            self.words.push_back((reply, AckKind::Ack));
            self.sweeps = SWEEPS;
            return None;
        }
        self.tags += 1;
        let tag = self.tags;
        let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
        let arrived = Arrived {
            tag,
            body: message.payload.clone(),
            content_type: header(CONTENT_TYPE),
            id: header("Nats-Msg-Id"),
            redelivered: u32::try_from(place.delivered.saturating_sub(1)).unwrap_or(u32::MAX),
        };
        let (subject, headers, body) = (message.subject, message.headers, message.payload);
        self.held.insert(tag, Held { subject, headers, body, reply, place, since: Instant::now() });
        Some(arrived)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Done(tags) => {
                for held in tags.into_iter().filter_map(|tag| self.held.remove(&tag)) {
                    self.words.push_back((held.reply, AckKind::Ack));
                }
                self.sweeps = SWEEPS;
            }
            Command::Again(tag, after) => self.again(tag, after),
            Command::Dead(tag, reason) => self.bury(tag, reason),
        }
    }

    fn again(&mut self, tag: u64, after: Duration) {
        if let Some(held) = self.held.remove(&tag) {
            self.words.push_back((held.reply, AckKind::Nak((!after.is_zero()).then_some(after))));
        }
    }

    /// Writes a dead letter. The message is held until that was confirmed.
    fn bury(&mut self, tag: u64, reason: String) {
        let Some(held) = self.held.get(&tag).cloned() else { return };
        let (session, queue, timeout) = (Arc::clone(&self.session), self.queue.clone(), self.timeout);
        let written = async move {
            let until = Instant::now() + timeout;
            Beside::Buried(tag, dead::write(&session, &queue, &held, &reason, until).await)
        };
        self.beside.push(written.boxed());
    }

    fn note(&mut self, ended: Beside) {
        match ended {
            Beside::Buried(tag, Ok(())) => {
                self.inbox.kept(Ok(()));
                if let Some(held) = self.held.remove(&tag) {
                    self.words.push_back((held.reply, AckKind::Term));
                }
                self.sweeps = SWEEPS;
            }
            Beside::Buried(tag, Err(error)) => {
                self.inbox.kept(Err(error));
                self.again(tag, BURIED_LATER);
            }
            Beside::Swept(outcome) => {
                self.sweeping = false;
                if let Err(error) = outcome {
                    tracing::warn!(%error, "what was acknowledged stays in {}", self.session.topology.place());
                }
            }
        }
    }

    fn sweep(&mut self) {
        (self.sweeps, self.sweeping) = (self.sweeps - 1, true);
        let (session, timeout) = (Arc::clone(&self.session), self.timeout);
        let swept = async move { Beside::Swept(sweep::sweep(&session, Instant::now() + timeout).await) };
        self.beside.push(swept.boxed());
    }

    /// Asks for more time for what is held for so long.
    fn extend(&mut self, than: Duration) {
        let old = self.held.values().filter(|held| held.since.elapsed() >= than);
        self.words.extend(old.map(|held| (held.reply.clone(), AckKind::Progress)));
    }

    /// Tells the server what there is to tell. What cannot be told now waits.
    async fn tell(&mut self, link: &Link) {
        const MOMENT: Duration = Duration::from_secs(1);
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        while let Some((reply, word)) = self.words.pop_front() {
            let told = link.nats.publish(reply.clone(), word.into());
            if timeout(MOMENT, told).await.is_err() {
                // It was not taken: the connection is gone, and the client's own queue is full.
                break;
            }
        }
    }

    /// Gives back what is held, and says so.
    async fn farewell(mut self, told: Option<oneshot::Sender<()>>, link: Option<&Link>) {
        self.inbox.close();
        let Some(link) = link else { return };
        self.tell(link).await;
        let patience = self.timeout;
        let burials = async {
            while let Some(ended) = self.beside.next().await {
                if matches!(ended, Beside::Buried(..)) {
                    self.note(ended);
                }
            }
        };
        let _ = timeout(patience, burials).await;
        for (_, held) in std::mem::take(&mut self.held) {
            self.words.push_back((held.reply, AckKind::Nak(None)));
        }
        if !self.words.is_empty() {
            // Our question is still open there, and 2.9.10 loses sight until `ack_wait` of what it would answer it with. It
            // looks whether anybody listens when it is asked how the queue is.
            let asked = self.session.queue_info(&self.queue, Instant::now() + patience).await;
            tracing::trace!(ok = asked.is_ok(), "the queue {} was told of the farewell", self.queue);
        }
        self.tell(link).await;
        let _ = timeout(patience, link.nats.flush()).await;
        link.close().await;
        if let Some(told) = told {
            // Whoever asked may have gone.
            let _ = told.send(());
        }
    }
}

/// By where the end of a message is told: `$JS.ACK.<stream>.<queue>.<delivered>.<sequence>.<of the queue>.<time>..`, or
/// with a domain and an account before the stream.
fn place(reply: &str) -> Option<Place> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let first = if tokens.len() >= 9 { 4 } else { 2 };
    let number = |behind: usize| tokens.get(first + behind)?.parse().ok();
    Some(Place { delivered: number(0)?, sequence: number(1)?, time: number(3)? })
}

fn question(messages: usize) -> Bytes {
    let (open, heartbeat) = (OPEN.as_nanos(), HEARTBEAT.as_nanos());
    format!(r#"{{"batch":{messages},"expires":{open},"idle_heartbeat":{heartbeat}}}"#).into()
}

fn lost(queue: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the servers were not heard of any more while the queue {queue} waited"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(reply: &str) -> Held {
        let (subject, body, place) = ("p.users.update".into(), "body".into(), place(reply).unwrap());
        Held { subject, headers: None, body, reply: reply.into(), place, since: Instant::now() }
    }

    #[test]
    fn deliveries_are_counted_with_and_without_a_domain() {
        let third = Some(Place { delivered: 3, sequence: 10, time: 30 });
        assert_eq!(place("$JS.ACK.s.q.3.10.20.30.0"), third);
        assert_eq!(place("$JS.ACK.hub.account.s.q.3.10.20.30.0"), third);
        assert_eq!(place("$JS.ACK.hub.account.s.q.3.10.20.30.0.token"), third);
        assert_eq!(place("_INBOX.x"), None);
    }

    /// Who is killed between the letter and its end writes it again, with the next delivery.
    #[test]
    fn a_dead_letter_that_is_written_again_is_the_same() {
        let id = |reply: &str| {
            let (headers, _) = dead::letter("q", &held(reply), "why", 1 << 20);
            headers.get("Nats-Msg-Id").map(ToString::to_string).unwrap()
        };
        let first = id("$JS.ACK.s.q.1.10.20.1700000000.0");
        assert_eq!(id("$JS.ACK.s.q.2.10.33.1700000000.5"), first);
        assert_ne!(id("$JS.ACK.s.q.1.11.20.1700000000.0"), first);
        // The stream was made again, and counts from the beginning.
        assert_ne!(id("$JS.ACK.s.q.1.10.20.1800000000.0"), first);
        assert_eq!(id("$JS.ACK.hub.account.s.q.1.10.20.1700000000.0"), first);
    }
}
