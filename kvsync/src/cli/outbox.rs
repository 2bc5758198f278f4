//! What the commands about outboxes do.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, value_parser};
use serde_json::{Value, json};

use super::seconds;
use super::tell::Told;
use crate::error::{Error, ErrorKind, Result};
use crate::kvsync::{KvSync, Outbox};
use crate::transport::OutboxDepth;

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
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = value_parser!(u32).range(1..), allow_negative_numbers = true)]
        most: u32,
    },
    /// Let dead letters be delivered again
    Retry(Letters),
    /// Delete dead letters; their rows may be unknown or old in the stores until their next write or a `repair`
    Drop(Letters),
    /// Let what was delivered be delivered again, as far as it is kept
    Replay {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// What was captured so long ago, or later: a number of seconds, 0 or more
        #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
        since: Duration,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Letters {
    /// One database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Their ids, as `outbox dead` lists them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
}

/// What is left to do once dead letters are gone.
const AFTER_A_DROP: &str =
    "their rows may be unknown or old in the stores until they are written again; `repair` mends them now";

pub(super) fn work(kv: &KvSync, verb: &Verb) -> Result<Told> {
    match verb {
        Verb::Depth { database } => depth(&outboxes(kv, database.as_deref())?),
        Verb::Dead { database, most } => {
            dead(&outboxes(kv, database.as_deref())?, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        Verb::Retry(letters) => {
            of_letters(kv, letters, "to be delivered again", None, Outbox::retry_all, |outbox, id| outbox.retry(&[id]))
        }
        Verb::Drop(letters) => {
            of_letters(kv, letters, "deleted", Some(AFTER_A_DROP), Outbox::discard_all, |outbox, id| {
                outbox.discard(&[id])
            })
        }
        Verb::Replay { database, since } => {
            let since = SystemTime::now().checked_sub(*since).unwrap_or(SystemTime::UNIX_EPOCH);
            let outboxes = outboxes(kv, database.as_deref())?;
            let count =
                outboxes.iter().try_fold(0, |count, (_, outbox)| Ok::<_, Error>(count + outbox.replay(since)?))?;
            Ok(Told::new(json!({ "count": count }), vec![format!("{count} to be delivered again")], true))
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
        lines.push(line(name, &depth));
        all.push(json!({
            "database": name,
            "pending": depth.pending,
            "dead": depth.dead,
            "delivered": depth.delivered,
            "oldest_seconds": oldest.map(|age| age.as_secs_f64()),
        }));
    }
    Ok(Told::new(json!({ "outboxes": all }), lines, well))
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
    Ok(Told::new(json!({ "dead_letters": all }), lines, well))
}

fn of_letters(
    kv: &KvSync,
    letters: &Letters,
    what: &str,
    advice: Option<&'static str>,
    all: impl Fn(&Outbox) -> Result<usize>,
    one: impl Fn(&Outbox, i64) -> Result<usize>,
) -> Result<Told> {
    let outboxes = outboxes(kv, letters.database.as_deref())?;
    if letters.all {
        let count = outboxes.iter().try_fold(0, |count, (_, outbox)| Ok::<_, Error>(count + all(outbox)?))?;
        let advice = advice.filter(|_| count > 0);
        let json = json!({ "count": count, "missing": [], "advice": advice });
        let lines = std::iter::once(format!("{count} {what}")).chain(advice.map(str::to_owned));
        return Ok(Told::new(json, lines.collect(), true));
    }
    let [(database, outbox)] = outboxes.as_slice() else {
        let message = "several databases have outboxes, each with ids of its own; name one with `--database`";
        return Err(Error::new(ErrorKind::Config, message));
    };
    if letters.ids.is_empty() {
        let message = "no dead letter is named; name them by the ids that `outbox dead` lists, or say `--all`";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let (mut count, mut missing) = (0, Vec::new());
    let ids: BTreeSet<i64> = letters.ids.iter().copied().collect();
    for id in ids {
        match one(outbox, id)? {
            0 => missing.push(id),
            some => count += some,
        }
    }
    let advice = advice.filter(|_| count > 0);
    let mut lines = vec![format!("{count} {what}")];
    lines.extend(advice.map(str::to_owned));
    lines.extend(missing.iter().map(|id| format!("{id} is no dead letter of {database}")));
    let well = missing.is_empty();
    Ok(Told::new(json!({ "count": count, "missing": missing, "advice": advice }), lines, well))
}

/// What an outbox holds, for people.
pub(super) fn line(database: &str, depth: &OutboxDepth) -> String {
    let OutboxDepth { pending, dead, delivered, oldest } = depth;
    let mut line = format!("{database}: {pending} waiting, {dead} dead letters, {delivered} delivered and kept");
    if let Some(oldest) = oldest.map(age) {
        line = format!("{line}; the oldest waits for {oldest:.0?}");
    }
    line
}

pub(super) fn age(since: SystemTime) -> Duration {
    since.elapsed().unwrap_or_default()
}
