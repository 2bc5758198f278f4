//! One change on its way into one store: what of it is left to write, and what became of what was written.

use std::sync::Arc;

use crate::envelope::{Head, State, Value};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::record::{Content, Delta, Form, Order, Record, Terms, Write, register};
use crate::report::Outcome as Fate;
use crate::store::Outcome;
use crate::transport::message::{About, ChangeMessage};
use crate::version::Version;

/// How often a store may refuse a step for good before it is believed.
pub(super) const REFUSALS: u32 = 4;

/// One change on its way into one store.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) stage: Stage,
    pub(super) refusals: u32,
    /// Whether the record is written apart from the other keys, also where the store takes whole changes: it has
    /// refused this one because of what stands under one of the keys.
    pub(super) apart: bool,
    /// What becomes of it where the record cannot be written at all, so that the other keys are masked at least.
    given_up: Option<Fate>,
    /// The change as it was before it was written as unknown.
    told: Option<Arc<Delta>>,
    superseded: bool,
    /// What stands in its place.
    pub(crate) beaten: Beaten,
    /// How many rounds it took part in.
    pub(crate) attempts: u32,
    /// Why the value could not be written, or why it failed.
    pub(crate) error: Option<Arc<Error>>,
    /// The version of a mark above the record's, if there is one: the row is not known.
    pub(crate) mark: Option<Version>,
    /// What became of the keys beside the record; of the record's, too, where the change has failed for another.
    pub(crate) keys: Vec<(Key, Fate)>,
    /// What became of it; `None` while it is under way.
    pub(crate) fate: Option<Fate>,
}

/// What stands in the place of something that was superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beaten {
    /// Something newer of the same epoch, or nothing.
    Fairly,
    /// Something of a higher epoch: which of the two is newer cannot be told from their versions.
    ByEpoch,
    /// The store does not say what; this is the epoch of what was superseded.
    Unclear(u32),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// To be merged, or to be applied whole.
    Merge(Arc<Delta>),
    /// Merged; these writes are left.
    Project { delta: Arc<Delta>, merged_at: u64, writes: Vec<Write>, released: Vec<(Key, Version)> },
    /// No record; these writes are left.
    Registers(Vec<Write>),
    /// To be published.
    Publish(Box<ChangeMessage>),
}

impl Job {
    pub(crate) fn new(form: Form) -> Self {
        let stage = match form {
            Form::Row(delta) => Stage::Merge(Arc::new(delta)),
            Form::Registers(writes) => Stage::Registers(writes),
        };
        Self {
            stage,
            refusals: 0,
            apart: false,
            given_up: None,
            told: None,
            superseded: false,
            beaten: Beaten::Fairly,
            attempts: 0,
            error: None,
            mark: None,
            keys: Vec::new(),
            fate: None,
        }
    }

    /// A change that is published rather than written.
    pub(crate) fn publish(about: About, form: Form) -> Self {
        let stage = Stage::Publish(Box::new(ChangeMessage { about, form }));
        Self { stage, ..Self::new(Form::Registers(Vec::new())) }
    }

    /// The same job as one that is published, if it has not begun.
    pub(crate) fn published_as(self, about: About) -> Self {
        match self.stage {
            Stage::Merge(delta) => Self::publish(about, Form::Row(Arc::unwrap_or_clone(delta))),
            Stage::Registers(writes) => Self::publish(about, Form::Registers(writes)),
            Stage::Project { .. } | Stage::Publish(_) => self,
        }
    }

    /// Whether the store has not been told of the change, or has to be told again.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.fate.is_none() && matches!(self.stage, Stage::Merge(_) | Stage::Registers(_) | Stage::Publish(_))
    }

    /// Decides what is unclear. `epoch` is the store's, read after its answer: had something of a higher
    /// one been written before, it would be higher.
    pub(crate) fn judge(&mut self, epoch: u32) {
        if let Beaten::Unclear(own) = self.beaten {
            self.beaten = if own < epoch { Beaten::ByEpoch } else { Beaten::Fairly };
        }
    }

    pub(super) fn begin(&mut self) -> Option<Arc<Delta>> {
        if self.fate.is_some() {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        if let Stage::Merge(delta) = &self.stage { Some(Arc::clone(delta)) } else { None }
    }

    /// Takes the answer to `Merge` or `Apply`.
    pub(super) fn merged(&mut self, answer: Result<Outcome, Arc<Error>>, terms: &Terms) {
        let Stage::Merge(delta) = &self.stage else { return };
        let delta = Arc::clone(delta);
        match answer {
            Ok(Outcome::Merged { superseded, mut record }) => {
                fill(&mut record, &delta);
                self.superseded = superseded;
                if superseded && record.version.max(record.mark).epoch() > delta.version.epoch() {
                    self.beaten = Beaten::ByEpoch;
                }
                self.mark = (!record.is_known()).then_some(record.mark);
                let writes = record.project(&delta.home, terms);
                let released = record.dirty.into_iter().collect();
                self.stage = Stage::Project { delta, merged_at: terms.now, writes, released };
            }
            Ok(Outcome::Applied { superseded }) => {
                self.superseded = superseded;
                if superseded {
                    self.beaten = Beaten::Unclear(delta.version.epoch());
                }
                self.stage = Stage::Project { delta, merged_at: terms.now, writes: Vec::new(), released: Vec::new() };
            }
            Ok(_) => {
                let error = Error::new(ErrorKind::Rejected, format!("the store gave no record for `{}`", delta.home));
                self.refused(&delta, Arc::new(error), terms);
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => self.refused(&delta, error, terms),
        }
    }

    /// A change that the store will not hold is written as unknown, at its version. When that is refused too, it
    /// has failed. Where the store will not touch what stands there, that may be under one key alone: the record is
    /// then tried apart from the others.
    fn refused(&mut self, delta: &Arc<Delta>, error: Arc<Error>, terms: &Terms) {
        let strange = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnknownLayout);
        let apart = std::mem::replace(&mut self.apart, true);
        self.refusals += 1;
        self.error = Some(error);
        if self.refusals > REFUSALS || (strange && apart) {
            self.given_up = Some(Fate::Failed);
            let told = self.told.take();
            let told = told.as_ref().unwrap_or(delta);
            self.stage = Stage::Registers(masks(told, told.version.previous(), terms));
        } else if !strange && matches!(delta.content, Content::Put { .. }) {
            self.told = Some(Arc::clone(delta));
            self.stage = Stage::Merge(Arc::new(Delta { content: Content::Unknown, ..(**delta).clone() }));
        }
    }

    /// The store takes no key as long as the record's: no such row ever stood there, and none can. Readers of the
    /// other keys of one that should are sent to the database.
    pub(super) fn homeless(&mut self, error: Error, terms: &Terms) {
        let Stage::Merge(delta) = &self.stage else { return };
        let delta = Arc::clone(delta);
        self.stage = if matches!(delta.content, Content::Put { .. }) {
            (self.error, self.given_up) = (Some(Arc::new(error)), Some(Fate::Masked));
            Stage::Registers(masks(&delta, delta.version, terms))
        } else {
            Stage::Project { delta, merged_at: terms.now, writes: Vec::new(), released: Vec::new() }
        };
    }

    /// The writes that are left, unless the merge that told them is so old that a tombstone written
    /// meanwhile may already have been forgotten: then the change is merged again.
    pub(super) fn take_writes(&mut self, terms: &Terms) -> Vec<Write> {
        match &mut self.stage {
            _ if self.fate.is_some() => Vec::new(),
            Stage::Merge(_) | Stage::Publish(_) => Vec::new(),
            Stage::Registers(writes) => std::mem::take(writes),
            Stage::Project { delta, merged_at, writes, .. } => {
                if !writes.is_empty() && terms.now.abs_diff(*merged_at) > terms.left / 2 {
                    self.stage = Stage::Merge(Arc::clone(delta));
                    self.keys.clear();
                    return Vec::new();
                }
                std::mem::take(writes)
            }
        }
    }

    /// Takes the answer to a write.
    pub(super) fn wrote(&mut self, write: Write, answer: Result<Outcome, Arc<Error>>, terms: &Terms) {
        if matches!((&answer, &self.stage), (Ok(Outcome::Superseded), Stage::Registers(_))) && self.given_up.is_none() {
            self.beaten = Beaten::Unclear(write.head.version.epoch());
        }
        let fate = match answer {
            Ok(Outcome::Superseded) if write.head.state != State::Tombstone => Fate::Superseded,
            Ok(_) => match write.head.state {
                State::Value => Fate::Written,
                State::Unknown => Fate::Masked,
                State::Tombstone => Fate::Released,
            },
            Err(error) => {
                let left = if error.is_retryable() { Some(write) } else { self.write_refused(write, error, terms) };
                if let (Some(write), Stage::Project { writes, .. } | Stage::Registers(writes)) = (left, &mut self.stage)
                {
                    writes.push(write);
                }
                return;
            }
        };
        self.keys.push((write.key, fate));
    }

    /// What to write in place of what the store refused, if anything.
    fn write_refused(&mut self, write: Write, error: Arc<Error>, terms: &Terms) -> Option<Write> {
        self.refusals += 1;
        if self.given_up.is_none() {
            self.error = Some(error);
        }
        if self.refusals > REFUSALS {
            if let Stage::Project { released, .. } = &mut self.stage {
                released.retain(|(key, _)| *key != write.key);
            }
            self.keys.push((write.key, Fate::Failed));
            return None;
        }
        if write.head.state != State::Value {
            return Some(write);
        }
        Some(match write.order {
            Order::Register => register(write.key, write.head.version, State::Unknown, terms),
            Order::Slot => {
                let expires_at = terms.now.saturating_add(terms.left);
                let head = Head { version: write.head.version, state: State::Unknown, expires_at };
                Write { head, value: Value::none(), ..write }
            }
        })
    }

    /// Ends the job when nothing is left of it, and returns what is to be confirmed.
    pub(super) fn finish(&mut self) -> Option<(Key, Vec<(Key, Version)>)> {
        if self.fate.is_some() {
            return None;
        }
        let of_keys = |fate: Fate| self.keys.iter().any(|(_, of_key)| *of_key == fate);
        match &mut self.stage {
            Stage::Merge(_) | Stage::Publish(_) => None,
            Stage::Project { writes, .. } | Stage::Registers(writes) if !writes.is_empty() => None,
            Stage::Registers(_) => {
                self.fate = Some(if of_keys(Fate::Failed) {
                    Fate::Failed
                } else if let Some(fate) = self.given_up {
                    fate
                } else if of_keys(Fate::Masked) {
                    Fate::Masked
                } else if of_keys(Fate::Written) || of_keys(Fate::Released) {
                    Fate::Written
                } else {
                    Fate::Superseded
                });
                None
            }
            Stage::Project { delta, released, .. } => {
                // What supersedes it may be the mark of an earlier attempt at the same change.
                let unsettled = self.error.is_some() && self.mark.is_some();
                let of_record = if self.superseded && !unsettled {
                    Fate::Superseded
                } else if unsettled || matches!(delta.content, Content::Unknown) {
                    Fate::Masked
                } else {
                    Fate::Written
                };
                if of_keys(Fate::Failed) {
                    self.keys.push((delta.home.clone(), of_record));
                    self.fate = Some(Fate::Failed);
                } else {
                    self.fate = Some(of_record);
                }
                let released = std::mem::take(released);
                (!released.is_empty()).then(|| (delta.home.clone(), released))
            }
        }
    }
}

/// Masks for the keys under which a row stands, or stood, whose record cannot be written: what was there before the
/// change is not true any more. Below the version of a change that may yet be written, so that it heals them itself.
fn masks(delta: &Delta, version: Version, terms: &Terms) -> Vec<Write> {
    let live = if let Content::Put { keys, .. } = &delta.content { keys.as_slice() } else { &[] };
    let keys = live.iter().map(|listed| &listed.key).chain(delta.gone.iter().map(|(key, _)| key));
    let head = Head { version, state: State::Unknown, expires_at: terms.now.saturating_add(terms.left) };
    keys.map(|key| Write { key: key.clone(), head, value: Value::none(), order: Order::Slot }).collect()
}

/// A store may leave out the bytes of a record that are the change's own.
fn fill(record: &mut Record, delta: &Delta) {
    let own = record.alive && record.is_known() && record.version == delta.version;
    if let Content::Put { value, .. } = &delta.content
        && own
        && record.value == Value::none()
    {
        record.value = value.clone();
    }
}
