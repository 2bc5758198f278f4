//! Engines that are wrong on purpose are rejected by the suite of engines, and where rows or commands show it, by
//! that of stores.
//!
//! They are one optimistic engine, a copy of whose state each transaction works on, and a fault to choose.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use kvsync::store::data::Direction;
use kvsync::store::memory::Memory;
use kvsync::store::ordered::{Between, Engine, Limits, OrderedStore, Overlay, Reader, Writer};
use kvsync::store::{Health, Status, Store};
use kvsync::{Error, ErrorKind, Result};
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

use crate::ordered::Optimistic;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Snapshot isolation: only what is written has to stand as it was read.
    WriteSkew,
    LostUpdate,
    CommitsInSteps,
    ReadsAsItGoes,
    FailedWorkIsWritten,
    ReadsBehindItsWrites,
    EndsAreIncluded,
    LimitsBeforeReversing,
    NoLimitIsNone,
}

/// And the case of engines that has to say so.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::WriteSkew, "no_transaction_rests_on_a_key_that_others_write"),
    (Fault::WriteSkew, "no_transaction_rests_on_a_key_that_others_create"),
    (Fault::WriteSkew, "no_transaction_rests_on_a_range_that_others_fill"),
    (Fault::LostUpdate, "no_update_is_lost"),
    (Fault::CommitsInSteps, "no_reader_sees_half_a_transaction"),
    (Fault::ReadsAsItGoes, "a_reading_sees_one_state"),
    (Fault::FailedWorkIsWritten, "work_that_fails_writes_nothing"),
    (Fault::ReadsBehindItsWrites, "a_transaction_reads_what_it_wrote"),
    (Fault::EndsAreIncluded, "a_range_is_between_its_ends"),
    (Fault::LimitsBeforeReversing, "a_range_is_between_its_ends"),
    (Fault::NoLimitIsNone, "a_range_is_between_its_ends"),
];

/// And the case of stores, where one is likely to.
const IN_A_STORE: &[(Fault, &str)] = &[
    (Fault::WriteSkew, "what_is_added_while_a_collection_empties_stays"),
    (Fault::LostUpdate, "a_counter_loses_no_increment"),
    (Fault::LostUpdate, "scores_lose_no_increment"),
    (Fault::LostUpdate, "set_if_equal_is_a_compare_and_set"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("engines::memory", || passes(conformance::run_engine(Memory::default))),
        Trial::test("engines::optimistic", || passes(conformance::run_engine(Optimistic::default))),
        Trial::test("broken_engines::without_a_fault_it_passes", || {
            passes(conformance::run_engine(|| Loose::new(Fault::None)))
        }),
    ];
    trials.extend(FAULTS.iter().map(|(fault, case)| {
        Trial::test(format!("broken_engines::{fault:?}_is_rejected_as_{case}"), move || {
            let verdicts = conformance::run_engine(|| Loose::new(*fault));
            let rejected = |(name, verdict): &(&str, Verdict)| name == case && matches!(verdict, Verdict::Failed(_));
            if verdicts.iter().any(rejected) {
                Ok(())
            } else {
                Err(Failed::from(format!("{case} passes: {verdicts:?}")))
            }
        })
    }));
    trials.extend(IN_A_STORE.iter().map(|(fault, name)| {
        Trial::test(format!("broken_engines::{fault:?}_is_rejected_in_a_store_as_{name}"), move || {
            let case = conformance::cases().find(|case| case.name == *name).unwrap();
            // A race needs a few rounds to be lost.
            let lost = (0..50).any(|_| matches!(case.run(fault), Verdict::Failed(_)));
            if lost { Ok(()) } else { Err(Failed::from(format!("{name} passes"))) }
        })
    }));
    trials
}

fn passes(verdicts: Vec<(&'static str, Verdict)>) -> std::result::Result<(), Failed> {
    let failed: Vec<_> = verdicts.into_iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failed::from(format!("{failed:?}"))) }
}

impl Harness for Fault {
    fn fresh(&self) -> Stores {
        Stores::both(Arc::new(OrderedStore::over(Loose::new(*self))))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}

type Entries = BTreeMap<Bytes, Bytes>;

#[derive(Debug)]
struct Loose {
    fault: Fault,
    entries: Mutex<Entries>,
}

impl Loose {
    fn new(fault: Fault) -> Self {
        Self { fault, entries: Mutex::default() }
    }

    /// Whether a transaction may be written that began with `begin` and has changed these keys.
    fn takes(&self, begin: &Entries, now: &Entries, changes: &BTreeMap<Bytes, Option<Bytes>>) -> bool {
        match self.fault {
            Fault::LostUpdate => true,
            Fault::WriteSkew => changes.keys().all(|key| begin.get(key) == now.get(key)),
            _ => begin == now,
        }
    }

    fn write_down(&self, changes: BTreeMap<Bytes, Option<Bytes>>, mut entries: parking_lot::MutexGuard<'_, Entries>) {
        for (key, value) in changes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
            if self.fault == Fault::CommitsInSteps {
                parking_lot::MutexGuard::unlocked(&mut entries, std::thread::yield_now);
            }
        }
    }
}

impl Store for Loose {
    fn name(&self) -> &'static str {
        "loose"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Engine for Loose {
    fn limits(&self) -> Limits {
        Limits { key: 1 << 16, value: 1 << 24, transaction: usize::MAX, batch: 64 }
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        if self.fault == Fault::ReadsAsItGoes {
            return work(&Live(self));
        }
        let state = self.entries.lock().clone();
        work(&State(self.fault, state))
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        for _ in 0..100_000 {
            let begin = self.entries.lock().clone();
            let mut transaction = Overlay::new(State(self.fault, begin.clone()));
            let answer = if self.fault == Fault::ReadsBehindItsWrites {
                work(&mut Behind(State(self.fault, begin.clone()), &mut transaction))
            } else {
                work(&mut transaction)
            };
            if answer.is_err() && self.fault != Fault::FailedWorkIsWritten {
                return answer;
            }
            let changes = transaction.into_changes();
            let entries = self.entries.lock();
            if self.takes(&begin, &entries, &changes) {
                self.write_down(changes, entries);
                return answer;
            }
        }
        Err(Error::new(ErrorKind::Contention, "others never stopped"))
    }
}

struct State(Fault, Entries);

impl Reader for State {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.1.get(key).cloned())
    }

    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, (begin, end): Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let end = match end {
            Bound::Excluded(end) if self.0 == Fault::EndsAreIncluded => Bound::Included(end),
            end => end,
        };
        let inside = |(key, _): &(&Bytes, &Bytes)| RangeBounds::<[u8]>::contains(&(begin, end), &key[..]);
        let found = self.1.iter().filter(inside).map(|(key, value)| (key.clone(), value.clone()));
        let limit = if self.0 == Fault::NoLimitIsNone && limit == usize::MAX { 0 } else { limit };
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Reverse if self.0 == Fault::LimitsBeforeReversing => {
                found.take(limit).collect::<Vec<_>>().into_iter().rev().collect()
            }
            Direction::Reverse => found.rev().take(limit).collect(),
        })
    }
}

/// Reads what stands when it is asked.
struct Live<'a>(&'a Loose);

impl Reader for Live<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.entries.lock().get(key).cloned())
    }

    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        State(self.0.fault, self.0.entries.lock().clone()).range(between, direction, limit)
    }
}

/// A transaction that reads what stood when it began.
struct Behind<'a>(State, &'a mut Overlay<State>);

impl Reader for Behind<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key)
    }

    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.range(between, direction, limit)
    }
}

impl Writer for Behind<'_> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.1.put(key, value);
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.1.remove(key);
    }
}
