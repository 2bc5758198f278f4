//! What the catalog knows that statements do not show.

use std::sync::Arc;

use super::backend::{Inner, Inside};
use super::check::unchecked;
use super::connection::SyncConnection;
use super::finding::{Finding, FindingKind, Notice};
use crate::error::{Error, ErrorKind, Result};

impl<C: Inner> SyncConnection<C> {
    /// Looks at every registered table as [`check`](Self::check) does, and for all that writes its rows
    /// unseen: triggers of it and of others, foreign keys with actions, rules, views, functions (a guess,
    /// from their text), partitions, children, namesakes; then at the settings by which the database may
    /// forget what it committed. The worst comes first. Of a table that is not there, a note says so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`](crate::ErrorKind::Database) when the catalog cannot be read.
    pub fn audit(&mut self) -> Result<Vec<Finding>> {
        let hub = Arc::clone(&self.state.hub);
        let mut found = self.check()?;
        for table in &hub.tables {
            let catalog = C::Backend::catalog(&mut self.inner, &hub, table);
            if catalog.map_err(|error| unchecked(&hub, table, error))?.is_none() {
                let message = "it is not there, so nothing can be said of it";
                let notice =
                    Notice::note(FindingKind::Table, message, "run its migration, or mend the name in `table!`");
                found.push(notice.of(&hub.name, Some(&table.name)));
            }
        }
        // What a table's triggers catch is not unseen.
        for table in hub.tables.iter().filter(|table| !table.triggers) {
            let unseen =
                C::Backend::unseen(&mut self.inner, &hub, table).map_err(|error| unchecked(&hub, table, error))?;
            found.extend(unseen.into_iter().map(|notice| notice.of(&hub.name, Some(&table.name))));
        }
        let settings = C::Backend::settings(&mut self.inner).map_err(|error| {
            let message = format!("the settings of `{}` cannot be read", hub.name);
            Error::new(ErrorKind::Database, message).with_source(error)
        })?;
        found.extend(settings.into_iter().map(|notice| notice.of(&hub.name, None)));
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(found)
    }
}
