use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvsync::envelope::{Envelope, State, Value};
use kvsync::record::{Content, Delta, Terms};
use kvsync::store::{Outcome, Step, SyncStore};
use kvsync::{Key, Version};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::table::{Table, bytes, home, slots};

type Checked<T = ()> = Result<T, String>;

/// A worker with one delivery, between two operations on the store.
struct Worker {
    change: Arc<Delta>,
    /// What it does next, the last first; a merge adds to it.
    todo: Vec<Step>,
    /// Whether the delivery has to end: it is neither a duplicate nor the work of a dead worker.
    acknowledges: bool,
}

/// Workers that are stepped one operation at a time, in any order.
pub(super) struct Workers<'a> {
    store: &'a dyn SyncStore,
    table: &'a Table,
    terms: Terms,
    whole: bool,
    dead: Vec<Worker>,
    /// For each row, the newest version that was acknowledged, and the newest told for certain and as
    /// unknown.
    acknowledged: Vec<Version>,
    certain: Vec<Version>,
    unknown: Vec<Version>,
    seen: BTreeMap<Key, Version>,
}

impl<'a> Workers<'a> {
    pub(super) fn new(store: &'a dyn SyncStore, table: &'a Table, whole: bool) -> Self {
        let none = vec![Version::ZERO; table.rows.len()];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let terms = Terms { now: u64::try_from(now).unwrap(), left: 600_000, dead: 604_800_000 };
        let (acknowledged, certain, unknown) = (none.clone(), none.clone(), none);
        Self { store, table, terms, whole, dead: Vec::new(), acknowledged, certain, unknown, seen: BTreeMap::new() }
    }

    /// Delivers changes: in disorder within a window, half of them twice, by several workers, of whom
    /// some die and are replaced.
    pub(super) fn deliver(&mut self, changes: Vec<Delta>, random: &mut StdRng) -> Checked {
        let mut queue: VecDeque<(Arc<Delta>, bool)> = VecDeque::new();
        for change in changes {
            let change = Arc::new(change);
            let again = random.random_bool(0.5);
            queue.push_back((Arc::clone(&change), true));
            if again {
                queue.push_back((change, false));
            }
        }
        let window = [3, 10, usize::MAX][random.random_range(0..3)];
        let most = random.random_range(2..=16);
        let mut busy: Vec<Worker> = Vec::new();
        while !queue.is_empty() || !busy.is_empty() {
            if busy.len() < most && !queue.is_empty() && (busy.is_empty() || random.random_bool(0.3)) {
                let place = random.random_range(0..queue.len().min(window));
                let (change, acknowledges) = queue.remove(place).unwrap();
                busy.push(self.worker(change, acknowledges));
                continue;
            }
            let place = random.random_range(0..busy.len());
            if random.random_bool(0.03) {
                let dead = busy.swap_remove(place);
                queue.push_front((Arc::clone(&dead.change), dead.acknowledges));
                self.dead.push(Worker { acknowledges: false, ..dead });
                continue;
            }
            if self.step(&mut busy[place], random)? {
                let done = busy.swap_remove(place);
                self.ended(&done)?;
            }
        }
        Ok(())
    }

    /// Reads again every row that is not known.
    pub(super) fn settle(&mut self, random: &mut StdRng) -> Checked {
        let open = (0..self.table.rows.len()).filter(|row| !self.is_known(*row));
        let settled: Vec<Delta> = open.map(|row| self.table.reread(row)).collect();
        self.deliver(settled, random)
    }

    /// Lets the dead go on where they stopped.
    pub(super) fn wake_the_dead(&mut self, random: &mut StdRng) -> Checked {
        while !self.dead.is_empty() {
            let place = random.random_range(0..self.dead.len());
            let mut woken = self.dead.swap_remove(place);
            if !self.step(&mut woken, random)? {
                self.dead.push(woken);
            }
        }
        Ok(())
    }

    fn worker(&self, change: Arc<Delta>, acknowledges: bool) -> Worker {
        let first = if self.whole { Step::Apply(Arc::clone(&change)) } else { Step::Merge(Arc::clone(&change)) };
        Worker { change, todo: vec![first], acknowledges }
    }

    /// One operation on the store; whether the worker has nothing left to do.
    fn step(&mut self, worker: &mut Worker, random: &mut StdRng) -> Checked<bool> {
        // Writes in any order; the confirmation, which stands first, comes last.
        let writes = worker.todo.iter().filter(|step| matches!(step, Step::Write(_))).count();
        let from = worker.todo.len() - writes;
        worker.todo[from..].shuffle(random);
        let Some(step) = worker.todo.pop() else { return Ok(true) };
        let answer = self.store.execute(std::slice::from_ref(&step), &self.terms).remove(0);
        if let Outcome::Merged { mut record, .. } = answer.map_err(|error| format!("{step:?}: {error}"))? {
            if let Content::Put { value, .. } = &worker.change.content
                && (record.version, record.is_known(), record.alive) == (worker.change.version, true, true)
            {
                record.value = value.clone();
            }
            let writes = record.project(&worker.change.home, &self.terms);
            let released: Vec<_> = record.dirty.into_iter().collect();
            if !released.is_empty() {
                worker.todo.push(Step::Confirm { home: worker.change.home.clone(), released });
            }
            worker.todo.extend(writes.into_iter().map(Step::Write));
        }
        self.check(&format!("after {step:?}"))?;
        // A lost confirmation is harmless.
        if matches!(worker.todo.as_slice(), [Step::Confirm { .. }]) && random.random_bool(0.2) {
            worker.todo.clear();
        }
        Ok(worker.todo.is_empty())
    }

    fn ended(&mut self, worker: &Worker) -> Checked {
        let change = &worker.change;
        let row = (0..self.table.rows.len()).find(|row| home(*row) == change.home).unwrap();
        let raise = |to: &mut Version| *to = (*to).max(change.version);
        raise(&mut self.acknowledged[row]);
        raise(if change.content == Content::Unknown { &mut self.unknown[row] } else { &mut self.certain[row] });
        self.check(&format!("once {} of {} was acknowledged", change.version, change.home))
    }

    fn is_known(&self, row: usize) -> bool {
        self.certain[row] >= self.unknown[row]
    }

    fn read(&self) -> Checked<Vec<(Key, Option<Envelope>)>> {
        let keys = self.table.keys();
        let found = self.store.get_many(&keys).map_err(|error| error.to_string())?;
        let parsed = found.into_iter().map(|bytes| bytes.map(|bytes| Envelope::parse(&bytes).unwrap()));
        Ok(keys.into_iter().zip(parsed).collect())
    }

    /// No key falls back, and none shows something older of a row than what was acknowledged of it.
    fn check(&mut self, when: &str) -> Checked {
        for (key, envelope) in self.read()? {
            let Some(envelope) = envelope else { continue };
            let version = envelope.head.version;
            let seen = self.seen.entry(key.clone()).or_default();
            if version < *seen {
                return Err(format!("{when} {key} fell from {seen} to {version}"));
            }
            *seen = version;
            let Some(row) = self.shown(&envelope)? else { continue };
            if version < self.acknowledged[row] {
                let newest = self.acknowledged[row];
                return Err(format!("{when} {key} shows row {row} at {version}, and {newest} is acknowledged"));
            }
        }
        Ok(())
    }

    /// The store says what the table says, or that it cannot tell.
    pub(super) fn check_rest(&mut self, when: &str) -> Checked {
        let mut standing: BTreeMap<Key, usize> = BTreeMap::new();
        for (row, now) in self.table.rows.iter().enumerate() {
            if let Some(now) = now {
                standing.extend(slots(*now).chain([home(row)]).map(|key| (key, row)));
            }
        }
        for (key, envelope) in self.read()? {
            let owner = standing.get(&key).copied();
            let shown = envelope.as_ref().map_or(Ok(None), |envelope| self.shown(envelope))?;
            let state = envelope.as_ref().map(|envelope| envelope.head.state);
            let right = match owner {
                Some(row) if self.is_known(row) => {
                    let settled = envelope.as_ref().map(|envelope| envelope.head.version);
                    shown == Some(row) && settled == Some(self.certain[row])
                }
                _ => shown.is_none(),
            };
            if !right {
                return Err(format!("{when} {key} shows {shown:?} ({state:?}), and in the table it is {owner:?}"));
            }
        }
        Ok(())
    }

    /// Whose bytes these are.
    fn shown(&self, envelope: &Envelope) -> Checked<Option<usize>> {
        if envelope.head.state != State::Value || envelope.value == Value::none() {
            return Ok(None);
        }
        let row = (0..self.table.rows.len()).find(|row| envelope.value == bytes(*row, envelope.head.version));
        row.map(Some).ok_or_else(|| format!("under {} stand the bytes of another version", envelope.head.version))
    }
}
