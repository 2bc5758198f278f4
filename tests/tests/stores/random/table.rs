use std::collections::BTreeMap;

use kvsync::envelope::Value;
use kvsync::record::{Content, Delta, Listed};
use kvsync::{Key, Version};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Two unique nullable columns.
pub(super) type Row = [Option<u8>; 2];

/// A table, and the counter that gives its versions.
pub(super) struct Table {
    /// What each row is; `None` is absent.
    pub(super) rows: Vec<Option<Row>>,
    /// The version of each row's last change.
    pub(super) versions: Vec<Version>,
    values: u8,
    counter: u64,
}

pub(super) fn home(row: usize) -> Key {
    Key::new(format!("row:{row}"))
}

pub(super) fn slot(column: usize, value: u8) -> Key {
    Key::new(format!("column{column}:{value}"))
}

pub(super) fn slots(row: Row) -> impl Iterator<Item = Key> {
    row.into_iter().enumerate().filter_map(|(column, value)| Some(slot(column, value?)))
}

/// Bytes that say whose they are, and from when.
pub(super) fn bytes(row: usize, version: Version) -> Value {
    Value::model(1, &[], format!("{row}:{}", version.sequence()).as_bytes())
}

/// What a transaction did to a row.
#[derive(Default)]
struct Touched {
    version: u64,
    gone: Vec<(Key, Version)>,
}

impl Table {
    pub(super) fn new(rows: usize, values: u8) -> Self {
        Self { rows: vec![None; rows], versions: vec![Version::ZERO; rows], values, counter: 1 }
    }

    /// A transaction of some statements; its changes, one a row, in the order of their versions. One in
    /// ten is rolled back.
    pub(super) fn transact(&mut self, random: &mut StdRng) -> Vec<Delta> {
        let before = self.rows.clone();
        let mut touched: BTreeMap<usize, Touched> = BTreeMap::new();
        for _ in 0..random.random_range(1..=4) {
            self.statement(random, &mut touched);
        }
        if random.random_bool(0.1) {
            self.rows = before;
            return Vec::new();
        }
        let mut changes: Vec<Delta> = touched
            .into_iter()
            .map(|(row, Touched { version, gone })| {
                self.versions[row] = Version::new(0, 1, version);
                Delta { gone, ..self.read(row, self.versions[row]) }
            })
            .collect();
        changes.sort_by_key(|change| change.version);
        changes
    }

    fn statement(&mut self, random: &mut StdRng, touched: &mut BTreeMap<usize, Touched>) {
        let row = random.random_range(0..self.rows.len());
        let column = random.random_range(0..2);
        let Some(now) = self.rows[row] else {
            let fresh = [0, 1].map(|column| random.random_bool(0.8).then(|| self.free(column, random)).flatten());
            return self.set(row, Some(fresh), touched);
        };
        let mut next = now;
        match random.random_range(0..10) {
            0 => self.set(row, None, touched),
            1 => self.set(row, Some(now), touched),
            2 => {
                next[column] = None;
                self.set(row, Some(next), touched);
            }
            3..6 => self.swap(row, column, random, touched),
            _ => {
                next[column] = self.free(column, random).or(now[column]);
                self.set(row, Some(next), touched);
            }
        }
    }

    /// Two rows exchange their values: one leaves its value, the other takes it, the first takes the
    /// other's.
    fn swap(&mut self, row: usize, column: usize, random: &mut StdRng, touched: &mut BTreeMap<usize, Touched>) {
        let others: Vec<usize> =
            (0..self.rows.len()).filter(|other| *other != row && self.rows[*other].is_some()).collect();
        let (Some(&other), Some(mut mine)) = (others.choose(random), self.rows[row]) else { return };
        let Some(mut theirs) = self.rows[other] else { return };
        let (my_value, their_value) = (mine[column], theirs[column]);
        mine[column] = None;
        self.set(row, Some(mine), touched);
        theirs[column] = my_value;
        self.set(other, Some(theirs), touched);
        mine[column] = their_value;
        self.set(row, Some(mine), touched);
    }

    fn set(&mut self, row: usize, to: Option<Row>, touched: &mut BTreeMap<usize, Touched>) {
        self.counter += 1;
        let touched = touched.entry(row).or_default();
        touched.version = self.counter;
        if let (Some(was), None) = (self.rows[row], to) {
            let at = Version::new(0, 1, self.counter);
            touched.gone.extend(slots(was).map(|key| (key, at)));
        }
        self.rows[row] = to;
    }

    fn free(&self, column: usize, random: &mut StdRng) -> Option<u8> {
        let taken: Vec<u8> = self.rows.iter().flatten().filter_map(|row| row[column]).collect();
        let free: Vec<u8> = (0..self.values).filter(|value| !taken.contains(value)).collect();
        free.choose(random).copied()
    }

    /// The row as it is, at this version.
    fn read(&self, row: usize, version: Version) -> Delta {
        let listed = |key| Listed { key, pointer: false };
        let content = match self.rows[row] {
            Some(now) => {
                Content::Put { value: bytes(row, version), expires_at: 0, keys: slots(now).map(listed).collect() }
            }
            None => Content::Delete,
        };
        Delta { home: home(row), version, content, gone: Vec::new() }
    }

    /// The change as it is told when nothing but its row is known.
    pub(super) fn forget(change: &Delta) -> Delta {
        Delta { content: Content::Unknown, ..change.clone() }
    }

    /// The row as a locked re-read finds it, at a version above all others.
    pub(super) fn reread(&self, row: usize) -> Delta {
        self.read(row, Version::new(0, 1, self.counter + 1))
    }

    /// All keys that a row can stand under.
    pub(super) fn keys(&self) -> Vec<Key> {
        let slots = (0..2).flat_map(|column| (0..self.values).map(move |value| slot(column, value)));
        (0..self.rows.len()).map(home).chain(slots).collect()
    }
}
