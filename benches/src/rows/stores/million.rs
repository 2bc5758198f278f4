use std::hint::black_box;
use std::ops::Range;

use bytes::Bytes;
use kvsync::Key;
use kvsync::store::data::{Batch, DataStore};
use kvsync::store::{EmbeddedStore, SyncStore};

use super::embedded::Fjall;
use super::sides::{By, VALUE, Versions, body, encoded, there, write, written};
use crate::Result;
use crate::clock::Clock;
use crate::models::mixed;
use crate::options::Options;
use crate::ratio::{Side, Turns};
use crate::table::{Figure, Goal};

/// Keys of a turn, and turns of a round: with the round that does not count, 20 rounds make a million keys.
const TURN: usize = 10_000;
const TURNS: usize = 5;
/// Keys of a batch that writes, and of one call that reads.
const WRITES: usize = 1000;
const READS: usize = 100;

const BY: By<2> = By { clocks: [Clock::Wall, Clock::Thread], goal: Goal::AtLeast(0.9) };

/// A million keys of 21 bytes in no order, written and then read in another, with tables on disk and all that fjall does
/// beside. Both sides grow by turns. Fewer with `--quick`.
///
/// The bare fjall writes batches of the same size, handed to the operating system, with tables in memory of the same
/// size. A `set` is measured against an `insert` that looks at nothing; `put_if_newer` against a read, a comparison of
/// the versions and an `insert`, and for information against the `insert` alone.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(19), each: TURNS, operations: TURN };
    let mut figures = sets(turns)?;
    figures.extend(rows(turns, Against::Compare)?);
    figures.extend(rows(turns, Against::Insert)?);
    Ok(figures)
}

fn sets(turns: Turns) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let store = EmbeddedStore::open(dir.path().join("ours"))?;
    let bare = Fjall::open(&dir.path().join("theirs"))?;
    let value = Bytes::from(vec![b'v'; VALUE]);
    let batches = |keys: Range<usize>| -> Vec<Batch> {
        let names: Vec<String> = keys.map(name).collect();
        let batch = |names: &[String]| {
            let mut batch = Batch::new();
            for name in names {
                let _ = batch.set(name, value.clone());
            }
            batch
        };
        names.chunks(WRITES).map(batch).collect()
    };
    let write = |batch: Batch| -> Result {
        for reply in store.run(batch.commands(), kvsync::store::data::Reads::Latest) {
            there(reply?.taken()?)?;
        }
        Ok(())
    };
    let rounds = turns.measure_by(
        BY.clocks,
        &mut Slices::new(batches, write),
        &mut Slices::new(chunked(WRITES, name), |names: Vec<String>| {
            let mut batch = bare.batch();
            for name in &names {
                batch.insert(&bare.tree, name.as_str(), &value[..]);
            }
            Ok(batch.commit()?)
        }),
    )?;
    let mut figures: Vec<Figure> = BY.figures(rounds, "1,000,000 sets in batches of 1000 ÷ bare").collect();
    let written = (turns.rounds + 1) * TURNS * TURN;
    let elsewhere = move |number: usize| name(number * 7919 % written);
    let rounds = turns.measure_by(
        BY.clocks,
        &mut Slices::new(chunked(READS, elsewhere), |names: Vec<String>| {
            let mut batch = Batch::new();
            let pending = batch.mget(&names);
            let found = batch.run(&store).take(pending)?;
            there(black_box(found).iter().all(Option::is_some))
        }),
        &mut Slices::new(chunked(READS, elsewhere), |names: Vec<String>| {
            names.iter().try_for_each(|name| there(black_box(bare.tree.get(name)?).is_some()))
        }),
    )?;
    figures.extend(BY.figures(rounds, "1,000,000 gets, 100 a call ÷ bare"));
    Ok(figures)
}

/// What the bare side does where ours is `put_if_newer`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Compare,
    Insert,
}

fn rows(turns: Turns, against: Against) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let store = EmbeddedStore::open(dir.path().join("ours"))?;
    let bare = Fjall::open(&dir.path().join("theirs"))?;
    let (versions, body) = (Versions::default(), body());
    let (what, goal) = match against {
        Against::Compare => ("1,000,000 × put_if_newer in batches of 1000 ÷ bare", Goal::AtLeast(0.9)),
        Against::Insert => ("1,000,000 × put_if_newer in batches of 1000 ÷ insert alone", Goal::Reported),
    };
    let by = By { goal, ..BY };
    let step = |number: usize| write(Key::new(name(number)), versions.next(), &body);
    let entry = |number: usize| (name(number), encoded(versions.next(), &body));
    let rounds = turns.measure_by(
        by.clocks,
        &mut Slices::new(chunked(WRITES, step), |steps: Vec<_>| written(&store, &steps)),
        &mut Slices::new(chunked(WRITES, entry), |entries: Vec<(String, Bytes)>| {
            if against == Against::Compare {
                return there(bare.put_newer(entries.iter().map(|(name, entry)| (name.as_str(), &entry[..])))?);
            }
            let mut batch = bare.batch();
            for (name, entry) in &entries {
                batch.insert(&bare.tree, name.as_str(), &entry[..]);
            }
            Ok(batch.commit()?)
        }),
    )?;
    let mut figures: Vec<Figure> = by.figures(rounds, what).collect();
    if against == Against::Compare {
        let written = (turns.rounds + 1) * TURNS * TURN;
        let elsewhere = move |number: usize| number * 7919 % written;
        let rounds = turns.measure_by(
            BY.clocks,
            &mut Slices::new(chunked(READS, move |number| Key::new(name(elsewhere(number)))), |keys: Vec<Key>| {
                there(black_box(store.get_many(&keys)?).iter().all(Option::is_some))
            }),
            &mut Slices::new(chunked(READS, move |number| name(elsewhere(number))), |names: Vec<String>| {
                names.iter().try_for_each(|name| there(black_box(bare.tree.get(name)?).is_some()))
            }),
        )?;
        figures.extend(BY.figures(rounds, "1,000,000 entries read, 100 a call ÷ bare"));
    }
    Ok(figures)
}

/// Keys that follow each other are far apart.
fn name(number: usize) -> String {
    format!("user:{:016x}", mixed(u32::try_from(number).unwrap_or_default()))
}

/// Makes one of each number, in chunks.
fn chunked<T>(size: usize, make: impl Fn(usize) -> T) -> impl Fn(Range<usize>) -> Vec<Vec<T>> {
    move |numbers| {
        let starts = numbers.clone().step_by(size);
        starts.map(|start| (start..numbers.end.min(start + size)).map(&make).collect()).collect()
    }
}

/// A side that goes on to further numbers with every turn. What it works on is made before the turn is timed.
struct Slices<I, P, R> {
    next: usize,
    inputs: Vec<I>,
    prepare: P,
    run: R,
}

impl<I, P: FnMut(Range<usize>) -> Vec<I>, R: FnMut(I) -> Result> Slices<I, P, R> {
    fn new(prepare: P, run: R) -> Self {
        Self { next: 0, inputs: Vec::new(), prepare, run }
    }
}

impl<I, P: FnMut(Range<usize>) -> Vec<I>, R: FnMut(I) -> Result> Side for Slices<I, P, R> {
    fn prepare(&mut self, operations: usize) -> Result {
        self.inputs = (self.prepare)(self.next..self.next + operations);
        self.next += operations;
        Ok(())
    }

    fn run(&mut self, _: usize) -> Result {
        std::mem::take(&mut self.inputs).into_iter().try_for_each(&mut self.run)
    }
}
