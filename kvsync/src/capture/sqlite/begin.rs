//! Transactions that take their lock when they begin.

use diesel::connection::AnsiTransactionManager;
use diesel::result::Error;
use diesel::sqlite::Sqlite;

use super::super::backend::Inner;
use super::super::connection::SyncConnection;

impl<C> SyncConnection<C>
where
    C: Inner<Backend = Sqlite, TransactionManager = AnsiTransactionManager>,
{
    /// Runs the closure in a transaction that begins with `BEGIN IMMEDIATE`. What it writes is captured.
    ///
    /// # Errors
    ///
    /// The closure's own; [`Error::AlreadyInTransaction`]; what SQLite says of BEGIN or COMMIT.
    pub fn immediate_transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<Error>,
    {
        self.transaction_sql("BEGIN IMMEDIATE", work)
    }

    /// Runs the closure in a transaction that begins with `BEGIN EXCLUSIVE`. What it writes is captured.
    ///
    /// # Errors
    ///
    /// As [`immediate_transaction`](Self::immediate_transaction).
    pub fn exclusive_transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<Error>,
    {
        self.transaction_sql("BEGIN EXCLUSIVE", work)
    }
}
