//! The steps of the protocol as one pure function: from what stands in a store to what has to stand
//! there. Every store that can write several entries at once runs this one, within a lock or a transaction:
//!
//! 1. [`plan`] the steps, with a reading of what stands;
//! 2. write and remove what it says, all or nothing;
//! 3. answer with its answers.
//!
//! A store that can only compare and set one key does so step by step, without
//! [`whole_changes`](super::Capabilities::whole_changes): every step but [`Step::Apply`] reads and changes one key.
//! Where another writer came between, plan the step again.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Cursor, Outcome, Step};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Record, Terms, Write};

/// What has to stand under some keys; `None` is nothing.
pub type Entries = BTreeMap<Key, Option<Bytes>>;

/// Runs steps one after the other, each seeing what those before it did, and returns their answers and
/// what they change. `read` says what stands in the store; what it fails with is the answer to the step. A
/// step that fails changes nothing.
///
/// Limits are the store's business: refuse what is beyond [`max_key`](super::Capabilities::max_key) or
/// [`max_value`](super::Capabilities::max_value) with [`ErrorKind::Rejected`], that step alone.
pub fn plan(
    steps: &[Step],
    terms: &Terms,
    read: &dyn Fn(&Key) -> Result<Option<Bytes>>,
) -> (Vec<Result<Outcome>>, Entries) {
    let mut plan = Plan { read, done: Entries::new(), step: Entries::new() };
    let answers = steps.iter().map(|step| {
        let answer = plan.run(step, terms);
        let step = std::mem::take(&mut plan.step);
        if answer.is_ok() {
            plan.done.extend(step);
        }
        answer
    });
    (answers.collect(), plan.done)
}

/// The key after which a scan in the order of keys goes on, where the cursor is the last key of a page.
///
/// # Errors
///
/// [`ErrorKind::Rejected`] when it is the cursor of another scan.
pub fn after(cursor: &Cursor, prefix: &str) -> Result<Key> {
    match std::str::from_utf8(&cursor.0) {
        Ok(last) if last.starts_with(prefix) => Ok(Key::new(last)),
        _ => Err(Error::new(ErrorKind::Rejected, "this cursor is not of this scan; begin again without one")),
    }
}

struct Plan<'a> {
    read: &'a dyn Fn(&Key) -> Result<Option<Bytes>>,
    done: Entries,
    step: Entries,
}

impl Plan<'_> {
    fn run(&mut self, step: &Step, terms: &Terms) -> Result<Outcome> {
        match step {
            Step::Apply(change) => {
                let mut record = self.record(&change.home)?;
                let superseded = record.merge(change, terms);
                for write in record.project(&change.home, terms) {
                    self.write(&write)?;
                }
                record.dirty.clear();
                self.step.insert(change.home.clone(), Some(record.encode()));
                Ok(Outcome::Applied { superseded })
            }
            Step::Merge(change) => {
                let mut record = self.record(&change.home)?;
                let superseded = record.merge(change, terms);
                self.step.insert(change.home.clone(), Some(record.encode()));
                Ok(Outcome::Merged { superseded, record: Box::new(record) })
            }
            Step::Write(write) => Ok(if self.write(write)? { Outcome::Written } else { Outcome::Superseded }),
            Step::Confirm { home, released } => {
                if let Some(envelope) = self.envelope(home)?.filter(|envelope| envelope.ledger.is_some()) {
                    let mut record = Record::from_envelope(envelope).map_err(|error| about(error, home))?;
                    record.confirm(released);
                    self.step.insert(home.clone(), Some(record.encode()));
                }
                Ok(Outcome::Done)
            }
            Step::Sweep(key) => {
                if let Some(envelope) = self.envelope(key)? {
                    let ends = if envelope.ledger.is_some() {
                        Record::from_envelope(envelope).map_err(|error| about(error, key))?.forgotten_at(terms)
                    } else {
                        envelope.head.expires_at
                    };
                    if ends != 0 && ends <= terms.now {
                        self.step.insert(key.clone(), None);
                    }
                }
                Ok(Outcome::Done)
            }
            Step::Remove { key, stands } => {
                if self.bytes(key)?.as_ref() == Some(stands) {
                    self.step.insert(key.clone(), None);
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn bytes(&self, key: &Key) -> Result<Option<Bytes>> {
        match self.step.get(key).or_else(|| self.done.get(key)) {
            Some(planned) => Ok(planned.clone()),
            None => (self.read)(key),
        }
    }

    fn write(&mut self, write: &Write) -> Result<bool> {
        let stands = self.envelope(&write.key)?;
        let entry = Record::overwrite(stands.as_ref(), write);
        let written = entry.is_some();
        if written {
            self.step.insert(write.key.clone(), entry);
        }
        Ok(written)
    }

    fn record(&self, home: &Key) -> Result<Record> {
        match self.envelope(home)? {
            Some(envelope) => Record::from_envelope(envelope).map_err(|error| about(error, home)),
            None => Ok(Record::new()),
        }
    }

    fn envelope(&self, key: &Key) -> Result<Option<Envelope>> {
        let stands = self.bytes(key)?;
        stands.map(|bytes| Envelope::parse(&bytes).map_err(|error| about(error, key))).transpose()
    }
}

/// The same error, saying which key it is about.
fn about(error: Error, key: &Key) -> Error {
    Error::new(error.kind(), format!("the entry under `{key}` cannot be built upon")).with_source(error)
}
