use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::KvSync;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{self, DeadLetter, OutboxDepth};

impl KvSync {
    /// The outbox of the database of this name: what waits in it, what could not be delivered, and what may
    /// be delivered once more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no such database was given to the builder, or its changes do not go
    /// through an outbox ([`Database::outbox`](crate::capture::Database::outbox)).
    pub fn outbox(&self, database: &str) -> Result<Outbox> {
        let outbox = self.database(database)?.outbox().ok_or_else(|| {
            let message = format!("the database `{database}` has no outbox; call `.outbox()` on it");
            Error::new(ErrorKind::Config, message)
        })?;
        Ok(Outbox { outbox, kv: self.clone() })
    }
}

/// The outbox of one database. Each method asks the database, and returns within a few seconds.
///
/// Each fails with [`ErrorKind::Unavailable`] when the database does not answer, and with
/// [`ErrorKind::Config`] when it has no outbox: the text names the migration that makes it.
pub struct Outbox {
    outbox: Arc<dyn transport::Outbox>,
    /// Keeps the relay alive.
    kv: KvSync,
}

impl Outbox {
    /// What it holds.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn depth(&self) -> Result<OutboxDepth> {
        self.outbox.depth()
    }

    /// Changes that could not be delivered, the oldest first, at most `most`: those whose id is above
    /// `after`; 0 is all.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn dead_letters(&self, after: i64, most: usize) -> Result<Vec<DeadLetter>> {
        self.outbox.dead_letters(after, most)
    }

    /// Tries dead letters once more. Returns how many there were of these ids.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn retry(&self, ids: &[i64]) -> Result<usize> {
        self.recounted(self.outbox.retry(Some(ids)))
    }

    /// Tries all dead letters once more. Returns how many there were.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn retry_all(&self) -> Result<usize> {
        self.recounted(self.outbox.retry(None))
    }

    /// Deletes dead letters: their changes will not be delivered. Returns how many there were of these ids.
    ///
    /// Nothing else is mended by it. Unless their rows were written since, these stay unknown or old in the stores until
    /// their next write or a [`repair`](KvSync::repair), and until that the tables stay dirty in the process that gave
    /// the letters up. Another process, such as the command line, knows nothing of it any more.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn discard(&self, ids: &[i64]) -> Result<usize> {
        self.recounted(self.outbox.discard(Some(ids)))
    }

    /// Deletes all dead letters, as [`discard`](Self::discard) does. Returns how many there were.
    ///
    /// # Errors
    ///
    /// As told of the type.
    pub fn discard_all(&self) -> Result<usize> {
        self.recounted(self.outbox.discard(None))
    }

    /// Delivers once more what was captured at this time or later: for a store that has forgotten what it
    /// acknowledged. That harms no store that has not: what is newer stays. Rows that were delivered longer ago than
    /// [`outbox_retention`](super::Builder::outbox_retention) are no longer there. Dead letters of that time
    /// are tried again, too. Returns how many rows will be delivered; [`KvSync::flush`] waits for them.
    ///
    /// # Errors
    ///
    /// As told of the type. A part may have been let go of; call it again.
    pub fn replay(&self, since: SystemTime) -> Result<usize> {
        self.recounted(self.outbox.replay(since))
    }

    fn recounted(&self, done: Result<usize>) -> Result<usize> {
        self.kv.inner.pipeline.recount(self.outbox.name());
        done
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.outbox, f)
    }
}
