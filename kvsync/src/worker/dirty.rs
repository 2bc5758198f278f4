use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::reporter::Reporter;
use crate::key::Scope;
use crate::report::{DirtyTable, Report};
use crate::sync::Mutex;

/// A database and a table.
type Name = (Arc<str>, Option<String>);

/// How many scopes of one table are remembered.
const SCOPES: usize = 4096;

/// The tables whose rows in a store can no longer be trusted. Each is reported once, and stays until it
/// is filled in again.
#[derive(Debug)]
pub(crate) struct DirtyTables {
    tables: Mutex<BTreeMap<Name, Entry>>,
    /// Holds a message when a table is to be filled in that was not before.
    wanted: (Sender<()>, Receiver<()>),
    reporter: Reporter,
}

#[derive(Debug)]
struct Entry {
    told: DirtyTable,
    /// How often the table was marked.
    marks: u64,
    scopes: Vec<Scope>,
    /// Whether something was lost of which the scope is not known.
    unscoped: bool,
    /// Whether it is filled in without being asked to.
    wanted: bool,
    /// Whether a broker may not have been told of a deletion.
    untold: bool,
}

/// What was lost of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss<'a> {
    pub(crate) database: &'a Arc<str>,
    pub(crate) table: Option<&'a str>,
    /// Of the connection that wrote it, where that is known.
    pub(crate) scope: Option<&'a Scope>,
    /// How many changes or statements.
    pub(crate) changes: u64,
    /// Whether one may have been a deletion.
    pub(crate) deletes: bool,
    /// Whether a broker was to be told, if there is one.
    pub(crate) published: bool,
    /// Whether nothing is wrong with the rows, so that the table can be filled in again by itself.
    pub(crate) overflow: bool,
}

/// A dirty table, as it is when somebody begins to fill it in.
#[derive(Debug, Clone)]
pub(crate) struct Marked {
    pub(crate) database: Arc<str>,
    pub(crate) table: Option<String>,
    pub(crate) scopes: Vec<Scope>,
    /// Whether it may be dirty in other scopes, too. Whoever sees to these says so by taking it away.
    pub(crate) unscoped: bool,
    /// Whether it was filled in since it was marked last, so that entries of deleted rows are all that is wrong.
    pub(crate) filled: bool,
    /// Whether a broker may not have been told of a deletion: what its consumers keep is seen from where they are.
    pub(crate) untold: bool,
    marks: u64,
}

impl Marked {
    /// Whether this is the same table, not marked again since the other was looked at.
    pub(crate) fn is_still(&self, other: &Self) -> bool {
        (&self.database, &self.table, self.marks) == (&other.database, &other.table, other.marks)
    }
}

impl DirtyTables {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self { tables: Mutex::default(), wanted: bounded(1), reporter }
    }

    /// Marks a table of which anything may have been lost, and says so loudly the first time.
    pub(crate) fn mark(&self, database: &Arc<str>, table: Option<&str>, changes: u64, now: SystemTime, reason: &str) {
        self.lose(
            &Loss { database, table, scope: None, changes, deletes: true, published: true, overflow: false },
            now,
            reason,
        );
    }

    /// The same where more is known of what was lost.
    pub(crate) fn lose(&self, loss: &Loss<'_>, now: SystemTime, reason: &str) {
        let Loss { database, table, scope, changes, deletes, published, overflow } = *loss;
        let mut tables = self.tables.lock();
        let key = (Arc::clone(database), table.map(str::to_owned));
        let fresh = !tables.contains_key(&key);
        let entry = tables.entry(key).or_insert_with_key(|(database, table)| Entry {
            told: DirtyTable::new(Arc::clone(database), table.clone(), now, reason),
            marks: 0,
            scopes: Vec::new(),
            unscoped: false,
            wanted: false,
            untold: false,
        });
        entry.told.lost = entry.told.lost.saturating_add(changes);
        entry.told.deletes |= deletes;
        entry.untold |= deletes && published;
        entry.told.filled = false;
        entry.marks += 1;
        entry.wanted |= overflow;
        match scope {
            Some(scope) if entry.scopes.contains(scope) => {}
            Some(scope) if entry.scopes.len() < SCOPES => entry.scopes.push(scope.clone()),
            _ => entry.unscoped = true,
        }
        if entry.wanted {
            // Full is as good: whoever takes the message looks at all tables.
            let _ = self.wanted.0.try_send(());
        }
        if fresh {
            let told = entry.told.clone();
            drop(tables);
            tracing::error!("{told}; its rows in the store may be stale until they are filled in again");
            self.reporter.report(Report::Dirty(told));
        }
    }

    /// The marked tables.
    pub(crate) fn list(&self) -> Vec<DirtyTable> {
        self.tables.lock().values().map(|entry| entry.told.clone()).collect()
    }

    /// The dirty tables; with `wanted`, those that are seen to without being asked to.
    pub(crate) fn marked(&self, wanted: bool) -> Vec<Marked> {
        let tables = self.tables.lock();
        let open = tables.iter().filter(|(_, entry)| entry.wanted || !wanted);
        let marked = |((database, table), entry): (&Name, &Entry)| Marked {
            database: Arc::clone(database),
            table: table.clone(),
            scopes: entry.scopes.clone(),
            unscoped: entry.unscoped,
            filled: entry.told.filled,
            untold: entry.untold,
            marks: entry.marks,
        };
        open.map(marked).collect()
    }

    /// Receives something when a table is to be filled in.
    pub(crate) fn wanted(&self) -> &Receiver<()> {
        &self.wanted.1
    }

    /// A table was filled in, all of it after it was looked at. Unless it was marked again meanwhile, its
    /// rows are the database's; and if no deletion was lost, that is all. Whether it is clean.
    pub(crate) fn filled(&self, seen: &Marked) -> bool {
        let key = (Arc::clone(&seen.database), seen.table.clone());
        let mut tables = self.tables.lock();
        let Some(entry) = tables.get_mut(&key).filter(|entry| entry.marks == seen.marks) else { return false };
        if seen.unscoped {
            entry.wanted = false;
            tracing::warn!("{}: filled in again in the scopes that are known", entry.told);
        } else if entry.told.deletes {
            entry.told.filled = true;
        } else {
            tables.remove(&key);
            return true;
        }
        false
    }

    /// A table that was filled in was compared with the stores, and entries of deleted rows were taken out;
    /// with `left`, not all of what is wrong could be mended.
    pub(crate) fn mended(&self, seen: &Marked, left: bool) {
        let key = (Arc::clone(&seen.database), seen.table.clone());
        let mut tables = self.tables.lock();
        let Some(entry) = tables.get_mut(&key).filter(|entry| entry.marks == seen.marks) else { return };
        if left {
            entry.wanted = false;
            tracing::error!(
                "{}: not all of it could be mended; run a repair and read what it says, where the store of each consumer \
                 is, too",
                entry.told
            );
        } else {
            tables.remove(&key);
        }
    }

    /// Takes the mark from a table that is dirty as it was when it was listed, and no more than then.
    pub(crate) fn clear_as(&self, listed: &DirtyTable) {
        self.tables.lock().retain(|_, entry| entry.told != *listed);
    }

    /// Takes the mark from a table, because its rows were compared with the database's or filled in.
    pub(crate) fn clear(&self, database: &str, table: Option<&str>) {
        self.tables.lock().retain(|(of, name), _| !(**of == *database && name.as_deref() == table));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::worker::pool::Stop;

    pub(super) fn tables() -> DirtyTables {
        DirtyTables::new(Reporter::new(None, &Stop::new()).0)
    }

    pub(super) fn mark(tables: &DirtyTables, deletes: bool) {
        let database = "main".into();
        let scope = Scope::named("t");
        let loss = Loss {
            database: &database,
            table: Some("t"),
            scope: Some(&scope),
            changes: 1,
            deletes,
            published: false,
            overflow: true,
        };
        tables.lose(&loss, UNIX_EPOCH, "why");
    }

    #[test]
    fn a_table_that_was_filled_in_is_clean_unless_it_was_marked_again_or_lost_a_deletion() {
        let tables = tables();
        mark(&tables, false);
        assert!(tables.wanted().try_recv().is_ok());
        let seen = tables.marked(true).remove(0);
        mark(&tables, false);
        assert!(!tables.filled(&seen), "it was marked again");
        assert_eq!(tables.list().len(), 1);
        let seen = tables.marked(true).remove(0);
        assert_eq!(seen.scopes, [Scope::named("t")]);
        assert!(tables.filled(&seen) && tables.list().is_empty());

        mark(&tables, true);
        let seen = tables.marked(true).remove(0);
        assert!(!tables.filled(&seen) && tables.list()[0].filled);
        mark(&tables, false);
        assert!(!tables.list()[0].filled && tables.list()[0].deletes);
        tables.mended(&seen, false);
        assert_eq!(tables.list().len(), 1, "it was marked again");
        let seen = tables.marked(true).remove(0);
        tables.mended(&seen, true);
        assert!(tables.marked(true).is_empty() && tables.marked(false).len() == 1);
        tables.mended(&seen, false);
        assert!(tables.list().is_empty());
    }
}

#[cfg(all(test, kvsync_shuttle))]
mod models {
    use shuttle::thread::spawn;

    use super::tests::{mark, tables};
    use super::*;
    use crate::sync::model::explore;

    #[test]
    fn a_mark_that_is_made_while_a_table_is_filled_in_stays() {
        explore(|| {
            let tables = Arc::new(tables());
            mark(&tables, false);
            let marking = {
                let tables = Arc::clone(&tables);
                spawn(move || mark(&tables, false))
            };
            let seen = tables.marked(true).remove(0);
            let clean = tables.filled(&seen);
            marking.join().unwrap();
            let left = tables.list();
            if seen.marks == 1 {
                assert!(!left.is_empty(), "a mark was lost");
                assert!(tables.wanted().try_recv().is_ok(), "nobody is told to fill it in");
            } else {
                assert!(clean && left.is_empty());
            }
        });
    }
}
