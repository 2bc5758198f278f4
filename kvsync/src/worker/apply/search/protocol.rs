//! The protocol as it is, and protocols that look like it and are wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Job;
use crate::envelope::{Envelope, Head, State, Value};
use crate::key::Key;
use crate::record::Form;
use crate::record::{Content, Delta, Order, Record, Terms, Write};
use crate::store::steps::plan;
use crate::store::{Outcome, Step};
use crate::version::Version;

pub(super) const TERMS: Terms = Terms { now: 1_000_000, left: 600_000, dead: 604_800_000 };

/// What a worker still has to do: the operations of a phase in any order, then the next phase.
#[derive(Debug, Clone)]
pub(super) struct Phases {
    pub(super) phases: Vec<Vec<Op>>,
    /// The change is acknowledged when so many phases are left.
    pub(super) acknowledged_at: usize,
}

/// An operation on one key.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Merge,
    Write(Write),
    Confirm { home: Key, released: Vec<(Key, Version)> },
}

impl Op {
    /// The same for operations that do the same.
    pub(super) fn name(&self) -> Vec<u8> {
        match self {
            Self::Merge => Vec::new(),
            Self::Write(write) => {
                [write.key.as_str().as_bytes(), b" ", &Envelope::encode(&write.head, None, &write.value)].concat()
            }
            Self::Confirm { home, released } => format!("{home} {released:?}").into_bytes(),
        }
    }
}

/// Protocols that fail: each differs from the right one in one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    None,
    /// Of one version a value beats a tombstone.
    TieReversed,
    /// Of one version bytes beat unknown.
    BytesWin,
    /// Of one version unknown beats a tombstone.
    UnknownBeatsTombstone,
    /// A left key is released at the version of the change that left it.
    ReleaseAtTheChange,
    /// A tombstone is a removal.
    RemoveForTombstone,
    /// So is a mask.
    RemoveForMask,
    /// The left keys are confirmed before they are released.
    ConfirmBeforeRelease,
    /// The change's own keys are written before it is merged.
    DataBeforeLedger,
    /// Left keys are not kept in the record.
    ForgetsDirty,
    /// There is no ledger: a change writes its own keys.
    PutsOnly,
    /// A superseded change writes its own bytes under its own keys.
    SupersededWritesItsKeys,
    /// A superseded change writes its own bytes under the live keys.
    SupersededWritesItsBytes,
    /// A superseded change does nothing.
    SupersededDoesNothing,
    /// A confirmation forgets a key whatever its version.
    ConfirmsAnyVersion,
    /// In the record, unknown beats certain at its version.
    UnknownWinsTheRecord,
    /// Unknown is a deletion.
    UnknownDeletes,
    /// A mask stands at the version of the unknown change.
    MaskAtTheChange,
    /// An unknown change forgets which keys are live.
    UnknownForgetsLive,
    /// An unknown change is dropped.
    UnknownIsDropped,
    /// The live keys of a row that is not known are left as they are.
    SlotsUnmasked,
    /// An older certain change lifts a mark.
    OlderLiftsTheMark,
    /// An older certain change puts its bytes into a record that is not known.
    OlderPutsItsBytes,
    /// A mask is a tombstone.
    TombstoneForMask,
}

impl Mutation {
    pub(super) const ALL: &[Self] = &[
        Self::TieReversed,
        Self::BytesWin,
        Self::UnknownBeatsTombstone,
        Self::ReleaseAtTheChange,
        Self::RemoveForTombstone,
        Self::RemoveForMask,
        Self::ConfirmBeforeRelease,
        Self::DataBeforeLedger,
        Self::ForgetsDirty,
        Self::PutsOnly,
        Self::SupersededWritesItsKeys,
        Self::SupersededWritesItsBytes,
        Self::SupersededDoesNothing,
        Self::ConfirmsAnyVersion,
        Self::UnknownWinsTheRecord,
        Self::UnknownDeletes,
        Self::MaskAtTheChange,
        Self::UnknownForgetsLive,
        Self::UnknownIsDropped,
        Self::SlotsUnmasked,
        Self::OlderLiftsTheMark,
        Self::OlderPutsItsBytes,
        Self::TombstoneForMask,
    ];

    /// What a worker does first.
    pub(super) fn begin(self, delta: &Delta) -> Phases {
        let mut phases = vec![vec![Op::Merge]];
        if self == Self::DataBeforeLedger {
            phases.insert(0, own_writes(delta));
        }
        Phases { phases, acknowledged_at: 0 }
    }

    /// Merges a change into what stands under its home key; returns what stands there then, and what is
    /// left for the worker to do.
    pub(super) fn merge(self, stands: Option<&Bytes>, delta: &Delta) -> (Option<Bytes>, Phases) {
        let before = record(stands);
        let mut told = delta.clone();
        if self == Self::UnknownDeletes && delta.content == Content::Unknown {
            told.content = Content::Delete;
        }
        if self == Self::UnknownIsDropped && delta.content == Content::Unknown {
            return (stands.cloned(), Phases { phases: Vec::new(), acknowledged_at: 0 });
        }
        // The real step, and the real worker.
        let key = delta.home.clone();
        let (mut answers, changed) = plan(&[Step::Merge(Arc::new(told.clone()))], &TERMS, &|_| Ok(stands.cloned()));
        let answer = answers.remove(0).unwrap();
        let mut entry = changed.get(&key).cloned().unwrap_or_else(|| stands.cloned());
        let Outcome::Merged { superseded, record: mut merged } = answer else { panic!("a merge answered {answer:?}") };
        if self.mutate(&before, &mut merged, &told) {
            entry = Some(merged.encode());
        }
        if matches!(self, Self::ForgetsDirty | Self::PutsOnly) {
            entry = Some(Record { dirty: BTreeMap::new(), ..(*merged).clone() }.encode());
        }
        let (writes, confirm) = project(&told, superseded, &merged);
        let writes = self.rewrite(writes, &told, &merged);
        let phases = if self == Self::ConfirmBeforeRelease { [confirm, writes] } else { [writes, confirm] };
        let acknowledged_at = usize::from(self != Self::ConfirmBeforeRelease && !phases[1].is_empty());
        let phases = phases.into_iter().filter(|phase| !phase.is_empty()).collect();
        (entry, Phases { phases, acknowledged_at })
    }

    /// What a wrong merge makes of the record; whether it changed anything.
    fn mutate(self, before: &Record, merged: &mut Record, told: &Delta) -> bool {
        let unknown = told.content == Content::Unknown;
        match self {
            Self::UnknownWinsTheRecord if unknown && told.version >= before.version => {
                merged.mark = before.mark.max(told.version.next());
                merged.value = Value::none();
            }
            Self::UnknownForgetsLive if unknown && !merged.is_known() => merged.live.clear(),
            Self::OlderLiftsTheMark if !unknown && told.version == merged.version => {
                merged.mark = Version::ZERO;
                if let Content::Put { value, .. } = &told.content {
                    merged.value = value.clone();
                }
            }
            _ => return false,
        }
        true
    }

    /// The writes of a wrong projection.
    fn rewrite(self, mut writes: Vec<Write>, told: &Delta, merged: &Record) -> Vec<Op> {
        let newer = merged.version.max(merged.mark) > told.version;
        let own = if let Content::Put { value, .. } = &told.content { Some(value) } else { None };
        for write in &mut writes {
            let Head { version, state, .. } = &mut write.head;
            match (self, *state) {
                (Self::ReleaseAtTheChange, State::Tombstone) => *version = (*version).max(told.version),
                (Self::MaskAtTheChange, State::Unknown) => *version = (*version).max(merged.mark),
                (Self::TombstoneForMask, State::Unknown) => *state = State::Tombstone,
                (Self::SupersededWritesItsBytes, State::Value) if newer => {
                    if let Some(own) = own {
                        (*version, write.value) = (told.version, own.clone());
                    }
                }
                (Self::OlderPutsItsBytes, State::Unknown) if *version == told.version => {
                    if let Some(own) = own {
                        (*state, write.value) = (State::Value, own.clone());
                    }
                }
                _ => {}
            }
        }
        match self {
            Self::SlotsUnmasked => writes.retain(|write| write.head.state != State::Unknown),
            Self::SupersededDoesNothing if newer => writes.clear(),
            Self::PutsOnly => return own_writes(told),
            Self::SupersededWritesItsKeys if newer => return own_writes(told),
            _ => {}
        }
        writes.into_iter().map(Op::Write).collect()
    }

    /// Does an operation that is not a merge on what stands under its key.
    pub(super) fn act(self, stands: Option<&Bytes>, op: &Op) -> Option<Bytes> {
        match op {
            Op::Merge => unreachable!("a merge has its own function"),
            Op::Confirm { home, released } if self == Self::ConfirmsAnyVersion => {
                let mut record = record(stands);
                record.dirty.retain(|key, _| released.iter().all(|(released, _)| released != key));
                step(stands, home, Step::Confirm { home: home.clone(), released: Vec::new() });
                Some(record.encode())
            }
            Op::Confirm { home, released } => {
                step(stands, home, Step::Confirm { home: home.clone(), released: released.clone() })
            }
            Op::Write(write) => self.write(stands, write),
        }
    }

    fn write(self, stands: Option<&Bytes>, write: &Write) -> Option<Bytes> {
        let Head { version, state, .. } = write.head;
        let old = stands.map(|bytes| Envelope::parse(bytes).unwrap().head);
        let rank = |state| match (self, state) {
            (Self::TieReversed, State::Tombstone) | (Self::BytesWin, State::Unknown) => 0,
            (Self::BytesWin, State::Value) | (Self::UnknownBeatsTombstone, State::Tombstone) => 1,
            (Self::TieReversed, State::Value) | (Self::UnknownBeatsTombstone, State::Unknown) => 2,
            (_, state) => state as u8,
        };
        let removes = match self {
            Self::RemoveForTombstone => state == State::Tombstone,
            Self::RemoveForMask => state == State::Unknown,
            _ => false,
        };
        let reranked = matches!(self, Self::TieReversed | Self::BytesWin | Self::UnknownBeatsTombstone);
        if removes {
            return stands.filter(|_| old.is_some_and(|old| old.version > version)).cloned();
        }
        if reranked {
            let wins = old.is_none_or(|old| (old.version, rank(old.state)) < (version, rank(state)));
            return if wins { Some(Envelope::encode(&write.head, None, &write.value)) } else { stands.cloned() };
        }
        step(stands, &write.key, Step::Write(write.clone()))
    }

    /// A whole change in one step over all keys, as stores with transactions do it.
    pub(super) fn apply(stands: &dyn Fn(&Key) -> Option<Bytes>, delta: &Delta) -> Vec<(Key, Option<Bytes>)> {
        let (answers, changed) = plan(&[Step::Apply(Arc::new(delta.clone()))], &TERMS, &|key| Ok(stands(key)));
        assert!(matches!(answers.as_slice(), [Ok(Outcome::Applied { .. })]), "{answers:?}");
        changed.into_iter().collect()
    }
}

/// What the real worker makes of the answer to a merge: its writes, and what it then confirms.
fn project(told: &Delta, superseded: bool, merged: &Record) -> (Vec<Write>, Vec<Op>) {
    let mut job = Job::new(Form::Row(told.clone()));
    job.begin().unwrap();
    job.merged(Ok(Outcome::Merged { superseded, record: Box::new(merged.clone()) }), &TERMS);
    let writes = job.take_writes(&TERMS);
    for write in &writes {
        job.wrote(write.clone(), Ok(Outcome::Written), &TERMS);
    }
    let confirm = job.finish().into_iter().map(|(home, released)| Op::Confirm { home, released }).collect();
    assert!(job.fate.is_some(), "the worker wants more of {told:?}");
    (writes, confirm)
}

/// The writes of a change that knows no ledger.
fn own_writes(delta: &Delta) -> Vec<Op> {
    let write = |key: &Key, version, state, value: &Value| {
        let head = Head { version, state, expires_at: 0 };
        Op::Write(Write { key: key.clone(), head, value: value.clone(), order: Order::Slot })
    };
    let gone = delta.gone.iter().map(|(key, last)| write(key, *last, State::Tombstone, &Value::none()));
    match &delta.content {
        Content::Put { value, keys, .. } => {
            keys.iter().map(|listed| write(&listed.key, delta.version, State::Value, value)).chain(gone).collect()
        }
        Content::Delete | Content::Unknown => gone.collect(),
    }
}

pub(super) fn record(stands: Option<&Bytes>) -> Record {
    stands.map_or_else(Record::new, |bytes| Record::from_envelope(Envelope::parse(bytes).unwrap()).unwrap())
}

/// The store's own step on what stands under one key.
fn step(stands: Option<&Bytes>, key: &Key, step: Step) -> Option<Bytes> {
    let (answers, changed) = plan(&[step], &TERMS, &|_| Ok(stands.cloned()));
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    changed.get(key).cloned().unwrap_or_else(|| stands.cloned())
}
