//! Transactions with an isolation level.

use diesel::connection::AnsiTransactionManager;
use diesel::pg::Pg;
use diesel::result::Error;

use super::super::backend::Inner;
use super::super::connection::SyncConnection;

/// Begins a transaction with an isolation level and modes; as Diesel's builder of the same name.
#[must_use = "a transaction builder does nothing before `run`"]
pub struct TransactionBuilder<'a, C: Inner> {
    conn: &'a mut SyncConnection<C>,
    isolation: Option<&'static str>,
    read: Option<&'static str>,
    deferrable: Option<&'static str>,
}

impl<C> SyncConnection<C>
where
    C: Inner<Backend = Pg, TransactionManager = AnsiTransactionManager>,
{
    /// Builds a transaction with an isolation level and modes. What is written in it is captured.
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_, C> {
        TransactionBuilder { conn: self, isolation: None, read: None, deferrable: None }
    }
}

impl<C> TransactionBuilder<'_, C>
where
    C: Inner<Backend = Pg, TransactionManager = AnsiTransactionManager>,
{
    /// `READ ONLY`.
    pub fn read_only(self) -> Self {
        Self { read: Some(" READ ONLY"), ..self }
    }

    /// `READ WRITE`, as by default.
    pub fn read_write(self) -> Self {
        Self { read: Some(" READ WRITE"), ..self }
    }

    /// `DEFERRABLE`.
    pub fn deferrable(self) -> Self {
        Self { deferrable: Some(" DEFERRABLE"), ..self }
    }

    /// `NOT DEFERRABLE`, as by default.
    pub fn not_deferrable(self) -> Self {
        Self { deferrable: Some(" NOT DEFERRABLE"), ..self }
    }

    /// `ISOLATION LEVEL READ COMMITTED`, as by default.
    pub fn read_committed(self) -> Self {
        Self { isolation: Some(" ISOLATION LEVEL READ COMMITTED"), ..self }
    }

    /// `ISOLATION LEVEL REPEATABLE READ`.
    pub fn repeatable_read(self) -> Self {
        Self { isolation: Some(" ISOLATION LEVEL REPEATABLE READ"), ..self }
    }

    /// `ISOLATION LEVEL SERIALIZABLE`.
    pub fn serializable(self) -> Self {
        Self { isolation: Some(" ISOLATION LEVEL SERIALIZABLE"), ..self }
    }

    /// Runs the closure in the transaction: commits when it returns `Ok`, rolls back otherwise.
    ///
    /// # Errors
    ///
    /// The closure's own; [`Error::AlreadyInTransaction`]; what the server says of BEGIN or COMMIT.
    pub fn run<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut SyncConnection<C>) -> Result<T, E>,
        E: From<Error>,
    {
        let modes = [self.isolation, self.read, self.deferrable].into_iter().flatten();
        let begin: String = ["BEGIN TRANSACTION"].into_iter().chain(modes).collect();
        self.conn.transaction_sql(&begin, work)
    }
}
