//! Compares the database with the store, every row and every key, from both sides.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};

use crate::Outcome;
use crate::job::DatabaseAt;
use crate::models::{Account, Badge, Id, Member, Row, accounts, badges, members};
use crate::open::{postgres, sqlite};
use crate::verdict::{Verdict, Wrong};
use crate::view::{Seen, View};

/// What may be missing, because a process took it with it or the store forgot it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excuses {
    /// Processes that were killed with changes in their memory.
    pub(crate) killed: HashSet<i32>,
    /// Processes that said that a table of theirs is dirty, because the answer to a statement was lost.
    pub(crate) dirty: HashSet<i32>,
    /// The store lost what it had acknowledged.
    pub(crate) forgot: bool,
}

impl Excuses {
    /// Whether a change of an unknown process may be missing.
    fn any(&self) -> bool {
        self.forgot || !self.killed.is_empty() || !self.dirty.is_empty()
    }

    /// Whether a change of this process may be missing.
    fn of(&self, writer: i32) -> bool {
        self.forgot || self.killed.contains(&writer) || self.dirty.contains(&writer)
    }
}

/// Every row of the database.
pub(crate) fn rows(database: &DatabaseAt) -> Outcome<Vec<Row>> {
    macro_rules! load {
        ($conn:expr) => {{
            let conn = &mut $conn;
            let accounts = accounts::table.select(Account::as_select()).load(conn)?;
            let badges = badges::table.select(Badge::as_select()).load(conn)?;
            let members = members::table.select(Member::as_select()).load(conn)?;
            let rows = accounts.into_iter().map(Row::Account).chain(badges.into_iter().map(Row::Badge));
            Ok(rows.chain(members.into_iter().map(Row::Member)).collect())
        }};
    }
    match database {
        DatabaseAt::Sqlite(path) => load!(sqlite(path)?),
        DatabaseAt::Postgres(url) => load!(postgres(url)?),
    }
}

/// How many rows of the outbox are in no store yet, and how many were given up.
pub(crate) fn outbox(database: &DatabaseAt) -> Outcome<(i64, i64)> {
    let counts = sql::<(BigInt, BigInt)>(
        "SELECT CAST(coalesce(sum(CASE WHEN delivered_at IS NULL AND dead_at IS NULL THEN 1 ELSE 0 END), 0) AS bigint), \
         CAST(coalesce(sum(CASE WHEN dead_at IS NOT NULL THEN 1 ELSE 0 END), 0) AS bigint) FROM kvsync_outbox",
    );
    Ok(match database {
        DatabaseAt::Sqlite(path) => counts.get_result(&mut sqlite(path)?)?,
        DatabaseAt::Postgres(url) => counts.get_result(&mut postgres(url)?)?,
    })
}

/// When the oldest of the rows was captured that the outbox has still to deliver.
pub(crate) fn waiting_since(database: &DatabaseAt) -> Outcome<Option<SystemTime>> {
    let oldest = sql::<Nullable<BigInt>>(
        "SELECT min(captured_at) FROM kvsync_outbox WHERE delivered_at IS NULL AND dead_at IS NULL",
    );
    let oldest: Option<i64> = match database {
        DatabaseAt::Sqlite(path) => oldest.get_result(&mut sqlite(path)?)?,
        DatabaseAt::Postgres(url) => oldest.get_result(&mut postgres(url)?)?,
    };
    Ok(oldest.map(|millis| UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())))
}

/// Every entry of the store, those that these rows should have included.
pub(crate) fn entries(view: &dyn View, rows: &[Row]) -> Outcome<HashMap<String, Seen>> {
    let mut keys: HashSet<String> = view.keys()?.into_iter().collect();
    keys.extend(rows.iter().flat_map(Row::keys));
    // What begins like this is kvsync's own; nobody fetches it.
    let keys: Vec<String> = keys.into_iter().filter(|key| !key.starts_with(['~', '!'])).collect();
    let mut entries = HashMap::with_capacity(keys.len());
    for chunk in keys.chunks(256) {
        for (key, bytes) in chunk.iter().zip(view.get(chunk)?) {
            entries.insert(key.clone(), Seen::read(key, bytes.as_ref())?);
        }
    }
    Ok(entries)
}

/// What is wrong with these entries, given these rows.
pub(crate) fn compare(rows: &[Row], entries: &HashMap<String, Seen>, excuses: &Excuses) -> Verdict {
    let mut verdict = Verdict::default();
    let by_id: HashMap<Id, &Row> = rows.iter().map(|row| (row.id(), row)).collect();
    let by_key: HashMap<String, &Row> =
        rows.iter().flat_map(|row| row.keys().into_iter().map(move |key| (key, row))).collect();
    for (key, seen) in entries {
        let about = key.clone();
        let mut find = |wrong, excused: bool, why: &str| {
            if excused {
                return verdict.excuse(about.clone());
            }
            let row = by_key.get(key);
            verdict.find(wrong, about.clone(), || format!("{why}; the database has {row:?}, the store {seen:?}"));
        };
        match (by_key.get(key), seen) {
            (_, Seen::Row(_, row)) if row.is_poison() => find(Wrong::Ghost, false, "it was rolled back"),
            (Some(truth), Seen::Row(_, row)) if *truth == row => {}
            (Some(truth), Seen::Row(_, row)) if truth.id() == row.id() => {
                find(Wrong::Stale, excuses.of(truth.writer()), "it is old");
            }
            (Some(truth), Seen::Row(..)) => find(Wrong::Orphan, excuses.of(truth.writer()), "it is another row"),
            // A mask may be of a change in doubt that never happened, whoever wrote the row.
            (Some(_), Seen::Unknown(_)) => find(Wrong::Lost, excuses.any(), "it is masked"),
            (Some(truth), Seen::Nothing | Seen::Tombstone(_)) => {
                find(Wrong::Lost, excuses.of(truth.writer()), "it is not there");
            }
            (None, Seen::Nothing | Seen::Tombstone(_) | Seen::Unknown(_)) => {}
            (None, Seen::Row(_, row)) => match by_id.get(&row.id()) {
                None => find(Wrong::Resurrected, excuses.any(), "the row was deleted"),
                // A badge has no record that would tell the next delivery of its old key.
                Some(Row::Badge(_)) => find(Wrong::Orphan, excuses.any(), "the row has left the key"),
                Some(truth) => find(Wrong::Orphan, excuses.of(truth.writer()), "the row has left the key"),
            },
        }
    }
    verdict
}
