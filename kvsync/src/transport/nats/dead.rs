//! Dead letters: what could not be dealt with, with the reason, where it stays until somebody removes it.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use bytes::Bytes;
use tokio::time::Instant;

use super::publish::send;
use super::pump::{Held, Place};
use super::session::Session;
use super::text;
use crate::error::Result;

/// The longest reason, in bytes.
const MAX_REASON: usize = 2048;

/// Writes the dead letter of a message, and waits until that is confirmed.
pub(super) async fn write(session: &Session, queue: &str, held: &Held, reason: &str, until: Instant) -> Result<()> {
    let link = session.link(until).await?;
    let subject = session.subjects.dead(queue, &held.subject);
    let (headers, body) = letter(queue, held, reason, link.nats.max_payload());
    let stream = session.topology.dead();
    let sent = send(link, &stream, &subject, headers.clone(), body.clone(), until).await;
    match sent {
        // The stream of dead letters may have been removed.
        Err(error) if error.is_retryable() => {
            session.dead(until).await?;
            send(link, &stream, &subject, headers, body, until).await
        }
        sent => sent,
    }
}

pub(super) fn letter(queue: &str, held: &Held, reason: &str, most: usize) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let foreign = held.headers.iter().flat_map(HeaderMap::iter);
    for (name, values) in foreign.filter(|(name, _)| !name_of(name).starts_with("Nats-")) {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    let id = held.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
    headers.insert("Kvsync-Reason", text(cut(reason, MAX_REASON)));
    headers.insert("Kvsync-Queue", text(queue));
    headers.insert("Kvsync-Subject", text(&held.subject));
    if let Some(id) = id {
        headers.insert("Kvsync-Message-Id", id.clone());
    }
    // The same when it is written again, because its message came again.
    let Place { delivered, sequence, time } = held.place;
    headers.insert("Kvsync-Deliveries", text(&delivered.to_string()));
    headers.insert(NATS_MESSAGE_ID, text(&format!("{queue}-{sequence}-{time}")));
    let room = most.saturating_sub(size(&headers));
    if held.body.len() <= room {
        return (headers, held.body.clone());
    }
    // Only what others published can be so large: our own messages leave room.
    headers.insert("Kvsync-Bytes", text(&held.body.len().to_string()));
    (headers, held.body.slice(..room.saturating_sub(64).min(held.body.len())))
}

/// About how many bytes headers are on the wire.
fn size(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    lines.map(|(name, value)| name_of(name).len() + value.as_str().len() + 4).sum::<usize>() + 64
}

fn name_of(name: &HeaderName) -> &str {
    name.as_ref()
}

/// The beginning of a text.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
