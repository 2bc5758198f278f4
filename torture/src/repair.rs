//! Mends what a process took with it when it was killed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kvsync::envelope::{Head, State, Value};
use kvsync::record::{Order, Terms, Write};
use kvsync::store::Step;
use kvsync::{Key, KvSync};

use crate::Outcome;
use crate::check::{entries, rows};
use crate::job::DatabaseAt;
use crate::models::{Account, Badge, Member, Row};
use crate::view::{Direct, Seen};
use crate::writer::QUIET;

/// Reads every row again that stands in the database or in the store.
pub(crate) fn repair(kv: &KvSync, database: &DatabaseAt) -> Outcome {
    let truth = rows(database)?;
    let stored = entries(&Direct(Arc::clone(kv.store())), &truth)?;
    let copies = stored.values().filter_map(|seen| match seen {
        Seen::Row(_, row) => Some(row),
        _ => None,
    });
    for row in copies.chain(&truth) {
        match row {
            Row::Account(row) => kv.sync(row)?,
            Row::Badge(row) => kv.sync(row)?,
            Row::Member(row) => kv.sync(row)?,
        };
    }
    release(kv, &truth, &stored)
}

/// Fills the store with the rows of the database.
pub(crate) fn refill(kv: &KvSync) -> Outcome {
    kv.backfill::<Account>().run()?;
    kv.backfill::<Badge>().run()?;
    kv.backfill::<Member>().run()?;
    Ok(())
}

/// Delivers once more what the outbox has kept, for a store that has forgotten.
pub(crate) fn replay(kv: &KvSync) -> Outcome {
    kv.outbox("main")?.replay(UNIX_EPOCH)?;
    Ok(kv.flush(QUIET)?)
}

/// A row without a record does not know which keys it has left: they are released at the version of the copy that
/// stands there, so that nothing newer is.
fn release(kv: &KvSync, truth: &[Row], stored: &HashMap<String, Seen>) -> Outcome {
    let own: HashSet<String> = truth.iter().flat_map(Row::keys).collect();
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let (minute, day) = (60_000, 86_400_000);
    let terms = Terms { now, left: minute, dead: 7 * day };
    let left = stored.iter().filter_map(|(key, seen)| match seen {
        Seen::Row(version, Row::Badge(_)) if !own.contains(key) => Some(Step::Write(Write {
            key: Key::new(key.as_str()),
            head: Head { version: *version, state: State::Tombstone, expires_at: now + terms.dead },
            value: Value::none(),
            order: Order::Register,
        })),
        _ => None,
    });
    let steps: Vec<Step> = left.collect();
    for answer in kv.store().execute(&steps, &terms) {
        answer?;
    }
    Ok(())
}
