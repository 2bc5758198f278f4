//! Versions that several processes take in order: from a counter in the database.

use std::ops::Range;
use std::time::SystemTime;

use diesel::dsl::sql;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use super::super::backend::Inner;
use super::clock;

/// The migration that gives a database the counter: `CREATE TABLE kvsync_counter`. Run it on every
/// SQLite database that several processes write, before they start; without it the order of versions
/// holds within one process.
pub const SQLITE_COUNTER: &str = "CREATE TABLE IF NOT EXISTS kvsync_counter \
     (id INTEGER PRIMARY KEY CHECK (id = 0), last INTEGER NOT NULL)";

/// How many numbers a transaction takes at once. They cost nothing: at a thousand transactions a second
/// they last for centuries.
const BLOCK: i64 = 1 << 16;

/// What a connection knows of the counter.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Whether the database has one; nothing before it was looked for.
    present: Option<bool>,
    /// What is left of the numbers that the open transaction took.
    block: Range<u64>,
}

impl Counter {
    /// Whether the database has a counter.
    pub(super) fn is_present<C: Inner<Backend = Sqlite>>(&mut self, conn: &mut C) -> QueryResult<bool> {
        if let Some(present) = self.present {
            return Ok(present);
        }
        let tables = "SELECT count(*) FROM main.sqlite_master WHERE type = 'table' AND name = 'kvsync_counter'";
        let present = sql::<BigInt>(tables).get_result::<i64>(conn)? > 0;
        self.present = Some(present);
        Ok(present)
    }

    /// The schema was changed: the counter may be there now.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes numbers for the open transaction, unless it has some. From then on it holds the write
    /// lock, so that no other transaction takes any before this one has ended.
    pub(super) fn take<C: Inner<Backend = Sqlite>>(&mut self, conn: &mut C) -> QueryResult<()> {
        if self.block.is_empty() {
            let first = i64::try_from(clock::floor(SystemTime::now())).unwrap_or(i64::MAX - BLOCK) + 1;
            let last: i64 = TakeBlock { last: first + BLOCK }.get_result(conn)?;
            let last = u64::try_from(last).unwrap_or_default();
            self.block = last.saturating_sub(BLOCK.unsigned_abs())..last;
        }
        Ok(())
    }

    /// The next number of the open transaction. When all are used up the last one stays: the changes of
    /// a transaction have an order of their own.
    pub(super) fn next(&mut self) -> Option<u64> {
        let number = self.block.start;
        if self.block.end - number > 1 {
            self.block.start += 1;
        }
        clock::raise(number);
        (number > 0).then_some(number)
    }

    /// The transaction has ended, or a part of it was rolled back and with it the numbers that it took.
    pub(super) fn drop_block(&mut self) {
        self.block = 0..0;
    }
}

/// Raises the counter by a block, from at least where the clock stands.
#[derive(QueryId)]
struct TakeBlock {
    /// Where the counter will stand if it stands below the clock.
    last: i64,
}

impl Query for TakeBlock {
    type SqlType = BigInt;
}

impl<C> RunQueryDsl<C> for TakeBlock {}

impl QueryFragment<Sqlite> for TakeBlock {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO main.kvsync_counter (id, last) VALUES (0, ");
        out.push_bind_param::<BigInt, _>(&self.last)?;
        out.push_sql(") ON CONFLICT (id) DO UPDATE SET last = max(last + ");
        out.push_bind_param::<BigInt, _>(&BLOCK)?;
        out.push_sql(", excluded.last) RETURNING last");
        Ok(())
    }
}
