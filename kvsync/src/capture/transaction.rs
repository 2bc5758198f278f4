//! Follows transactions, so that changes leave when they are committed and not before.

use diesel::QueryResult;
use diesel::connection::{
    AnsiTransactionManager, InTransactionStatus, TransactionManager, TransactionManagerStatus,
    ValidTransactionManagerStatus,
};
use diesel::result::Error;

use super::backend::{Inner, Inside};
use super::connection::{SyncConnection, depth_of};
use super::plan::refused;
use crate::error::ErrorKind;

/// The transactions of a [`SyncConnection`]: those of the wrapped connection, followed.
#[derive(Debug)]
pub struct SyncTransactionManager;

impl<C: Inner> TransactionManager<SyncConnection<C>> for SyncTransactionManager {
    type TransactionStateData = <C::TransactionManager as TransactionManager<C>>::TransactionStateData;

    fn begin_transaction(conn: &mut SyncConnection<C>) -> QueryResult<()> {
        conn.reconcile();
        let begun = C::TransactionManager::begin_transaction(&mut conn.inner);
        conn.begun(begun)
    }

    fn rollback_transaction(conn: &mut SyncConnection<C>) -> QueryResult<()> {
        let before = depth_of(&mut conn.inner);
        let ended = C::TransactionManager::rollback_transaction(&mut conn.inner);
        match before {
            Some(1) => conn.rolled_back(ended.is_ok()),
            Some(depth) if depth > 1 => conn.savepoint_rolled_back(ended.is_ok()),
            Some(_) => conn.reconcile(),
            None => conn.lost(),
        }
        ended
    }

    fn commit_transaction(conn: &mut SyncConnection<C>) -> QueryResult<()> {
        let before = depth_of(&mut conn.inner);
        if before == Some(1) && conn.state.pending.is_spoiled() {
            return conn.refuse_commit();
        }
        // Postgres answers the COMMIT of an aborted transaction with a rollback and no error.
        let aborted = is_aborted(C::TransactionManager::transaction_manager_status_mut(&mut conn.inner));
        let ended = C::TransactionManager::commit_transaction(&mut conn.inner);
        match (before, &ended) {
            (Some(1), Ok(())) if aborted => conn.rolled_back(true),
            (Some(1), Ok(())) => conn.committed(),
            (Some(1), Err(_)) => conn.commit_failed(),
            (Some(depth), Ok(())) if depth > 1 => conn.released(),
            (Some(depth), Err(_)) if depth > 1 => conn.release_failed(depth),
            (Some(_), _) => conn.reconcile(),
            (None, _) => conn.lost(),
        }
        ended
    }

    fn transaction_manager_status_mut(conn: &mut SyncConnection<C>) -> &mut TransactionManagerStatus {
        C::TransactionManager::transaction_manager_status_mut(&mut conn.inner)
    }
}

impl<C> SyncConnection<C>
where
    C: Inner<TransactionManager = AnsiTransactionManager>,
{
    /// Runs the closure in a transaction that begins with this statement.
    pub(super) fn transaction_sql<T, E, F>(&mut self, statement: &str, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<Error>,
    {
        self.reconcile();
        let begun = AnsiTransactionManager::begin_transaction_sql(&mut self.inner, statement);
        self.begun(begun)?;
        match work(self) {
            Ok(value) => {
                SyncTransactionManager::commit_transaction(self)?;
                Ok(value)
            }
            Err(error) => match SyncTransactionManager::rollback_transaction(self) {
                // The error of the closure is likely what broke it.
                Ok(()) | Err(Error::BrokenTransactionManager) => Err(error),
                Err(rollback) => Err(rollback.into()),
            },
        }
    }
}

/// What a transaction comes to whose outbox could not be written, though its caller wants to go on.
impl<C: Inner> SyncConnection<C> {
    fn refuse_commit(&mut self) -> QueryResult<()> {
        SyncTransactionManager::rollback_transaction(self)?;
        let message = "a row that was written could not be noted in the outbox; the transaction was rolled back";
        Err(refused(crate::error::Error::new(ErrorKind::Database, message)))
    }
}

/// Whether only a rollback can follow.
fn is_aborted(status: &TransactionManagerStatus) -> bool {
    matches!(
        status,
        TransactionManagerStatus::Valid(ValidTransactionManagerStatus {
            in_transaction: Some(InTransactionStatus { requires_rollback_maybe_up_to_top_level: true, .. }),
            ..
        })
    )
}

/// What the end of a transaction means for its changes.
impl<C: Inner> SyncConnection<C> {
    pub(super) fn begun(&mut self, begun: QueryResult<()>) -> QueryResult<()> {
        match &begun {
            Ok(()) => self.state.pending.begin(),
            // Broken before anything was committed: the database rolls back.
            Err(_) if depth_of(&mut self.inner).is_none() => self.lost(),
            Err(_) => {}
        }
        begun
    }

    /// Notices a transaction that ended unseen: the database ended it by itself, or someone did on the
    /// wrapped connection.
    pub(super) fn reconcile(&mut self) {
        if self.state.pending.depth() > 0 && depth_of(&mut self.inner) == Some(0) {
            C::Backend::ended(&mut self.state.session, true, true);
            self.state.publish_in_doubt();
        }
    }

    fn committed(&mut self) {
        C::Backend::ended(&mut self.state.session, true, false);
        if self.state.pending.is_in_doubt() { self.state.publish_in_doubt() } else { self.state.publish() }
    }

    fn commit_failed(&mut self) {
        C::Backend::ended(&mut self.state.session, true, true);
        let status = C::TransactionManager::transaction_manager_status_mut(&mut self.inner);
        if C::Backend::in_doubt(status, true) { self.state.publish_in_doubt() } else { self.state.pending.clear() }
    }

    fn rolled_back(&mut self, well: bool) {
        C::Backend::ended(&mut self.state.session, true, true);
        let status = C::TransactionManager::transaction_manager_status_mut(&mut self.inner);
        let doubt = self.state.pending.is_in_doubt() || (!well && C::Backend::in_doubt(status, false));
        if doubt { self.state.publish_in_doubt() } else { self.state.pending.clear() }
    }

    fn released(&mut self) {
        C::Backend::ended(&mut self.state.session, false, false);
        self.state.pending.release();
    }

    /// The savepoint may stand as before, or Diesel has rolled back to it.
    fn release_failed(&mut self, before: u32) {
        match depth_of(&mut self.inner) {
            Some(depth) if depth < before => self.savepoint_rolled_back(!C::Backend::LOSES_TRANSACTIONS),
            Some(_) => {}
            None => self.lost(),
        }
    }

    fn savepoint_rolled_back(&mut self, well: bool) {
        C::Backend::ended(&mut self.state.session, false, true);
        if well || !C::Backend::LOSES_TRANSACTIONS {
            self.state.pending.roll_back();
        } else {
            // The database had ended the transaction by itself: what came after that stands.
            self.state.pending.doubt();
            self.state.pending.release();
        }
    }

    /// The connection broke before anything was committed: the database rolls back.
    fn lost(&mut self) {
        C::Backend::ended(&mut self.state.session, true, true);
        self.state.pending.clear();
    }
}
