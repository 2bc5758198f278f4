//! Delivers dead letters again: to the queue that gave them up, and to no other.
//!
//! A message of a stream goes to every queue of it. So one that is delivered again names its queue, and the others
//! acknowledge it unseen.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::broker::send;
use super::session::Session;
use super::text;
use crate::error::{Error, ErrorKind, Result};
use crate::nats::is_none;

/// The queue that a message is for, where it is for one alone.
pub(super) const ONLY: &str = "Kvsync-Only";
/// How many letters are delivered within one deadline.
const AT_ONCE: usize = 32;

#[derive(Serialize)]
struct Next<'a> {
    seq: u64,
    next_by_subj: &'a str,
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
        let (dead, filter) = (session.topology.dead(), session.subjects.dead_of(queue));
        let (link, _) = session.open(queue, until).await?;
        let last = match self.last {
            Some(last) => last,
            None => session.info(&dead, until).await?.state.last_sequence,
        };
        self.last = Some(last);
        for _ in 0..AT_ONCE.min(self.left) {
            let next = Next { seq: self.from, next_by_subj: &filter };
            let found: Found = match session.api(&format!("STREAM.MSG.GET.{dead}"), &next, until).await {
                Err(none) if is_none(&none) => return Ok((self, false)),
                found => found?,
            };
            let sequence = found.message.sequence;
            if sequence > last {
                return Ok((self, false));
            }
            self.from = sequence + 1;
            let letter = StreamMessage::try_from(found.message).map_err(|error| {
                let message = format!("the dead letter {sequence} of {dead} cannot be read");
                Error::new(ErrorKind::Corrupt, message).with_source(error)
            })?;
            let Some((subject, headers)) = again(queue, &letter) else { continue };
            send(link, &session.topology.stream, &subject, headers, letter.payload, until).await?;
            let one = One { seq: sequence, no_erase: true };
            match session.api::<Removed>(&format!("STREAM.MSG.DELETE.{dead}"), &one, until).await {
                // Somebody else was faster.
                Err(none) if is_none(&none) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            self.delivered += 1;
            self.left -= 1;
        }
        Ok((self, self.left > 0))
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
