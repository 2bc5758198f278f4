//! Asks the servers how the bucket is.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{DiscardPolicy, Info, StorageType};
use tokio::time::Instant;

use super::Inner;
use crate::bridge::Cut;
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind};
use crate::store::{Health, Status};

/// Asks within the deadline.
pub(super) fn health(store: &Arc<Inner>, deadline: Duration) -> Health {
    if let Err(closed) = store.open() {
        return Health::new(Status::Down, vec![closed.to_string()]);
    }
    let (inner, deadline) = (Arc::clone(store), deadline.min(FOR_EVER));
    let asked = store.bridge.run(deadline, async move {
        // A moment before the caller's, so that the answer still reaches it.
        inner.client.info(Instant::now() + deadline.mul_f64(0.9)).await
    });
    let info = match asked {
        Ok(Ok(info)) => info,
        Ok(Err(error)) => return Health::new(Status::Down, vec![error.to_string()]),
        Err(Cut::Deadline | Cut::Panic | Cut::OwnThread) => {
            let error = Error::new(ErrorKind::Deadline, format!("{} did not say in time how it is", store.name));
            return Health::new(Status::Down, vec![error.to_string()]);
        }
    };
    let (version, server) = store.client.link.server();
    let mut health = Health::new(
        Status::Up,
        vec![format!(
            "the bucket {} has {} entries of {} bytes, {} (server {server}, version {version})",
            store.client.bucket.name,
            info.state.messages,
            info.state.bytes,
            kept(&info),
        )],
    );
    judge(&info, &mut |status, what| {
        health.status = health.status.max(status);
        health.details.push(format!("the bucket {} {what}", store.client.bucket.name));
    });
    if let Err(unfit) = store.client.bucket.check(&info.config) {
        health.status = Status::Down;
        health.details.push(unfit.to_string());
    }
    // A bucket that was made again holds nothing of what the one before it held.
    health.with_lives(vec![format!("nats bucket {} of {}", store.client.bucket.name, info.created)])
}

fn kept(info: &Info) -> String {
    let place = if info.config.storage == StorageType::Memory { "in the memory" } else { "on the disks" };
    format!("{place} of {} of its servers", info.config.num_replicas)
}

/// What the settings and the servers of a bucket mean for what was promised.
fn judge(info: &Info, found: &mut dyn FnMut(Status, String)) {
    let config = &info.config;
    let forgets = "a row may then answer under a key that it has left, and what was removed may come back";
    if !config.max_age.is_zero() {
        found(Status::Degraded, format!("forgets entries after {:?} (`max_age`): {forgets}", config.max_age));
    }
    let bounded = [("max_bytes", config.max_bytes), ("max_msgs", config.max_messages)];
    for (name, most) in bounded.into_iter().filter(|(_, most)| *most > 0) {
        if config.discard == DiscardPolicy::Old {
            let what =
                format!("forgets its oldest entries when it is full (`{name}` {most}, `discard old`): {forgets}");
            found(Status::Degraded, what);
        } else if name == "max_bytes" && full(info.state.bytes, most) {
            found(Status::Degraded, format!("is nearly full (`{name}` {most}); it will take no writes"));
        } else if name == "max_msgs" && full(info.state.messages, most) {
            found(Status::Degraded, format!("is nearly full (`{name}` {most}); it will take no new keys"));
        }
    }
    if config.storage == StorageType::Memory {
        found(Status::Up, "is in memory: it is lost when its servers stop".to_owned());
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
}

/// Whether less than a twentieth is left.
fn full(used: u64, most: i64) -> bool {
    u64::try_from(most).is_ok_and(|most| used.saturating_mul(20) > most.saturating_mul(19))
}
