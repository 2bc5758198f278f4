//! The bucket on its connection: what is read and written there, each with its deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{DirectGetErrorKind, Info, RawMessageErrorKind, Stream};
use bytes::Bytes;
use tokio::time::Instant;

use super::bucket::Bucket;
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Cut, Link, Refused, Servers, cut_off, is_missing, publishing};

/// A revision that no stream reaches.
const NEVER: u64 = 1 << 62;
/// What marks an entry as removed.
const OPERATION: &str = "KV-Operation";
/// What newer servers mark so.
const REASON: &str = "Nats-Marker-Reason";

/// A connection to the servers of one bucket.
pub(super) struct Client {
    pub(super) link: Link,
    stream: Stream<()>,
    pub(super) bucket: Bucket,
    command_timeout: Duration,
    /// Whether every server of the bucket answers readings, as the bucket was when it was last looked at.
    direct: AtomicBool,
}

/// What stands at a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stands {
    /// The revision that a write has to name; 0 where nothing ever stood.
    pub(super) revision: u64,
    /// The entry; none where it was removed.
    pub(super) value: Option<Bytes>,
}

impl Client {
    /// Connects.
    pub(super) async fn connect(
        servers: Servers,
        bucket: Bucket,
        command_timeout: Duration,
        until: Instant,
    ) -> Result<Self> {
        let link = Link::connect(servers, bucket.place(), until).await?;
        let wrong = |error| Error::new(ErrorKind::Config, "this is no name of a bucket").with_source(error);
        let stream = link.jetstream.get_stream_no_info(bucket.stream()).await.map_err(wrong)?;
        Ok(Self { link, stream, bucket, command_timeout, direct: AtomicBool::new(false) })
    }

    /// The largest entry that the servers and the bucket take, in bytes, what goes with it included.
    pub(super) fn max_payload(&self, info: &Info) -> usize {
        let of_bucket = usize::try_from(info.config.max_message_size).ok().filter(|most| *most > 0);
        of_bucket.unwrap_or(usize::MAX).min(self.link.nats.max_payload())
    }

    /// The state of the bucket, which is made where it is missing and may be made.
    pub(super) async fn open(&self, until: Instant) -> Result<Info> {
        match self.info(until).await {
            Err(missing) if self.bucket.create && is_missing(&missing) => self.create(until).await,
            answer => answer,
        }
    }

    /// The state of the bucket.
    pub(super) async fn info(&self, until: Instant) -> Result<Info> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.bucket.stream());
        let asked = self.link.jetstream.get_stream(self.bucket.stream());
        match self.link.ask(&subject, until, asked).await {
            Ok(Ok(stream)) => Ok(self.looked_at(stream.cached_info())),
            Ok(Err(error)) => Err(self.link.asking(error)),
            Err(cut) => Err(self.link.unanswered(cut)),
        }
    }

    async fn create(&self, until: Instant) -> Result<Info> {
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.bucket.stream());
        match self.link.ask(&subject, until, self.link.jetstream.create_stream(self.bucket.config())).await {
            Ok(Ok(stream)) => Ok(self.looked_at(stream.cached_info())),
            Ok(Err(error)) => {
                // Somebody else may have made it just now, in another way.
                let failed = self.link.asking(error);
                self.info(until).await.map_err(|_| failed)
            }
            Err(cut) => Err(self.link.unanswered(cut)),
        }
    }

    fn looked_at(&self, info: &Info) -> Info {
        self.direct.store(info.config.allow_direct, Ordering::Relaxed);
        info.clone()
    }

    /// What stands at a subject, as the leader of the bucket's stream has it.
    pub(super) async fn latest(&self, subject: &str, until: Instant) -> Result<Stands> {
        let asked = self.stream.get_last_raw_message_by_subject(subject);
        match self.link.ask(&self.getting(), until, asked).await {
            Ok(Ok(message)) => Ok(stands(message)),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Stands::default()),
            Ok(Err(error)) => Err(self.missing(error, until).await),
            Err(cut) => Err(self.link.unanswered(cut)),
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
        match self.link.ask(&full, until, self.stream.direct_get_last_for_subject(subject)).await {
            Ok(Ok(message)) => Ok(stands(message)),
            Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => Ok(Stands::default()),
            // The leader knows why.
            Ok(Err(_)) => self.latest(subject, until).await,
            Err(cut) => Err(self.link.unanswered(cut)),
        }
    }

    /// The first entry from a revision on whose subject fits a filter, as the leader has it.
    pub(super) async fn next(&self, filter: &str, from: u64, until: Instant) -> Result<Option<(String, Stands)>> {
        let asked = self.stream.get_first_raw_message_by_subject(filter, from);
        match self.link.ask(&self.getting(), until, asked).await {
            Ok(Ok(message)) => Ok(Some((message.subject.to_string(), stands(message)))),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Ok(Err(error)) => Err(self.missing(error, until).await),
            Err(cut) => Err(self.link.unanswered(cut)),
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
        self.link.connected(until).await.map_err(Refused::Failed)?;
        let sent = async { self.link.jetstream.send_publish(subject.to_owned(), message).await?.await };
        match self.link.answer(subject, until, sent).await {
            Ok(Ok(ack)) => Ok(ack.sequence),
            Ok(Err(error)) => Err(publishing(error, &self.bucket.place())),
            Err(cut @ Cut::Forbidden(_)) => Err(Refused::Failed(self.link.unanswered(cut))),
            Err(Cut::Late | Cut::Ended) => Err(Refused::Unknown(cut_off(&self.bucket.place()))),
            Err(cut @ Cut::Deaf(_)) => {
                let unknown = cut_off(&self.bucket.place());
                Err(Refused::Unknown(unknown.with_source(self.link.unanswered(cut))))
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
        if let Ok(Err(error)) = self.link.ask(&full, until, purge.into_future()).await {
            tracing::debug!(%error, "the mark of a removed entry stays in the bucket {}", self.bucket.name);
        }
    }

    /// How long one question may take that is asked now.
    pub(super) fn soon(&self, until: Instant) -> Instant {
        until.min(Instant::now() + self.command_timeout)
    }

    /// The error of a question about an entry. Where the bucket itself is gone it is made again, for the next one.
    async fn missing(&self, error: impl std::error::Error + Send + Sync + 'static, until: Instant) -> Error {
        if self.bucket.create && is_missing(&error) {
            tracing::warn!("the bucket {} was removed, or its server forgot it; it is made again", self.bucket.name);
            let _ = self.open(until).await;
        }
        self.link.asking(error)
    }

    fn getting(&self) -> String {
        format!("$JS.API.STREAM.MSG.GET.{}", self.bucket.stream())
    }
}

fn stands(message: StreamMessage) -> Stands {
    let removed = is_mark(&message.headers);
    Stands { revision: message.sequence, value: (!removed).then_some(message.payload) }
}

fn is_mark(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
        || headers.get(REASON).is_some()
}
