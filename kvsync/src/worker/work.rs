//! What a worker does: takes deliveries, makes tasks of them, writes these, and keeps what the store did
//! not take for the next round, so that a part of a store that is down holds up no other part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use backon::ExponentialBackoff;

use super::apply::{Applier, Beaten, Job, Round};
use super::batch::{Claim, Member, Past, Role, Task, tasks};
use super::encode::{Encoder, named_keys};
use super::lane::{Lane, Telling};
use super::settle::Stage;
use super::trouble::Parked;
use crate::change::{Change, Row};
use crate::error::{Error, ErrorKind};
use crate::model::panic_message;
use crate::report::{Outcome, Report};
use crate::transport::{Delivery, Transport};

/// How often a row is tried while the store takes others, before it is left to be read again.
const PATIENCE: u32 = 6;
/// How many batches of tasks may be parked before no more is taken.
const PARKED: usize = 16;
/// How often a part is delivered again before its changes are taken one by one.
const REDELIVERIES: u32 = 2;

pub(crate) struct Worker {
    lane: Arc<Lane>,
    encoder: Encoder,
    applier: Applier,
    /// Tasks that the store did not take, to be tried again at `due`.
    parked: Vec<Task>,
    /// How many these are.
    count: Parked,
    due: Instant,
    waits: ExponentialBackoff,
    /// Deliveries whose changes are finished, each with the first failure.
    finished: Vec<(Delivery, Option<Arc<Error>>)>,
}

impl Worker {
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        let waits = lane.shared.backoff.waits();
        let (encoder, applier) = (lane.encoder(), lane.applier());
        let count = Parked::new(Arc::clone(&lane));
        Self { lane, encoder, applier, parked: Vec::new(), count, due: Instant::now(), waits, finished: Vec::new() }
    }

    /// Works until it is told to stop. What it has not finished then is delivered again.
    pub(crate) fn run(&mut self) {
        while !self.lane.shared.stop.is_stopped() {
            if !self.lane.is_met() {
                self.lane.shared.stop.wait(self.waits.next().unwrap_or(self.lane.shared.backoff.max));
                continue;
            }
            let mut batch = tasks(self.collect(), &self.encoder, &self.applier.terms(), self.past());
            let again = !self.parked.is_empty() && Instant::now() >= self.due;
            if again {
                batch.append(&mut self.unpark());
            }
            if !batch.is_empty() {
                self.write(batch, again);
            }
        }
    }

    /// Takes back what was parked. A change that has become too old while it waited is not written any
    /// more: what would refuse it may have been forgotten meanwhile.
    fn unpark(&mut self) -> Vec<Task> {
        let past = self.past();
        let (late, mut left): (Vec<Task>, Vec<Task>) =
            std::mem::take(&mut self.parked).into_iter().partition(|task| task.is_late(&past));
        if !late.is_empty() {
            let members = late.into_iter().flat_map(|task| task.members).collect();
            left.append(&mut tasks(Member::anew(members), &self.encoder, &self.applier.terms(), past));
        }
        left
    }

    /// Waits for deliveries, or until parked tasks are due, and takes as much as makes a batch.
    fn collect(&mut self) -> Vec<Member> {
        let limits = self.lane.shared.batch;
        let (mut rows, mut bytes) = (self.parked.len(), 0);
        let mut members = Vec::new();
        if rows >= limits.rows {
            self.lane.shared.stop.wait(self.due.saturating_duration_since(Instant::now()));
            // One more delivery with every attempt tells whether all of the store is down.
            if rows >= limits.rows.saturating_mul(PARKED) {
                return members;
            }
            (rows, bytes) = (limits.rows - 1, limits.bytes);
        }
        let mut next = self.lane.queue.receive(Duration::ZERO).or_else(|| {
            self.applier.confirm();
            let wait = if rows == 0 { Duration::MAX } else { self.due.saturating_duration_since(Instant::now()) };
            self.lane.queue.receive(wait)
        });
        while let Some(delivery) = next {
            if delivery.redelivered() > REDELIVERIES {
                self.one_by_one(delivery);
                break;
            }
            rows += delivery.part().changes.len();
            bytes += delivery.part().size();
            let claim = Claim::new(delivery);
            members.extend((0..claim.part().changes.len()).map(|index| Member::new(&claim, index)));
            next =
                if rows < limits.rows && bytes < limits.bytes { self.lane.queue.receive(Duration::ZERO) } else { None };
        }
        members
    }

    fn write(&mut self, mut batch: Vec<Task>, again: bool) {
        let round = self.round(&mut batch);
        let (done, mut left): (Vec<Task>, Vec<Task>) = batch.into_iter().partition(Task::is_done);
        if round.answered {
            self.waits = self.lane.shared.backoff.waits();
        }
        if !left.is_empty() {
            if self.parked.is_empty() || again {
                self.due = crate::clock::from_now(self.waits.next().unwrap_or(self.lane.shared.backoff.max));
            }
            self.parked.append(&mut left);
        }
        if round.answered && self.parked.len() >= self.lane.shared.batch.rows {
            self.defer_parked();
        }
        for task in done {
            self.complete(&task);
        }
        self.hand_back();
    }

    /// Leaves rows that the store does not take, while it takes others, to be read again: so a part of it
    /// that stays down does not fill the workers.
    fn defer_parked(&mut self) {
        let (tried, left): (Vec<Task>, Vec<Task>) =
            std::mem::take(&mut self.parked).into_iter().partition(|task| task.attempts() >= PATIENCE);
        self.parked = left;
        self.count.set(self.parked.len());
        for member in tried.iter().flat_map(|task| &task.members) {
            let Some(change) = member.change() else { continue };
            let error = match member.role {
                Role::Certain | Role::Unknown => {
                    let deferred = self.lane.defer(change, member.claim.part().commit, Stage::Unmasked);
                    let telling = telling(change, &member.claim, self.lane.last_error(), PATIENCE);
                    self.lane.tell_all(&telling, Outcome::Deferred);
                    deferred.err()
                }
                Role::Outdone | Role::Broken => member.error.clone(),
            };
            self.finish(&member.claim, error);
        }
    }

    fn round(&mut self, batch: &mut [Task]) -> Round {
        let mut jobs: Vec<&mut Job> = batch.iter_mut().flat_map(Task::jobs).collect();
        let round = self.applier.round(&mut jobs);
        self.count.set(self.parked.len() + jobs.iter().filter(|job| job.fate.is_none()).count());
        self.lane.note_round(&round);
        self.lane.judge(jobs);
        round
    }

    /// A part that was delivered in vain so often has a change in it that makes a worker panic: each is
    /// tried alone, and one that still panics is let go of.
    fn one_by_one(&mut self, delivery: Delivery) {
        let claim = Claim::new(delivery);
        for index in 0..claim.part().changes.len() {
            match catch_unwind(AssertUnwindSafe(|| self.alone(&claim, index))) {
                Ok(true) => {}
                Ok(false) => return,
                Err(panic) => {
                    let message = panic_message(&*panic);
                    let error = Arc::new(Error::new(ErrorKind::Rejected, format!("writing it panicked: {message}")));
                    let thread = std::thread::current().name().unwrap_or_default().to_owned();
                    self.lane.shared.reporter.report(Report::Panicked { thread, message });
                    if let Some(change) = claim.part().changes.get(index) {
                        self.lane.give_up(change, claim.part().commit, Arc::clone(&error));
                        let telling = telling(change, &claim, Some(Arc::clone(&error)), 1);
                        self.lane.tell_all(&telling, Outcome::Failed);
                    }
                    self.finish(&claim, Some(error));
                }
            }
        }
        self.hand_back();
    }

    /// Writes one change, however long it takes. Whether it was not told to stop.
    fn alone(&mut self, claim: &Rc<Claim>, index: usize) -> bool {
        let mut waits = self.lane.shared.backoff.waits();
        let mut batch = tasks(vec![Member::new(claim, index)], &self.encoder, &self.applier.terms(), self.past());
        loop {
            if batch.iter().any(|task| task.is_late(&self.past())) {
                batch = tasks(vec![Member::new(claim, index)], &self.encoder, &self.applier.terms(), self.past());
            }
            self.round(&mut batch);
            if batch.iter().all(Task::is_done) {
                for task in &batch {
                    self.complete(task);
                }
                return true;
            }
            if self.lane.shared.stop.wait(waits.next().unwrap_or(self.lane.shared.backoff.max)) {
                return false;
            }
        }
    }

    /// Ends every change of a task whose writes have been answered.
    fn complete(&mut self, task: &Task) {
        let written = |job: &Job| {
            let ended = matches!(job.fate, Some(Outcome::Written | Outcome::Superseded | Outcome::Published));
            ended && job.beaten == Beaten::Fairly
        };
        if task.unknown.is_none() && task.certain.as_ref().is_some_and(written) {
            let newest = task.members.iter().filter(|member| member.role == Role::Certain);
            let newest = newest.filter_map(|member| member.change()).map(|change| change.version).max();
            if newest.is_some_and(|version| self.lane.unsettled.lift(&task.home, version)) {
                self.lane.shared.commits.touch();
            }
        }
        for member in &task.members {
            let error = self.ended(task, member);
            self.finish(&member.claim, error);
        }
    }

    /// What follows from what became of a change. The error, if it has failed for good.
    fn ended(&self, task: &Task, member: &Member) -> Option<Arc<Error>> {
        let change = member.change()?;
        let commit = member.claim.part().commit;
        let job = match member.role {
            Role::Certain => task.certain.as_ref(),
            Role::Unknown => task.unknown.as_ref().or(task.certain.as_ref()),
            Role::Outdone | Role::Broken => None,
        };
        let error = member.error.clone().or_else(|| job?.error.clone());
        let attempts = job.map_or(0, |job| job.attempts);
        let fate = match (member.role, job.and_then(|job| job.fate)) {
            (Role::Outdone, _) => Outcome::Superseded,
            (Role::Broken, _) | (Role::Unknown, Some(Outcome::Failed)) => Outcome::Failed,
            (Role::Unknown, _) => Outcome::Masked,
            (Role::Certain, _) if job.is_some_and(|job| job.beaten == Beaten::ByEpoch) => Outcome::Deferred,
            (Role::Certain, fate) => fate.unwrap_or(Outcome::Superseded),
        };
        let failed = match (member.role, fate) {
            (Role::Broken, _) => error.clone().map(|error| self.lane.give_up(change, commit, error)),
            (_, Outcome::Masked | Outcome::Deferred) => self.lane.defer(change, commit, Stage::Masked).err(),
            (_, Outcome::Failed) => {
                self.lane.refused(error.clone());
                self.lane.defer(change, commit, Stage::Refused).err().or_else(|| error.clone())
            }
            _ => None,
        };
        if self.lane.shared.reporter.listens() {
            let telling = telling(change, &member.claim, error, attempts);
            self.tell(task, &telling, fate, if member.role == Role::Certain { job } else { None });
        }
        failed
    }

    /// Reports every key of a change.
    fn tell(&self, task: &Task, telling: &Telling<'_>, fate: Outcome, job: Option<&Job>) {
        let named = named_keys(telling.change);
        let left_behind = matches!(telling.change.row, Row::Deleted { .. } | Row::Hidden(_));
        let of_keys = job.map_or(&[][..], |job| &job.keys);
        for (name, key) in &named {
            let left_out =
                if job.is_some() { task.left_out.iter().find(|(left_out, _)| left_out == key) } else { None };
            if let Some((_, error)) = left_out {
                let telling = Telling { error: Some(Arc::clone(error)), ..*telling };
                self.lane.tell(&telling, *name, key.clone(), Outcome::Failed);
                continue;
            }
            let outcome = match of_keys.iter().find(|(of_key, _)| of_key == key) {
                Some((_, of_key)) => *of_key,
                None if fate == Outcome::Written && left_behind && *key != task.home => Outcome::Released,
                None => fate,
            };
            let stands =
                matches!(outcome, Outcome::Written | Outcome::Superseded | Outcome::Released | Outcome::Published);
            let error = telling.error.clone().filter(|_| !stands);
            self.lane.tell(&Telling { error, ..*telling }, *name, key.clone(), outcome);
        }
        for (key, outcome) in of_keys.iter().filter(|(key, _)| !named.iter().any(|(_, of_named)| of_named == key)) {
            self.lane.tell(telling, None, key.clone(), *outcome);
        }
    }

    fn finish(&mut self, claim: &Claim, error: Option<Arc<Error>>) {
        self.finished.extend(claim.finish(error));
    }

    /// Hands back the deliveries that have ended, together: publishers need the same locks.
    fn hand_back(&mut self) {
        let commit = |(delivery, error): &mut (Delivery, Option<Arc<Error>>)| {
            (delivery.part().commit, delivery.part().changes.len(), error.take())
        };
        let commits: Vec<_> = self.finished.iter_mut().map(commit).collect();
        Delivery::ack_all(self.finished.drain(..).map(|(delivery, _)| delivery).collect());
        self.lane.shared.commits.finish_all(commits);
    }

    fn past(&self) -> Past {
        let shared = &self.lane.shared;
        let before = shared.clock.now().checked_sub(shared.retention.dead / 2).unwrap_or(SystemTime::UNIX_EPOCH);
        Past { before, epoch: shared.epoch.load(Ordering::Acquire) }
    }
}

fn telling<'a>(change: &'a Change, claim: &Claim, error: Option<Arc<Error>>, attempts: u32) -> Telling<'a> {
    Telling { change, error, attempts, queued: claim.queued(), writing: claim.writing() }
}
