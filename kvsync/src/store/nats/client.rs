//! One connection, and the questions that are asked on it, each with its deadline.
//!
//! The client library holds back what it is given while it has no connection, and keeps questions open whose
//! connection is gone. So a question waits here until there is a connection, and ends when that one does.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{DirectGetErrorKind, Info, RawMessageErrorKind, Stream};
use async_nats::{ConnectOptions, Event, ServerAddr, ServerError};
use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::bucket::Bucket;
use super::error::{self, Refused};
use crate::error::{Error, ErrorKind, Result};

/// How many refusals are remembered, so that each question finds its own.
const REFUSALS: usize = 64;
/// Longer than any question takes.
const LONGEST: Duration = Duration::from_hours(24);
/// What the refusal of a subscription says; answers are all that we subscribe to.
const SUBSCRIPTION: &str = "for Subscription to";
/// A revision that no stream reaches.
const NEVER: u64 = 1 << 62;
/// What marks an entry as removed.
const OPERATION: &str = "KV-Operation";
/// What newer servers mark so.
const REASON: &str = "Nats-Marker-Reason";

/// A connection to the servers of one bucket.
pub(super) struct Client {
    nats: async_nats::Client,
    jetstream: Context,
    stream: Stream<()>,
    pub(super) bucket: Bucket,
    command_timeout: Duration,
    /// Whether every server of the bucket answers readings, as the bucket was when it was last looked at.
    direct: AtomicBool,
    signals: watch::Receiver<Signals>,
}

/// What stands at a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stands {
    /// The revision that a write has to name; 0 where nothing ever stood.
    pub(super) revision: u64,
    /// The entry; none where it was removed.
    pub(super) value: Option<Bytes>,
}

/// What the connection tells beside its answers.
#[derive(Debug, Default)]
struct Signals {
    /// How many connections have ended.
    ended: u64,
    /// What the server forbade, in its words; it answers no question that it forbids.
    refusals: VecDeque<Arc<str>>,
}

impl Signals {
    /// Why no answer will be heard while this connection lasts, if it is so.
    fn deaf(&self) -> Option<Arc<str>> {
        self.refusals.iter().find(|refusal| refusal.contains(SUBSCRIPTION)).map(Arc::clone)
    }
}

/// Why a question has no answer.
enum Cut {
    Late,
    Ended,
    Forbidden(Arc<str>),
    /// We may ask, and not hear the answers.
    Deaf(Arc<str>),
}

impl Client {
    /// Connects, and finds or makes the bucket.
    pub(super) async fn connect(
        options: ConnectOptions,
        servers: Vec<ServerAddr>,
        at: &str,
        bucket: Bucket,
        command_timeout: Duration,
        until: Instant,
    ) -> Result<Self> {
        let (tell, signals) = watch::channel(Signals::default());
        let tell = Arc::new(tell);
        let options = options.event_callback(move |event| {
            hear(&tell, event);
            std::future::ready(())
        });
        let connected = timeout_at(until, options.connect(servers)).await;
        let late = |_| Error::new(ErrorKind::Unavailable, format!("nats at {at} did not answer in time"));
        let nats = connected.map_err(late)?.map_err(|error| error::connecting(error, at))?;
        // Each question has a deadline of its own here.
        let builder = async_nats::jetstream::ContextBuilder::new().timeout(LONGEST);
        let jetstream = builder.build(nats.clone());
        let wrong = |error| Error::new(ErrorKind::Config, "this is no name of a bucket").with_source(error);
        let stream = jetstream.get_stream_no_info(bucket.stream()).await.map_err(wrong)?;
        let client = Self { nats, jetstream, stream, bucket, command_timeout, direct: AtomicBool::new(false), signals };
        Ok(client)
    }

    /// The largest entry that the servers and the bucket take, in bytes, what goes with it included.
    pub(super) fn max_payload(&self, info: &Info) -> usize {
        let of_bucket = usize::try_from(info.config.max_message_size).ok().filter(|most| *most > 0);
        of_bucket.unwrap_or(usize::MAX).min(self.nats.max_payload())
    }

    /// The version of the server, and its name.
    pub(super) fn server(&self) -> (String, String) {
        let info = self.nats.server_info();
        (info.version, info.server_name)
    }

    /// The state of the bucket, which is made where it is missing and may be made.
    pub(super) async fn open(&self, until: Instant) -> Result<Info> {
        match self.info(until).await {
            Err(missing) if self.bucket.create && error::is_missing(&missing) => self.create(until).await,
            answer => answer,
        }
    }

    /// The state of the bucket.
    pub(super) async fn info(&self, until: Instant) -> Result<Info> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.bucket.stream());
        let asked = self.jetstream.get_stream(self.bucket.stream());
        match self.ask(&subject, until, asked).await {
            Ok(Ok(stream)) => Ok(self.looked_at(stream.cached_info())),
            Ok(Err(error)) if error::is_nobody(&error) && !self.nats.server_info().jetstream => {
                let message =
                    "this nats server has no JetStream, which all that is stored needs; start `nats-server -js`";
                Err(Error::new(ErrorKind::Config, message).with_source(error))
            }
            Ok(Err(error)) => Err(error::asking(error, &self.bucket.name)),
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    async fn create(&self, until: Instant) -> Result<Info> {
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.bucket.stream());
        match self.ask(&subject, until, self.jetstream.create_stream(self.bucket.config())).await {
            Ok(Ok(stream)) => Ok(self.looked_at(stream.cached_info())),
            Ok(Err(error)) => {
                // Somebody else may have made it just now, in another way.
                let failed = error::asking(error, &self.bucket.name);
                self.info(until).await.map_err(|_| failed)
            }
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    fn looked_at(&self, info: &Info) -> Info {
        self.direct.store(info.config.allow_direct, Ordering::Relaxed);
        info.clone()
    }

    /// What stands at a subject, as the leader of the bucket's stream has it.
    pub(super) async fn latest(&self, subject: &str, until: Instant) -> Result<Stands> {
        let asked = self.stream.get_last_raw_message_by_subject(subject);
        match self.ask(&self.getting(), until, asked).await {
            Ok(Ok(message)) => Ok(stands(message)),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Stands::default()),
            Ok(Err(error)) => Err(self.missing(error, until).await),
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    /// Whether [`eventual`](Self::eventual) is cheaper than [`latest`](Self::latest), and may lag.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// What stands at a subject, as any server that keeps the bucket has it.
    pub(super) async fn eventual(&self, subject: &str, until: Instant) -> Result<Stands> {
        // A bucket without direct reads has nobody who would say so.
        if !self.is_direct() {
            return self.latest(subject, until).await;
        }
        let full = format!("$JS.API.DIRECT.GET.{}.{subject}", self.bucket.stream());
        match self.ask(&full, until, self.stream.direct_get_last_for_subject(subject)).await {
            Ok(Ok(message)) => Ok(stands(message)),
            Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => Ok(Stands::default()),
            // The leader knows why.
            Ok(Err(_)) => self.latest(subject, until).await,
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    /// The first entry from a revision on whose subject fits a filter, as the leader has it.
    pub(super) async fn next(&self, filter: &str, from: u64, until: Instant) -> Result<Option<(String, Stands)>> {
        let asked = self.stream.get_first_raw_message_by_subject(filter, from);
        match self.ask(&self.getting(), until, asked).await {
            Ok(Ok(message)) => Ok(Some((message.subject.to_string(), stands(message)))),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Ok(Err(error)) => Err(self.missing(error, until).await),
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    /// Writes an entry, or marks it as removed, if the revision at the subject is still this one, or whatever stands
    /// there. Returns the new one.
    pub(super) async fn write(
        &self,
        subject: &str,
        revision: Option<u64>,
        value: Option<Bytes>,
        until: Instant,
    ) -> Result<u64, Refused> {
        let message = PublishMessage::build();
        let message = match revision {
            Some(revision) => message.expected_last_subject_sequence(revision),
            None => message,
        };
        let message = match value {
            Some(value) => message.payload(value),
            None => message.header(OPERATION, "DEL"),
        };
        self.connected(until).await.map_err(Refused::Failed)?;
        let sent = async { self.jetstream.send_publish(subject.to_owned(), message).await?.await };
        match self.answer(subject, until, sent).await {
            Ok(Ok(ack)) => Ok(ack.sequence),
            Ok(Err(error)) => Err(error::publishing(error, &self.bucket.name)),
            Err(cut @ Cut::Forbidden(_)) => Err(Refused::Failed(self.unanswered(cut))),
            Err(Cut::Late | Cut::Ended) => Err(Refused::Unknown(error::cut_off(&self.bucket.name))),
            Err(cut @ Cut::Deaf(_)) => {
                let unknown = error::cut_off(&self.bucket.name);
                Err(Refused::Unknown(unknown.with_source(self.unanswered(cut))))
            }
        }
    }

    /// Whether we may write: by a write that cannot win.
    pub(super) async fn probe(&self, subject: &str, until: Instant) -> Result<()> {
        self.latest(subject, until).await?;
        match self.write(subject, Some(NEVER), None, until).await {
            // A full bucket can be read, and what is removed makes room.
            Ok(_) | Err(Refused::Conflict | Refused::Full(_)) => Ok(()),
            Err(Refused::Failed(error) | Refused::Unknown(error)) => Err(error),
        }
    }

    /// Takes the mark of a removed entry out of the bucket, unless something newer stands there. A mark that stays
    /// reads as nothing, so a failure is of no consequence.
    pub(super) async fn forget(&self, subject: &str, mark: u64, until: Instant) {
        let full = format!("$JS.API.STREAM.PURGE.{}", self.bucket.stream());
        let purge = self.stream.purge().filter(subject).sequence(mark + 1);
        if let Ok(Err(error)) = self.ask(&full, until, purge.into_future()).await {
            tracing::debug!(%error, "the mark of a removed entry stays in the bucket {}", self.bucket.name);
        }
    }

    /// Sends what waits, and closes the connection.
    pub(super) async fn close(&self) {
        if let Err(error) = self.nats.drain().await {
            tracing::debug!(%error, "the connection to nats was closed already");
        }
    }

    /// How long one question may take that is asked now.
    pub(super) fn soon(&self, until: Instant) -> Instant {
        until.min(Instant::now() + self.command_timeout)
    }

    /// Asks on a connection that stands.
    async fn ask<T>(&self, subject: &str, until: Instant, asked: impl Future<Output = T>) -> Result<T, Cut> {
        self.connected(until).await.map_err(|_| Cut::Late)?;
        self.answer(subject, until, asked).await
    }

    /// Waits for an answer until the deadline, and while the connection stands and nothing was forbidden.
    async fn answer<T>(&self, subject: &str, until: Instant, asked: impl Future<Output = T>) -> Result<T, Cut> {
        let mut signals = self.signals.clone();
        let (before, deaf) = {
            let told = signals.borrow_and_update();
            (told.ended, told.deaf())
        };
        let quoted = format!("\"{subject}\"");
        let cut = async move {
            if let Some(refusal) = deaf {
                return Cut::Deaf(refusal);
            }
            loop {
                if signals.changed().await.is_err() {
                    return pending().await;
                }
                let told = signals.borrow_and_update();
                if let Some(refusal) = told.refusals.iter().find(|refusal| refusal.contains(&quoted)) {
                    return Cut::Forbidden(Arc::clone(refusal));
                }
                if let Some(refusal) = told.deaf() {
                    return Cut::Deaf(refusal);
                }
                if told.ended != before {
                    return Cut::Ended;
                }
            }
        };
        match timeout_at(until, select(pin!(asked), pin!(cut))).await {
            Ok(Either::Left((answer, _))) => Ok(answer),
            Ok(Either::Right((cut, _))) => Err(cut),
            Err(_) => Err(Cut::Late),
        }
    }

    async fn connected(&self, until: Instant) -> Result<()> {
        // The state changes a moment before it is told.
        const MOMENT: Duration = Duration::from_millis(20);
        let mut signals = self.signals.clone();
        while self.nats.connection_state() != State::Connected {
            if Instant::now() >= until {
                return Err(self.unanswered(Cut::Late));
            }
            let _ = timeout(MOMENT, signals.changed()).await;
        }
        Ok(())
    }

    /// The error of a question about an entry. Where the bucket itself is gone it is made again, for the next one.
    async fn missing(&self, error: impl std::error::Error + Send + Sync + 'static, until: Instant) -> Error {
        if self.bucket.create && error::is_missing(&error) {
            tracing::warn!("the bucket {} was removed, or its server forgot it; it is made again", self.bucket.name);
            let _ = self.open(until).await;
        }
        error::asking(error, &self.bucket.name)
    }

    fn unanswered(&self, cut: Cut) -> Error {
        let bucket = &self.bucket.name;
        match cut {
            Cut::Late => {
                let message = format!("the servers of the bucket {bucket} did not answer in time; are they running?");
                Error::new(ErrorKind::Unavailable, message)
            }
            Cut::Ended => {
                let message = format!("the connection to the servers of the bucket {bucket} ended");
                Error::new(ErrorKind::Unavailable, message)
            }
            Cut::Forbidden(refusal) => {
                let message = format!("the user of the bucket {bucket} may not do this: {refusal}");
                Error::new(ErrorKind::Rejected, message)
            }
            Cut::Deaf(refusal) => {
                let message = format!(
                    "the user of the bucket {bucket} may not subscribe to answers; let it, or give the prefix that it may \
                     subscribe to (`inbox_prefix`): {refusal}"
                );
                Error::new(ErrorKind::Rejected, message)
            }
        }
    }

    fn getting(&self) -> String {
        format!("$JS.API.STREAM.MSG.GET.{}", self.bucket.stream())
    }
}

/// Keeps what a question may wait for.
fn hear(tell: &watch::Sender<Signals>, event: Event) {
    tell.send_modify(|signals| match event {
        Event::Disconnected | Event::Closed => signals.ended += 1,
        // Rights may have changed in between.
        Event::Connected => signals.refusals.clear(),
        Event::ServerError(ServerError::Other(refusal)) => {
            signals.refusals.truncate(REFUSALS - 1);
            signals.refusals.push_front(refusal.into());
        }
        Event::ServerError(_)
        | Event::LameDuckMode
        | Event::Draining
        | Event::SlowConsumer(_)
        | Event::ClientError(_) => {}
    });
}

fn stands(message: StreamMessage) -> Stands {
    let removed = is_mark(&message.headers);
    Stands { revision: message.sequence, value: (!removed).then_some(message.payload) }
}

fn is_mark(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
        || headers.get(REASON).is_some()
}
