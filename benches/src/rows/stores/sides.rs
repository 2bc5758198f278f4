//! The two sides: what is asked of a store, and the same of the bare client.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kvsync::codec::{Codec, MessagePack};
use kvsync::envelope::{Envelope, Head, State, VERSION_AT, Value};
use kvsync::record::{Order, Terms, Write};
use kvsync::store::data::{Batch, DataCommands, DataStore};
use kvsync::store::{Outcome, Step, SyncStore};
use kvsync::{Key, Version};

use crate::Result;
use crate::clock::Clock;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};

/// Keys that take turns.
const KEYS: usize = 1000;
/// Commands of a batch.
const BATCH: usize = 100;
/// Bytes of a value.
pub(super) const VALUE: usize = 128;

/// The client library of a store, used as a program without kvsync would.
pub(super) trait Bare {
    /// Reads a value to its last byte. Whether there is one.
    fn get(&mut self, key: &str) -> Result<bool>;

    /// Writes a value.
    fn set(&mut self, key: &str, value: &Bytes) -> Result;

    /// Writes values in as few round trips as the library has for it.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result;

    /// Writes an entry, atomically, unless the one that stands there has at least its version. Whether it did.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool>;
}

/// By which clocks, and what should come out by the first; the others are reported.
pub(super) struct By<const N: usize> {
    pub(super) clocks: [Clock; N],
    pub(super) goal: Goal,
}

impl<const N: usize> By<N> {
    /// The figures of one operation, as speeds: above 1 when the store is faster than the bare client.
    pub(super) fn figures(&self, rounds: [crate::ratio::Rounds; N], what: &str) -> impl Iterator<Item = Figure> {
        let goals = std::iter::once(self.goal).chain(std::iter::repeat(Goal::Reported));
        let figure = |((rounds, clock), goal): ((crate::ratio::Rounds, Clock), Goal)| {
            rounds.speeds(format!("{what} ({})", clock.name()), goal)
        };
        rounds.into_iter().zip(self.clocks).zip(goals).map(figure).collect::<Vec<_>>().into_iter()
    }
}

/// Measures the four operations; a turn of batches has a twentieth of the operations.
pub(super) fn compare<const N: usize>(
    store: &(impl DataStore + SyncStore),
    bare: &mut dyn Bare,
    turns: Turns,
    by: &By<N>,
) -> Result<Vec<Figure>> {
    let names: Vec<String> = (0..KEYS).map(|number| format!("user:{number}")).collect();
    // The bare client has no other place for rows.
    let rows: Vec<String> = (0..KEYS).map(|number| format!("row:{number}")).collect();
    let keys: Vec<Key> = rows.iter().map(|name| Key::new(name.as_str())).collect();
    let value = Bytes::from(vec![b'v'; VALUE]);
    let mut figures = Vec::new();

    for name in &names {
        store.set(name, value.clone())?;
        bare.set(name, &value)?;
    }
    let rounds = turns.measure_by(
        by.clocks,
        &mut each(&names, |name| there(black_box(store.get(name)?).is_some())),
        &mut each(&names, |name| there(bare.get(name)?)),
    )?;
    figures.extend(by.figures(rounds, "get ÷ bare"));

    let rounds = turns.measure_by(
        by.clocks,
        &mut each(&names, |name| Ok(store.set(name, value.clone())?)),
        &mut each(&names, |name| bare.set(name, &value)),
    )?;
    figures.extend(by.figures(rounds, "set ÷ bare"));

    let batches: Vec<&[String]> = names.chunks(BATCH).collect();
    let rounds = Turns { operations: turns.operations.div_ceil(20), ..turns }.measure_by(
        by.clocks,
        &mut each(&batches, |names| {
            let mut batch = Batch::new();
            let pending: Vec<_> = names.iter().map(|name| batch.set(name, value.clone())).collect();
            let mut answers = batch.run(store);
            Ok(pending.into_iter().try_for_each(|pending| answers.take(pending))?)
        }),
        &mut each(&batches, |names| bare.set_many(names, &value)),
    )?;
    figures.extend(by.figures(rounds, "100 sets in a batch ÷ bare"));

    let versions = Versions::default();
    let body = body();
    let mut entry = encoded(versions.next(), &body).to_vec();
    let rounds = turns.measure_by(
        by.clocks,
        &mut each(&keys, |key| written(store, &[write(key.clone(), versions.next(), &body)])),
        &mut each(&rows, |name| {
            if let Some(version) = entry.get_mut(VERSION_AT..VERSION_AT + Version::LEN) {
                version.copy_from_slice(versions.next().as_bytes());
            }
            there(bare.put_if_newer(name, &entry)?)
        }),
    )?;
    figures.extend(by.figures(rounds, "put_if_newer ÷ bare"));
    Ok(figures)
}

/// Versions that rise, also from run to run.
pub(in crate::rows) struct Versions(Cell<u64>);

impl Default for Versions {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Cell::new(u64::try_from(now.as_micros()).unwrap_or_default()))
    }
}

impl Versions {
    pub(in crate::rows) fn next(&self) -> Version {
        self.0.set(self.0.get() + 1);
        Version::new(0, 0, self.0.get())
    }
}

/// The body of an entry.
pub(in crate::rows) fn body() -> Value {
    Value::model(MessagePack::ID, &[7; 3], &[b'v'; VALUE])
}

/// The entry that a write of this version makes.
pub(super) fn encoded(version: Version, body: &Value) -> Bytes {
    Envelope::encode(&Head { version, state: State::Value, expires_at: 0 }, None, body)
}

/// The step that writes it.
pub(in crate::rows) fn write(key: Key, version: Version, body: &Value) -> Step {
    let head = Head { version, state: State::Value, expires_at: 0 };
    Step::Write(Write { key, head, value: body.clone(), order: Order::Register })
}

/// Runs steps; each has to write.
pub(in crate::rows) fn written(store: &dyn SyncStore, steps: &[Step]) -> Result {
    let terms = Terms { now: 1, left: 600_000, dead: 604_800_000 };
    for outcome in store.execute(steps, &terms) {
        there(outcome? == Outcome::Written)?;
    }
    Ok(())
}

/// A value that is missing, or a write that was refused, would make a side look fast.
pub(in crate::rows) fn there(is: bool) -> Result {
    if is { Ok(()) } else { Err("a value is missing, or a write was refused".into()) }
}

/// A side that does one thing with each of these by turns, for ever.
pub(in crate::rows) fn each<'a, T>(
    items: &'a [T],
    mut run: impl FnMut(&'a T) -> Result,
) -> impl FnMut(usize) -> Result {
    let mut turns = items.iter().cycle();
    move |operations| turns.by_ref().take(operations).try_for_each(&mut run)
}
