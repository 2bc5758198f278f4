use std::time::{Duration, Instant};

use super::Pipeline;
use super::apply::{Beaten, Job};
use super::encode::home_of;
use super::lane::Lane;
use crate::change::{Change, CommitToken};
use crate::envelope::{Envelope, State};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Record;
use crate::report::Outcome;
use crate::store::SyncStore;
use crate::version::Version;

/// How often a store that is down is asked again for a caller who waits.
const ATTEMPTS: u32 = 4;

/// How often the stores are asked for another process's rows: this first, then ever more rarely.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const RAREST_LOOK: Duration = Duration::from_millis(50);

impl Lane {
    /// Writes changes at once, each as it is.
    pub(crate) fn apply_now(&self, changes: &[Change]) -> Result<()> {
        let encoder = self.encoder();
        let terms = self.applier().terms();
        let mut jobs = Vec::with_capacity(changes.len());
        for change in changes {
            let whole = encoder.certain(change, &terms)?;
            if let Some((_, error)) = whole.left_out.into_iter().next() {
                return Err((*error).clone());
            }
            jobs.push(encoder.job(whole.form, change, &home_of(change)?));
        }
        self.write_now(jobs)
    }

    /// Writes jobs at once.
    pub(super) fn write_now(&self, mut jobs: Vec<Job>) -> Result<()> {
        let mut applier = self.applier();
        let mut waits = self.shared.backoff.waits();
        let mut attempts = 0;
        loop {
            let mut left: Vec<&mut Job> = jobs.iter_mut().filter(|job| job.fate.is_none()).collect();
            if left.is_empty() {
                break;
            }
            let round = applier.round(&mut left);
            attempts += 1;
            let mut stopped = || self.shared.stop.wait(waits.next().unwrap_or(self.shared.backoff.max));
            if let Some(error) = round.error.filter(|error| self.target.is_outage(error))
                && (attempts >= ATTEMPTS || stopped())
            {
                let message = format!("{} did not take the change; it may have taken a part of it", self.name);
                return Err(Error::new(error.kind(), message).with_source(error));
            }
        }
        applier.confirm();
        self.judge(&mut jobs);
        if jobs.iter().any(|job| job.beaten == Beaten::ByEpoch) {
            let message = format!("the epoch of {} was raised meanwhile; read the row again", self.name);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let refused = jobs.into_iter().find(|job| matches!(job.fate, Some(Outcome::Failed | Outcome::Masked)));
        match refused.and_then(|job| job.error) {
            Some(error) => {
                Err(Error::new(error.kind(), format!("{} refused the change", self.name)).with_source(error))
            }
            None => Ok(()),
        }
    }
}

impl Pipeline {
    /// Waits for a commit of another process: until every store holds its rows, each at its version or a
    /// newer one.
    pub(super) fn wait_for_rows(&self, token: &CommitToken, deadline: Instant) -> Result<()> {
        if token.rows.is_empty() {
            let message =
                "the token of another process lists no rows; call `set_portable_tokens` on the connection that commits";
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.store_lanes().next().is_none() {
            let message = "there is no store to look for the commit of another process in";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let mut look = FIRST_LOOK;
        loop {
            let mut failure = None;
            let stored = self.store_lanes().all(|(_, store)| {
                has_rows(&**store, &token.rows).unwrap_or_else(|error| {
                    failure = Some(error);
                    false
                })
            });
            if stored {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.stop.wait(look.min(left)) {
                let error = Error::new(ErrorKind::Deadline, "the rows of the commit are not in every store yet");
                return Err(match failure {
                    Some(failure) => error.with_source(failure),
                    None => error,
                });
            }
            look = (look * 2).min(RAREST_LOOK);
        }
    }
}

fn has_rows(store: &dyn SyncStore, rows: &[(String, [u8; Version::LEN])]) -> Result<bool> {
    let keys: Vec<Key> = rows.iter().map(|(key, _)| Key::new(key.as_str())).collect();
    for (bytes, (_, version)) in store.get_many(&keys)?.into_iter().zip(rows) {
        let Some(bytes) = bytes else { return Ok(false) };
        let envelope = Envelope::parse(&bytes)?;
        let stands = if envelope.ledger.is_some() {
            let record = Record::from_envelope(envelope)?;
            if record.is_known() { record.version } else { Version::ZERO }
        } else if envelope.head.state == State::Unknown {
            Version::ZERO
        } else {
            envelope.head.version
        };
        if stands < Version::from_bytes(*version) {
            return Ok(false);
        }
    }
    Ok(true)
}
