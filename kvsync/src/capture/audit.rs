//! What the catalog knows that statements do not show.

use std::sync::Arc;

use super::backend::{Inner, Inside};
use super::check::{Finding, Severity, unchecked};
use super::connection::SyncConnection;
use crate::error::Result;

impl<C: Inner> SyncConnection<C> {
    /// Looks at every registered table as [`check`](Self::check) does, and for all in the database that
    /// writes its rows unseen: triggers, foreign keys with actions, rules, views, children.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`](crate::ErrorKind::Database) when the catalog cannot be read.
    pub fn audit(&mut self) -> Result<Vec<Finding>> {
        let hub = Arc::clone(&self.state.hub);
        let mut found = self.check()?;
        // What a table's triggers catch is not unseen.
        for table in hub.tables.iter().filter(|table| !table.triggers) {
            let unseen =
                C::Backend::unseen(&mut self.inner, &hub, table).map_err(|error| unchecked(&hub, table, error))?;
            found.extend(unseen.into_iter().map(|(kind, message)| Finding {
                severity: Severity::Warning,
                kind,
                database: Arc::clone(&hub.name),
                table: table.name.clone(),
                message,
            }));
        }
        Ok(found)
    }
}
