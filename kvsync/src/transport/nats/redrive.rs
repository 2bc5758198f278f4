//! Lists dead letters, and delivers them again: to the queue that gave them up, and to no other.
//!
//! A message of a stream goes to every queue of it. So one that is delivered again names its queue, and the others
//! acknowledge it unseen.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::publish::send;
use super::session::Session;
use super::{CONTENT_TYPE, text};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::is_none;
use crate::transport::DeadMessage;

/// The queue that a message is for, where it is for one alone.
pub(super) const ONLY: &str = "Kvsync-Only";
/// How many letters are read or delivered within one deadline.
pub(super) const AT_ONCE: usize = 32;

#[derive(Serialize)]
struct Next<'a> {
    seq: u64,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
struct This {
    seq: u64,
}

#[derive(Deserialize)]
struct Found {
    message: RawMessage,
}

#[derive(Serialize)]
struct One {
    seq: u64,
    no_erase: bool,
}

#[derive(Deserialize)]
struct Removed {}

/// How far one is with the dead letters of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// Where to look next.
    from: u64,
    /// The last letter that there was at the beginning: what is given up meanwhile waits for another time.
    last: Option<u64>,
    /// How many may still be delivered.
    pub(super) left: usize,
    /// How many were.
    pub(super) delivered: usize,
}

impl Course {
    pub(super) fn new(most: usize) -> Self {
        Self { from: 1, last: None, left: most, delivered: 0 }
    }

    /// Delivers some, the oldest first. Whether there may be more.
    pub(super) async fn go_on(mut self, session: &Session, queue: &str, until: Instant) -> Result<(Self, bool)> {
        let filter = session.subjects.dead_of(queue);
        let (link, _) = session.open(queue, until).await?;
        let last = match self.last {
            Some(last) => last,
            None => session.info(&session.topology.dead(), until).await?.state.last_sequence,
        };
        self.last = Some(last);
        for _ in 0..AT_ONCE.min(self.left) {
            let Some(letter) = letter(session, &filter, self.from, until).await? else { return Ok((self, false)) };
            if letter.sequence > last {
                return Ok((self, false));
            }
            self.from = letter.sequence + 1;
            let Some((subject, headers)) = again(queue, &letter) else { continue };
            send(link, &session.topology.stream, &subject, headers, letter.payload, until).await?;
            remove(session, letter.sequence, until).await?;
            self.delivered += 1;
            self.left -= 1;
        }
        Ok((self, self.left > 0))
    }
}

/// Some dead letters of a queue, the oldest first, and where to go on.
pub(super) async fn list(
    session: &Session,
    queue: &str,
    mut from: u64,
    most: usize,
    until: Instant,
) -> Result<(Vec<DeadMessage>, u64)> {
    let (filter, mut letters) = (session.subjects.dead_of(queue), Vec::new());
    while letters.len() < most
        && let Some(letter) = letter(session, &filter, from, until).await?
    {
        from = letter.sequence + 1;
        letters.push(told(letter));
    }
    Ok((letters, from))
}

fn told(letter: StreamMessage) -> DeadMessage {
    let header = |name: &str| letter.headers.get(name).map(|value| value.as_str().to_owned());
    DeadMessage {
        content_type: header(CONTENT_TYPE),
        id: header("Kvsync-Message-Id"),
        reason: header("Kvsync-Reason").unwrap_or_default(),
        deliveries: header("Kvsync-Deliveries").and_then(|count| count.parse().ok()).unwrap_or(1),
        at: Some(letter.time.into()),
        body: letter.payload,
    }
}

/// The first dead letter from there on, of those that the filter names.
async fn letter(session: &Session, filter: &str, from: u64, until: Instant) -> Result<Option<StreamMessage>> {
    let (dead, next) = (session.topology.dead(), Next { seq: from, next_by_subj: filter });
    let found: Found = match session.api(&format!("STREAM.MSG.GET.{dead}"), &next, until).await {
        Err(none) if is_none(&none) => return Ok(None),
        found => found?,
    };
    let sequence = found.message.sequence;
    StreamMessage::try_from(found.message).map(Some).map_err(|error| {
        let message = format!("the dead letter {sequence} of {dead} cannot be read");
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    })
}

/// Removes a letter, unless somebody else was faster: servers have several words for that.
async fn remove(session: &Session, sequence: u64, until: Instant) -> Result<()> {
    let dead = session.topology.dead();
    let one = One { seq: sequence, no_erase: true };
    let Err(error) = session.api::<Removed>(&format!("STREAM.MSG.DELETE.{dead}"), &one, until).await else {
        return Ok(());
    };
    match session.api::<Found>(&format!("STREAM.MSG.GET.{dead}"), &This { seq: sequence }, until).await {
        Err(none) if is_none(&none) => Ok(()),
        _ => Err(error),
    }
}

/// Where a letter goes, with which headers. Nowhere if it is not whole any more: a part of it would be another message.
fn again(queue: &str, letter: &StreamMessage) -> Option<(String, HeaderMap)> {
    if letter.headers.get("Kvsync-Bytes").is_some() {
        return None;
    }
    let subject = letter.headers.get("Kvsync-Subject")?.as_str().to_owned();
    let mut headers = HeaderMap::new();
    for (name, values) in letter.headers.iter() {
        let of_name: &str = name.as_ref();
        if !of_name.starts_with("Nats-") && !of_name.starts_with("Kvsync-") {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    headers.insert(ONLY, text(queue));
    // The same letter, cut off before it was removed, is not kept twice within the time in which a server knows it.
    let own = letter.headers.get(NATS_MESSAGE_ID).map(HeaderValue::as_str).unwrap_or_default();
    headers.insert(NATS_MESSAGE_ID, text(&format!("again-{}-{own}", letter.sequence)));
    Some((subject, headers))
}
