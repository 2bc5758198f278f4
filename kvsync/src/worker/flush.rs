//! Waiting until what was committed has been dealt with, and saying why it was not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Pipeline;
use super::commits::Waited;
use super::lane::late;
use super::post::Patience;
use crate::change::CommitToken;
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};

impl Pipeline {
    /// Waits until everything that was published before the call, or committed into an outbox, is in every
    /// store, rows that had to be read again included. Rows that a store refuses are not waited for: they are reported, and
    /// [`health`](Self::health) counts them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when it took too long; the text says what is left and whom it waits for, the source is the
    /// last error met there. [`ErrorKind::Rejected`] when all else was written and rows of an outbox have failed that will be
    /// tried again; the text says of which tables how many, and why. [`ErrorKind::Closed`] after a shutdown.
    pub fn flush(&self, deadline: Duration) -> Result<()> {
        if self.shared.closing.load(Ordering::Acquire) {
            let message = "kvsync was shut down; what was committed since then is in no store";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        let last = self.shared.commits.last();
        let deadline = from_now(deadline);
        self.drain_outboxes(Patience { deadline, outages: true, lanes: self.lanes() })?;
        let held_up = || self.lanes().iter().any(|lane| lane.unsettled.holds_up_any(last));
        if self.shared.commits.flush(last, deadline, held_up) {
            return self.failing();
        }
        let left = self.shared.commits.left();
        let left = format!(
            "{} changes of {} commits are not written or published yet, {} rows are to be read again",
            left.changes,
            left.commits,
            self.unsettled()
        );
        Err(late(self.lanes(), &left))
    }

    /// Waits until every row of a commit is in every store, at the commit's version or a newer one. For a
    /// commit of another process, the stores are asked again and again; for one that went into an outbox,
    /// the outbox.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when it took too long; the failure of a row that could not be written;
    /// [`ErrorKind::Config`] for a token of another process that lists no rows.
    pub fn wait(&self, token: &CommitToken, deadline: Duration) -> Result<()> {
        let deadline = from_now(deadline);
        if let Some(range) = &token.outbox {
            self.wait_for_outbox(range, deadline)?;
            if token.sequence == 0 {
                return Ok(());
            }
        }
        if token.process != self.publisher.process {
            return self.wait_for_rows(token, deadline);
        }
        let held_up = |commit| self.lanes().iter().any(|lane| lane.unsettled.holds_up(commit));
        match self.shared.commits.wait(token.sequence, deadline, held_up) {
            Waited::Done => Ok(()),
            Waited::Failed(error) => {
                let message = "a row of the commit could not be written; readers ask the database for it";
                Err(Error::new(error.kind(), message).with_source(error))
            }
            Waited::TooLong => Err(late(self.lanes(), "the commit is not dealt with yet")),
        }
    }
}
