use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::reporter::Reporter;
use crate::report::{DirtyTable, Report};

/// A database and a table.
type Name = (Arc<str>, Option<String>);

/// The tables whose rows in a store can no longer be trusted. Each is reported once, and stays until it
/// is filled in again.
#[derive(Debug)]
pub(crate) struct DirtyTables {
    tables: Mutex<BTreeMap<Name, DirtyTable>>,
    reporter: Reporter,
}

impl DirtyTables {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self { tables: Mutex::default(), reporter }
    }

    /// Marks a table, and says so loudly the first time.
    pub(crate) fn mark(&self, database: &Arc<str>, table: Option<&str>, lost: u64, now: SystemTime, reason: &str) {
        let mut tables = self.tables.lock();
        let key = (Arc::clone(database), table.map(str::to_owned));
        let fresh = !tables.contains_key(&key);
        let entry = tables
            .entry(key)
            .or_insert_with_key(|(database, table)| DirtyTable::new(Arc::clone(database), table.clone(), now, reason));
        entry.lost = entry.lost.saturating_add(lost);
        if fresh {
            let entry = entry.clone();
            drop(tables);
            tracing::error!("{entry}; its rows in the store may be stale until they are filled in again");
            self.reporter.report(Report::Dirty(entry));
        }
    }

    /// The marked tables.
    pub(crate) fn list(&self) -> Vec<DirtyTable> {
        self.tables.lock().values().cloned().collect()
    }

    /// Takes the mark from a table that is dirty as it was when it was listed, and no more than then.
    pub(crate) fn clear_as(&self, listed: &DirtyTable) {
        self.tables.lock().retain(|_, marked| marked != listed);
    }

    /// Takes the mark from a table, because its rows were compared with the database's or filled in.
    pub(crate) fn clear(&self, database: &str, table: Option<&str>) {
        self.tables.lock().retain(|(of, name), _| !(**of == *database && name.as_deref() == table));
    }
}
