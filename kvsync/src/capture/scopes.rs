//! What a database is told of the scopes of its rows.

use std::sync::Arc;

use super::backend::SyncBackend;
use super::database::Database;
use crate::key::Scope;

impl<DB: SyncBackend> Database<DB> {
    /// Gives the schemas of a PostgreSQL database scopes: rows of a schema that is given one are synced
    /// in that scope, whatever the scope of the connection; rows of others are reported and not synced.
    ///
    /// Without this call a table that `table!` names without a schema is the one of the search path that
    /// sessions begin with, and rows of its namesakes are reported and not synced.
    #[must_use]
    pub fn scopes<F>(mut self, scope_of_schema: F) -> Self
    where
        F: Fn(&str) -> Option<Scope> + Send + Sync + 'static,
    {
        self.scopes = Some(Arc::new(scope_of_schema));
        self
    }

    /// Says that all rows of this database are of one [scope](Scope), that of its connections and handles: a
    /// database for each tenant, beside others whose rows go to the same store.
    ///
    /// Without this call (and without [`scopes`](Self::scopes)) nothing but the connection that wrote a row knows
    /// its scope, and a table may hold rows of several. So backfills, verifications, repairs and bulks within a scope
    /// are refused: they would take all rows of the table for that scope's. After it they do just that, also
    /// for a scope whose name is mistaken. Never call it where tenants share a table.
    #[must_use]
    pub fn single_tenant(mut self) -> Self {
        self.single_tenant = true;
        self
    }
}
