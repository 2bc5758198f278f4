//! The side of kvsync where rows are synced: from COMMIT to stored.

use std::time::Duration;

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::{Database, SyncConnection};
use kvsync::change::CommitToken;
use kvsync::store::SyncStore;

use crate::Result;
use crate::models::{CREATE_SQLITE, users};
use crate::ratio::Side;
use crate::statements::sqlite;

/// A commit that takes longer has gone wrong.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Rows of one statement.
const STATEMENT: usize = 500;

type Wrapped = SyncConnection<SqliteConnection>;
type Transactions = <Wrapped as Connection>::TransactionManager;

/// Updates every row of a table in one transaction; the time from its COMMIT until all is stored is what counts.
pub(crate) struct Synced {
    pub(crate) kv: KvSync,
    pub(crate) conn: Wrapped,
    turn: u32,
}

impl Synced {
    /// With this store, a table of this many rows, and this database, in which models are registered.
    pub(crate) fn start(
        store: impl SyncStore + 'static,
        rows: u32,
        models: fn(Database<Sqlite>) -> Database<Sqlite>,
    ) -> Result<Self> {
        let mut conn = SqliteConnection::establish(":memory:")?;
        conn.batch_execute(CREATE_SQLITE)?;
        sqlite::fill(&mut conn, rows)?;
        let database = models(Database::new("main", || SqliteConnection::establish(":memory:")));
        let kv = KvSync::builder().store(store).database(database).build()?;
        let conn = kv.wrap(conn)?;
        Ok(Self { kv, conn, turn: 0 })
    }

    /// Begins a transaction and updates the rows that follow the first `skipped` in it, some at a time.
    pub(crate) fn write(&mut self, skipped: usize, rows: usize) -> Result {
        self.turn += 1;
        let name = format!("user{}", self.turn % 10_000);
        Transactions::begin_transaction(&mut self.conn)?;
        let end = skipped + rows;
        let mut first = skipped + 1;
        while first <= end {
            let last = (first + STATEMENT - 1).min(end);
            let these = users::id.between(i32::try_from(first)?, i32::try_from(last)?);
            diesel::update(users::table.filter(these)).set(users::username.eq(&name)).execute(&mut self.conn)?;
            first = last + 1;
        }
        Ok(())
    }

    /// Stores these rows.
    pub(crate) fn once(&mut self, rows: usize) -> Result {
        self.prepare(rows)?;
        self.run(rows)
    }

    /// Commits what was written.
    pub(crate) fn commit(&mut self) -> Result<CommitToken> {
        Transactions::commit_transaction(&mut self.conn)?;
        Ok(self.conn.last_commit().cloned().ok_or("the commit was not captured")?)
    }
}

impl Side for Synced {
    fn prepare(&mut self, operations: usize) -> Result {
        self.write(0, operations)
    }

    fn run(&mut self, _: usize) -> Result {
        self.commit()?;
        self.kv.flush(PATIENCE)?;
        Ok(())
    }
}
