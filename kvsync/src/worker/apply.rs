//! The protocol: merges a change into the record of its row, projects the record onto the row's other
//! keys, confirms what was released. `research/protocol.md` in short: project the record and never the
//! change; release a key at the version at which the row was last listed there; write nothing on the
//! word of a merge that is old.

use std::sync::Arc;

use super::encode::{Form, register};
use crate::clock::{Clock, millis, whole_millis};
use crate::envelope::{Head, State, Value};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::record::{Content, Delta, Order, Record, Terms, Write};
use crate::report::Outcome as Fate;
use crate::store::{Outcome, Step, SyncStore};
use crate::version::Version;

use super::config::Retention;

/// How often a store may refuse a step for good before it is believed.
const REFUSALS: u32 = 4;

/// Writes jobs into one store, in rounds of at most two legs.
pub(crate) struct Applier {
    store: Arc<dyn SyncStore>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    /// Keys that were released and not confirmed; they ride with the next round.
    confirms: Vec<(Key, Vec<(Key, Version)>)>,
}

/// One change on its way into one store.
#[derive(Debug)]
pub(crate) struct Job {
    stage: Stage,
    refusals: u32,
    superseded: bool,
    /// What stands in its place.
    pub(crate) beaten: Beaten,
    /// How many rounds it took part in.
    pub(crate) attempts: u32,
    /// Why the value could not be written, or why it failed.
    pub(crate) error: Option<Arc<Error>>,
    /// The version of a mark above the record's, if there is one: the row is not known.
    pub(crate) mark: Option<Version>,
    /// What became of the keys beside the record.
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
enum Stage {
    /// To be merged, or to be applied whole.
    Merge(Arc<Delta>),
    /// Merged; these writes are left.
    Project { delta: Arc<Delta>, merged_at: u64, writes: Vec<Write>, released: Vec<(Key, Version)> },
    /// No record; these writes are left.
    Registers(Vec<Write>),
}

/// What a round brought.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Whether the store answered anything at all.
    pub(crate) answered: bool,
    /// The last error.
    pub(crate) error: Option<Arc<Error>>,
}

impl Applier {
    pub(crate) fn new(store: Arc<dyn SyncStore>, clock: Arc<dyn Clock>, retention: Retention) -> Self {
        Self { store, clock, retention, confirms: Vec::new() }
    }

    /// The terms of a step that is executed now.
    pub(crate) fn terms(&self) -> Terms {
        terms(&*self.clock, &self.retention)
    }

    /// Takes every job as far as it goes in one round: what is left has met an error, and may be given
    /// to a later round.
    pub(crate) fn round(&mut self, jobs: &mut [&mut Job]) -> Round {
        let mut round = Round::default();
        let whole = self.store.capabilities().whole_changes;
        let mut steps = Vec::with_capacity(jobs.len() + self.confirms.len());
        let mut owners = Vec::with_capacity(steps.capacity());
        for (home, released) in self.confirms.drain(..) {
            steps.push(Step::Confirm { home, released });
            owners.push(usize::MAX);
        }
        for (owner, job) in jobs.iter_mut().enumerate() {
            if let Some(delta) = job.begin() {
                steps.push(if whole { Step::Apply(delta) } else { Step::Merge(delta) });
                owners.push(owner);
            }
        }
        let terms = self.terms();
        for (owner, answer) in owners.into_iter().zip(self.execute(&steps, &terms, &mut round)) {
            if let Some(job) = jobs.get_mut(owner) {
                job.merged(answer, &terms);
            }
        }
        self.write(jobs, &mut round);
        for job in jobs.iter_mut() {
            self.confirms.extend(job.finish());
        }
        round
    }

    /// Confirms what was released, where no later round would carry it soon. Losing it is harmless.
    pub(crate) fn confirm(&mut self) {
        if !self.confirms.is_empty() {
            self.round(&mut []);
        }
    }

    /// The second leg: everything that is to stand under a key that is not a record.
    fn write(&mut self, jobs: &mut [&mut Job], round: &mut Round) {
        let terms = self.terms();
        let (mut steps, mut owners) = (Vec::new(), Vec::new());
        for (owner, job) in jobs.iter_mut().enumerate() {
            for write in job.take_writes(&terms) {
                steps.push(Step::Write(write));
                owners.push(owner);
            }
        }
        let answers = self.execute(&steps, &terms, round);
        for ((owner, step), answer) in owners.into_iter().zip(steps).zip(answers) {
            if let (Some(job), Step::Write(write)) = (jobs.get_mut(owner), step) {
                job.wrote(write, answer, &terms);
            }
        }
    }

    /// Asks the store, in calls as large as it likes them. Once a whole call has failed, the rest is
    /// not tried: each would wait for its own deadline.
    fn execute(&self, steps: &[Step], terms: &Terms, round: &mut Round) -> Vec<Result<Outcome, Arc<Error>>> {
        let mut answers = Vec::with_capacity(steps.len());
        let mut down = None;
        for call in steps.chunks(self.store.capabilities().max_steps.max(1)) {
            if let Some(error) = &down {
                answers.extend(call.iter().map(|_| Err(Arc::clone(error))));
                continue;
            }
            let before = answers.len();
            answers
                .extend(self.store.execute(call, terms).into_iter().take(call.len()).map(|one| one.map_err(Arc::new)));
            while answers.len() < before + call.len() {
                let error =
                    Error::new(ErrorKind::UnknownOutcome, format!("{} answered too few steps", self.store.name()));
                answers.push(Err(Arc::new(error)));
            }
            let failed = answers.iter().skip(before);
            match failed.clone().find(|answer| answer.is_ok()) {
                Some(_) => round.answered = true,
                None => {
                    down =
                        failed.filter_map(|answer| answer.as_ref().err()).find(|error| error.is_retryable()).cloned();
                }
            }
        }
        round.error = answers.iter().rev().find_map(|answer| answer.as_ref().err().cloned()).or(round.error.take());
        answers
    }
}

/// The terms of a step that is executed now.
pub(crate) fn terms(clock: &dyn Clock, retention: &Retention) -> Terms {
    Terms { now: millis(clock.now()), left: whole_millis(retention.left), dead: whole_millis(retention.dead) }
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
            superseded: false,
            beaten: Beaten::Fairly,
            attempts: 0,
            error: None,
            mark: None,
            keys: Vec::new(),
            fate: None,
        }
    }

    /// Whether the store has not been told of the change, or has to be told again.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.fate.is_none() && matches!(self.stage, Stage::Merge(_) | Stage::Registers(_))
    }

    /// Decides what is unclear. `epoch` is the store's, read after its answer: had something of a higher
    /// one been written before, it would be higher.
    pub(crate) fn judge(&mut self, epoch: u32) {
        if let Beaten::Unclear(own) = self.beaten {
            self.beaten = if own < epoch { Beaten::ByEpoch } else { Beaten::Fairly };
        }
    }

    fn begin(&mut self) -> Option<Arc<Delta>> {
        if self.fate.is_some() {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        if let Stage::Merge(delta) = &self.stage { Some(Arc::clone(delta)) } else { None }
    }

    /// Takes the answer to `Merge` or `Apply`.
    fn merged(&mut self, answer: Result<Outcome, Arc<Error>>, terms: &Terms) {
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
                self.refused(&delta, Arc::new(error));
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => self.refused(&delta, error),
        }
    }

    /// A change that the store will not hold is written as unknown, at its version. When that is
    /// refused too, it has failed.
    fn refused(&mut self, delta: &Delta, error: Arc<Error>) {
        self.refusals += 1;
        if self.refusals > REFUSALS {
            self.fate = Some(Fate::Failed);
        } else if matches!(delta.content, Content::Put { .. }) {
            self.stage = Stage::Merge(Arc::new(Delta { content: Content::Unknown, ..delta.clone() }));
        }
        self.error = Some(error);
    }

    /// The writes that are left, unless the merge that told them is so old that a tombstone written
    /// meanwhile may already have been forgotten: then the change is merged again.
    fn take_writes(&mut self, terms: &Terms) -> Vec<Write> {
        match &mut self.stage {
            _ if self.fate.is_some() => Vec::new(),
            Stage::Merge(_) => Vec::new(),
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
    fn wrote(&mut self, write: Write, answer: Result<Outcome, Arc<Error>>, terms: &Terms) {
        if matches!((&answer, &self.stage), (Ok(Outcome::Superseded), Stage::Registers(_))) {
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
        self.error = Some(error);
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
    fn finish(&mut self) -> Option<(Key, Vec<(Key, Version)>)> {
        if self.fate.is_some() {
            return None;
        }
        let of_keys = |fate: Fate| self.keys.iter().any(|(_, of_key)| *of_key == fate);
        match &mut self.stage {
            Stage::Merge(_) => None,
            Stage::Project { writes, .. } | Stage::Registers(writes) if !writes.is_empty() => None,
            Stage::Registers(_) => {
                self.fate = Some(if of_keys(Fate::Failed) {
                    Fate::Failed
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
                self.fate = Some(if of_keys(Fate::Failed) {
                    Fate::Failed
                } else if self.superseded {
                    Fate::Superseded
                } else if matches!(delta.content, Content::Unknown) {
                    Fate::Masked
                } else {
                    Fate::Written
                });
                let released = std::mem::take(released);
                (!released.is_empty()).then(|| (delta.home.clone(), released))
            }
        }
    }
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

#[cfg(test)]
mod search;
