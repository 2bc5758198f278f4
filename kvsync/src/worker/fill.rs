//! Writes rows that were read from their database, past the queue: for backfills and their like.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::select;

use super::apply::{Applier, Beaten, Job};
use super::dirty::{Loss, Marked};
use super::encode::{home_of, unknown_form, unknown_of};
use super::lane::{Lane, Shared, Telling};
use super::settle::{Row, Stage};
use crate::change::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::Source;
use crate::report::Outcome;
use crate::version::Version;

/// Writes rows into every store of a pipeline, and knows where they are read from.
#[derive(Clone)]
pub(crate) struct Filler {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Arc<[Arc<Lane>]>,
}

/// What became of some rows, counted once for each store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Filled {
    /// Stores hold them as they were read, or something newer.
    pub(crate) written: u64,
    /// Something newer stood there already.
    pub(crate) superseded: u64,
    /// Readers are sent to the database: the row has no form that the store would hold.
    pub(crate) masked: u64,
    /// The store refused even that.
    pub(crate) failed: u64,
}

impl Filled {
    /// Adds what became of others.
    pub(crate) fn add(&mut self, other: Self) {
        self.written += other.written;
        self.superseded += other.superseded;
        self.masked += other.masked;
        self.failed += other.failed;
    }
}

impl Filler {
    /// Where the rows of this database are read.
    pub(crate) fn source(&self, database: &str) -> Result<Arc<dyn Source>> {
        let mut sources = self.shared.sources.get().into_iter().flatten();
        sources.find(|source| source.name() == database).map(Arc::clone).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the database `{database}` was not given to the builder"))
        })
    }

    /// What time it is.
    pub(crate) fn now(&self) -> SystemTime {
        self.shared.clock.now()
    }

    /// How old a version may be at which rows are written.
    pub(crate) fn oldest(&self) -> Duration {
        self.shared.retention.dead / 2
    }

    /// The lowest epoch whose entries count.
    pub(crate) fn epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// Waits, unless it is time to stop; then `true`.
    pub(crate) fn wait(&self, long: Duration) -> bool {
        self.shared.stop.wait(long)
    }

    /// How long to wait after this many attempts in vain.
    pub(crate) fn pause(&self, attempts: u32) -> Duration {
        self.shared.backoff.after(attempts)
    }

    /// Waits until a table is to be filled in by itself and every store takes changes as fast as they come;
    /// `false` when it is time to stop.
    pub(crate) fn wait_for_dirt(&self) -> bool {
        select! {
            recv(self.shared.dirty.wanted()) -> _ => {}
            recv(self.shared.stop.signal()) -> _ => return false,
        }
        let mut waits = self.shared.backoff.waits();
        while !self.lanes.iter().all(|lane| lane.is_at_ease()) {
            if self.wait(waits.next().unwrap_or(self.shared.backoff.max)) {
                return false;
            }
        }
        true
    }

    /// Whether rows are published to a broker.
    pub(crate) fn publishes(&self) -> bool {
        self.lanes.iter().any(|lane| lane.target.broker().is_some())
    }

    /// Whether rows are written into a store.
    pub(crate) fn stores(&self) -> bool {
        self.lanes.iter().any(|lane| lane.target.store().is_some())
    }

    /// The dirty tables; with `wanted`, those that are seen to without being asked to.
    pub(crate) fn dirty(&self, wanted: bool) -> Vec<Marked> {
        self.shared.dirty.marked(wanted)
    }

    /// Marks a table, because something is about to be written to it that nobody captures. Returns it as it
    /// is from now on.
    pub(crate) fn soil(&self, database: &Arc<str>, table: &str, scope: &Scope, reason: &str) -> Option<Marked> {
        let loss = Loss {
            database,
            table: Some(table),
            scope: Some(scope),
            changes: 0,
            deletes: true,
            published: true,
            overflow: false,
        };
        self.shared.dirty.lose(&loss, self.now(), reason);
        let is = |marked: &Marked| marked.database == *database && marked.table.as_deref() == Some(table);
        self.dirty(false).into_iter().find(is)
    }

    /// A table was filled in, all of it after this was asked for. Whether it is clean.
    pub(crate) fn filled(&self, marked: &Marked) -> bool {
        self.shared.dirty.filled(marked)
    }

    /// A table that was filled in was compared with the stores; with `left`, something could not be mended.
    pub(crate) fn mended(&self, marked: &Marked, left: bool) {
        self.shared.dirty.mended(marked, left);
    }

    /// Writes what was read into every store, each row as it is; one that has no form is masked. A store
    /// that does not answer is asked again until the deadline.
    ///
    /// # Errors
    ///
    /// The failure of a store that answered to nothing. The others have been written; repeating it is
    /// harmless. [`ErrorKind::Unavailable`] also when the epoch was raised meanwhile.
    pub(crate) fn fill(&self, changes: &[Change], deadline: Instant) -> Result<Filled> {
        let (mut filled, mut failure) = (Filled::default(), None);
        for lane in &*self.lanes {
            match lane.fill(changes, deadline) {
                Ok(of_it) => filled.add(of_it),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(filled), Err)
    }
}

impl Lane {
    fn fill(&self, changes: &[Change], deadline: Instant) -> Result<Filled> {
        let (encoder, mut applier) = (self.encoder(), self.applier());
        let terms = applier.terms();
        let mut filled = Filled::default();
        let mut forms = Vec::with_capacity(changes.len());
        for change in changes {
            let (form, error) = match encoder.certain(change, &terms) {
                Ok(whole) => {
                    for (key, error) in whole.left_out {
                        self.tell(&telling(change, Some(error)), None, key, Outcome::Failed);
                    }
                    (whole.form, None)
                }
                Err(error) => {
                    let Ok(unknown) = unknown_of(change) else {
                        filled.failed += 1;
                        self.tell_all(&telling(change, Some(Arc::new(error))), Outcome::Failed);
                        continue;
                    };
                    let (home, kept) = (unknown.primary_key.home(), &unknown.kept);
                    let form = unknown_form(change.schema, &change.scope, home, change.version, kept, &terms);
                    (form, Some(Arc::new(error)))
                }
            };
            let home = home_of(change)?;
            forms.push((change, encoder.address(Job::new(form), change, &home, error.is_none()), error));
        }
        self.drive(&mut applier, forms.iter_mut().map(|(_, job, _)| job).collect(), deadline)?;
        self.judge(forms.iter_mut().map(|(_, job, _)| job));
        if forms.iter().any(|(_, job, _)| job.beaten == Beaten::ByEpoch) {
            let message = format!("the epoch of {} was raised meanwhile; rows have to be read again", self.name);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        for (change, job, unencodable) in forms {
            self.filled(change, job, unencodable, &mut filled);
        }
        self.shared.commits.touch();
        Ok(filled)
    }

    /// Takes jobs as far as they go. What the store refuses for good has a fate; an outage has not.
    fn drive(&self, applier: &mut Applier, mut jobs: Vec<&mut Job>, deadline: Instant) -> Result<()> {
        let mut waits = self.shared.backoff.waits();
        loop {
            let failure = if self.is_met() {
                let round = applier.round(&mut jobs);
                self.note_round(&round);
                round.error.filter(|error| self.target.is_outage(error))
            } else {
                self.last_error()
            };
            jobs.retain(|job| job.fate.is_none());
            if jobs.is_empty() {
                applier.confirm();
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error = Error::new(ErrorKind::Unavailable, format!("{} did not take rows in time", self.name));
                return Err(match failure {
                    Some(failure) => error.with_source(failure),
                    None => error,
                });
            }
            let pause = waits.next().unwrap_or(self.shared.backoff.max);
            // A refusal is asked again at once.
            let stopped =
                if failure.is_some() { self.shared.stop.wait(pause.min(left)) } else { self.shared.stop.is_stopped() };
            if stopped {
                return Err(Error::new(ErrorKind::Closed, "kvsync was shut down"));
            }
        }
    }

    fn filled(&self, change: &Change, job: Job, unencodable: Option<Arc<Error>>, filled: &mut Filled) {
        if let Some(mark) = job.mark.filter(|mark| *mark > change.version) {
            self.resettle(change, mark);
        }
        let (count, told) = match job.fate {
            Some(Outcome::Failed) => (&mut filled.failed, Some(Outcome::Failed)),
            Some(Outcome::Masked) => (&mut filled.masked, Some(Outcome::Masked)),
            Some(Outcome::Superseded) => (&mut filled.superseded, None),
            _ => (&mut filled.written, None),
        };
        *count += 1;
        match told {
            Some(outcome) if self.shared.reporter.listens() => {
                self.tell_all(&telling(change, unencodable.or(job.error)), outcome);
            }
            Some(_) => {}
            None => drop(self.unsettled.lift(&change.home(), change.version)),
        }
    }

    /// Someone has marked the row since it was read, and may not live to read it again.
    fn resettle(&self, change: &Change, mark: Version) {
        let Ok(unknown) = unknown_of(change) else { return };
        let mut marked = Row::new(change, unknown, 0, Stage::Masked);
        marked.version = mark;
        if self.unsettled.insert(marked).is_err() {
            tracing::warn!(row = %change.home(), store = &*self.name, "a row stays unknown: there is no room to remember it");
        }
    }
}

fn telling(change: &Change, error: Option<Arc<Error>>) -> Telling<'_> {
    Telling { change, error, attempts: 1, queued: Duration::ZERO, writing: Duration::ZERO }
}
