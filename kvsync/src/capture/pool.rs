//! Pools of synced connections.

use std::fmt;
use std::thread;

use diesel::QueryResult;
use diesel::connection::TransactionManager;
use diesel::r2d2::{Error as PoolError, ManageConnection, R2D2Connection};
use diesel::result::ConnectionError;

use super::backend::{Inner, SyncBackend};
use super::connection::SyncConnection;
use super::database::Attached;
use super::transaction::SyncTransactionManager;
use crate::key::Scope;

impl<C: Inner + R2D2Connection> R2D2Connection for SyncConnection<C> {
    fn ping(&mut self) -> QueryResult<()> {
        self.inner.ping()
    }

    fn is_broken(&mut self) -> bool {
        SyncTransactionManager::is_broken_transaction_manager(self)
    }
}

/// Opens synced connections for a pool of `diesel::r2d2`.
///
/// A connection that comes back with an open transaction is closed: the database rolls back, and
/// nothing of it is handed on.
pub struct ConnectionManager<DB: SyncBackend> {
    database: Attached<DB>,
    scope: Scope,
}

impl<DB: SyncBackend> ConnectionManager<DB> {
    /// Opens connections to this database, within this scope.
    #[must_use]
    pub fn new(database: Attached<DB>, scope: Scope) -> Self {
        Self { database, scope }
    }
}

impl<DB> ManageConnection for ConnectionManager<DB>
where
    DB: SyncBackend<Connection: R2D2Connection>,
{
    type Connection = SyncConnection<DB::Connection>;
    type Error = PoolError;

    fn connect(&self) -> Result<Self::Connection, PoolError> {
        let mut conn = self.database.connect().map_err(|error| {
            // Diesel's error holds text only: its cause would be lost.
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            PoolError::ConnectionError(ConnectionError::BadConnection(format!("{error}{cause}")))
        })?;
        conn.set_scope(self.scope.clone());
        Ok(conn)
    }

    fn is_valid(&self, conn: &mut Self::Connection) -> Result<(), PoolError> {
        conn.ping().map_err(PoolError::QueryError)
    }

    /// Asked when a connection comes back: what its last user set on it is undone.
    fn has_broken(&self, conn: &mut Self::Connection) -> bool {
        conn.set_scope(self.scope.clone());
        conn.set_portable_tokens(false);
        conn.forget_last_commit();
        thread::panicking() || conn.is_broken()
    }
}

impl<DB: SyncBackend> fmt::Debug for ConnectionManager<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionManager").field("database", &self.database).field("scope", &self.scope).finish()
    }
}
