//! The table of the outbox, as those see it who deliver its rows. It is long because each method of the contract is
//! a statement of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use diesel::QueryResult;
use diesel::connection::SimpleConnection as _;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use parking_lot::Mutex;

use super::super::backend::SyncBackend;
use super::super::hub::Hub;
use super::super::statement::Dialect;
use super::sql::{ADOPT, Statement, after, before, list, now, ours};
use super::stored::{self, Stored};
use crate::change::OutboxRange;
use crate::clock::millis;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Claimed, DeadLetter, Failing, Failure, Outbox, OutboxDepth};

/// How long a lock, or another process's short transaction, is waited for.
const LOCK: Duration = Duration::from_secs(2);
/// How long a statement may take.
const STATEMENT: Duration = Duration::from_secs(5);
/// How many rows are let go of for a replay in one transaction.
const REPLAYED: i64 = 5000;

/// Beyond this rows are not counted: that would take too long.
const COUNTED: u32 = 1_000_000;

const PENDING: &str = "delivered_at IS NULL AND dead_at IS NULL";

/// The outbox of a database, on a connection of its own.
pub(in super::super) struct OutboxTable<DB: SyncBackend> {
    hub: Arc<Hub<DB>>,
    conn: Mutex<Option<DB::Connection>>,
    /// What it claims rows as.
    claimant: String,
    /// How often it claimed some.
    claims: AtomicUsize,
}

impl<DB: SyncBackend> OutboxTable<DB> {
    pub(in super::super) fn new(hub: Arc<Hub<DB>>) -> Self {
        let claimant = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        Self { hub, conn: Mutex::new(None), claimant, claims: AtomicUsize::new(0) }
    }

    /// Runs something on the connection. After a failure the next begins on a new one.
    fn with<T>(&self, work: impl FnOnce(&mut DB::Connection) -> QueryResult<T>) -> Result<T> {
        let until = std::time::Instant::now() + STATEMENT + LOCK;
        let mut held = self.conn.try_lock_until(until).ok_or_else(|| {
            let message = format!("the connection to the outbox of `{}` was held for too long", self.hub.name);
            Error::new(ErrorKind::Unavailable, message)
        })?;
        let mut conn = match held.take() {
            Some(conn) => conn,
            None => self.open()?,
        };
        match work(&mut conn) {
            Ok(done) => {
                *held = Some(conn);
                Ok(done)
            }
            Err(error) => Err(self.told(&mut conn, error)),
        }
    }

    fn open(&self) -> Result<DB::Connection> {
        let mut conn = self.hub.open()?;
        self.hub.greet(&mut conn)?;
        let (lock, statement) = (LOCK.as_millis(), STATEMENT.as_millis());
        let settings = match DB::DIALECT {
            // What a crash forgets of claims and deliveries is done again. What the face does is told durably.
            Dialect::Postgres => {
                format!("SET lock_timeout = {lock}; SET statement_timeout = {statement}; SET synchronous_commit = off")
            }
            Dialect::Sqlite => format!("PRAGMA busy_timeout = {lock}"),
        };
        conn.batch_execute(&settings).map_err(|error| self.told(&mut conn, error))?;
        Ok(conn)
    }

    /// Runs a write in a transaction of its own.
    fn write<T>(&self, work: impl FnOnce(&mut DB::Connection) -> QueryResult<T>) -> Result<T> {
        self.with(|conn| match DB::DIALECT {
            Dialect::Postgres => work(conn),
            // With the lock from the start: a transaction that only asks for it later may be refused it.
            Dialect::Sqlite => {
                conn.batch_execute("BEGIN IMMEDIATE")?;
                let done = work(conn)?;
                conn.batch_execute("COMMIT")?;
                Ok(done)
            }
        })
    }

    /// The same for what a person asked for: it is durable when it returns.
    fn write_durably<T>(&self, work: impl FnOnce(&mut DB::Connection) -> QueryResult<T>) -> Result<T> {
        self.write(|conn| match DB::DIALECT {
            Dialect::Sqlite => work(conn),
            Dialect::Postgres => {
                conn.batch_execute("SET synchronous_commit = on")?;
                let done = work(conn)?;
                conn.batch_execute("SET synchronous_commit = off")?;
                Ok(done)
            }
        })
    }

    fn told(&self, conn: &mut DB::Connection, error: DieselError) -> Error {
        let name = &self.hub.name;
        let text = error.to_string();
        let busy = ["locked", "busy", "lock timeout", "statement timeout"].iter().any(|word| text.contains(word));
        let closed = matches!(&error, DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _));
        let (kind, message) = if busy {
            (ErrorKind::Unavailable, format!("the outbox of `{name}` was locked for too long"))
        } else if closed {
            (ErrorKind::Unavailable, format!("the connection to the outbox of `{name}` broke"))
        } else {
            match super::is_there(conn) {
                Ok(false) => (ErrorKind::Config, super::missing(name)),
                Ok(true) => (
                    ErrorKind::Database,
                    format!(
                        "the outbox of `{name}` cannot be used; the factory's role needs SELECT, INSERT, UPDATE and \
                         DELETE on `kvsync_outbox`, and its columns have to be those of the migration"
                    ),
                ),
                Err(asked) => (ErrorKind::Unavailable, format!("the outbox of `{name}` cannot be asked ({asked})")),
            }
        };
        Error::new(kind, message).with_source(error)
    }

    /// Claims rows that are due from `first` on, those that were due first before others.
    fn claimed(&self, first: i64, most: usize, lease: Duration) -> Result<Vec<Stored>> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let (now, ours) = (now(DB::DIALECT), ours(&self.hub));
        let due = format!("FROM kvsync_outbox WHERE {PENDING} AND due_at >= {first} AND due_at <= {now} AND {ours}");
        if DB::DIALECT == Dialect::Sqlite {
            // Whoever finds nothing takes no lock that a writer might wait for.
            let any = Statement::new(format!("SELECT id {due} LIMIT 1"));
            if self.with(|conn| any.load(conn, |_| ()))?.is_empty() {
                return Ok(Vec::new());
            }
        }
        let lease = after(DB::DIALECT, lease);
        let claim = match DB::DIALECT {
            // Materialized, because a join that repeats the reading would lock and claim more than asked for.
            Dialect::Postgres => Statement::new(format!(
                "WITH due AS MATERIALIZED (SELECT id {due} ORDER BY due_at, id LIMIT {most} FOR UPDATE SKIP LOCKED) \
                 UPDATE kvsync_outbox SET due_at = {lease}, claimed_by = "
            ))
            .value(&self.claimant)
            .sql(" FROM due WHERE kvsync_outbox.id = due.id RETURNING ")
            .sql(stored::columns(DB::DIALECT)),
            Dialect::Sqlite => Statement::new(format!("UPDATE kvsync_outbox SET due_at = {lease}, claimed_by = "))
                .value(&self.claimant)
                .sql(format!(" WHERE id IN (SELECT id {due} ORDER BY due_at, id LIMIT {most}) RETURNING "))
                .sql(stored::columns(DB::DIALECT)),
        };
        self.write(|conn| claim.load(conn, |row| Stored::read::<DB>(row)))
    }

    /// Changes rows of which this process holds the claim.
    fn change_own(&self, set: &str, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let change = Statement::new(format!(
            "UPDATE kvsync_outbox SET {set} WHERE id IN ({}) AND {PENDING} AND claimed_by = ",
            list(ids)
        ))
        .value(&self.claimant);
        self.write(|conn| change.run(conn)).map(drop)
    }
}

impl<DB: SyncBackend> Outbox for OutboxTable<DB> {
    fn name(&self) -> &str {
        &self.hub.name
    }

    fn claim(&self, most: usize, lease: Duration) -> Result<Vec<Claimed>> {
        // A row that nobody has claimed yet is due before all others. Where there is no end of these, rows whose claim
        // ran out or was given back would wait for ever: so every other time they come first.
        let mut stored = Vec::new();
        if self.claims.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            stored = self.claimed(1, most, lease)?;
        }
        match self.claimed(0, most.saturating_sub(stored.len()), lease) {
            Ok(mut others) => stored.append(&mut others),
            Err(error) if stored.is_empty() => return Err(error),
            // The next claim meets it again; what is claimed already is not to wait for that.
            Err(_) => {}
        }
        if stored.is_empty() {
            return Ok(Vec::new());
        }
        // RETURNING promises no order.
        stored.sort_unstable_by_key(|row| row.id);
        let changes = match self.with(|conn| Ok(super::decode::decode(conn, &self.hub, &stored))) {
            Ok(changes) => changes,
            Err(error) => stored.iter().map(|_| Err(error.clone())).collect(),
        };
        let claimed = |(row, changes): (Stored, Result<_>)| Claimed {
            id: row.id,
            table: self.hub.declared(&DB::DIALECT.fold(row.table_name.as_str().into())).to_owned(),
            attempts: u32::try_from(row.attempts).unwrap_or(0),
            changes,
        };
        Ok(stored.into_iter().zip(changes).map(claimed).collect())
    }

    fn extend(&self, ids: &[i64], lease: Duration) -> Result<()> {
        self.change_own(&format!("due_at = {}", after(DB::DIALECT, lease)), ids)
    }

    fn delivered(&self, ids: &[i64]) -> Result<()> {
        self.change_own(&format!("delivered_at = {}, claimed_by = NULL, error = NULL", now(DB::DIALECT)), ids)
    }

    fn failed(&self, failures: &[Failure]) -> Result<()> {
        let statement = |failure: &Failure| {
            let then = match failure.retry_in {
                Some(long) => format!("due_at = {}", after(DB::DIALECT, long)),
                None => format!("dead_at = {}", now(DB::DIALECT)),
            };
            Statement::new(format!(
                "UPDATE kvsync_outbox SET {then}, claimed_by = NULL, attempts = attempts + 1, error = "
            ))
            // Postgres has no text with this character.
            .value(failure.error.replace('\0', ""))
            .sql(format!(" WHERE id = {} AND {PENDING} AND claimed_by = ", failure.id))
            .value(&self.claimant)
        };
        if failures.is_empty() {
            return Ok(());
        }
        let statements: Vec<Statement<'_>> = failures.iter().map(statement).collect();
        self.write(|conn| statements.iter().try_for_each(|one| one.run(conn).map(drop)))
    }

    fn release(&self, ids: &[i64], retry_in: Duration) -> Result<()> {
        self.change_own(&format!("due_at = {}, claimed_by = NULL", after(DB::DIALECT, retry_in)), ids)
    }

    fn depth(&self) -> Result<OutboxDepth> {
        let count = |condition: &str| {
            format!("(SELECT count(*) FROM (SELECT 1 FROM kvsync_outbox WHERE {condition} LIMIT {COUNTED}) AS counted)")
        };
        let question = Statement::new(format!(
            "SELECT {}, {}, {}, (SELECT captured_at FROM kvsync_outbox WHERE {PENDING} ORDER BY due_at, id LIMIT 1)",
            count(PENDING),
            count("dead_at IS NOT NULL"),
            count("delivered_at IS NOT NULL"),
        ));
        let number = |row: &DB::Row<'_, '_>, at| DB::integer(row, at).and_then(|number| u64::try_from(number).ok());
        let depth = self.with(|conn| {
            question.load(conn, |row| {
                let count = |at| number(row, at).unwrap_or_default();
                OutboxDepth::new(count(0), count(1), count(2), DB::integer(row, 3).map(stored::time))
            })
        })?;
        Ok(depth.into_iter().next().unwrap_or_default())
    }

    fn range(&self) -> Result<Option<OutboxRange>> {
        let question = Statement::new("SELECT min(id), max(id) FROM kvsync_outbox");
        let found = self.with(|conn| question.load(conn, |row| Some((DB::integer(row, 0)?, DB::integer(row, 1)?))))?;
        let range = |(first, last)| OutboxRange { database: self.hub.name.to_string(), first, last };
        Ok(found.into_iter().flatten().next().map(range))
    }

    fn waits(&self, range: &OutboxRange) -> Result<bool> {
        let OutboxRange { first, last, .. } = range;
        let question = Statement::new(format!(
            "SELECT id FROM kvsync_outbox WHERE {PENDING} AND attempts = 0 AND id BETWEEN {first} AND {last} AND {} LIMIT 1",
            ours(&self.hub)
        ));
        Ok(!self.with(|conn| question.load(conn, |_| ()))?.is_empty())
    }

    fn failure(&self, range: &OutboxRange) -> Result<Option<String>> {
        let OutboxRange { first, last, .. } = range;
        let question = Statement::new(format!(
            "SELECT error FROM kvsync_outbox WHERE delivered_at IS NULL AND attempts > 0 AND id BETWEEN {first} AND {last} \
             AND {} LIMIT 1",
            ours(&self.hub)
        ));
        let found = self.with(|conn| question.load(conn, |row| DB::text(row, 0).unwrap_or_default()))?;
        Ok(found.into_iter().next())
    }

    fn failing(&self) -> Result<Vec<Failing>> {
        let question = Statement::new(format!(
            "SELECT table_name, count(*), max(error) FROM kvsync_outbox WHERE {PENDING} AND attempts > 0 AND {} \
             GROUP BY table_name ORDER BY table_name",
            ours(&self.hub)
        ));
        self.with(|conn| {
            question.load(conn, |row| Failing {
                table: DB::text(row, 0).unwrap_or_default(),
                rows: DB::integer(row, 1).and_then(|rows| u64::try_from(rows).ok()).unwrap_or_default(),
                error: DB::text(row, 2).unwrap_or_default(),
            })
        })
    }

    fn strangers(&self, dead_after: Duration) -> Result<u64> {
        let theirs = format!("{PENDING} AND NOT {} AND captured_at <", ours(&self.hub));
        let bury = Statement::new(format!(
            "UPDATE kvsync_outbox SET dead_at = {}, claimed_by = NULL, error = ",
            now(DB::DIALECT)
        ))
        .value("no process that delivers the rows of this outbox has registered the model; register it and retry")
        .sql(format!(" WHERE {theirs} {}", before(DB::DIALECT, dead_after)));
        let count =
            Statement::new(format!("SELECT count(*) FROM kvsync_outbox WHERE {theirs} {}", before(DB::DIALECT, ADOPT)));
        let found = self.with(|conn| count.load(conn, |row| DB::integer(row, 0)))?.into_iter().flatten().next();
        let found = found.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        if found > 0 {
            self.write(|conn| bury.run(conn))?;
        }
        Ok(found)
    }

    fn dead_letters(&self, after: i64, most: usize) -> Result<Vec<DeadLetter>> {
        let question = Statement::new(format!(
            "SELECT id, table_name, model, action, primary_key, captured_at, CAST(attempts AS bigint), error FROM kvsync_outbox \
             WHERE dead_at IS NOT NULL AND id > {after} ORDER BY id LIMIT {}",
            most.min(i32::MAX as usize)
        ));
        self.with(|conn| {
            question.load(conn, |row| DeadLetter {
                id: DB::integer(row, 0).unwrap_or_default(),
                table: DB::text(row, 1).unwrap_or_default(),
                model: DB::text(row, 2),
                action: DB::text(row, 3).unwrap_or_default(),
                primary_key: DB::text(row, 4),
                captured_at: stored::time(DB::integer(row, 5).unwrap_or_default()),
                attempts: DB::integer(row, 6).and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or_default(),
                error: DB::text(row, 7).unwrap_or_default(),
            })
        })
    }

    fn retry(&self, ids: Option<&[i64]>) -> Result<usize> {
        let retry = Statement::new(format!(
            "UPDATE kvsync_outbox SET dead_at = NULL, claimed_by = NULL, attempts = 0, due_at = {} WHERE {}",
            now(DB::DIALECT),
            dead(ids)
        ));
        self.write_durably(|conn| retry.run(conn))
    }

    fn discard(&self, ids: Option<&[i64]>) -> Result<usize> {
        let discard = Statement::new(format!("DELETE FROM kvsync_outbox WHERE {}", dead(ids)));
        self.write_durably(|conn| discard.run(conn))
    }

    fn replay(&self, since: SystemTime) -> Result<usize> {
        let Some(OutboxRange { first, last, .. }) = self.range()? else { return Ok(0) };
        let since = i64::try_from(millis(since)).unwrap_or(i64::MAX);
        let (mut from, mut replayed) = (first, 0);
        // By parts of the ids, which no writer waits for long. Rows that come meanwhile are delivered anyway.
        while from <= last {
            let to = from.saturating_add(REPLAYED - 1).min(last);
            let part = Statement::new(format!(
                "UPDATE kvsync_outbox SET delivered_at = NULL, dead_at = NULL, claimed_by = NULL, attempts = 0, due_at = {} \
                 WHERE id BETWEEN {from} AND {to} AND captured_at >= {since} \
                 AND (delivered_at IS NOT NULL OR dead_at IS NOT NULL OR claimed_by IS NOT NULL)",
                now(DB::DIALECT)
            ));
            replayed += self.write_durably(|conn| part.run(conn))?;
            from = to.saturating_add(1);
        }
        Ok(replayed)
    }

    fn purge(&self, retention: Duration, most: usize) -> Result<usize> {
        let old = format!("FROM kvsync_outbox WHERE delivered_at < {}", before(DB::DIALECT, retention));
        if DB::DIALECT == Dialect::Sqlite
            && self.with(|conn| Statement::new(format!("SELECT id {old} LIMIT 1")).load(conn, |_| ()))?.is_empty()
        {
            return Ok(0);
        }
        let purge = Statement::new(format!("DELETE FROM kvsync_outbox WHERE id IN (SELECT id {old} LIMIT {most})"));
        self.write(|conn| purge.run(conn))
    }
}

fn dead(ids: Option<&[i64]>) -> String {
    match ids {
        Some(ids) => format!("dead_at IS NOT NULL AND id IN ({})", list(ids)),
        None => "dead_at IS NOT NULL".to_owned(),
    }
}
