//! Removes from the stream what every queue has acknowledged.
//!
//! Two ways in which a server would do it by itself lose messages, measured with 2.9.10. With the retention `interest` it
//! confirms and drops what is published while it shuts down, when its queues are closed already. A purge makes it forget
//! which of the messages above were taken and not acknowledged; 2.10 does not. So the stream keeps what it is given, and
//! whoever consumes removes up to the lowest that some queue still needs: by one purge, or below 2.10 message by message.
//! Queues of others count, too.

use std::error::Error as _;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::Info as StreamInfo;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::session::{Session, is_older};
use crate::error::{ErrorKind, Result};
use crate::nats::is_none;

/// How many messages are removed at a time.
const AT_ONCE: usize = 64;

#[derive(Serialize)]
struct One {
    seq: u64,
    no_erase: bool,
}

#[derive(Deserialize)]
struct Removed {}

/// All below this.
#[derive(Serialize)]
struct Purge {
    seq: u64,
}

#[derive(Deserialize)]
struct Purged {}

#[derive(Serialize)]
struct Next<'a> {
    seq: u64,
    next_by_subj: &'a str,
}

#[derive(Deserialize)]
struct Found {
    message: Sequence,
}

#[derive(Deserialize)]
struct Sequence {
    seq: u64,
}

/// Removes what all queues have acknowledged. Somebody else may do the same at the same time.
pub(super) async fn sweep(session: &Session, until: Instant) -> Result<()> {
    // Read first: what comes later is not known to be acknowledged.
    let info: StreamInfo = session.info(&session.topology.stream, until).await?;
    if info.state.messages == 0 {
        return Ok(());
    }
    let queues = session.queues(until).await?;
    let mut floor = if queues.is_empty() { 0 } else { info.state.last_sequence };
    for name in queues {
        let queue = session.queue_info(&name, until).await?;
        floor = floor.min(acknowledged(session, &info, &queue, until).await?);
        if floor < info.state.first_sequence {
            return Ok(());
        }
    }
    let (version, _) = session.link(until).await?.server();
    if !is_older(&version) {
        let call = format!("STREAM.PURGE.{}", session.topology.stream);
        return session.api::<Purged>(&call, &Purge { seq: floor + 1 }, until).await.map(|_| ());
    }
    let mut removals = futures_util::stream::iter(info.state.first_sequence..=floor)
        .map(|sequence| remove(session, sequence, until))
        .buffered(AT_ONCE);
    while let Some(removed) = removals.next().await {
        removed?;
    }
    Ok(())
}

async fn remove(session: &Session, sequence: u64, until: Instant) -> Result<()> {
    let call = format!("STREAM.MSG.DELETE.{}", session.topology.stream);
    match session.api::<Removed>(&call, &One { seq: sequence, no_erase: true }, until).await {
        // It is gone, or may not be removed: JetStream says so, and the next attempt tells.
        Err(error) if error.kind() == ErrorKind::Config && error.source().is_some() => Ok(()),
        removed => removed.map(|_| ()),
    }
}

/// Up to which message a queue has acknowledged all that it wants.
async fn acknowledged(session: &Session, stream: &StreamInfo, queue: &Info, until: Instant) -> Result<u64> {
    let floor = queue.ack_floor.stream_sequence;
    let mut filters = queue.config.filter_subjects.clone();
    filters.extend(Some(queue.config.filter_subject.clone()).filter(|filter| !filter.is_empty()));
    if filters.is_empty() {
        return Ok(floor);
    }
    // What it does not want lies above what it acknowledged, up to the next that it wants.
    let mut all = stream.state.last_sequence;
    for filter in filters {
        let call = format!("STREAM.MSG.GET.{}", session.topology.stream);
        let next = Next { seq: floor + 1, next_by_subj: &filter };
        match session.api::<Found>(&call, &next, until).await {
            Ok(found) => all = all.min(found.message.seq.saturating_sub(1)),
            Err(none) if is_none(&none) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all.max(floor))
}
