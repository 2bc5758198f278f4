//! Publishes messages and waits for what the servers say of each.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::builder::Timing;
use super::session::Session;
use super::{CONTENT_TYPE, HEADROOM, of_all, text};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Cut, Link, Refused, cut_off, is_too_large, publishing};
use crate::transport::Message;

/// How many messages of a subject are under way at a time, sent and not confirmed.
const IN_FLIGHT: usize = 512;
/// The pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Publishes until all are confirmed or refused, or the time is over.
pub(super) async fn publish(session: &Session, timing: &Timing, messages: &[Message]) -> Vec<Result<()>> {
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
    // What goes to one subject has one right, one deadline and one connection to lose.
    let mut alike = BTreeMap::<_, Vec<(usize, &Message)>>::new();
    for (turn, message) in places.iter().filter_map(|place| messages.get(*place)).enumerate() {
        alike.entry((&*message.table, message.action)).or_default().push((turn, message));
    }
    let sendings =
        alike.into_iter().map(|((table, action), group)| send_group(session, link, table, action, group, until));
    let mut answers: Vec<_> = join_all(sendings).await.into_iter().flatten().collect();
    answers.sort_unstable_by_key(|(turn, _)| *turn);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Publishes messages of one subject, and answers each with its turn.
async fn send_group(
    session: &Session,
    link: &Link,
    table: &str,
    action: &str,
    group: Vec<(usize, &Message)>,
    until: Instant,
) -> Vec<(usize, Result<()>)> {
    let subject = match wanted(session, table, action, until).await {
        Ok(subject) => subject,
        Err(error) => return group.into_iter().map(|(turn, _)| (turn, Err(error.clone()))).collect(),
    };
    let most = link.nats.max_payload().saturating_sub(HEADROOM);
    let (fit, large): (Vec<_>, Vec<_>) = group.into_iter().partition(|(_, message)| message.body.len() <= most);
    let letters = fit.iter().map(|(_, message)| (headers(message), message.body.clone())).collect();
    let sent = send_all(link, &session.topology.stream, &subject, letters, until).await;
    // A stream that nobody answers for, or another in its place, may have been removed.
    let of_stream = |error: &Error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config);
    if sent.iter().any(|sent| sent.as_ref().is_err_and(of_stream)) {
        session.doubt();
    }
    let too_large = large.into_iter().map(|(turn, message)| {
        let text = format!("a body of {} bytes; this nats server takes {most}, see `max_payload`", message.body.len());
        (turn, Err(Error::new(ErrorKind::Rejected, text)))
    });
    fit.into_iter().map(|(turn, _)| turn).zip(sent).chain(too_large).collect()
}

/// The subject of a table and an action, which some queue wants.
async fn wanted(session: &Session, table: &str, action: &str, until: Instant) -> Result<String> {
    let too_long = || Error::new(ErrorKind::Rejected, "the name of a table is too long for a subject of nats");
    let subject = session.subjects.of(table, action).ok_or_else(too_long)?;
    // The stream confirms what no queue wants, and drops it. A queue may be new.
    if session.wants(false, until).await?.include(&subject) || session.wants(true, until).await?.include(&subject) {
        return Ok(subject);
    }
    let message = format!(
        "{} has no queue that wants `{subject}`: nobody would receive it; start a consumer, or name its queue to the \
         publisher (`with_queue`)",
        session.topology.place(),
    );
    if !session.topology.queues.is_empty() {
        session.doubt();
    }
    Err(Error::new(ErrorKind::Unavailable, message))
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, text(&message.id));
    headers.insert(CONTENT_TYPE, text(message.content_type));
    headers
}

/// Publishes one message and waits for its confirmation.
pub(super) async fn send(
    link: &Link,
    stream: &str,
    subject: &str,
    headers: HeaderMap,
    body: Bytes,
    until: Instant,
) -> Result<()> {
    send_all(link, stream, subject, vec![(headers, body)], until)
        .await
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(cut_off(&place(stream))))
}

/// Publishes to one subject and waits until each is confirmed or refused. They share what ends the wait, which would
/// otherwise cost as much as they do.
async fn send_all(
    link: &Link,
    stream: &str,
    subject: &str,
    letters: Vec<(HeaderMap, Bytes)>,
    until: Instant,
) -> Vec<Result<()>> {
    if let Err(error) = link.connected(until).await {
        return letters.iter().map(|_| Err(error.clone())).collect();
    }
    let mut answers: Vec<Option<Result<()>>> = letters.iter().map(|_| None).collect();
    let mut sendings = Vec::with_capacity(letters.len());
    for ((headers, body), answer) in letters.into_iter().zip(&mut answers) {
        sendings.push(async move { *answer = Some(confirmed(link, stream, subject, headers, body).await) });
    }
    let sent = futures_util::stream::iter(sendings).buffer_unordered(IN_FLIGHT).collect::<()>();
    let cut = match link.answer(subject, until, sent).await {
        Err(cut @ (Cut::Forbidden(_) | Cut::Deaf(_))) => of_all(link.unanswered(cut)),
        Ok(()) | Err(Cut::Late | Cut::Ended) => cut_off(&place(stream)),
    };
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(cut.clone()))).collect()
}

async fn confirmed(link: &Link, stream: &str, subject: &str, mut headers: HeaderMap, body: Bytes) -> Result<()> {
    // Whichever stream may have taken the subject: only the confirmation of ours counts.
    headers.insert(NATS_EXPECTED_STREAM, stream);
    let message = PublishMessage::build().payload(body).headers(headers);
    let told = match link.jetstream.send_publish(subject.to_owned(), message).await {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    match told {
        Ok(told) if is_kept(&told) => Ok(()),
        Ok(_) => Err(cut_off(&place(stream))),
        Err(error) => Err(match publishing(error, &place(stream)) {
            Refused::Failed(error) if is_too_large(&error) => error,
            Refused::Full(error) | Refused::Failed(error) | Refused::Unknown(error) => of_all(error),
            // No condition was named.
            Refused::Conflict => cut_off(&place(stream)),
        }),
    }
}

fn place(stream: &str) -> String {
    format!("the stream {stream}")
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
        let told = |sequence, duplicate| PublishAck { sequence, duplicate, ..PublishAck::default() };
        assert!(is_kept(&told(7, false)));
        assert!(is_kept(&told(7, true)));
        assert!(!is_kept(&told(0, true)));
    }
}
