//! Stores that are wrong on purpose are rejected by the suite, each by a case that says what is wrong.
//!
//! They are one store, written with nothing but the public building blocks, and a fault to choose. It is
//! long because each fault is a line or two within the one store that it breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::record::{Content, Delta, Order, Record, Terms, Write};
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};
use kvsync::{Error, ErrorKind, Key, Result};
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

use crate::{engine, random};

/// What is wrong, and the case that has to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    TieReversed,
    TiesReplace,
    IgnoresVersion,
    ComparesVersionsAsFloats,
    RegisterIsSlot,
    DeletesForTombstone,
    LosesLedger,
    ShortensLedger,
    MergesByHead,
    MergeIsNotAtomic,
    WriteIsNotAtomic,
    ReleasesAtTheChange,
    ForgetsDirty,
    ConfirmsAnyVersion,
    ConfirmMakesARecord,
    UnknownDeletes,
    UnknownWinsTies,
    BelievesTheOlder,
    NeverSuperseded,
    KeepsItsBytes,
    DropsGone,
    SwapsValues,
    SortsAnswers,
    DropsDuplicates,
    AbsentOnOutage,
    WrittenOnOutage,
    FallsBack,
    FoldsCase,
    TrimsKeys,
    CutsValues,
    GlobPrefix,
    ScanShowsItsOwn,
    ScanSkips,
    ScanBeginsAnew,
    ScanCountsKeys,
    ScanOfNoneEnds,
    EpochFalls,
    EpochRaces,
    EpochForgets,
    UpWhenClosed,
    SweepsAll,
    SweepsRecords,
    SweepsNothing,
    RemovesAnything,
    RemovesNothing,
    ApplyForgetsToConfirm,
    ApplyWritesTheChange,
    ApplyStopsHalfway,
    ApplyShowsHalves,
    DecodesKeys,
    LastStepFirst,
    OneFailureFailsAll,
}

const FAULTS: &[(Fault, &str)] = &[
    (Fault::TieReversed, "of_one_version_the_order_of_states_decides"),
    (Fault::TiesReplace, "of_one_version_the_order_of_states_decides"),
    (Fault::IgnoresVersion, "the_higher_version_wins_whatever_it_says"),
    (Fault::ComparesVersionsAsFloats, "versions_compare_as_bytes"),
    (Fault::RegisterIsSlot, "of_one_version_the_order_of_states_decides"),
    (Fault::DeletesForTombstone, "what_is_written_stands"),
    (Fault::LosesLedger, "a_slot_over_a_record_keeps_the_ledger"),
    (Fault::ShortensLedger, "a_slot_over_a_record_keeps_the_ledger"),
    (Fault::MergesByHead, "a_slot_over_a_record_hides_no_change_from_it"),
    (Fault::MergeIsNotAtomic, "racing_merges_lose_none"),
    (Fault::WriteIsNotAtomic, "racing_writes_end_with_the_highest_version"),
    (Fault::ReleasesAtTheChange, "each_kind_of_change_merges_as_it_should"),
    (Fault::ForgetsDirty, "each_kind_of_change_merges_as_it_should"),
    (Fault::ConfirmsAnyVersion, "a_confirmation_forgets_what_was_released_and_no_more"),
    (Fault::ConfirmMakesARecord, "a_confirmation_forgets_what_was_released_and_no_more"),
    (Fault::UnknownDeletes, "an_unknown_masks_until_something_certain_comes"),
    (Fault::UnknownWinsTies, "an_unknown_masks_until_something_certain_comes"),
    (Fault::BelievesTheOlder, "a_delivered_change_stands_under_its_keys_and_no_other"),
    (Fault::NeverSuperseded, "a_merge_says_what_superseded_it_and_brings_its_bytes"),
    (Fault::KeepsItsBytes, "a_merge_says_what_superseded_it_and_brings_its_bytes"),
    (Fault::DropsGone, "each_kind_of_change_merges_as_it_should"),
    (Fault::SwapsValues, "answers_stand_in_the_order_asked"),
    (Fault::SortsAnswers, "answers_stand_in_the_order_asked"),
    (Fault::DropsDuplicates, "answers_stand_in_the_order_asked"),
    (Fault::AbsentOnOutage, "an_outage_is_an_error_and_no_absence"),
    (Fault::WrittenOnOutage, "an_outage_is_an_error_and_no_absence"),
    (Fault::FallsBack, "no_reader_sees_a_version_fall"),
    (Fault::FoldsCase, "odd_keys_are_themselves"),
    (Fault::TrimsKeys, "odd_keys_are_themselves"),
    (Fault::CutsValues, "values_of_every_size_and_byte_come_back"),
    (Fault::GlobPrefix, "a_prefix_is_text_and_no_pattern"),
    (Fault::ScanShowsItsOwn, "a_scan_finds_every_key_with_the_prefix"),
    (Fault::ScanSkips, "a_scan_finds_every_key_with_the_prefix"),
    (Fault::ScanBeginsAnew, "a_cursor_of_another_store_is_refused"),
    (Fault::ScanOfNoneEnds, "a_scan_finds_every_key_with_the_prefix"),
    (Fault::ScanCountsKeys, "what_is_removed_makes_a_scan_skip_nothing"),
    (Fault::EpochRaces, "racing_raises_of_the_epoch_lose_none"),
    (Fault::ApplyShowsHalves, "no_reader_sees_half_a_whole_change"),
    (Fault::DecodesKeys, "odd_keys_are_themselves"),
    (Fault::EpochFalls, "the_epoch_only_rises"),
    (Fault::EpochForgets, "the_epoch_only_rises"),
    (Fault::UpWhenClosed, "closing_twice_is_closing_once"),
    (Fault::SweepsAll, "a_sweep_takes_nothing_that_stands"),
    (Fault::SweepsRecords, "a_sweep_takes_a_record_when_nothing_late_can_come"),
    (Fault::SweepsNothing, "a_sweep_takes_what_has_expired_and_no_more"),
    (Fault::RemovesAnything, "a_removal_takes_exactly_what_it_names"),
    (Fault::RemovesNothing, "a_removal_takes_exactly_what_it_names"),
    (Fault::ApplyForgetsToConfirm, "a_change_as_a_whole_equals_its_steps"),
    (Fault::ApplyWritesTheChange, "any_whole_changes_leave_what_the_pure_functions_leave"),
    (Fault::ApplyStopsHalfway, "a_change_with_a_key_that_is_too_long_changes_nothing"),
    (Fault::LastStepFirst, "steps_of_one_call_take_effect_in_order"),
    (Fault::OneFailureFailsAll, "a_key_that_is_too_long_is_refused_alone"),
];

/// Faults of the protocol, which random histories find as well.
const FOUND_AT_RANDOM: &[Fault] = &[
    Fault::TieReversed,
    Fault::IgnoresVersion,
    Fault::DeletesForTombstone,
    Fault::ReleasesAtTheChange,
    Fault::ForgetsDirty,
    Fault::UnknownDeletes,
    Fault::UnknownWinsTies,
    Fault::BelievesTheOlder,
    Fault::ApplyWritesTheChange,
];

/// Faults that show when rows are written through Diesel, and every key is compared.
const FOUND_BY_THE_ENGINE: &[Fault] = &[Fault::ForgetsDirty, Fault::SwapsValues];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = FAULTS.iter().map(|(fault, case)| rejected(*fault, case)).collect();
    trials.extend(FOUND_AT_RANDOM.iter().map(|fault| {
        let found = || match (0..500).find_map(|seed| random::run(fault, seed).err()) {
            Some(_) => Ok(()),
            None => Err(Failed::from("500 random histories found nothing")),
        };
        Trial::test(format!("broken::{fault:?}_is_found_at_random"), found)
    }));
    trials.extend(FOUND_BY_THE_ENGINE.iter().map(|fault| {
        // What the writers leave is theirs, and two values may be the same.
        let found = || {
            let found = (0..50).any(|_| matches!(engine::compares(fault), Verdict::Failed(_)));
            if found { Ok(()) } else { Err(Failed::from("the engine found nothing")) }
        };
        Trial::test(format!("broken::{fault:?}_is_found_by_the_engine"), found)
    }));
    trials.push(Trial::test("broken::without_a_fault_it_passes", || {
        let failed = failures(Fault::None);
        if failed.is_empty() { Ok(()) } else { Err(Failed::from(format!("{failed:?}"))) }
    }));
    trials
}

fn rejected(fault: Fault, case: &'static str) -> Trial {
    Trial::test(format!("broken::{fault:?}_is_rejected"), move || {
        // A race needs a few rounds to be lost.
        for _ in 0..50 {
            if failures_of(fault, case).is_some() {
                return Ok(());
            }
        }
        Err(Failed::from(format!("{case} passes with {fault:?}; others that fail: {:?}", failures(fault))))
    })
}

fn failures(fault: Fault) -> Vec<(&'static str, String)> {
    conformance::cases().filter_map(|case| failures_of(fault, case.name)).collect()
}

fn failures_of(fault: Fault, name: &str) -> Option<(&'static str, String)> {
    let case = conformance::cases().find(|case| case.name == name).unwrap();
    match case.run(&fault) {
        Verdict::Failed(why) => Some((case.name, why)),
        Verdict::Passed | Verdict::NotApplicable(_) => None,
    }
}

impl Harness for Fault {
    fn fresh(&self) -> Stores {
        Stores::sync(Arc::new(Sloppy::new(*self, true)))
    }

    fn unreachable(&self) -> Option<Stores> {
        Some(Stores::sync(Arc::new(Sloppy::new(*self, false))))
    }
}

const MAX_KEY: usize = 70_000;

struct Sloppy {
    fault: Fault,
    up: bool,
    entries: Mutex<BTreeMap<String, Bytes>>,
    epoch: Mutex<u32>,
    flicker: AtomicBool,
    closed: AtomicBool,
}

impl Sloppy {
    fn new(fault: Fault, up: bool) -> Self {
        let entries = Mutex::default();
        let (epoch, flicker, closed) = Default::default();
        Self { fault, up, entries, epoch, flicker, closed }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn reach(&self) -> Result<()> {
        if self.is(Fault::UpWhenClosed) && self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "closed"));
        }
        if self.up { Ok(()) } else { Err(Error::new(ErrorKind::Unavailable, "down on purpose")) }
    }

    fn stored(&self, key: &Key) -> String {
        match self.fault {
            Fault::FoldsCase => key.as_str().to_lowercase(),
            Fault::TrimsKeys => key.as_str().trim().to_owned(),
            Fault::DecodesKeys => key.as_str().replace("%3A", ":"),
            _ => key.as_str().to_owned(),
        }
    }

    fn read(&self, key: &Key) -> Option<Envelope> {
        let bytes = self.entries.lock().get(&self.stored(key)).cloned();
        bytes.map(|bytes| Envelope::parse(&bytes).unwrap())
    }

    fn put(&self, key: &Key, bytes: Bytes) {
        self.entries.lock().insert(self.stored(key), bytes);
    }

    fn remove(&self, key: &Key) {
        self.entries.lock().remove(&self.stored(key));
    }

    fn record(&self, home: &Key) -> Record {
        let Some(mut envelope) = self.read(home) else { return Record::new() };
        let head = envelope.head;
        let value = envelope.value.clone();
        if self.is(Fault::MergesByHead) && envelope.ledger.is_none() {
            return Record { version: head.version, alive: true, value, ..Record::new() };
        }
        if self.is(Fault::LosesLedger) {
            envelope.head.expires_at = 0;
        }
        Record::from_envelope(envelope).unwrap()
    }

    fn refuse_long(keys: &[&Key]) -> Result<()> {
        if keys.iter().any(|key| key.as_str().len() > MAX_KEY) {
            return Err(Error::new(ErrorKind::Rejected, "too long"));
        }
        Ok(())
    }

    fn merge(&self, change: &Delta, terms: &Terms) -> (bool, Record) {
        let mut record = self.record(&change.home);
        if self.is(Fault::MergeIsNotAtomic) {
            std::thread::yield_now();
        }
        let before = record.clone();
        let mut change = change.clone();
        match (self.fault, &change.content) {
            (Fault::UnknownDeletes, Content::Unknown) => change.content = Content::Delete,
            (Fault::DropsGone, _) => change.gone.clear(),
            _ => {}
        }
        let superseded = record.merge(&change, terms);
        match self.fault {
            Fault::UnknownWinsTies if change.version <= before.mark => {
                record.mark = record.mark.max(before.mark.next());
                record.value = Value::none();
            }
            Fault::ReleasesAtTheChange => {
                for last in record.dirty.values_mut() {
                    *last = (*last).max(change.version);
                }
            }
            Fault::ForgetsDirty => record.dirty.clear(),
            Fault::BelievesTheOlder if superseded => {
                if let Content::Put { value, .. } = &change.content {
                    record.value = value.clone();
                }
            }
            Fault::KeepsItsBytes if superseded => record.value = Value::none(),
            _ => {}
        }
        self.put(&change.home, record.encode());
        (superseded && !self.is(Fault::NeverSuperseded), record)
    }

    fn write(&self, write: &Write) -> Result<Outcome> {
        Self::refuse_long(&[&write.key])?;
        let stands = self.read(&write.key);
        if self.is(Fault::WriteIsNotAtomic) {
            std::thread::yield_now();
        }
        let mut write = write.clone();
        if self.is(Fault::RegisterIsSlot) {
            write.order = Order::Slot;
        }
        let wrong = stands.as_ref().is_some_and(|stands| self.replaces_wrongly(&write, &stands.head));
        let right = Record::overwrite(stands.as_ref(), &write);
        let reversed = self.is(Fault::TieReversed)
            && stands.as_ref().is_some_and(|stands| stands.head.version == write.head.version)
            && right.is_some();
        let entry = match (right, stands) {
            (_, _) if reversed => None,
            (None, Some(stands)) if wrong => {
                Some(Envelope::encode(&write.head, stands.ledger.as_deref(), &write.value))
            }
            (Some(_), Some(stands)) if self.is(Fault::ShortensLedger) => {
                Some(Envelope::encode(&write.head, stands.ledger.as_deref(), &write.value))
            }
            (Some(_), _) if self.is(Fault::LosesLedger) => Some(Envelope::encode(&write.head, None, &write.value)),
            (right, _) => right,
        };
        let Some(entry) = entry else { return Ok(Outcome::Superseded) };
        if self.is(Fault::DeletesForTombstone) && write.head.state == State::Tombstone {
            self.remove(&write.key);
        } else if self.is(Fault::CutsValues) && entry.len() > 65_536 {
            self.put(&write.key, Envelope::encode(&write.head, None, &Value::none()));
        } else {
            self.put(&write.key, entry);
        }
        Ok(Outcome::Written)
    }

    fn replaces_wrongly(&self, write: &Write, stands: &Head) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "that is the fault")]
        let float = |head: &Head| {
            let version = head.version;
            (version.epoch(), version.timeline(), version.sequence() as f64)
        };
        match self.fault {
            Fault::IgnoresVersion => true,
            Fault::TiesReplace => write.head.version == stands.version,
            Fault::TieReversed => write.head.version == stands.version && write.head.state < stands.state,
            Fault::ComparesVersionsAsFloats => float(&write.head) >= float(stands),
            _ => false,
        }
    }

    fn apply(&self, change: &Delta, terms: &Terms) -> Result<Outcome> {
        let listed: Vec<&Key> = match &change.content {
            Content::Put { keys, .. } => keys.iter().map(|listed| &listed.key).collect(),
            _ => Vec::new(),
        };
        if !self.is(Fault::ApplyStopsHalfway) {
            Self::refuse_long(&listed)?;
        }
        let (superseded, mut record) = self.merge(change, terms);
        let mut writes = record.project(&change.home, terms);
        if self.is(Fault::ApplyWritesTheChange) {
            let mut own = Record::new();
            own.merge(change, terms);
            writes = own.project(&change.home, terms);
        }
        for write in writes {
            self.write(&write)?;
        }
        if !self.is(Fault::ApplyForgetsToConfirm) {
            // What the writes did to the home key, where another generation's slot is, has to stay.
            record.dirty.clear();
        }
        self.put(&change.home, record.encode());
        Ok(Outcome::Applied { superseded })
    }

    fn sweep(&self, key: &Key, terms: &Terms) {
        let Some(envelope) = self.read(key) else { return };
        let is_record = envelope.ledger.is_some();
        let end = match self.fault {
            Fault::SweepsAll => 1,
            Fault::SweepsNothing => 0,
            Fault::SweepsRecords => envelope.head.expires_at,
            _ if is_record => self.record(key).forgotten_at(terms),
            _ => envelope.head.expires_at,
        };
        if end != 0 && end <= terms.now {
            self.remove(key);
        }
    }

    fn run(&self, step: &Step, terms: &Terms) -> Result<Outcome> {
        match step {
            Step::Apply(change) => self.apply(change, terms),
            Step::Merge(change) => {
                Self::refuse_long(&[&change.home])?;
                let (superseded, record) = self.merge(change, terms);
                Ok(Outcome::Merged { superseded, record: Box::new(record) })
            }
            Step::Write(write) => self.write(write),
            Step::Confirm { home, released } => {
                let is_record = self.read(home).is_some_and(|envelope| envelope.ledger.is_some());
                if is_record || self.is(Fault::ConfirmMakesARecord) {
                    let mut record = self.record(home);
                    record.confirm(released);
                    if self.is(Fault::ConfirmsAnyVersion) {
                        record.dirty.retain(|key, _| released.iter().all(|(released, _)| released != key));
                    }
                    self.put(home, record.encode());
                }
                Ok(Outcome::Done)
            }
            Step::Sweep(key) => {
                self.sweep(key, terms);
                Ok(Outcome::Done)
            }
            Step::Remove { key, stands } => {
                let is_it = self.entries.lock().get(&self.stored(key)) == Some(stands);
                if (is_it && !self.is(Fault::RemovesNothing)) || self.is(Fault::RemovesAnything) {
                    self.remove(key);
                }
                Ok(Outcome::Done)
            }
        }
    }
}

/// Held by every call but those of the faults that race.
static WHOLE: Mutex<()> = Mutex::new(());

impl Store for Sloppy {
    fn name(&self) -> &'static str {
        "sloppy"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(if self.up { Status::Up } else { Status::Down }, Vec::new())
    }

    fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl SyncStore for Sloppy {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX_KEY, 1 << 30, 1024).with_whole_changes()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        if !self.up && self.is(Fault::WrittenOnOutage) {
            return steps.iter().map(|_| Ok(Outcome::Written)).collect();
        }
        if let Err(down) = self.reach() {
            return steps.iter().map(|_| Err(down.clone())).collect();
        }
        let racing = self.is(Fault::MergeIsNotAtomic) || self.is(Fault::WriteIsNotAtomic);
        let _whole = (!racing).then(|| WHOLE.lock());
        if self.is(Fault::LastStepFirst) {
            let mut answers: Vec<_> = steps.iter().rev().map(|step| self.run(step, terms)).collect();
            answers.reverse();
            return answers;
        }
        let answers: Vec<_> = steps.iter().map(|step| self.run(step, terms)).collect();
        match answers.iter().find_map(|answer| answer.as_ref().err().cloned()) {
            Some(failed) if self.is(Fault::OneFailureFailsAll) => steps.iter().map(|_| Err(failed.clone())).collect(),
            _ => answers,
        }
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        if !self.up && self.is(Fault::AbsentOnOutage) {
            return Ok(vec![None; keys.len()]);
        }
        self.reach()?;
        let _whole = (!self.is(Fault::ApplyShowsHalves)).then(|| WHOLE.lock());
        let mut keys = keys.to_vec();
        match self.fault {
            Fault::SortsAnswers => keys.sort(),
            Fault::DropsDuplicates => {
                let mut seen = std::collections::BTreeSet::new();
                keys.retain(|key| seen.insert(key.clone()));
            }
            _ => {}
        }
        let entries = self.entries.lock();
        let mut found: Vec<Option<Bytes>> = keys.iter().map(|key| entries.get(&self.stored(key)).cloned()).collect();
        if self.is(Fault::SwapsValues) && found.len() > 1 {
            found.swap(0, 1);
        }
        if self.is(Fault::FallsBack) && self.flicker.fetch_xor(true, Ordering::Relaxed) {
            let old = Head { version: kvsync::Version::ZERO, state: State::Unknown, expires_at: 0 };
            found.iter_mut().flatten().for_each(|bytes| *bytes = Envelope::encode(&old, None, &Value::none()));
        }
        Ok(found)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.reach()?;
        let limit = if self.is(Fault::ScanOfNoneEnds) { limit } else { limit.max(1) };
        let last = match cursor.map(|cursor| String::from_utf8(cursor.0)) {
            None => None,
            Some(Ok(last)) => Some(last),
            Some(Err(_)) if self.is(Fault::ScanBeginsAnew) => None,
            Some(Err(_)) => return Err(Error::new(ErrorKind::Rejected, "no cursor of mine")),
        };
        if self.is(Fault::ScanCountsKeys) {
            let seen = last.map_or(0, |seen| seen.parse().unwrap());
            let entries = self.entries.lock();
            let found = entries.keys().filter(|key| key.starts_with(prefix)).skip(seen).take(limit);
            let keys: Vec<Key> = found.map(|key| Key::new(key.as_str())).collect();
            let next = (keys.len() == limit).then(|| Cursor((seen + limit).to_string().into_bytes()));
            return Ok(Page { keys, next });
        }
        let glob = prefix.strip_suffix(['*', '?']).filter(|_| self.is(Fault::GlobPrefix));
        let mut keys: Vec<Key> = self.entries.lock().keys().map(|key| Key::new(key.as_str())).collect();
        if self.is(Fault::ScanShowsItsOwn) && *self.epoch.lock() > 0 {
            keys.push(Key::new("~epoch"));
        }
        keys.retain(|key| key.as_str().starts_with(glob.unwrap_or(prefix)));
        keys.retain(|key| last.as_ref().is_none_or(|last| key.as_str() > last.as_str()));
        if self.is(Fault::ScanSkips) && last.is_some() && !keys.is_empty() {
            keys.remove(0);
        }
        keys.sort();
        keys.truncate(limit);
        let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor(last.as_str().into()));
        Ok(Page { keys, next })
    }

    fn epoch(&self) -> Result<u32> {
        self.reach()?;
        Ok(if self.is(Fault::EpochForgets) { 0 } else { *self.epoch.lock() })
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.reach()?;
        if self.is(Fault::EpochRaces) {
            let stands = *self.epoch.lock();
            std::thread::yield_now();
            *self.epoch.lock() = epoch.max(stands);
            return Ok(epoch.max(stands));
        }
        let mut stands = self.epoch.lock();
        *stands = if self.is(Fault::EpochFalls) { epoch } else { epoch.max(*stands) };
        Ok(*stands)
    }
}

impl fmt::Debug for Sloppy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sloppy({:?})", self.fault)
    }
}
