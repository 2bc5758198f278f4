//! What `health` does.

use std::time::Duration;

use serde_json::{Value, json};

use super::outbox::{age, line};
use super::tell::Told;
use crate::error::{Error, failure_text, without_passwords};
use crate::kvsync::{Health, KvSync};
use crate::store::Status;
use crate::transport::OutboxDepth;

/// Asks the store and, at the same time, every outbox.
pub(super) fn health(kv: &KvSync, deadline: Duration) -> Told {
    let asked = kv.ask_outboxes();
    let mut health = kv.health(deadline);
    let (mut outboxes, mut lines) = (Vec::new(), Vec::new());
    for (database, answer) in asked.answers(deadline) {
        weigh(&mut health, &database, &answer);
        if let Ok(depth) = &answer {
            lines.push(format!("  {}", line(&database, depth)));
        }
        outboxes.push(outbox(&database, &answer));
    }
    let details: Vec<String> = health.details.iter().map(|detail| without_passwords(detail)).collect();
    let pipeline = &health.pipeline;
    let store = |store: &crate::worker::StoreHealth| {
        json!({
            "store": &*store.store,
            "queued": store.queued.changes,
            "queued_bytes": store.queued.bytes,
            "unsettled": store.unsettled,
            "last_error": store.last_error.as_ref().map(|error| failure_text(&**error)),
        })
    };
    let broker = |broker: &crate::worker::BrokerHealth| {
        json!({
            "broker": &*broker.broker,
            "queued": broker.queued.changes,
            "unsettled": broker.unsettled,
            "last_error": broker.last_error.as_ref().map(|error| failure_text(&**error)),
        })
    };
    let dirty = |table: &crate::report::DirtyTable| json!({ "database": &*table.database, "table": table.table, "lost": table.lost, "reason": table.reason });
    let json = json!({
        "status": health.status,
        "details": details,
        "lag_ms": pipeline.lag.map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        "written": pipeline.written,
        "stores": pipeline.stores.iter().map(store).collect::<Vec<_>>(),
        "brokers": pipeline.brokers.iter().map(broker).collect::<Vec<_>>(),
        "outboxes": outboxes,
        "dirty": pipeline.dirty.iter().map(dirty).collect::<Vec<_>>(),
    });
    lines.splice(0..0, details.iter().map(|detail| format!("  {detail}")));
    lines.insert(0, health.status.to_string());
    Told::new(json, lines, health.status == Status::Up)
}

/// What an outbox that was asked now says of the health, unless its relay has said it.
fn weigh(health: &mut Health, database: &str, answer: &Result<OutboxDepth, Error>) {
    let seen = health.pipeline.outboxes.iter().find(|outbox| *outbox.database == *database);
    let detail = match answer {
        Ok(OutboxDepth { dead: 0, .. }) => return,
        Ok(_) if seen.and_then(|outbox| outbox.depth).is_some_and(|depth| depth.dead > 0) => return,
        Ok(depth) => format!("{} dead letters in the outbox of {database}: `outbox dead` lists them", depth.dead),
        Err(_) if seen.is_some_and(|outbox| outbox.error.is_some()) => return,
        Err(error) => format!("the outbox of {database} cannot be asked: {}", failure_text(error)),
    };
    health.status = health.status.max(Status::Degraded);
    health.details.push(detail);
}

fn outbox(database: &str, answer: &Result<OutboxDepth, Error>) -> Value {
    let depth = answer.as_ref().ok();
    json!({
        "database": database,
        "pending": depth.map(|depth| depth.pending),
        "oldest_seconds": depth.and_then(|depth| depth.oldest).map(|oldest| age(oldest).as_secs_f64()),
        "dead": depth.map(|depth| depth.dead),
        "delivered": depth.map(|depth| depth.delivered),
        "error": answer.as_ref().err().map(|error| without_passwords(&failure_text(error))),
    })
}
