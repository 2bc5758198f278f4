//! The search: every interleaving of the operations of all workers on one store.
//!
//! A state is what stands under each key and what each worker still has to do, each of them a number.
//! The real code is asked once for each pair of numbers; what it answers is remembered.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::instance::{Delivery, Instance, home, slot};
use super::invariants::shown;
use super::losses::Losses;
use super::protocol::{Mutation, Op, Phases};
use crate::envelope::{Envelope, State};
use crate::key::Key;
use crate::record::Record;
use crate::version::Version;

/// Keys and workers of the largest instance, and a place for the evictions that are left.
const MOST: usize = 16;
/// That place.
pub(super) const EVICTIONS: usize = MOST - 1;

/// What stands under each key, then what each worker has to do; numbers of `Search`'s tables.
pub(super) type Point = [u16; MOST];

/// A state in which an invariant does not hold, and how it came about.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) what: String,
    pub(super) trace: Vec<String>,
}

/// A search with one protocol over any number of instances.
pub(super) struct Search {
    mutation: Mutation,
    pub(super) rows: u8,
    whole: [bool; 2],
    pub(super) losses: Losses,
    pub(super) entries: Vec<Entry>,
    entry_ids: HashMap<Option<Bytes>, u16>,
    pub(super) ops: Vec<Op>,
    /// The place of the key that each operation is about.
    pub(super) places: Vec<usize>,
    op_ids: HashMap<Vec<u8>, u16>,
    pub(super) todos: Vec<Todo>,
    todo_ids: HashMap<Todo, u16>,
    /// For each number of a worker: what it may do next, and what is then left.
    nexts: Vec<Rc<[(u16, u16)]>>,
    pub(super) keys: Vec<Key>,
    acted: HashMap<(u16, u16), u16, BuildHasherDefault<Mix>>,
    visited: HashSet<Point, BuildHasherDefault<Mix>>,
    pub(super) states: u64,
    pub(super) instances: u64,
}

/// What stands under a key, and what readers make of it.
pub(super) struct Entry {
    pub(super) bytes: Option<Bytes>,
    pub(super) version: Version,
    pub(super) state: Option<State>,
    /// Whose bytes these are.
    pub(super) row: Option<u8>,
    /// The record that it is.
    pub(super) record: Option<Box<Record>>,
}

/// What a worker still has to do, as numbers of operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Todo {
    pub(super) phases: Vec<Vec<u16>>,
    pub(super) acknowledged: bool,
    acknowledged_at: usize,
    /// Whether it has still to be merged.
    pub(super) unmerged: bool,
}

/// The deliveries of an instance, with what is remembered of them.
pub(super) struct Board<'a> {
    pub(super) instance: &'a Instance,
    /// The place of the first worker.
    pub(super) first: usize,
    /// Places of workers that nothing tells apart.
    twins: Vec<Range<usize>>,
    merged: HashMap<(u16, usize), (u16, u16)>,
    applied: HashMap<(Vec<u16>, usize), Vec<u16>>,
}

impl Search {
    /// Over instances with so many rows and values.
    pub(super) fn new(mutation: Mutation, rows: u8, values: u8) -> Self {
        let mut search = Self {
            mutation,
            rows,
            keys: (0..rows).map(home).chain((1..=values).map(slot)).collect(),
            whole: [false; 2],
            losses: Losses::default(),
            entries: Vec::new(),
            entry_ids: HashMap::new(),
            ops: Vec::new(),
            places: Vec::new(),
            nexts: Vec::new(),
            op_ids: HashMap::new(),
            todos: Vec::new(),
            todo_ids: HashMap::new(),
            acted: HashMap::default(),
            visited: HashSet::default(),
            states: 0,
            instances: 0,
        };
        search.entry(None);
        search
    }

    /// The same with changes applied whole, in one step over all keys: those at even places, those at odd.
    pub(super) fn with_whole(self, whole: [bool; 2]) -> Self {
        Self { whole, ..self }
    }

    /// The same in a store that loses entries.
    pub(super) fn with_losses(self, losses: Losses) -> Self {
        Self { losses, ..self }
    }

    /// Visits every state that the deliveries of an instance can reach.
    pub(super) fn run(&mut self, instance: &Instance) -> Result<(), Violation> {
        let mut board = Board {
            instance,
            first: self.keys.len(),
            twins: twins(&instance.deliveries, self.keys.len()),
            merged: HashMap::new(),
            applied: HashMap::new(),
        };
        let mut start = [0; MOST];
        assert!(board.first + instance.deliveries.len() <= EVICTIONS, "more workers than there are places");
        start[EVICTIONS] = self.losses.evictions;
        for (index, delivery) in instance.deliveries.iter().enumerate() {
            let begin = if instance.registers {
                let writes = delivery.writes.iter().cloned().map(Op::Write).collect();
                self.todo(Phases { phases: vec![writes], acknowledged_at: 0 }, true)
            } else {
                self.todo(self.mutation.begin(&delivery.delta), false)
            };
            start[board.first + index] = begin;
        }
        self.instances += 1;
        self.visited.clear();
        self.visited.insert(start);
        let mut trace: Vec<String> = Vec::new();
        self.visit(&mut board, start, &mut trace).map_err(|what| Violation { what, trace })
    }

    fn visit(&mut self, board: &mut Board<'_>, point: Point, trace: &mut Vec<String>) -> Result<(), String> {
        self.states += 1;
        self.check(board, &point)?;
        for worker in 0..board.instance.deliveries.len() {
            let todo = point[board.first + worker];
            let nexts = Rc::clone(&self.nexts[usize::from(todo)]);
            for &(op, then) in nexts.iter() {
                let next = self.step(board, &point, worker, op, then);
                let next = board.sorted(next);
                if !self.visited.insert(next) {
                    continue;
                }
                trace.push(String::new());
                self.only_rises(board, &point, &next).and_then(|()| self.visit(board, next, trace)).inspect_err(
                    |_| {
                        // Said on the way back, so that it costs nothing on the way there.
                        if let Some(step) = trace.iter_mut().rev().find(|step| step.is_empty()) {
                            let delta = &board.instance.deliveries[worker].delta;
                            *step = format!("{} {}: {:?}", delta.home, delta.version, self.ops[usize::from(op)]);
                        }
                    },
                )?;
                trace.pop();
            }
        }
        if self.losses == Losses::default() {
            return Ok(());
        }
        for place in 0..board.first {
            for (how, cost) in [("expires", 0), ("is evicted", 1)] {
                let may = if cost == 0 {
                    self.may_expire(board, &point, place)
                } else {
                    self.may_evict(board, &point, place)
                };
                if !may {
                    continue;
                }
                let mut next = point;
                next[place] = 0;
                next[EVICTIONS] -= cost;
                if self.visited.insert(next) {
                    trace.push(format!("{} {how}", self.keys[place]));
                    self.visit(board, next, trace)?;
                    trace.pop();
                }
            }
        }
        Ok(())
    }

    /// The state after one operation of one worker.
    fn step(&mut self, board: &mut Board<'_>, point: &Point, worker: usize, op: u16, then: u16) -> Point {
        let mut next = *point;
        let own = board.first + worker;
        if !matches!(self.ops[usize::from(op)], Op::Merge) {
            let place = self.places[usize::from(op)];
            next[place] = self.act(point[place], op);
            next[own] = then;
        } else if self.whole[worker % 2] {
            next[..board.first].copy_from_slice(&self.apply(board, point, worker));
            next[own] = self.todo(Phases { phases: Vec::new(), acknowledged_at: 0 }, true);
        } else {
            let home = usize::from(board.instance.deliveries[worker].row);
            (next[home], next[own]) = self.merge(board, point[home], worker);
        }
        next
    }

    fn merge(&mut self, board: &mut Board<'_>, stands: u16, worker: usize) -> (u16, u16) {
        if let Some(known) = board.merged.get(&(stands, worker)) {
            return *known;
        }
        let delta = &board.instance.deliveries[worker].delta;
        let (entry, phases) = self.mutation.merge(self.entries[usize::from(stands)].bytes.as_ref(), delta);
        let answer = (self.entry(entry), self.todo(phases, true));
        board.merged.insert((stands, worker), answer);
        answer
    }

    fn apply(&mut self, board: &mut Board<'_>, point: &Point, worker: usize) -> Vec<u16> {
        let stands = point[..board.first].to_vec();
        if let Some(known) = board.applied.get(&(stands.clone(), worker)) {
            return known.clone();
        }
        let place = |key: &Key| self.keys.iter().position(|known| known == key).unwrap();
        let read = |key: &Key| self.entries[usize::from(stands[place(key)])].bytes.clone();
        let changed = Mutation::apply(&read, &board.instance.deliveries[worker].delta);
        let changed: Vec<_> = changed.into_iter().map(|(key, entry)| (place(&key), entry)).collect();
        let mut after = stands.clone();
        for (place, entry) in changed {
            after[place] = self.entry(entry);
        }
        board.applied.insert((stands, worker), after.clone());
        after
    }

    fn act(&mut self, stands: u16, op: u16) -> u16 {
        if let Some(known) = self.acted.get(&(stands, op)) {
            return *known;
        }
        let entry = self.mutation.act(self.entries[usize::from(stands)].bytes.as_ref(), &self.ops[usize::from(op)]);
        let entry = self.entry(entry);
        self.acted.insert((stands, op), entry);
        entry
    }

    fn entry(&mut self, bytes: Option<Bytes>) -> u16 {
        if let Some(known) = self.entry_ids.get(&bytes) {
            return *known;
        }
        let envelope = bytes.as_ref().map(|bytes| Envelope::parse(bytes).unwrap());
        let id = number(self.entries.len());
        self.entries.push(Entry {
            version: envelope.as_ref().map_or(Version::ZERO, |envelope| envelope.head.version),
            state: envelope.as_ref().map(|envelope| envelope.head.state),
            row: envelope.as_ref().and_then(shown),
            record: envelope
                .filter(|envelope| envelope.ledger.is_some())
                .map(|envelope| Box::new(Record::from_envelope(envelope).unwrap())),
            bytes: bytes.clone(),
        });
        self.entry_ids.insert(bytes, id);
        id
    }

    fn todo(&mut self, phases: Phases, merged: bool) -> u16 {
        let Phases { phases, acknowledged_at } = phases;
        let phases: Vec<Vec<u16>> = phases.iter().map(|phase| phase.iter().map(|op| self.op(op)).collect()).collect();
        let acknowledged = merged && phases.len() <= acknowledged_at;
        self.remember(Todo { phases, acknowledged, acknowledged_at, unmerged: !merged })
    }

    fn remember(&mut self, todo: Todo) -> u16 {
        if let Some(known) = self.todo_ids.get(&todo) {
            return *known;
        }
        let first = todo.phases.first().cloned().unwrap_or_default();
        let nexts: Vec<(u16, u16)> =
            first.iter().enumerate().map(|(place, op)| (*op, self.done(&todo, place))).collect();
        let id = number(self.todos.len());
        self.todos.push(todo.clone());
        self.nexts.push(nexts.into());
        self.todo_ids.insert(todo, id);
        id
    }

    /// What is left after one operation of the first phase.
    fn done(&mut self, todo: &Todo, place: usize) -> u16 {
        let mut todo = todo.clone();
        todo.phases[0].remove(place);
        if todo.phases[0].is_empty() {
            todo.phases.remove(0);
        }
        let merges = todo.phases.iter().flatten().any(|op| matches!(self.ops[usize::from(*op)], Op::Merge));
        todo.unmerged = merges;
        todo.acknowledged |= !merges && todo.phases.len() <= todo.acknowledged_at;
        self.remember(todo)
    }

    fn op(&mut self, op: &Op) -> u16 {
        let name = op.name();
        if let Some(known) = self.op_ids.get(&name) {
            return *known;
        }
        let id = number(self.ops.len());
        let key = match op {
            Op::Merge => None,
            Op::Write(write) => Some(&write.key),
            Op::Confirm { home, .. } => Some(home),
        };
        // A merge is about the home key of its change.
        self.places.push(key.map_or(0, |key| self.keys.iter().position(|known| known == key).unwrap()));
        self.ops.push(op.clone());
        self.op_ids.insert(name, id);
        id
    }
}

impl Board<'_> {
    /// The same state with workers of the same change in one order.
    fn sorted(&self, mut point: Point) -> Point {
        for twins in &self.twins {
            point[twins.clone()].sort_unstable();
        }
        point
    }
}

/// The places of deliveries that are the same; they stand side by side.
fn twins(deliveries: &[Delivery], first: usize) -> Vec<Range<usize>> {
    let same = |one: &Delivery, other: &Delivery| {
        one.delta == other.delta && one.writes == other.writes && one.required == other.required
    };
    let mut places = first..first;
    let mut twins = Vec::new();
    for group in deliveries.chunk_by(same) {
        places = places.end..places.end + group.len();
        twins.extend((group.len() > 1).then(|| places.clone()));
    }
    twins
}

fn number(len: usize) -> u16 {
    u16::try_from(len).expect("few enough to number")
}

/// A hash for small numbers: fast also where nothing is optimized.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
