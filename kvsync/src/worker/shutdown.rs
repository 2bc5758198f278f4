use std::fmt;
use std::sync::Arc;

use crate::error::{Error, failure_text};
use crate::report::DirtyTable;

/// What a pipeline wrote, and what it left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shutdown {
    /// Changes that were dealt with since the start, counted once for each store.
    pub written: u64,
    /// Changes that were still queued, counted once for each store. They are lost with the process,
    /// unless they are in an outbox.
    pub left: usize,
    /// Rows that a store does not know and that were still to be read again.
    pub unsettled: usize,
    /// Tables of which changes were lost.
    pub dirty: Vec<DirtyTable>,
    /// Threads that were still busy, in a store or a callback that did not return.
    pub threads: usize,
    /// The last error of each store or broker that had one and of which something was left, and why an outbox was not
    /// emptied: what stays there is delivered later.
    pub errors: Vec<Arc<Error>>,
}

impl Shutdown {
    /// Whether nothing was left in memory, and nothing lost. Of what stays in an outbox the errors tell.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left == 0 && self.unsettled == 0 && self.threads == 0 && self.dirty.is_empty()
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes written, {} left in memory, {} rows still to be read again",
            self.written, self.left, self.unsettled
        )?;
        if self.threads > 0 {
            write!(f, "; {} threads were still busy", self.threads)?;
        }
        for table in &self.dirty {
            write!(f, "; {table}")?;
        }
        self.errors.iter().try_for_each(|error| write!(f, "; {}", failure_text(&**error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_clean_is_said() {
        let clean = Shutdown { written: 3, left: 0, unsettled: 0, dirty: Vec::new(), threads: 0, errors: Vec::new() };
        assert!(clean.is_clean());
        let busy = Shutdown { threads: 2, ..clean.clone() };
        assert!(!busy.is_clean() && busy.to_string().ends_with("; 2 threads were still busy"), "{busy}");
        let table = DirtyTable::new("main".into(), Some("users".into()), std::time::UNIX_EPOCH, "why");
        let dirty = Shutdown { dirty: vec![table], ..clean };
        assert!(!dirty.is_clean() && dirty.to_string().contains("users of main is dirty"), "{dirty}");
    }
}
