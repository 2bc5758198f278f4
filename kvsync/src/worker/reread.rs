//! Settles rows that a store does not know: masks them where that has not been done, reads them again
//! from their database, and writes what was read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{Applier, Beaten, Job};
use super::dirty::Loss;
use super::encode::{Encoder, unknown_form};
use super::lane::{Lane, Telling};
use super::settle::{Kept, Row, Stage};
use crate::change::{self, Action, Change};
use crate::envelope::State;
use crate::error::{Error, ErrorKind};
use crate::model::{Reread, Source, panic_message};
use crate::record::{Form, Terms, register};
use crate::report::{Outcome, Report};

/// How many rows are read at once, where that goes well.
const MOST: usize = 256;
/// How often a row may be refused for good before it is let go of.
const GIVE_UP: u32 = 8;
/// How many rounds a job may take in one go: a refusal is asked again at once, an outage is not.
const ROUNDS: u32 = 8;

/// How settling some rows went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    /// Each row is settled, or was given up.
    Well,
    /// Something failed that may be about one row.
    Badly,
    /// The store or a database is down.
    Outage,
}

pub(crate) struct Settler {
    lane: Arc<Lane>,
    encoder: Encoder,
    applier: Applier,
}

impl Settler {
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        let (encoder, applier) = (lane.encoder(), lane.applier());
        Self { lane, encoder, applier }
    }

    /// Settles rows until it is told to stop. A row that fails makes the next portions smaller, so that
    /// it holds up no others; an outage makes it wait.
    pub(crate) fn run(&mut self) {
        let lane = Arc::clone(&self.lane);
        let mut most = MOST;
        let mut waits = lane.shared.backoff.waits();
        let mut stopped = false;
        // Rows that were put off are due at once, and nothing is settled any more when it is time to stop.
        while !stopped {
            while !lane.is_met() {
                if lane.shared.stop.wait(waits.next().unwrap_or(lane.shared.backoff.max)) {
                    return;
                }
            }
            let rows = lane.unsettled.take(most);
            if rows.is_empty() {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| self.settle(&rows))) {
                Ok(Went::Well) => (most, waits) = ((most * 2).min(MOST), lane.shared.backoff.waits()),
                Ok(Went::Badly) => most = (rows.len() / 4).max(1),
                Ok(Went::Outage) => stopped = lane.shared.stop.wait(waits.next().unwrap_or(lane.shared.backoff.max)),
                Err(panic) => {
                    let message = panic_message(&*panic);
                    let thread = std::thread::current().name().unwrap_or_default().to_owned();
                    lane.shared.reporter.report(Report::Panicked { thread, message: message.clone() });
                    if let [row] = rows.as_slice() {
                        let error = Error::new(ErrorKind::Rejected, format!("reading it again panicked: {message}"));
                        self.give_up(row, &Arc::new(error));
                    } else {
                        for row in &rows {
                            lane.unsettled.again(row, row.stage, row.attempts, Duration::ZERO);
                        }
                    }
                    most = 1;
                }
            }
            self.applier.confirm();
            lane.shared.commits.touch();
        }
    }

    /// Takes rows as far as they go.
    fn settle(&mut self, rows: &[Row]) -> Went {
        let (masked, unmasked): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.stage == Stage::Masked);
        let mut ready = masked;
        let mut went = self.mask(&unmasked, &mut ready);
        while let Some(first) = ready.first() {
            let database = Arc::clone(&first.database);
            let (of_it, others): (Vec<&Row>, Vec<&Row>) = ready.into_iter().partition(|row| row.database == database);
            went = went.max(self.reread(&database, &of_it));
            ready = others;
        }
        went
    }

    /// Tells the store that it does not know the rows; those of which it has taken note are masked.
    fn mask<'a>(&mut self, rows: &[&'a Row], masked: &mut Vec<&'a Row>) -> Went {
        let terms = self.applier.terms();
        let job = |row: &&Row| {
            let job = Job::new(mask_form(row, &terms));
            if self.encoder.publishes.is_none() {
                return job;
            }
            let (change, _) = self.change(row, Reread { row: Ok(None), version: row.version });
            self.encoder.address(job, &change, &row.home(), false)
        };
        let mut jobs: Vec<Job> = rows.iter().map(job).collect();
        self.drive(&mut jobs);
        let mut went = Went::Well;
        for (row, job) in rows.iter().zip(jobs) {
            match job.fate {
                Some(Outcome::Failed) => self.refused(row, job.error),
                Some(_) => masked.push(*row),
                None => {
                    went = Went::Outage;
                    self.lane.unsettled.again(row, row.stage, row.attempts, Duration::ZERO);
                }
            }
        }
        went
    }

    /// Reads rows of one database again and writes what was read.
    fn reread(&mut self, database: &Arc<str>, rows: &[&Row]) -> Went {
        let Some(sources) = self.lane.shared.sources.get() else {
            for row in rows {
                self.lane.unsettled.again(row, Stage::Masked, row.attempts, Duration::ZERO);
            }
            return Went::Outage;
        };
        let Some(source) = sources.iter().find(|source| source.name() == &**database).map(Arc::clone) else {
            let message = format!("rows of `{database}` have to be read again, and it was not given to the builder");
            let error = Arc::new(Error::new(ErrorKind::Config, message));
            for row in rows {
                self.give_up(row, &error);
            }
            return Went::Well;
        };
        match self.ask(&*source, rows) {
            Ok(read) => {
                self.lane.note_reread(None);
                self.write(rows, read)
            }
            Err(error) => {
                let outage = error.kind() == ErrorKind::Unavailable;
                let error = Arc::new(error);
                self.lane.note_reread(Some(Arc::clone(&error)));
                for row in rows {
                    if rows.len() == 1 && row.kept_in_outbox && row.attempts >= GIVE_UP && !outage {
                        // It is tried again from there, and holds up nothing here meanwhile.
                        self.give_up(row, &error);
                    } else if outage {
                        self.lane.unsettled.again(row, Stage::Masked, row.attempts, Duration::ZERO);
                    } else {
                        self.again(row, Stage::Masked);
                    }
                }
                if outage { Went::Outage } else { Went::Badly }
            }
        }
    }

    fn ask(&self, source: &dyn Source, rows: &[&Row]) -> Result<Vec<Reread>, Error> {
        let wanted: Vec<_> = rows.iter().map(|row| row.wanted()).collect();
        let read = source.reread(&wanted, self.lane.shared.reread_deadline)?;
        let too_low = read.iter().zip(rows).any(|(read, row)| read.version < row.version);
        if read.len() != rows.len() || too_low {
            let message =
                format!("`{}` answered other rows than it was asked for, or too low a version", source.name());
            return Err(Error::new(ErrorKind::Database, message));
        }
        Ok(read)
    }

    fn write(&mut self, rows: &[&Row], read: Vec<Reread>) -> Went {
        let began = Instant::now();
        let terms = self.applier.terms();
        let mut changes = Vec::with_capacity(rows.len());
        let mut jobs = Vec::with_capacity(rows.len());
        for (row, read) in rows.iter().zip(read) {
            let (change, unreadable) = self.change(row, read);
            let form = unreadable.map_or_else(|| self.form(row, &change, &terms), Err);
            match form {
                Ok(form) => {
                    jobs.push(self.encoder.job(form, &change, &row.home()));
                    changes.push((*row, change));
                }
                Err(error) => self.unwritable(row, &change, Arc::new(error), 0, began),
            }
        }
        self.drive(&mut jobs);
        let mut went = Went::Well;
        self.lane.judge(&mut jobs);
        for ((row, change), job) in changes.iter().zip(jobs) {
            match (job.fate, job.error) {
                // The epoch was raised while the row was read; the next reading is of the new one.
                (Some(_), _) if job.beaten == Beaten::ByEpoch => {
                    went = Went::Badly;
                    self.again(row, Stage::Masked);
                }
                (Some(Outcome::Failed), error) => self.refused(row, error),
                // The store holds no such value: its row stays unknown until it is changed.
                (Some(Outcome::Masked), Some(error)) if job.mark.is_none_or(|mark| mark <= change.version) => {
                    self.unwritable(row, change, error, job.attempts, began);
                }
                (Some(outcome), _) => {
                    self.tell(change, None, job.attempts, began, outcome);
                    if let Some(mark) = job.mark {
                        // Another process has marked the row meanwhile, and may not live to settle it.
                        self.lane.unsettled.raise(row, mark);
                        self.again(row, Stage::Masked);
                    } else {
                        self.lane.unsettled.settled(row);
                    }
                }
                (None, _) => {
                    went = Went::Outage;
                    self.lane.unsettled.again(row, Stage::Masked, row.attempts, Duration::ZERO);
                }
            }
        }
        went
    }

    /// What was read, as a change; with the error when it is there and cannot be read.
    fn change(&self, row: &Row, read: Reread) -> (Change, Option<Error>) {
        let unknown = || change::Unknown { primary_key: row.primary_key.clone(), kept: Vec::new(), certain: true };
        let (found, error) = match read.row {
            Ok(Some(found)) => (change::Row::Live(found), None),
            Ok(None) => (change::Row::Absent(unknown()), None),
            Err(error) => (change::Row::Unknown(unknown()), Some(error)),
        };
        let change = Change {
            schema: row.schema,
            database: Arc::clone(&row.database),
            scope: row.scope.clone(),
            action: Action::Reread,
            version: read.version,
            captured_at: self.lane.shared.clock.now(),
            row: found,
            size: 0,
        };
        (change, error)
    }

    /// The form of a row that was read again, or that is not there any more.
    fn form(&self, row: &Row, change: &Change, terms: &Terms) -> Result<Form, Error> {
        let mut writes = match self.encoder.certain(change, terms)?.form {
            Form::Row(delta) => return Ok(Form::Row(delta)),
            Form::Registers(writes) => writes,
        };
        // At the version at which the row was written there and no higher: by now another row may stand
        // under the key. Where that version cannot be relied on, readers of the key ask the database.
        for Kept { key, version, certain } in &row.kept {
            let key = key.clone().within(&row.scope);
            if writes.iter().any(|write| write.key == key) {
                continue;
            }
            writes.push(if version.epoch() < change.version.epoch() {
                register(key, change.version, State::Unknown, terms)
            } else if *certain {
                register(key, *version, State::Tombstone, terms)
            } else {
                register(key, *version, State::Unknown, terms)
            });
        }
        Ok(Form::Registers(writes))
    }

    fn drive(&mut self, jobs: &mut [Job]) {
        for _ in 0..ROUNDS {
            let mut left: Vec<&mut Job> = jobs.iter_mut().filter(|job| job.fate.is_none()).collect();
            if left.is_empty() || self.lane.shared.stop.is_stopped() {
                return;
            }
            let round = self.applier.round(&mut left);
            let outage = round.error.as_ref().is_some_and(|error| self.lane.target.is_outage(error));
            self.lane.note_round(&round);
            if outage {
                return;
            }
        }
    }

    fn again(&self, row: &Row, stage: Stage) {
        let attempts = row.attempts.saturating_add(1);
        self.lane.unsettled.again(row, stage, attempts, self.lane.shared.backoff.after(attempts));
    }

    /// The store refuses even to note that it does not know the row. That may be cured from outside.
    fn refused(&self, row: &Row, error: Option<Arc<Error>>) {
        let error = error.unwrap_or_else(|| Arc::new(Error::new(ErrorKind::Rejected, "the store refused it")));
        self.lane.refused(Some(Arc::clone(&error)));
        self.fail_commits(row, &error);
        let refusals = if row.stage == Stage::Refused { row.attempts + 1 } else { 1 };
        if refusals > GIVE_UP {
            self.give_up(row, &error);
        } else {
            self.lane.unsettled.again(row, Stage::Refused, refusals, self.lane.shared.backoff.after(refusals));
        }
    }

    /// The row cannot be read, or has no form that the store would hold: it stays unknown until it is changed.
    fn unwritable(&self, row: &Row, change: &Change, error: Arc<Error>, attempts: u32, began: Instant) {
        tracing::error!(%error, row = %row.home(), "a row cannot be stored");
        self.lane.refused(Some(Arc::clone(&error)));
        self.fail_commits(row, &error);
        self.lane.unsettled.let_go(row);
        self.tell(change, Some(error), attempts, began, Outcome::Failed);
    }

    fn give_up(&self, row: &Row, error: &Arc<Error>) {
        let now = self.lane.shared.clock.now();
        self.lane.refused(Some(Arc::clone(error)));
        self.fail_commits(row, error);
        if !row.kept_in_outbox {
            let loss = Loss {
                database: &row.database,
                table: Some(row.schema.table),
                scope: Some(&row.scope),
                changes: 1,
                deletes: true,
                published: self.lane.target.broker().is_some(),
                overflow: false,
            };
            self.lane.shared.dirty.lose(&loss, now, &error.to_string());
        }
        self.lane.unsettled.let_go(row);
        let (change, _) = self.change(row, Reread { row: Ok(None), version: row.version });
        self.tell(&change, Some(Arc::clone(error)), row.attempts, Instant::now(), Outcome::Failed);
    }

    fn fail_commits(&self, row: &Row, error: &Arc<Error>) {
        self.lane.shared.commits.finish(row.commits.0, 0, Some(Arc::clone(error)));
        self.lane.shared.commits.finish(row.commits.1, 0, Some(Arc::clone(error)));
    }

    fn tell(&self, change: &Change, error: Option<Arc<Error>>, attempts: u32, began: Instant, outcome: Outcome) {
        if self.lane.shared.reporter.listens() {
            let telling = Telling { change, error, attempts, queued: Duration::ZERO, writing: began.elapsed() };
            self.lane.tell_all(&telling, outcome);
        }
    }
}

/// What tells the store that it does not know the row.
fn mask_form(row: &Row, terms: &Terms) -> Form {
    if row.schema.has_mutable_key() {
        return unknown_form(row.schema, &row.scope, row.primary_key.home(), row.version, &[], terms);
    }
    let mask = |kept: &Kept| register(kept.key.clone().within(&row.scope), kept.version, State::Unknown, terms);
    Form::Registers(row.kept.iter().map(mask).collect())
}
