//! Brings a store back to what the database says, by kvsync's own means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvsync::KvSync;

use crate::Outcome;
use crate::crew::{Crew, Layout};
use crate::models::{Account, Badge, Member};
use crate::writer::QUIET;

/// Nothing is on its way when this is asked for.
const IN_FLIGHT: Duration = Duration::from_millis(50);

/// Who can reach the store.
pub(crate) enum Keeper<'a> {
    /// This process.
    Own(KvSync),
    /// The process at this place.
    Other(&'a Crew, usize),
    /// A consumer reaches the store, and what delivers rows of the outbox reaches the broker.
    Piped(&'a Crew, Layout),
}

impl Keeper<'_> {
    /// Has something done, and returns what is told of it.
    pub(crate) fn ask(&self, command: &str) -> Outcome<String> {
        match self {
            Self::Own(kv) => perform(kv, command),
            Self::Other(crew, place) => crew.ask(*place, command),
            Self::Piped(crew, layout) if command == "replay" => {
                let told = crew.ask(layout.relays, command)?;
                crew.ask(layout.consumers, "drain")?;
                Ok(told)
            }
            Self::Piped(crew, layout) => crew.ask(layout.consumers, command),
        }
    }
}

/// What can be asked for when everything is quiet.
pub(crate) fn perform(kv: &KvSync, command: &str) -> Outcome<String> {
    match command {
        // The keys that differ, a line for each.
        "verify" => {
            let found = kv.verify_all().in_flight(IN_FLIGHT).samples(usize::MAX).run()?;
            let lines = found.differences.iter().map(|difference| format!("{}\t{difference}", difference.key));
            Ok(lines.collect::<Vec<_>>().join("\x1e"))
        }
        "repair" => Ok(kv.repair_all().in_flight(IN_FLIGHT).run()?.to_string()),
        // Delivers once more what the outbox has kept, for a store that has forgotten.
        "replay" => {
            let rows = kv.outbox("main")?.replay(UNIX_EPOCH)?;
            kv.flush(QUIET)?;
            Ok(format!("{rows} rows of the outbox were delivered once more"))
        }
        other => Err(format!("no such command: {other}").into()),
    }
}

/// Fills a store that is empty. What waited in the outbox since then may be older than what the store that is no more was
/// told: that is told again.
pub(crate) fn refill(kv: &KvSync, waiting_since: Option<SystemTime>) -> Outcome {
    kv.backfill::<Account>().run()?;
    kv.backfill::<Badge>().run()?;
    kv.backfill::<Member>().run()?;
    if let Some(since) = waiting_since {
        kv.outbox("main")?.replay(since)?;
    }
    Ok(())
}
