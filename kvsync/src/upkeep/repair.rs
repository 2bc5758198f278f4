//! Mends what a verification finds, and never writes over anything newer.
//!
//! A row that differs is read again under its lock and written at the version of that reading, as a change
//! among others. A copy of a row that does not stand under its key is released at the copy's own version: a
//! newer tenant's entry is newer. What is no entry of kvsync's is taken away only as the exact bytes that
//! were judged, and only where that was asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::verify::{Difference, DifferenceKind, EntryFault, RowFault, Run, Unit, Verified, Verify, VerifyProgress};
use crate::change::{Row, Unknown};
use crate::envelope::{Envelope, Head, State, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::model::{Kind, PrimaryKey, Reread, Wanted};
use crate::record::{Content, Delta, Order, Record, Write};
use crate::store::Step;
use crate::transport::failure_text;
use crate::version::Version;
use crate::worker::Access;

/// Compares databases and stores as [`Verify`] does, and mends every difference that it finds.
///
/// It never writes over anything newer, runs beside live traffic, and can be stopped and begun again at any
/// time. Once it ended well and nothing is written any more, a verification finds nothing.
#[must_use = "nothing is mended until `.run()` is called"]
pub struct Repair {
    verify: Verify,
    remove_foreign: bool,
}

/// What a repair found, and what it could not mend.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Repaired {
    /// What it found.
    pub found: Verified,
    /// How many differences it mended.
    pub mended: u64,
    /// How many it left.
    pub left: u64,
    /// The first that it left, each with the key and the reason.
    pub reasons: Vec<(Key, String)>,
}

impl Repair {
    pub(crate) fn new(verify: Verify) -> Self {
        Self { verify, remove_foreign: false }
    }

    /// Takes away what stands under keys of the models and was not written by this version of kvsync for
    /// them. Without this call it is left alone, and named.
    pub fn remove_foreign(self, remove: bool) -> Self {
        Self { remove_foreign: remove, ..self }
    }

    /// As [`Verify::page`].
    pub fn page(self, rows: usize) -> Self {
        Self { verify: self.verify.page(rows), ..self }
    }

    /// As [`Verify::rate`].
    pub fn rate(self, per_second: u32) -> Self {
        Self { verify: self.verify.rate(per_second), ..self }
    }

    /// As [`Verify::in_flight`].
    pub fn in_flight(self, time: Duration) -> Self {
        Self { verify: self.verify.in_flight(time), ..self }
    }

    /// As [`Verify::deadline`], also for the wait for locks of rows.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { verify: self.verify.deadline(deadline), ..self }
    }

    /// As [`Verify::samples`], also for [`Repaired::reasons`].
    pub fn samples(self, most: usize) -> Self {
        Self { verify: self.verify.samples(most), ..self }
    }

    /// As [`Verify::on_progress`].
    pub fn on_progress(self, told: impl FnMut(&VerifyProgress) + Send + 'static) -> Self {
        Self { verify: self.verify.on_progress(told), ..self }
    }

    /// As [`Verify::on_difference`].
    pub fn on_difference(self, told: impl FnMut(&Difference) + Send + 'static) -> Self {
        Self { verify: self.verify.on_difference(told), ..self }
    }

    /// Compares and mends. Blocks until it is done. Tables that were dirty before are dirty no longer, if
    /// nothing was left and all their models were compared.
    ///
    /// # Errors
    ///
    /// As [`Verify::run`]. What was mended stays mended. A difference that could not be mended is no error:
    /// see [`Repaired::left`].
    pub fn run(self) -> Result<Repaired> {
        let mender =
            Mender { remove_foreign: self.remove_foreign, samples: self.verify.settings.samples, ..Mender::default() };
        let mut run = Run::new(self.verify, Some(mender))?;
        run.all()?;
        let Mender { mended, left, reasons, .. } = run.mender.clone().unwrap_or_default();
        Ok(Repaired { found: run.ended(), mended, left, reasons })
    }
}

impl Repaired {
    /// Whether everything was judged, and nothing was left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left == 0 && self.found.unjudged == 0
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} mended, {} left", self.found, self.mended, self.left)
    }
}

impl fmt::Debug for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repair").field("verify", &self.verify).field("remove_foreign", &self.remove_foreign).finish()
    }
}

/// Mends differences, and counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mender {
    remove_foreign: bool,
    samples: usize,
    pub(crate) mended: u64,
    pub(crate) left: u64,
    reasons: Vec<(Key, String)>,
}

/// How many rows are read again at once.
const ROWS: usize = 100;

impl Mender {
    /// Notes something that cannot be mended.
    pub(crate) fn leave(&mut self, key: &Key, reason: &str) {
        self.left += 1;
        if self.reasons.len() < self.samples {
            self.reasons.push((key.clone(), reason.to_owned()));
        }
    }

    /// Mends rows: each is read again under its lock and written at that version.
    pub(crate) fn rows(&mut self, access: &Access, units: &[Unit], faults: &[RowFault], deadline: Duration) {
        for (at, unit) in units.iter().enumerate() {
            let of_it: Vec<&RowFault> = faults.iter().filter(|fault| fault.unit == at).collect();
            for some in of_it.chunks(ROWS) {
                let wanted: Vec<Wanted> =
                    some.iter().map(|fault| wanted(unit, &fault.primary_key, fault.mark)).collect();
                match unit.source.reread(&wanted, deadline) {
                    Ok(read) if read.len() == some.len() => {
                        for (fault, read) in some.iter().zip(read) {
                            let mended = self.row(access, unit, fault, read, deadline);
                            self.note(fault.findings.iter().map(|finding| &finding.key), mended);
                        }
                    }
                    Ok(_) => {
                        let error = Error::new(ErrorKind::Database, "the database answered other rows than asked for");
                        self.note(
                            some.iter().flat_map(|fault| &fault.findings).map(|finding| &finding.key),
                            Err(error),
                        );
                    }
                    Err(error) => {
                        self.note(
                            some.iter().flat_map(|fault| &fault.findings).map(|finding| &finding.key),
                            Err(error),
                        );
                    }
                }
            }
        }
    }

    /// Mends entries that nobody should see.
    pub(crate) fn entries(&mut self, access: &Access, units: &[Unit], faults: &[EntryFault], deadline: Duration) {
        for fault in faults {
            let Some(unit) = units.get(fault.unit) else { continue };
            let mended = self.entry(access, unit, fault, deadline);
            self.note([&fault.finding.key].into_iter(), mended);
        }
    }

    fn note<'a>(&mut self, keys: impl Iterator<Item = &'a Key>, mended: Result<()>) {
        match mended {
            Ok(()) => self.mended += keys.count() as u64,
            Err(error) => {
                let reason = failure_text(&error);
                keys.for_each(|key| self.leave(key, &reason));
            }
        }
    }

    fn row(&self, access: &Access, unit: &Unit, fault: &RowFault, read: Reread, deadline: Duration) -> Result<()> {
        for finding in &fault.findings {
            if finding.kind == DifferenceKind::Foreign && !self.remove_foreign {
                return Err(left_alone());
            }
            let stands = fault.stands.iter().find(|(key, _)| *key == finding.key).map(|(_, bytes)| bytes);
            if let Some(stands) = stands {
                self.clear(access, fault.store, &finding.key, stands)?;
            }
        }
        write(access, fault.store, unit, &fault.primary_key, read)?;
        catch_up(access, fault.store, unit, &fault.primary_key, deadline)
    }

    fn entry(&self, access: &Access, unit: &Unit, fault: &EntryFault, deadline: Duration) -> Result<()> {
        let EntryFault { store, bound, finding, stands, .. } = fault;
        let schema = unit.kind.schema;
        if let Some(primary_key) = &fault.primary_key {
            let read = unit.source.reread(&[wanted(unit, primary_key, Version::ZERO)], deadline)?.pop();
            let read = read.ok_or_else(|| Error::new(ErrorKind::Database, "the database did not answer for a row"))?;
            let came_back = matches!(&read.row, Ok(Some(row)) if {
                let own = finding.index.map_or_else(|| Some(row.home()), |index| row.key(index));
                own.is_some_and(|own| own.within(&unit.scope) == finding.key)
            });
            write(access, *store, unit, primary_key, read)?;
            catch_up(access, *store, unit, primary_key, deadline)?;
            return if came_back { Ok(()) } else { release(access, *store, unit, finding.stored, &finding.key) };
        }
        if self.clear(access, *store, &finding.key, stands)? {
            return Ok(());
        }
        let envelope = Envelope::parse(stands)?;
        let record = envelope.ledger.is_some().then(|| Record::from_envelope(envelope)).transpose()?;
        match record {
            Some(record) if finding.kind == DifferenceKind::Ledger => unfinished(access, *store, &finding.key, record),
            Some(record) if schema.has_mutable_key() && is_home(unit, fault) => {
                // No row has this home, as of the barrier: the record is a dead one's.
                if record.version.max(record.mark) > *bound {
                    let message = "its version is above the database's; raise the epoch, then repair";
                    return Err(Error::new(ErrorKind::Database, message));
                }
                let home = finding.key.clone();
                let delta = Delta { home, version: *bound, content: Content::Delete, gone: Vec::new() };
                access.apply_delta(*store, delta)
            }
            _ if finding.kind == DifferenceKind::Foreign && !self.remove_foreign => Err(left_alone()),
            _ => release(access, *store, unit, finding.stored, &finding.key),
        }
    }

    /// Takes away what no change could be built upon. Whether it was such.
    fn clear(&self, access: &Access, at: usize, key: &Key, stands: &Bytes) -> Result<bool> {
        match Envelope::parse(stands) {
            // Where its ledger is damaged, what it listed is found from the store's side.
            Ok(envelope) => {
                if envelope.ledger.is_none() || Record::from_envelope(envelope).is_ok() {
                    return Ok(false);
                }
            }
            Err(_) if !self.remove_foreign => return Err(left_alone()),
            Err(_) => {}
        }
        execute(access, at, &[Step::Remove { key: key.clone(), stands: stands.clone() }])?;
        Ok(true)
    }
}

fn left_alone() -> Error {
    Error::new(
        ErrorKind::Rejected,
        "it was not written by this kvsync and is left alone; a repair with `remove_foreign` (on the command line \
         `--remove-foreign`) takes it away",
    )
}

fn wanted(unit: &Unit, primary_key: &PrimaryKey, floor: Version) -> Wanted {
    Wanted { schema: unit.kind.schema, scope: unit.scope.clone(), primary_key: primary_key.clone(), floor }
}

/// Writes a row as it was read again. A row that cannot be read is masked, so that readers ask the database.
fn write(access: &Access, store: usize, unit: &Unit, primary_key: &PrimaryKey, read: Reread) -> Result<()> {
    let unknown = || Unknown { primary_key: primary_key.clone(), kept: Vec::new(), certain: true };
    let row = match read.row {
        Ok(Some(row)) => Row::Live(row),
        Ok(None) => Row::Absent(unknown()),
        Err(_) => Row::Unknown(unknown()),
    };
    let change = access.reread((unit.kind.schema, &unit.database, &unit.scope), read.version, row);
    access.apply(store, &[change])
}

/// Generations of a model share the key that is made of the primary key: a copy of the one, the record of the
/// other. What was written to the copy is newer than that record, which has to catch up.
fn catch_up(access: &Access, store: usize, unit: &Unit, row: &PrimaryKey, deadline: Duration) -> Result<()> {
    let own = unit.kind.schema;
    let shares = |kind: &Kind| {
        let schema = kind.schema;
        (schema.table, schema.model) == (own.table, own.model)
            && schema.generation != own.generation
            && schema.home().is_some()
            && schema.has_mutable_key()
    };
    for kind in unit.source.kinds().into_iter().filter(shares) {
        let Some(row) = kind.primary_key(row) else { continue };
        let other = Unit { kind, ..unit.clone() };
        let read = unit.source.reread(&[wanted(&other, &row, Version::ZERO)], deadline)?.pop();
        if let Some(read) = read {
            write(access, store, &other, &row, read)?;
        }
    }
    Ok(())
}

/// Releases a key from a copy, at the copy's own version: what is newer stays.
fn release(access: &Access, store: usize, unit: &Unit, stored: Option<Version>, key: &Key) -> Result<()> {
    let Some(version) = stored else { return Ok(()) };
    let terms = access.terms();
    let (order, stays) =
        if unit.kind.schema.has_mutable_key() { (Order::Slot, terms.left) } else { (Order::Register, terms.dead) };
    let head = Head { version, state: State::Tombstone, expires_at: terms.now.saturating_add(stays) };
    execute(access, store, &[Step::Write(Write { key: key.clone(), head, value: Value::none(), order })])
}

/// Does for the record of a dead row what the delivery that left it did not come to.
fn unfinished(access: &Access, store: usize, home: &Key, record: Record) -> Result<()> {
    let writes: Vec<Step> = record.project(home, &access.terms()).into_iter().map(Step::Write).collect();
    execute(access, store, &writes)?;
    execute(access, store, &[Step::Confirm { home: home.clone(), released: record.dirty.into_iter().collect() }])
}

fn is_home(unit: &Unit, fault: &EntryFault) -> bool {
    fault.finding.index == unit.kind.schema.home()
}

fn execute(access: &Access, store: usize, steps: &[Step]) -> Result<()> {
    let Some((_, store)) = access.store(store) else { return Ok(()) };
    let store = Arc::clone(store);
    for call in steps.chunks(store.capabilities().max_steps.max(1)) {
        store.execute(call, &access.terms()).into_iter().try_for_each(|answer| answer.map(drop))?;
    }
    Ok(())
}
