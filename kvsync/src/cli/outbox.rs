//! What the commands about outboxes do.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::seconds;
use super::tell::Told;
use crate::error::{Error, ErrorKind, Result};
use crate::kvsync::{KvSync, Outbox};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Verb {
    /// How much waits, and how much was given up
    Depth {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// The changes that were given up
    Dead {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// How many are listed
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        most: usize,
    },
    /// Let dead letters be delivered again
    Retry(Letters),
    /// Delete dead letters
    Drop(Letters),
    /// Let what was delivered be delivered again, as far as it is kept
    Replay {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// What was captured so long ago, or later
        #[arg(long, value_name = "SECONDS")]
        since: f64,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Letters {
    /// One database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids", required_unless_present = "ids")]
    all: bool,
    /// Their ids
    ids: Vec<i64>,
}

pub(super) fn work(kv: &KvSync, verb: &Verb) -> Result<Told> {
    match verb {
        Verb::Depth { database } => depth(&outboxes(kv, database.as_deref())?),
        Verb::Dead { database, most } => dead(&outboxes(kv, database.as_deref())?, *most),
        Verb::Retry(letters) => of_letters(kv, letters, "delivered again", |outbox, ids| match ids {
            Some(ids) => outbox.retry(ids),
            None => outbox.retry_all(),
        }),
        Verb::Drop(letters) => of_letters(kv, letters, "deleted", |outbox, ids| match ids {
            Some(ids) => outbox.discard(ids),
            None => outbox.discard_all(),
        }),
        Verb::Replay { database, since } => {
            let since = SystemTime::now().checked_sub(seconds(*since)).unwrap_or(SystemTime::UNIX_EPOCH);
            let outboxes = outboxes(kv, database.as_deref())?;
            let count =
                outboxes.iter().try_fold(0, |count, (_, outbox)| Ok::<_, Error>(count + outbox.replay(since)?))?;
            Ok(counted(count, "delivered again"))
        }
    }
}

/// The outboxes, each with the name of its database.
fn outboxes(kv: &KvSync, database: Option<&str>) -> Result<Vec<(String, Outbox)>> {
    let mut all = Vec::new();
    for database in kv.databases_named(database)?.iter().filter(|database| database.outbox().is_some()) {
        all.push((database.name().to_owned(), kv.outbox(database.name())?));
    }
    if all.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no database has an outbox; call `.outbox()` on it"));
    }
    Ok(all)
}

fn depth(outboxes: &[(String, Outbox)]) -> Result<Told> {
    let (mut all, mut lines, mut well) = (Vec::new(), Vec::new(), true);
    for (name, outbox) in outboxes {
        let depth = outbox.depth()?;
        well &= depth.dead == 0;
        let oldest = depth.oldest.map(age);
        let mut line = format!(
            "{}: {} waiting, {} dead letters, {} delivered and kept",
            name, depth.pending, depth.dead, depth.delivered
        );
        if let Some(oldest) = oldest {
            line = format!("{line}; the oldest waits for {oldest:.0?}");
        }
        lines.push(line);
        all.push(json!({
            "database": name,
            "pending": depth.pending,
            "dead": depth.dead,
            "delivered": depth.delivered,
            "oldest_seconds": oldest.map(|age| age.as_secs_f64()),
        }));
    }
    Ok(Told { json: json!({ "outboxes": all }), lines, well })
}

fn dead(outboxes: &[(String, Outbox)], most: usize) -> Result<Told> {
    let (mut all, mut lines) = (Vec::<Value>::new(), Vec::new());
    for (name, outbox) in outboxes {
        for letter in outbox.dead_letters(0, most)? {
            let key = letter.primary_key.as_deref().unwrap_or("?");
            lines.push(format!(
                "{} in {}: {} of {} {key}, {} attempts: {}",
                letter.id, name, letter.action, letter.table, letter.attempts, letter.error
            ));
            all.push(json!({
                "database": name,
                "id": letter.id,
                "table": letter.table,
                "model": letter.model,
                "action": letter.action,
                "primary_key": letter.primary_key,
                "attempts": letter.attempts,
                "age_seconds": age(letter.captured_at).as_secs_f64(),
                "error": letter.error,
            }));
        }
    }
    let well = all.is_empty();
    if well {
        lines.push("there are no dead letters".to_owned());
    }
    Ok(Told { json: json!({ "dead_letters": all }), lines, well })
}

fn of_letters(
    kv: &KvSync,
    letters: &Letters,
    what: &str,
    act: impl Fn(&Outbox, Option<&[i64]>) -> Result<usize>,
) -> Result<Told> {
    let outboxes = outboxes(kv, letters.database.as_deref())?;
    if !letters.all && outboxes.len() > 1 {
        let message = "several databases have outboxes, each with ids of its own; name one with `--database`";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let ids = if letters.all { None } else { Some(letters.ids.as_slice()) };
    let count = outboxes.iter().try_fold(0, |count, (_, outbox)| Ok::<_, Error>(count + act(outbox, ids)?))?;
    Ok(counted(count, what))
}

fn counted(count: usize, what: &str) -> Told {
    Told { json: json!({ "count": count }), lines: vec![format!("{count} are {what}")], well: true }
}

fn age(since: SystemTime) -> Duration {
    since.elapsed().unwrap_or_default()
}
