//! The protocol: merges a change into the record of its row, projects the record onto the row's other
//! keys, confirms what was released. `research/protocol.md` in short: project the record and never the
//! change; release a key at the version at which the row was last listed there; write nothing on the
//! word of a merge that is old.

mod job;
mod publish;

use std::sync::Arc;

pub(crate) use self::job::{Beaten, Job};
use crate::clock::{Clock, millis, whole_millis};
use crate::envelope::State;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::record::Terms;
use crate::store::{Outcome, Step, SyncStore};
use crate::version::Version;

use super::config::Retention;
use super::target::Target;

/// Writes jobs into one store, in rounds of at most two legs; or publishes them.
pub(crate) struct Applier {
    target: Target,
    clock: Arc<dyn Clock>,
    retention: Retention,
    /// Keys that were released and not confirmed; they ride with the next round.
    confirms: Vec<(Key, Vec<(Key, Version)>)>,
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
    pub(crate) fn new(target: Target, clock: Arc<dyn Clock>, retention: Retention) -> Self {
        Self { target, clock, retention, confirms: Vec::new() }
    }

    /// The terms of a step that is executed now.
    pub(crate) fn terms(&self) -> Terms {
        terms(&*self.clock, &self.retention)
    }

    /// Takes every job as far as it goes in one round: what is left has met an error, and may be given
    /// to a later round.
    pub(crate) fn round(&mut self, jobs: &mut [&mut Job]) -> Round {
        match self.target.clone() {
            Target::Store(store) => self.write_round(&*store, jobs),
            Target::Broker(broker, format) => self.publish(&*broker, format, jobs),
        }
    }

    fn write_round(&mut self, store: &dyn SyncStore, jobs: &mut [&mut Job]) -> Round {
        let mut round = Round::default();
        let (can, terms) = (store.capabilities(), self.terms());
        let mut steps = Vec::with_capacity(jobs.len() + self.confirms.len());
        let mut owners = Vec::with_capacity(steps.capacity());
        for (home, released) in self.confirms.drain(..) {
            steps.push(Step::Confirm { home, released });
            owners.push(usize::MAX);
        }
        for (owner, job) in jobs.iter_mut().enumerate() {
            let Some(delta) = job.begin() else { continue };
            if can.takes(&delta.home) {
                steps.push(if can.whole_changes && !job.apart { Step::Apply(delta) } else { Step::Merge(delta) });
                owners.push(owner);
            } else {
                job.homeless(too_long(store, &delta.home), &terms);
            }
        }
        for (owner, answer) in owners.into_iter().zip(execute(store, &steps, &terms, &mut round)) {
            if let Some(job) = jobs.get_mut(owner) {
                job.merged(answer, &terms);
            }
        }
        self.write(store, jobs, &mut round);
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
    fn write(&mut self, store: &dyn SyncStore, jobs: &mut [&mut Job], round: &mut Round) {
        let (can, terms) = (store.capabilities(), self.terms());
        let (mut steps, mut owners) = (Vec::new(), Vec::new());
        for (owner, job) in jobs.iter_mut().enumerate() {
            for write in job.take_writes(&terms) {
                // Nothing can stand there that would have to go.
                if write.head.state != State::Value && !can.takes(&write.key) {
                    job.wrote(write, Ok(Outcome::Written), &terms);
                    continue;
                }
                steps.push(Step::Write(write));
                owners.push(owner);
            }
        }
        let answers = execute(store, &steps, &terms, round);
        for ((owner, step), answer) in owners.into_iter().zip(steps).zip(answers) {
            if let (Some(job), Step::Write(write)) = (jobs.get_mut(owner), step) {
                job.wrote(write, answer, &terms);
            }
        }
    }
}

/// Asks the store, in calls as large as it likes them. Once a whole call has failed, the rest is
/// not tried: each would wait for its own deadline.
fn execute(
    store: &dyn SyncStore,
    steps: &[Step],
    terms: &Terms,
    round: &mut Round,
) -> Vec<Result<Outcome, Arc<Error>>> {
    let mut answers = Vec::with_capacity(steps.len());
    let mut down = None;
    for call in steps.chunks(store.capabilities().max_steps.max(1)) {
        if let Some(error) = &down {
            answers.extend(call.iter().map(|_| Err(Arc::clone(error))));
            continue;
        }
        let before = answers.len();
        answers.extend(store.execute(call, terms).into_iter().take(call.len()).map(|one| one.map_err(Arc::new)));
        while answers.len() < before + call.len() {
            let error = Error::new(ErrorKind::UnknownOutcome, format!("{} answered too few steps", store.name()));
            answers.push(Err(Arc::new(error)));
        }
        let failed = answers.iter().skip(before);
        match failed.clone().find(|answer| answer.is_ok()) {
            Some(_) => round.answered = true,
            None => {
                down = failed.filter_map(|answer| answer.as_ref().err()).find(|error| error.is_retryable()).cloned();
            }
        }
    }
    round.error = answers.iter().rev().find_map(|answer| answer.as_ref().err().cloned()).or(round.error.take());
    answers
}

fn too_long(store: &dyn SyncStore, home: &Key) -> Error {
    let (length, most, name) = (home.as_str().len(), store.capabilities().max_key, store.name());
    let message = format!("the key `{home}` takes {length} bytes, {name} takes at most {most}; its row is not stored");
    Error::new(ErrorKind::Rejected, message)
}

/// The terms of a step that is executed now.
pub(crate) fn terms(clock: &dyn Clock, retention: &Retention) -> Terms {
    Terms { now: millis(clock.now()), left: whole_millis(retention.left), dead: whole_millis(retention.dead) }
}

#[cfg(test)]
mod search;
