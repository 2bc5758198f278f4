//! Several writers at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::ground::{
    Checked, Dice, check, deliver, merge, put, record, remove, same, scan, stands, step, steps, terms, value, version,
    write,
};
use super::{Case, Needs};
use crate::envelope::{Envelope, State};
use crate::key::Key;
use crate::record::{Delta, Order, Record};
use crate::store::{Outcome, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("racing_writes_end_with_the_highest_version", Needs::Nothing, writes),
    Case::sync("racing_merges_lose_none", Needs::Nothing, merges),
    Case::sync("racing_deliveries_end_like_one_after_the_other", Needs::Nothing, deliveries),
    Case::sync("no_reader_sees_a_version_fall", Needs::Nothing, monotone),
    Case::sync("racing_raises_of_the_epoch_lose_none", Needs::Nothing, epochs),
    Case::sync("no_reader_sees_half_a_whole_change", Needs::WholeChanges, whole),
    Case::sync("a_scan_beside_writers_finds_what_stands", Needs::Nothing, scans),
];

pub(super) const THREADS: u64 = 4;

/// Runs `work` in several threads, each with its number.
pub(super) fn race(work: impl Fn(u64) -> Checked + Sync) -> Checked {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn({
                    let work = &work;
                    move || work(number)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}

/// Counts the rounds of one thread of a race: so many at least, and as many more as a quick store does in a moment.
/// A few would be over before the next thread has begun.
pub(super) fn rounds(least: u64) -> impl Iterator<Item = u64> {
    let begun = Instant::now();
    (0..).take_while(move |round| *round < least || begun.elapsed() < Duration::from_millis(50))
}

fn writes(store: &dyn SyncStore) -> Checked {
    const KEYS: u64 = 75;
    let terms = terms();
    let key = |number, order| format!("{order:?}:{number}");
    // All threads go from key to key together, so that they meet at each.
    let together = Barrier::new(usize::try_from(THREADS).unwrap_or(1));
    race(|number| {
        let mut dice = Dice(number);
        let mut failed = Ok(());
        for round in 0..KEYS {
            // A thread that has failed still comes, so that the others do not wait for ever.
            together.wait();
            for order in super::ground::ORDERS {
                let mut versions = [number + 1, number + 1 + THREADS];
                dice.shuffle(&mut versions);
                for at in versions {
                    let own = write(&key(round, order), version(at), State::Value, order);
                    if failed.is_ok() {
                        failed = step(store, Step::Write(own), &terms).map(|_| ());
                    }
                }
            }
        }
        failed
    })?;
    for round in 0..KEYS {
        for order in super::ground::ORDERS {
            let last = write(&key(round, order), version(2 * THREADS), State::Value, order);
            let stands = stands(store, last.key.as_str())?;
            same!(stands, Some((last.head.version, State::Value, last.value)), "{}", last.key);
        }
    }
    Ok(())
}

/// The changes of a row that moves to a new key each time.
fn moves(home: &str) -> Vec<Delta> {
    (1..=60).map(|at| put(home, at, &[&format!("{home}:{}", at % 7), &format!("{home}:only:{at}")])).collect()
}

fn merges(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    race(|number| {
        let mut changes = moves("home");
        Dice(number).shuffle(&mut changes);
        for change in changes.iter().filter(|change| change.version.sequence() % THREADS == number) {
            merge(store, change, &terms)?;
        }
        Ok(())
    })?;
    let mut pure = Record::new();
    for change in moves("home") {
        pure.merge(&change, &terms);
    }
    let found = record(store, "home")?;
    same!((found.version, &found.live, &found.value), (pure.version, &pure.live, &pure.value), "the raced record");
    // Which keys were ever listed depends on the order; that what was listed is live or dirty does not.
    same!(found.dirty.keys().all(|key| pure.dirty.contains_key(key) || key.as_str().contains(':')), true, "dirty keys");
    Ok(())
}

fn deliveries(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let rows = ["r1", "r2", "r3"];
    race(|number| {
        // Every change is delivered by two threads.
        let mut changes: Vec<Delta> = rows.iter().flat_map(|row| moves(row)).collect();
        changes.retain(|change| {
            let at = change.version.sequence();
            at % THREADS == number || (at + 1) % THREADS == number
        });
        Dice(number).shuffle(&mut changes);
        changes.iter().try_for_each(|change| deliver(store, change, &terms))
    })?;
    for row in rows {
        let Some(last) = moves(row).pop() else { continue };
        let live: Vec<String> = vec![format!("{row}:{}", 60 % 7), format!("{row}:only:60"), row.to_owned()];
        for key in &live {
            same!(
                stands(store, key)?,
                Some((last.version, State::Value, value(&format!("{row} at 60")))),
                "what stands under {key}"
            );
        }
        for key in scan(store, &format!("{row}:"), 100)? {
            if live.iter().all(|live| live != key.as_str()) {
                let state = stands(store, key.as_str())?.map(|(_, state, _)| state);
                check!(state != Some(State::Value), "{key} still answers, though its row has left it");
            }
        }
    }
    Ok(())
}

fn monotone(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let done = AtomicBool::new(false);
    let keys = [Key::new("home"), Key::new("a")];
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = [version(0); 2];
            while !done.load(Ordering::Acquire) {
                let found = store.get_many(&keys).map_err(|error| error.to_string())?;
                for ((last, bytes), key) in last.iter_mut().zip(found).zip(&keys) {
                    let Some(bytes) = bytes else { continue };
                    let at = Envelope::parse(&bytes).map_err(|error| error.to_string())?.head.version;
                    check!(at >= *last, "{key} fell from {last} to {at}");
                    *last = at;
                }
            }
            Ok(())
        });
        let written = (1..=150).try_for_each(|at| {
            // Newest first of each three, so that there is something to supersede.
            let at = at / 3 * 3 + (2 - at % 3) + 1;
            deliver(store, &put("home", at, &["a"]), &terms)
        });
        done.store(true, Ordering::Release);
        let read = reader.join().map_err(|_| "the reader panicked".to_owned())?;
        written.and(read)
    })
}

fn epochs(store: &dyn SyncStore) -> Checked {
    let failed = |error: crate::Error| error.to_string();
    race(|number| {
        for round in rounds(20) {
            let own = u32::try_from(round * THREADS + number + 1).unwrap_or(u32::MAX);
            let raised = store.raise_epoch(own).map_err(failed)?;
            check!(raised >= own, "a raise to {own} answered {raised}");
            let stands = store.epoch().map_err(failed)?;
            check!(stands >= raised, "the epoch fell from {raised} to {stands}");
        }
        Ok(())
    })
}

fn whole(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let over = AtomicBool::new(false);
    race(|number| {
        if number == 0 {
            let written = rounds(20).try_for_each(|round| {
                let change = put("home", round + 1, &["a", "b"]);
                step(store, Step::Apply(Arc::new(change)), &terms).map(|_| ())
            });
            over.store(true, Ordering::Release);
            return written;
        }
        while !over.load(Ordering::Acquire) {
            // What is read last may be newer, and never older: a change that shows in one place stands in all.
            let mut seen = version(0);
            for key in ["home", "a", "b", "home", "b", "a"] {
                let at = stands(store, key)?.map_or(version(0), |(at, ..)| at);
                check!(at >= seen, "{key} is at {at}, where {seen} was seen before");
                seen = at;
            }
        }
        Ok(())
    })
}

fn scans(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let at = |key: String| Step::Write(write(&key, version(1), State::Value, Order::Slot));
    let stay: Vec<Step> = (0..500).map(|number| at(format!("stays:{number}"))).collect();
    for answer in steps(store, &stay, &terms)? {
        same!(answer, Outcome::Written, "a write before the scan");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Acquire) {
                let new = format!("stays:{}:new", number % 500);
                steps(store, &[at(new.clone()), at(format!("more:{number}"))], &terms)?;
                if number % 3 > 0 {
                    remove(store, &new, &terms)?;
                }
                number += 1;
            }
            Ok::<_, String>(())
        });
        let scanned = (0..3).try_for_each(|_| {
            let found: BTreeSet<Key> = scan(store, "stays:", 50)?.into_iter().collect();
            let missing = (0..500).map(|number| Key::new(format!("stays:{number}"))).find(|key| !found.contains(key));
            same!(missing, None, "a key that stood all along and was not found");
            let foreign = found.iter().find(|key| !key.as_str().starts_with("stays:"));
            same!(foreign, None, "a key found without the prefix");
            Ok(())
        });
        done.store(true, Ordering::Release);
        let wrote = writer.join().map_err(|_| "the writer panicked".to_owned())?;
        scanned.and(wrote)
    })
}
