//! What the cases are made of.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::envelope::{Envelope, Head, State, Value};
use crate::key::Key;
use crate::record::{Content, Delta, Listed, Order, Record, Terms, Write};
use crate::store::{Outcome, Page, Step, SyncStore};
use crate::version::Version;

/// Fails the case when something does not hold.
macro_rules! check {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// Fails the case when two things differ.
macro_rules! same {
    ($found:expr, $wanted:expr, $($what:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) if found == wanted => {}
            (found, wanted) => {
                return Err(format!("{}: found {found:?}, wanted {wanted:?}", format_args!($($what)+)));
            }
        }
    };
}

pub(super) use {check, same};

/// What a case returns: why the store is wrong.
pub(super) type Checked<T = ()> = Result<T, String>;

pub(super) const STATES: [State; 3] = [State::Value, State::Unknown, State::Tombstone];
pub(super) const ORDERS: [Order; 2] = [Order::Slot, Order::Register];

/// The real time, since a store may expire entries by its own clock; long terms, so that it does not.
pub(super) fn terms() -> Terms {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Terms { now: u64::try_from(now.as_millis()).unwrap_or(u64::MAX), left: 600_000, dead: 604_800_000 }
}

pub(super) fn version(sequence: u64) -> Version {
    Version::new(0, 1, sequence)
}

pub(super) fn value(text: &str) -> Value {
    Value::model(1, &[7, 0x00ff_00ff], text.as_bytes())
}

pub(super) fn write(key: &str, at: Version, state: State, order: Order) -> Write {
    let value = if state == State::Value { value(&format!("{key} at {at}")) } else { Value::none() };
    Write { key: Key::new(key), head: Head { version: at, state, expires_at: 0 }, value, order }
}

pub(super) fn listed(key: &str) -> Listed {
    Listed { key: Key::new(key), pointer: false }
}

pub(super) fn change(home: &str, at: u64, content: Content) -> Delta {
    Delta { home: Key::new(home), version: version(at), content, gone: Vec::new() }
}

pub(super) fn put(home: &str, at: u64, keys: &[&str]) -> Delta {
    let keys = keys.iter().map(|key| listed(key)).collect();
    change(home, at, Content::Put { value: value(&format!("{home} at {at}")), expires_at: 0, keys })
}

pub(super) fn delete(home: &str, at: u64, gone: &[&str]) -> Delta {
    let gone = gone.iter().map(|key| (Key::new(*key), version(at))).collect();
    Delta { gone, ..change(home, at, Content::Delete) }
}

/// One step, answered.
pub(super) fn step(store: &dyn SyncStore, step: Step, terms: &Terms) -> Checked<Outcome> {
    let mut answers = store.execute(&[step], terms);
    same!(answers.len(), 1, "answers to one step");
    answers.pop().map_or_else(|| Err(String::new()), |answer| answer.map_err(|error| format!("a step failed: {error}")))
}

/// Steps in one call, all answered.
pub(super) fn steps(store: &dyn SyncStore, steps: &[Step], terms: &Terms) -> Checked<Vec<Outcome>> {
    let answers = store.execute(steps, terms);
    same!(answers.len(), steps.len(), "answers to {} steps", steps.len());
    answers.into_iter().map(|answer| answer.map_err(|error| format!("a step failed: {error}"))).collect()
}

pub(super) fn merge(store: &dyn SyncStore, change: &Delta, terms: &Terms) -> Checked<(bool, Record)> {
    match step(store, Step::Merge(Arc::new(change.clone())), terms)? {
        Outcome::Merged { superseded, record } => Ok((superseded, *record)),
        other => Err(format!("a merge answered {other:?}")),
    }
}

/// Removes what stands under a key.
pub(super) fn remove(store: &dyn SyncStore, key: &str, terms: &Terms) -> Checked {
    let key = Key::new(key);
    let stands =
        store.get_many(std::slice::from_ref(&key)).map_err(|error| format!("reading `{key}` failed: {error}"))?;
    let stands = stands.into_iter().next().flatten().ok_or_else(|| format!("nothing to remove under `{key}`"))?;
    same!(step(store, Step::Remove { key, stands }, terms)?, Outcome::Done, "a removal");
    Ok(())
}

/// A change by the protocol's steps: merge, write what the record says, confirm what was released.
pub(super) fn deliver(store: &dyn SyncStore, change: &Delta, terms: &Terms) -> Checked {
    let (_, mut record) = merge(store, change, terms)?;
    own_bytes(&mut record, change);
    let writes: Vec<Step> = record.project(&change.home, terms).into_iter().map(Step::Write).collect();
    steps(store, &writes, terms)?;
    if !record.dirty.is_empty() {
        let released = record.dirty.into_iter().collect();
        same!(
            step(store, Step::Confirm { home: change.home.clone(), released }, terms)?,
            Outcome::Done,
            "a confirmation"
        );
    }
    Ok(())
}

/// Puts the bytes back that a store may leave out of its answer, because the change has them.
pub(super) fn own_bytes(record: &mut Record, change: &Delta) {
    if let Content::Put { value, .. } = &change.content
        && record.version == change.version
        && record.is_known()
        && record.alive
    {
        record.value = value.clone();
    }
}

pub(super) fn entry(store: &dyn SyncStore, key: &str) -> Checked<Option<Envelope>> {
    let mut found = store.get_many(&[Key::new(key)]).map_err(|error| format!("reading `{key}` failed: {error}"))?;
    same!(found.len(), 1, "answers to one key");
    let bytes = found.pop().flatten();
    bytes
        .map(|bytes| Envelope::parse(&bytes).map_err(|error| format!("no envelope under `{key}`: {error}")))
        .transpose()
}

/// Version, state and bytes under a key; `None` where nothing stands.
pub(super) type Standing = Option<(Version, State, Value)>;

pub(super) fn stands(store: &dyn SyncStore, key: &str) -> Checked<Standing> {
    Ok(entry(store, key)?.map(|envelope| (envelope.head.version, envelope.head.state, envelope.value)))
}

pub(super) fn record(store: &dyn SyncStore, home: &str) -> Checked<Record> {
    match entry(store, home)? {
        Some(envelope) => Record::from_envelope(envelope).map_err(|error| error.to_string()),
        None => Ok(Record::new()),
    }
}

/// All keys that begin with a prefix, by pages of `limit`, sorted, each once.
pub(super) fn scan(store: &dyn SyncStore, prefix: &str, limit: usize) -> Checked<Vec<Key>> {
    let mut keys = std::collections::BTreeSet::new();
    let mut cursor = None;
    for _ in 0..1_000_000 {
        let Page { keys: page, next } =
            store.scan(prefix, cursor, limit).map_err(|error| format!("scanning `{prefix}` failed: {error}"))?;
        keys.extend(page);
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(keys.into_iter().collect()),
        }
    }
    Err(format!("scanning `{prefix}` never ended"))
}

/// Numbers that look random and are the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.roll(of.len() as u64)).unwrap_or_default();
        of.get(index)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, usize::try_from(self.roll(last as u64 + 1)).unwrap_or_default());
        }
    }
}
