//! Writes captured changes into the outbox, in the transaction that makes them.
//!
//! They leave memory with the statement that made them, so a savepoint that is rolled back takes its own
//! with it, and a COMMIT that is in doubt leaves no doubt: what it committed stands in the outbox.

use diesel::QueryResult;
use diesel::connection::{
    InTransactionStatus, TransactionManager, TransactionManagerStatus, ValidTransactionManagerStatus,
};

use super::backend::{Inner, Inside as _};
use super::connection::SyncConnection;
use super::outbox::{Written, missing, write};
use super::plan::{Plan, refused};
use crate::error::{Error, ErrorKind};

impl<C: Inner> SyncConnection<C> {
    /// The outbox as it stands in SQL, where changes are to be written into it.
    ///
    /// # Errors
    ///
    /// When there is none: before the statement, which has written nothing yet.
    pub(super) fn outbox(&mut self) -> QueryResult<Option<String>> {
        if !self.state.hub.outbox {
            return Ok(None);
        }
        let found = C::Backend::outbox(&mut self.inner, &mut self.state.session)?;
        found.map(Some).ok_or_else(|| refused(Error::new(ErrorKind::Config, missing(&self.state.hub.name))))
    }

    /// Writes the changes from this one on.
    pub(super) fn write_outbox(&mut self, plan: &Plan<C::Backend>, outbox: &str, from: usize) -> QueryResult<()> {
        let (state, table) = (&mut self.state, &plan.table);
        let schema = table.schema.as_deref().or(table.home.get().map(String::as_str));
        let rows = state.pending.besides(from);
        let rows = rows.map(|(change, beside)| Written::new(change, beside, schema, &table.name));
        match write(&mut self.inner, outbox, rows) {
            Ok(None) => return Ok(()),
            Ok(Some((first, last))) => state.pending.outboxed(first, last),
            Err(error) => {
                if state.pending.depth() > 0 {
                    // The database may still let the transaction be committed.
                    state.pending.spoil();
                }
                return Err(error);
            }
        }
        // What a test transaction writes never leaves it: its changes are kept to be looked at.
        if !is_test(C::TransactionManager::transaction_manager_status_mut(&mut self.inner)) {
            self.state.pending.truncate(from);
        }
        Ok(())
    }
}

fn is_test(status: &TransactionManagerStatus) -> bool {
    matches!(
        status,
        TransactionManagerStatus::Valid(ValidTransactionManagerStatus {
            in_transaction: Some(InTransactionStatus { test_transaction: true, .. }),
            ..
        })
    )
}
