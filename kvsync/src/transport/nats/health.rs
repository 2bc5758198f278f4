//! Asks the servers how the stream and its queues are.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::Info as QueueInfo;
use async_nats::jetstream::stream::{Info, StorageType};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::session::Session;
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result, failure_text};
use crate::status::{Health, Status};
use crate::transport::Backlog;

/// How the stream is, for who publishes.
pub(super) fn of_broker(session: &Arc<Session>, bridge: &Bridge, deadline: Duration) -> Health {
    let asked = Arc::clone(session);
    let info = ask(bridge, deadline, move |until| async move { asked.stream(until).await });
    info.map_or_else(|error| down(&error), |info| of_stream(session, &info))
}

/// How a queue and its stream are, for who receives; and why nothing comes, if it is known.
pub(super) fn of_queue(
    session: &Arc<Session>,
    queue: &str,
    failure: Option<Error>,
    bridge: &Bridge,
    deadline: Duration,
) -> Health {
    let (asked, name) = (Arc::clone(session), queue.to_owned());
    let answered = ask(bridge, deadline, move |until| async move {
        let info = asked.stream(until).await?;
        let queue = asked.queue_info(&name, until).await?;
        asked.topology.check_queue(&name, &queue.config)?;
        Ok((info, queue, count_dead(&asked, &name, until).await?))
    });
    let (info, state, dead) = match answered {
        Ok(answered) => answered,
        Err(error) => return down(&error),
    };
    let mut health = of_stream(session, &info);
    health.details.push(format!(
        "the queue {queue} has {} messages that wait, {} that were taken, {dead} dead letters",
        state.num_pending, state.num_ack_pending,
    ));
    if let Some(failure) = failure {
        health.status = Status::Down;
        health.details.push(failure_text(&failure));
    }
    let most = u64::try_from(state.config.max_ack_pending).unwrap_or(0);
    if most > 0 && state.num_ack_pending as u64 >= most {
        health.status = health.status.max(Status::Degraded);
        health.details.push(format!("the queue {queue} gives nothing more until something that was taken has ended"));
    }
    health
}

/// What a queue holds.
pub(super) async fn backlog(session: &Session, queue: &str, until: Instant) -> Result<Backlog> {
    let state: QueueInfo = session.queue_info(queue, until).await?;
    let dead = count_dead(session, queue, until).await?;
    Ok(Backlog { waiting: state.num_pending, taken: state.num_ack_pending as u64, dead })
}

#[derive(Serialize)]
struct Filter {
    subjects_filter: String,
}

#[derive(Deserialize)]
struct Counted {
    state: Subjects,
}

#[derive(Deserialize)]
struct Subjects {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

async fn count_dead(session: &Session, queue: &str, until: Instant) -> Result<u64> {
    let filter = Filter { subjects_filter: session.subjects.dead_of(queue) };
    let counted: Counted = session.api(&format!("STREAM.INFO.{}", session.topology.dead()), &filter, until).await?;
    Ok(counted.state.subjects.unwrap_or_default().values().sum())
}

fn ask<T, A>(bridge: &Bridge, deadline: Duration, question: impl FnOnce(Instant) -> A) -> Result<T>
where
    T: Send + 'static,
    A: Future<Output = Result<T>> + Send + 'static,
{
    // A moment before the caller's, so that the answer still reaches it.
    let until = Instant::now() + deadline.mul_f64(0.9);
    let late = |_| Error::new(ErrorKind::Deadline, "nats did not say in time how it is");
    bridge.run(deadline, question(until)).map_err(late)?
}

fn down(error: &Error) -> Health {
    Health::new(Status::Down, vec![failure_text(error)])
}

fn of_stream(session: &Session, info: &Info) -> Health {
    let place = session.topology.place();
    let (version, server) = session.known().map(crate::nats::Link::server).unwrap_or_default();
    let (state, config) = (&info.state, &info.config);
    let told = format!(
        "{place} has {} messages of {} bytes for {} queues, on {} of its servers (server {server}, version {version})",
        state.messages, state.bytes, state.consumer_count, config.num_replicas,
    );
    let mut health = Health::new(Status::Up, vec![told]);
    let mut found = |status: Status, what: String| {
        health.status = health.status.max(status);
        health.details.push(format!("{place} {what}"));
    };
    if state.consumer_count == 0 {
        found(
            Status::Degraded,
            "has no queue, so it takes nothing: start a consumer, or name its queue to the publisher (`with_queue`)"
                .to_owned(),
        );
    }
    if config.storage == StorageType::Memory {
        found(Status::Degraded, "is in memory: its messages are lost when its servers stop".to_owned());
    }
    for (name, used, most) in
        [("max_bytes", state.bytes, config.max_bytes), ("max_msgs", state.messages, config.max_messages)]
    {
        if u64::try_from(most).is_ok_and(|most| most > 0 && used.saturating_mul(20) > most.saturating_mul(19)) {
            found(Status::Degraded, format!("is nearly full (`{name}` {most}); it will take no messages"));
        }
    }
    // The first is how it is done above 2.9.
    if config.deny_purge || config.deny_delete {
        let what = "keeps what all queues have acknowledged, with some servers (`deny_purge`, `deny_delete`)";
        found(Status::Degraded, what.to_owned());
    }
    let wanted = session.topology.config();
    let differs = [
        ("max_msgs", config.max_messages.max(0).to_string(), wanted.max_messages.max(0).to_string()),
        ("max_bytes", config.max_bytes.max(0).to_string(), wanted.max_bytes.max(0).to_string()),
        ("max_age", format!("{:?}", config.max_age), format!("{:?}", wanted.max_age)),
        ("num_replicas", config.num_replicas.to_string(), wanted.num_replicas.to_string()),
    ];
    for (name, is, wanted) in differs.into_iter().filter(|(_, is, wanted)| is != wanted) {
        found(Status::Up, format!("was made with another `{name}`, {is} and not {wanted}; see `nats stream edit`"));
    }
    if let Some(cluster) = &info.cluster {
        if cluster.leader.is_none() {
            found(Status::Down, "has no leader".to_owned());
        }
        for peer in cluster.replicas.iter().filter(|peer| peer.offline || !peer.current) {
            let how = if peer.offline { "is offline" } else { "lags" };
            found(Status::Degraded, format!("has a replica that {how}: {}", peer.name));
        }
    }
    health
}
