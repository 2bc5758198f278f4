//! The side that publishes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};

use super::builder::{Builder, Timing};
use super::session::Session;
use super::{GRACE, HEADROOM, UNTOLD, health, of_all, text};
use crate::bridge::{self, Bridge};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Cut, Link, Refused, cut_off, is_too_large, publishing};
use crate::status::Health;
use crate::transport::{Broker, Message};

/// How many messages are under way at a time, sent and not confirmed.
const IN_FLIGHT: usize = 512;
/// The pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Publishes to a stream of NATS JetStream. See the [module](super) for what it promises, costs and needs.
pub struct NatsBroker {
    name: String,
    session: Arc<Session>,
    timing: Timing,
    closed: AtomicBool,
    // Dropped last: the connection lives on it.
    bridge: Arc<Bridge>,
}

impl NatsBroker {
    /// Begins to configure what publishes and receives, at these URLs, `nats://[user:password@]host[:port]`, or
    /// `tls://` for TLS. One server of a cluster is enough to find the others.
    pub fn builder(urls: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(urls.into_iter().map(Into::into).collect())
    }

    pub(super) fn new(session: Session, timing: Timing) -> Result<Self> {
        let name = format!("nats stream {} at {}", session.topology.stream, session.at());
        let session = Arc::new(session);
        Ok(Self { name, session, timing, closed: AtomicBool::new(false), bridge: Bridge::shared()? })
    }

    fn call<T: Send + 'static>(&self, within: Duration, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)));
        }
        self.bridge.run(within + GRACE, work).map_err(|cut| match cut {
            bridge::Cut::Deadline => {
                Error::new(ErrorKind::UnknownOutcome, format!("{} did not answer in time", self.name))
            }
            bridge::Cut::Panic => {
                let message = format!("a call to {} ended in a panic; this is a fault of kvsync", self.name);
                Error::new(ErrorKind::UnknownOutcome, message)
            }
            bridge::Cut::OwnThread => {
                let message = "a broker was called on the thread of its own connections, which it would block";
                Error::new(ErrorKind::Config, message)
            }
        })
    }
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBroker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Broker for NatsBroker {
    fn name(&self) -> &str {
        &self.name
    }

    /// What the server takes, less room for headers. It connects if it never did; without a server it is what servers
    /// take by default.
    fn max_body(&self) -> usize {
        let told = |link: &Link| link.nats.max_payload();
        let known = self.session.known().map(told).or_else(|| {
            let (session, within) = (Arc::clone(&self.session), self.session.connect_timeout());
            let asked = async move { session.link(Instant::now() + within).await.ok().map(told) };
            self.call(within, asked).ok().flatten()
        });
        known.unwrap_or(UNTOLD).saturating_sub(HEADROOM)
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let (session, timing, owned) = (Arc::clone(&self.session), self.timing.clone(), messages.to_vec());
        let within = timing.publish + timing.retry_for;
        let answers = self.call(within, async move { publish(&session, &timing, &owned).await });
        answers.unwrap_or_else(|error| messages.iter().map(|_| Err(error.clone())).collect())
    }

    fn health(&self, deadline: Duration) -> Health {
        health::of_broker(&self.session, &self.bridge, deadline)
    }

    fn close(&self) -> Result<()> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let session = Arc::clone(&self.session);
            let farewell = async move {
                if let Some(link) = session.known() {
                    link.close().await;
                }
            };
            // A connection that cannot be drained is dropped.
            let _ = self.bridge.run(self.timing.publish, farewell);
        }
        Ok(())
    }
}

/// Publishes until all are confirmed or refused, or the time is over.
async fn publish(session: &Session, timing: &Timing, messages: &[Message]) -> Vec<Result<()>> {
    let again = Instant::now() + timing.retry_for;
    let until = again + timing.publish;
    let mut answers: Vec<Result<()>> = messages.iter().map(|_| Ok(())).collect();
    let mut left: Vec<usize> = (0..messages.len()).collect();
    let mut pause = PAUSES.0;
    loop {
        let told = attempt(session, messages, &left, until.min(Instant::now() + timing.publish)).await;
        let mut failed = Vec::new();
        for (place, outcome) in left.into_iter().zip(told) {
            let Some(answer) = answers.get_mut(place) else { continue };
            if outcome.as_ref().is_err_and(Error::is_retryable) {
                failed.push(place);
            }
            // A message that may have been kept stays in doubt, whatever is said of a later copy but that it is kept.
            let doubtful =
                |answer: &Result<()>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnknownOutcome);
            if outcome.is_ok() || !doubtful(answer) {
                *answer = outcome;
            }
        }
        left = failed;
        if left.is_empty() || Instant::now() + pause >= again {
            return answers;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Publishes each once, many at a time, and answers each, in order.
async fn attempt(session: &Session, messages: &[Message], places: &[usize], until: Instant) -> Vec<Result<()>> {
    let link = match session.ready(until).await {
        Ok(link) => link,
        Err(error) => return places.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut sendings = Vec::with_capacity(places.len());
    for message in places.iter().filter_map(|place| messages.get(*place)) {
        sendings.push(send_one(session, link, message, until));
    }
    futures_util::stream::iter(sendings).buffered(IN_FLIGHT).collect().await
}

async fn send_one(session: &Session, link: &Link, message: &Message, until: Instant) -> Result<()> {
    let Some(subject) = session.subjects.of(&message.table, message.action) else {
        let message = "the name of a table is too long for a subject of nats";
        return Err(Error::new(ErrorKind::Rejected, message));
    };
    let most = link.nats.max_payload().saturating_sub(HEADROOM);
    if message.body.len() > most {
        let message =
            format!("a body of {} bytes; this nats server takes {most}, see `max_payload`", message.body.len());
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    // The stream confirms what no queue wants, and drops it. A queue may be new.
    if !session.wants(false, until).await?.include(&subject) && !session.wants(true, until).await?.include(&subject) {
        let message = format!(
            "{} has no queue that wants `{subject}`: nobody would receive it; start a consumer, or name its queue to the \
             publisher (`with_queue`)",
            session.topology.place(),
        );
        if !session.topology.queues.is_empty() {
            session.doubt();
        }
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let sent = send(link, &session.topology.stream, &subject, headers(message), message.body.clone(), until).await;
    // A stream that nobody answers for, or another in its place, may have been removed.
    if sent.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config)) {
        session.doubt();
    }
    sent
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, text(&message.id));
    headers.insert(super::CONTENT_TYPE, text(message.content_type));
    headers
}

/// Publishes one message and waits for its confirmation.
pub(super) async fn send(
    link: &Link,
    stream: &str,
    subject: &str,
    mut headers: HeaderMap,
    body: Bytes,
    until: Instant,
) -> Result<()> {
    let place = || format!("the stream {stream}");
    link.connected(until).await?;
    // Whichever stream may have taken the subject: only the confirmation of ours counts.
    headers.insert(NATS_EXPECTED_STREAM, stream);
    let message = PublishMessage::build().payload(body).headers(headers);
    let sent = async { link.jetstream.send_publish(subject.to_owned(), message).await?.await };
    match link.answer(subject, until, sent).await {
        Ok(Ok(told)) if is_kept(&told) => Ok(()),
        Ok(Err(error)) => Err(match publishing(error, &place()) {
            Refused::Failed(error) if is_too_large(&error) => error,
            Refused::Full(error) | Refused::Failed(error) | Refused::Unknown(error) => of_all(error),
            // No condition was named.
            Refused::Conflict => cut_off(&place()),
        }),
        Err(cut @ (Cut::Forbidden(_) | Cut::Deaf(_))) => Err(of_all(link.unanswered(cut))),
        Ok(Ok(_)) | Err(Cut::Late | Cut::Ended) => Err(cut_off(&place())),
    }
}

/// Whether a confirmation means that the message is kept. The leader of a cluster of 2.10 confirms a copy also while the
/// first is under way, which may fail yet.
const fn is_kept(told: &PublishAck) -> bool {
    !told.duplicate || told.sequence > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_what_is_under_way_is_not_confirmed() {
        let told = |rest: &str| serde_json::from_str(&format!(r#"{{"stream":"kvsync",{rest}}}"#)).unwrap();
        assert!(is_kept(&told(r#""seq":7"#)));
        assert!(is_kept(&told(r#""seq":7,"duplicate":true"#)));
        assert!(!is_kept(&told(r#""seq":0,"duplicate":true"#)));
    }
}
