//! One verification or repair, from its beginning to its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compare::{Finding, Measure};
use super::difference::{Difference, DifferenceKind, Side, Verified, VerifyProgress};
use super::flight::{
    EntryFault, EntrySuspect, Flight, RowFault, RowSuspect, Unit, WAITING, digest, read_closely, second_look,
};
use super::strays::Strays;
use super::units::{covered, plain, units};
use super::{OnDifference, OnProgress, Verify};
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::model::{Kind, PrimaryKey};
use crate::report::DirtyTable;
use crate::upkeep::repair::Mender;
use crate::upkeep::verifier::Shared;
use crate::version::Version;
use crate::worker::Access;

/// How long a change is on its way at most, unless told otherwise.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(2);

/// How a verification goes about.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) page: usize,
    pub(crate) rate: Option<u32>,
    pub(crate) in_flight: Duration,
    /// Whether marks of tables are the caller's business: it waited since they were made, and takes them away.
    pub(crate) keeps_marks: bool,
    pub(crate) deadline: Duration,
    pub(crate) samples: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            page: 500,
            rate: None,
            in_flight: IN_FLIGHT,
            keeps_marks: false,
            deadline: Duration::from_secs(30),
            samples: 1000,
        }
    }
}

/// A verification, and what it has found so far. With a mender, each difference is mended when it is found.
pub(crate) struct Run {
    pub(crate) access: Access,
    pub(crate) settings: Settings,
    /// What is compared.
    pub(crate) units: Vec<Unit>,
    /// Every model of the databases: for entries that are another model's.
    pub(crate) registered: Vec<Kind>,
    pub(crate) stores: usize,
    pub(crate) flight: Flight,
    pub(crate) strays: Strays,
    pub(crate) report: Verified,
    pub(crate) mender: Option<Mender>,
    /// Keys that were found wrong from the database's side, as digests, up to a bound.
    accused: HashSet<u64>,
    /// What was seen that was newer than the bound, the newest of each unit and store.
    ahead: Vec<(usize, usize, Key, Version)>,
    /// Tables that were dirty at the beginning and are compared whole.
    dirty: Vec<DirtyTable>,
    on_progress: Option<OnProgress>,
    on_difference: Option<OnDifference>,
    /// Who follows what is found, and may say when to stop.
    watch: Option<Arc<Shared>>,
    began: Instant,
    done: u64,
}

impl Run {
    pub(crate) fn new(verify: Verify, mender: Option<Mender>) -> Result<Self> {
        let Verify { access, scope, chosen, settings, on_progress, on_difference } = verify;
        let (units, registered) = units(&access, &scope, chosen.as_deref(), settings.deadline)?;
        let dirty = if scope.is_none() && !settings.keeps_marks {
            covered(&access.dirty(), &units, &access)
        } else {
            Vec::new()
        };
        let stores = access.stores().count();
        if stores == 0 {
            let message = "there is no store to compare with: this handle publishes only";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self {
            access,
            settings,
            units,
            registered,
            stores,
            flight: Flight::default(),
            strays: Strays::default(),
            report: Verified::default(),
            mender,
            accused: HashSet::new(),
            ahead: Vec::new(),
            dirty,
            on_progress,
            on_difference,
            watch: None,
            began: Instant::now(),
            done: 0,
        })
    }

    /// Compares both sides.
    pub(crate) fn all(&mut self) -> Result<()> {
        if !self.dirty.is_empty() {
            // The statement that made a table dirty may be about to run: it is told of before.
            self.pause(self.settings.in_flight)?;
        }
        for unit in 0..self.units.len() {
            self.rows(unit)?;
        }
        self.land()?;
        for store in 0..self.stores {
            self.entries(store)?;
        }
        self.land()?;
        self.strays()?;
        self.land()?;
        self.check_ahead()
    }

    /// Compares both sides, watched over by a verifier.
    pub(crate) fn watched(mut self, watch: &Arc<Shared>) -> Result<Verified> {
        self.watch = Some(Arc::clone(watch));
        self.all()?;
        Ok(self.ended())
    }

    /// What was found. Tables that turned out to be clean are dirty no longer.
    pub(crate) fn ended(mut self) -> Verified {
        self.report.took = self.began.elapsed();
        let clean = match &self.mender {
            None => self.report.is_clean(),
            Some(mender) => self.report.unjudged == 0 && mender.left == 0,
        };
        if clean {
            for table in &self.dirty {
                self.access.clean(table);
            }
        }
        self.report
    }

    /// Waits for what is in flight, and judges it.
    pub(crate) fn land(&mut self) -> Result<()> {
        while let Some(due) = self.flight.due() {
            self.pause(due.saturating_duration_since(Instant::now()))?;
            self.judge()?;
        }
        Ok(())
    }

    /// Takes a page's end: judges what is due, tells how far it is, keeps to the rate, and stops in time.
    pub(crate) fn paged(
        &mut self,
        side: Side,
        model: Option<&'static str>,
        done: (u64, Option<u64>),
        by: usize,
    ) -> Result<()> {
        while self.flight.len() > WAITING
            && let Some(due) = self.flight.due()
        {
            self.pause(due.saturating_duration_since(Instant::now()))?;
            self.judge()?;
        }
        if self.flight.due().is_some_and(|due| due <= Instant::now()) {
            self.judge()?;
        }
        if let Some(watch) = &self.watch {
            watch.note(&self.access, &self.report);
        }
        let found = self.report.found();
        if let Some(told) = &mut self.on_progress {
            told(&VerifyProgress { side, model, done: done.0, of: done.1, found });
        }
        self.done += by as u64;
        let ahead = self.settings.rate.map(|rate| Duration::from_secs_f64(self.done_since() / f64::from(rate)));
        self.pause(ahead.map_or(Duration::ZERO, |due| due.saturating_sub(self.began.elapsed())))
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
    fn done_since(&self) -> f64 {
        self.done as f64
    }

    /// When something that differs now may be looked at again.
    pub(crate) fn due(&self) -> Instant {
        from_now(self.settings.in_flight)
    }

    pub(crate) fn measure(&self, unit: usize, bound: Version) -> Measure {
        let ends = self.units.get(unit).is_some_and(|unit| self.access.ttl(unit.kind.schema).is_some());
        Measure { bound, epoch: self.access.epoch(), now: self.access.now(), ends }
    }

    /// Remembers the newest of what was too new to be judged.
    pub(crate) fn too_new(&mut self, unit: usize, store: usize, key: Key, version: Version) {
        match self.ahead.iter_mut().find(|(of, at, ..)| (*of, *at) == (unit, store)) {
            Some(known) if known.3 >= version => {}
            Some(known) => *known = (unit, store, key, version),
            None => self.ahead.push((unit, store, key, version)),
        }
    }

    /// Looks again at what has been in flight for long enough.
    fn judge(&mut self) -> Result<()> {
        let (rows, entries) = self.flight.ripe(Instant::now());
        if rows.is_empty() && entries.is_empty() {
            return Ok(());
        }
        if !self.access.drain(self.settings.deadline) {
            // What differs may be on its way still.
            tracing::warn!("what this process has committed is not in the stores in time; it cannot be judged");
            self.report.unjudged += (rows.len() + entries.len()) as u64;
            return Ok(());
        }
        let (mut row_faults, mut entry_faults) = (Vec::new(), Vec::new());
        for store in 0..self.stores {
            let of_it: Vec<&RowSuspect> = rows.iter().filter(|row| row.store == store).collect();
            self.judge_rows(store, &of_it, &mut row_faults)?;
            let of_it: Vec<&EntrySuspect> = entries.iter().filter(|entry| entry.store == store).collect();
            self.judge_entries(store, &of_it, &mut entry_faults)?;
        }
        // One key may be wrong for two rows: for the one that it holds, and for the one that should be there.
        entry_faults.retain(|fault| !self.accused.contains(&accusation(fault.store, &fault.finding.key)));
        for fault in &row_faults {
            for finding in &fault.findings {
                if self.accused.len() < REMEMBERED {
                    self.accused.insert(accusation(fault.store, &finding.key));
                }
                let stands = fault.stands.iter().find(|(key, _)| *key == finding.key);
                let digest = stands.map_or(0, |(_, bytes)| digest(bytes));
                self.accuse((fault.store, fault.unit, fault.bound), Some(&fault.primary_key), finding, digest);
            }
        }
        for fault in &entry_faults {
            let digest = digest(&fault.stands);
            self.accuse((fault.store, fault.unit, fault.bound), fault.primary_key.as_ref(), &fault.finding, digest);
        }
        if let Some(mender) = &mut self.mender {
            mender.rows(&self.access, &self.units, &row_faults, self.settings.deadline);
            mender.entries(&self.access, &self.units, &entry_faults, self.settings.deadline);
        }
        Ok(())
    }

    fn judge_rows(&mut self, at: usize, rows: &[&RowSuspect], faults: &mut Vec<RowFault>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let Some((_, store)) = self.access.store(at) else { return Ok(()) };
        let looked =
            second_look(&**store, rows, &self.units, &self.access.terms(), |row| self.measure(row.unit, row.bound))?;
        for (row, (compared, stands)) in rows.iter().zip(looked) {
            self.report.expired += compared.expired;
            if let Some((key, version)) = compared.moving {
                self.report.moving += 1;
                self.too_new(row.unit, at, key, version);
            }
            if !compared.findings.is_empty() {
                faults.push(RowFault {
                    store: at,
                    unit: row.unit,
                    bound: row.bound,
                    primary_key: row.primary_key.clone(),
                    mark: compared.mark,
                    findings: compared.findings,
                    stands,
                });
            }
        }
        Ok(())
    }

    fn judge_entries(&mut self, at: usize, entries: &[&EntrySuspect], faults: &mut Vec<EntryFault>) -> Result<()> {
        let Some((_, store)) = self.access.store(at) else { return Ok(()) };
        let keys: Vec<Key> = entries.iter().map(|entry| entry.finding.key.clone()).collect();
        for (entry, stands) in entries.iter().zip(read_closely(&**store, &keys, &self.access.terms())?) {
            // What was written meanwhile is another matter.
            let Some(stands) = stands.filter(|stands| digest(stands) == entry.digest) else { continue };
            faults.push(EntryFault {
                store: at,
                unit: entry.unit,
                bound: entry.bound,
                primary_key: entry.primary_key.clone(),
                finding: entry.finding.clone(),
                stands,
            });
        }
        Ok(())
    }

    /// Names a difference.
    fn accuse(
        &mut self,
        (store, unit, bound): (usize, usize, Version),
        row: Option<&PrimaryKey>,
        finding: &Finding,
        digest: u64,
    ) {
        let Some((name, unit)) = self.access.store(store).map(|(name, _)| name).zip(self.units.get(unit)) else {
            return;
        };
        let schema = unit.kind.schema;
        let difference = Difference {
            kind: finding.kind,
            store: Arc::clone(name),
            database: Arc::clone(&unit.database),
            table: schema.table,
            model: schema.model,
            key_name: finding.index.and_then(|index| schema.keys.get(index)).map(|key| key.name),
            key: finding.key.clone(),
            primary_key: row.map(|row| plain(&unit.kind, row)),
            stored: finding.stored,
            read_at: bound,
            detail: finding.detail.clone(),
        };
        *self.report.counts.entry(finding.kind).or_default() += 1;
        if let Some(told) = &mut self.on_difference {
            told(&difference);
        }
        if let Some(watch) = &self.watch {
            watch.found(&difference, store, digest);
        }
        if self.report.differences.len() < self.settings.samples {
            self.report.differences.push(difference);
        }
    }

    /// What is newer than the barrier was written since. Is it newer than the database is now, it was
    /// written by a database that this one does not know of.
    fn check_ahead(&mut self) -> Result<()> {
        for (unit, store, key, version) in std::mem::take(&mut self.ahead) {
            let Some(source) = self.units.get(unit).map(|unit| Arc::clone(&unit.source)) else { continue };
            let now = source.barrier(self.settings.deadline)?;
            if version <= now {
                continue;
            }
            let detail = format!(
                "the database stands at {now}; if it was restored or failed over, raise the epoch, then repair"
            );
            let finding = Finding { kind: DifferenceKind::Ahead, index: None, key, stored: Some(version), detail };
            self.accuse((store, unit, now), None, &finding, 0);
            if let Some(mender) = &mut self.mender {
                mender.leave(&finding.key, &finding.detail);
            }
        }
        Ok(())
    }

    fn pause(&self, long: Duration) -> Result<()> {
        let stopped = match &self.watch {
            Some(watch) => watch.pause(&self.access, long),
            None => self.access.pause(long),
        };
        if stopped {
            return Err(Error::new(ErrorKind::Closed, "kvsync was shut down before everything was compared"));
        }
        Ok(())
    }
}

/// How many accused keys are remembered. Of more than that, some may be named twice.
const REMEMBERED: usize = 65_536;

fn accusation(store: usize, key: &Key) -> u64 {
    digest(format!("{store} {key}").as_bytes())
}
