use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::{Change, Unknown};
use crate::key::{Key, Scope};
use crate::model::{PrimaryKey, Schema, Wanted};
use crate::sync::{Condvar, Mutex};
use crate::version::Version;

/// The rows whose content a store does not know and that have to be read again: deferred, in doubt, or
/// impossible to encode. One entry a row, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Unsettled {
    state: Mutex<State>,
    wake: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<Key, Row>,
    bytes: usize,
    closed: bool,
}

/// A row that has to be read again.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) schema: &'static Schema,
    pub(crate) database: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) primary_key: PrimaryKey,
    /// The newest version that is not known.
    pub(crate) version: Version,
    /// Keys without a ledger.
    pub(crate) kept: Vec<Kept>,
    /// The oldest and the newest commit that wait for it.
    pub(crate) commits: (u64, u64),
    /// Whether an outbox keeps all its changes: whoever gives the row up says so there.
    pub(crate) kept_in_outbox: bool,
    /// How far it is.
    pub(crate) stage: Stage,
    /// How often it was tried in vain.
    pub(crate) attempts: u32,
    due: Instant,
    busy: bool,
}

/// A key without a ledger under which a row was written, or may have been.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Before the scope.
    pub(crate) key: Key,
    pub(crate) version: Version,
    /// Whether the row certainly was written there. A version of a commit in doubt may be given again,
    /// to the change of another row.
    pub(crate) certain: bool,
}

/// How far a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The store has not been told that it does not know the row.
    Unmasked,
    /// Readers are sent to the database.
    Masked,
    /// The store refuses the row for good, or nobody can read it again; nobody waits for it any longer.
    Refused,
}

impl Row {
    /// The row of a change, without its content.
    pub(crate) fn new(change: &Change, unknown: Unknown, commit: u64, stage: Stage) -> Self {
        let (version, certain) = (change.version, unknown.certain);
        Self {
            schema: change.schema,
            database: Arc::clone(&change.database),
            scope: change.scope.clone(),
            primary_key: unknown.primary_key,
            version,
            kept: unknown.kept.into_iter().map(|key| Kept { key, version, certain }).collect(),
            commits: (commit, commit),
            kept_in_outbox: false,
            stage,
            attempts: 0,
            due: Instant::now(),
            busy: false,
        }
    }

    /// The key that names it.
    pub(crate) fn home(&self) -> Key {
        self.primary_key.home().clone().within(&self.scope)
    }

    /// What to ask of a source.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            schema: self.schema,
            scope: self.scope.clone(),
            primary_key: self.primary_key.clone(),
            floor: self.version,
        }
    }

    fn size(&self) -> usize {
        let kept: usize = self.kept.iter().map(|kept| size_of::<Kept>() + kept.key.as_str().len() + 16).sum();
        // The row, its key in the map and in its primary key, and what the allocator adds.
        size_of::<Self>() + size_of::<Key>() + 2 * self.primary_key.home().as_str().len() + 160 + kept
    }

    fn absorb(&mut self, other: Self) {
        // The mark of a newer version has yet to be written, unless it was. A row that was refused and is delivered
        // once more is waited for once more.
        if other.version > self.version || self.stage == Stage::Refused {
            self.stage = other.stage;
        }
        self.version = self.version.max(other.version);
        for new in other.kept {
            match self.kept.iter_mut().find(|kept| kept.key == new.key) {
                Some(kept) if kept.version < new.version => *kept = new,
                Some(_) => {}
                None => self.kept.push(new),
            }
        }
        self.kept_in_outbox &= other.kept_in_outbox;
        self.commits = (self.commits.0.min(other.commits.0), self.commits.1.max(other.commits.1));
        self.due = self.due.min(other.due);
    }
}

impl Unsettled {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), limit }
    }

    /// Takes a row in, or gives it back when there is no room.
    pub(crate) fn insert(&self, row: Row) -> Result<(), Box<Row>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Box::new(row));
        }
        let home = row.home();
        if let Some(mut known) = state.rows.remove(&home) {
            let before = known.size();
            known.absorb(row);
            state.bytes = state.bytes.saturating_sub(before) + known.size();
            state.rows.insert(home, known);
        } else {
            let size = row.size();
            if state.bytes + size > self.limit {
                return Err(Box::new(row));
            }
            state.bytes += size;
            state.rows.insert(home, row);
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// A certain change of this version is in the store: what was unknown up to it is no longer wanted.
    /// A row without a ledger stays, because keys were kept that the change may not have written.
    /// Whether a row was lifted.
    pub(crate) fn lift(&self, home: &Key, version: Version) -> bool {
        let mut state = self.state.lock();
        let lifted = state.rows.get(home).is_some_and(|row| row.version <= version && row.kept.is_empty() && !row.busy);
        if lifted {
            remove(&mut state, home);
        }
        lifted
    }

    /// Rows that are due, at most `most`; waits for some. Empty only when it is time to stop.
    /// Each has to be given back by [`settled`](Self::settled) or [`again`](Self::again).
    pub(crate) fn take(&self, most: usize) -> Vec<Row> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Vec::new();
            }
            // From a place that chance chooses, so that rows of a database that is down do not always come
            // first.
            let from = rand::random_range(0..=state.rows.len());
            let now = Instant::now();
            let mut taken = Vec::new();
            for (begin, end) in [(from, usize::MAX), (0, from)] {
                let rows = state.rows.values_mut().skip(begin).take(end - begin);
                let due = rows.filter(|row| !row.busy && row.due <= now).take(most - taken.len());
                taken.extend(due.map(|row| {
                    row.busy = true;
                    row.clone()
                }));
            }
            if !taken.is_empty() {
                return taken;
            }
            match state.rows.values().filter(|row| !row.busy).map(|row| row.due).min() {
                Some(due) => {
                    self.wake.wait_until(&mut state, due);
                }
                None => self.wake.wait(&mut state),
            }
        }
    }

    /// The row is settled, as far as it was known when it was taken. Whether nothing newer came.
    pub(crate) fn settled(&self, taken: &Row) -> bool {
        self.forget(taken, |_| false)
    }

    /// The row is let go of, as far as it was known when it was taken. One that a later commit waits for stays, so
    /// that this commit is told of it, too.
    pub(crate) fn let_go(&self, taken: &Row) -> bool {
        self.forget(taken, |row| row.commits.1 > taken.commits.1)
    }

    fn forget(&self, taken: &Row, stays: impl Fn(&Row) -> bool) -> bool {
        let mut state = self.state.lock();
        let home = taken.home();
        let Some(row) = state.rows.get_mut(&home) else { return true };
        if row.version > taken.version || row.kept.len() > taken.kept.len() || stays(row) {
            row.busy = false;
            row.attempts = 0;
            return false;
        }
        remove(&mut state, &home);
        true
    }

    /// The row has to be tried again, after a while.
    pub(crate) fn again(&self, taken: &Row, stage: Stage, attempts: u32, after: Duration) {
        let mut held = self.state.lock();
        let Some(row) = held.rows.get_mut(&taken.home()) else { return };
        row.busy = false;
        row.attempts = attempts;
        row.due = crate::clock::from_now(after);
        // A later commit is waited for until it was told that the row is refused.
        let told = stage != Stage::Refused || row.commits.1 == taken.commits.1;
        if row.version == taken.version && told {
            row.stage = stage;
        }
    }

    /// The store holds a mark of this version, higher than what was read again.
    pub(crate) fn raise(&self, taken: &Row, mark: Version) {
        if let Some(row) = self.state.lock().rows.get_mut(&taken.home()) {
            row.version = row.version.max(mark);
        }
    }

    /// Gives back rows that were taken by a thread that panicked.
    pub(crate) fn release(&self, after: Duration) {
        let mut state = self.state.lock();
        for row in state.rows.values_mut().filter(|row| row.busy) {
            row.busy = false;
            row.attempts = row.attempts.saturating_add(1);
            row.due = crate::clock::from_now(after);
        }
    }

    /// Whether this commit waits for a row.
    pub(crate) fn holds_up(&self, commit: u64) -> bool {
        let state = self.state.lock();
        state.rows.values().any(|row| row.stage != Stage::Refused && row.commits.0 <= commit && commit <= row.commits.1)
    }

    /// Whether a commit up to this one waits for a row.
    pub(crate) fn holds_up_any(&self, up_to: u64) -> bool {
        let state = self.state.lock();
        state.rows.values().any(|row| row.stage != Stage::Refused && row.commits.0 <= up_to)
    }

    /// The commits that wait for rows: ranges from the first to the last, which ascend and do not touch.
    pub(crate) fn holding(&self) -> Vec<(u64, u64)> {
        let state = self.state.lock();
        let waiting = state.rows.values().filter(|row| row.stage != Stage::Refused);
        let mut ranges: Vec<(u64, u64)> = waiting.map(|row| row.commits).collect();
        drop(state);
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let touches = next.0 <= range.1.saturating_add(1);
            if touches {
                range.1 = range.1.max(next.1);
            }
            touches
        });
        ranges
    }

    /// About how many rows there is room for at most.
    pub(crate) fn most(&self) -> usize {
        self.limit >> 10
    }

    /// How many rows there are, and how many bytes they take.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.rows.len(), state.bytes)
    }

    /// Whether half of its room is free.
    pub(crate) fn has_room(&self) -> bool {
        self.state.lock().bytes <= self.limit / 2
    }

    /// Takes nothing more and hands out nothing more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}

fn remove(state: &mut State, home: &Key) {
    if let Some(row) = state.rows.remove(home) {
        state.bytes = state.bytes.saturating_sub(row.size());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyWriter;
    use crate::model::{KeySpec, Ttl};

    static SCHEMA: Schema = {
        const KEYS: &[KeySpec] = &[];
        const NO_TTL: Option<Ttl> = None;
        Schema::new("Row", "rows", &["id"], KEYS, None, &[], 0, NO_TTL, None)
    };

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Model(u64);

    impl crate::model::Syncable for Model {
        type Codec = crate::codec::MessagePack;
        type PrimaryKey = u64;
        const SCHEMA: &'static Schema = &SCHEMA;

        fn primary_key(&self) -> u64 {
            self.0
        }

        fn write_primary_key(primary_key: &u64, key: &mut KeyWriter) {
            key.part(primary_key, None);
        }

        fn write_primary(_: &u64, _: &mut KeyWriter) {}

        fn write_key(&self, _: usize, _: &mut KeyWriter) {}
    }

    pub(super) fn row(id: u64, version: u64, commit: u64, kept_keys: &[&str]) -> Row {
        let version = Version::new(0, 0, version);
        let kept = |key: &&str| Kept { key: Key::new(*key), version, certain: true };
        Row {
            schema: &SCHEMA,
            database: "main".into(),
            scope: Scope::NONE,
            primary_key: PrimaryKey::of::<Model>(id),
            version,
            kept: kept_keys.iter().map(kept).collect(),
            commits: (commit, commit),
            kept_in_outbox: false,
            stage: Stage::Unmasked,
            attempts: 0,
            due: Instant::now(),
            busy: false,
        }
    }

    #[test]
    fn a_row_is_kept_once_and_its_bytes_come_back() {
        let unsettled = Unsettled::new(1 << 20);
        for (version, commit, kept) in [(5, 10, &["a"][..]), (3, 20, &["b"]), (7, 15, &["a", "c"])] {
            unsettled.insert(row(1, version, commit, kept)).unwrap();
        }
        unsettled.insert(row(2, 1, 1, &[])).unwrap();
        assert_eq!(unsettled.depth().0, 2);
        let taken = unsettled.take(9);
        let first = taken.iter().find(|row| row.kept.len() == 3).unwrap();
        assert_eq!((first.version.sequence(), first.commits), (7, (10, 20)));
        assert_eq!(first.kept[0].version.sequence(), 7);
        assert!(taken.iter().all(|row| unsettled.settled(row)));
        assert_eq!(unsettled.depth(), (0, 0));
    }

    #[test]
    fn what_has_no_room_is_given_back() {
        let unsettled = Unsettled::new(row(1, 1, 1, &[]).size());
        unsettled.insert(row(1, 1, 1, &[])).unwrap();
        assert!(unsettled.insert(row(2, 1, 1, &[])).is_err());
        assert!(unsettled.insert(row(1, 2, 2, &[])).is_ok(), "it is there already");
    }

    #[test]
    fn a_commit_waits_for_the_rows_that_it_wrote_and_not_for_refused_ones() {
        let unsettled = Unsettled::new(1 << 20);
        unsettled.insert(row(1, 1, 5, &[])).unwrap();
        unsettled.insert(row(1, 2, 8, &[])).unwrap();
        assert!(unsettled.holds_up(5) && unsettled.holds_up(8) && !unsettled.holds_up(9) && !unsettled.holds_up(4));
        assert!(unsettled.holds_up_any(5) && !unsettled.holds_up_any(4));
        unsettled.insert(row(2, 1, 9, &[])).unwrap();
        unsettled.insert(row(3, 1, 11, &[])).unwrap();
        assert_eq!(unsettled.holding(), [(5, 9), (11, 11)]);
        for taken in unsettled.take(3) {
            unsettled.again(&taken, Stage::Refused, 1, Duration::ZERO);
        }
        assert_eq!(unsettled.holding(), []);
        assert!(!unsettled.holds_up(5) && !unsettled.holds_up_any(9));
    }

    #[test]
    fn a_row_is_lifted_by_its_own_version_or_a_higher_one() {
        let unsettled = Unsettled::new(1 << 20);
        unsettled.insert(row(1, 5, 1, &[])).unwrap();
        let home = row(1, 5, 1, &[]).home();
        assert!(!unsettled.lift(&home, Version::new(0, 0, 4)));
        assert!(unsettled.lift(&home, Version::new(0, 0, 5)));
        assert_eq!(unsettled.depth(), (0, 0));
    }

    #[test]
    fn who_waits_for_a_refused_row_that_is_delivered_again_is_told_too() {
        let unsettled = Unsettled::new(1 << 20);
        unsettled.insert(row(1, 5, 1, &[])).unwrap();
        let taken = unsettled.take(1);
        unsettled.again(&taken[0], Stage::Refused, 1, Duration::ZERO);
        unsettled.insert(row(1, 5, 2, &[])).unwrap();
        assert!(unsettled.holds_up(2));
        let taken = unsettled.take(1);
        unsettled.insert(row(1, 5, 3, &[])).unwrap();
        unsettled.again(&taken[0], Stage::Refused, 2, Duration::ZERO);
        assert!(unsettled.holds_up(3), "nobody was told that it was refused");
        let taken = unsettled.take(1);
        unsettled.insert(row(1, 5, 4, &[])).unwrap();
        assert!(!unsettled.let_go(&taken[0]) && unsettled.holds_up(4));
        assert!(unsettled.let_go(&unsettled.take(1)[0]) && !unsettled.holds_up(4));
    }

    #[test]
    fn what_is_newer_than_what_was_taken_stays() {
        let unsettled = Unsettled::new(1 << 20);
        unsettled.insert(row(1, 5, 1, &[])).unwrap();
        let taken = unsettled.take(1);
        unsettled.insert(row(1, 6, 2, &[])).unwrap();
        assert!(!unsettled.settled(&taken[0]));
        let again = unsettled.take(1);
        assert_eq!(again[0].version.sequence(), 6);
        assert!(unsettled.settled(&again[0]));
    }
}

#[cfg(all(test, kvsync_shuttle))]
mod models {
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::thread::{spawn, yield_now};

    use super::tests::row;
    use super::*;
    use crate::sync::model::{explore, never};

    /// Takes rows, and settles them or puts them off, until it is closed. The highest version it settled of each.
    fn settle(unsettled: &Unsettled) -> Vec<(Key, Version)> {
        let mut settled = Vec::new();
        loop {
            let taken = unsettled.take(2);
            if taken.is_empty() {
                return settled;
            }
            for row in taken {
                yield_now();
                if thread_rng().gen_bool(0.3) {
                    unsettled.again(&row, Stage::Masked, row.attempts + 1, Duration::ZERO);
                } else {
                    unsettled.settled(&row);
                    settled.push((row.home(), row.version));
                }
            }
        }
    }

    #[test]
    fn no_row_is_lost_and_every_byte_comes_back() {
        explore(|| {
            let unsettled = Arc::new(Unsettled::new(1 << 20));
            let settlers = [(); 2].map(|()| {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || settle(&unsettled))
            });
            let writers = [[(1, 1), (2, 2), (1, 5)], [(1, 3), (2, 4), (3, 6)]].map(|writes| {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || {
                    for (id, version) in writes {
                        unsettled.insert(row(id, version, version, &[])).unwrap();
                        assert!(unsettled.depth().1 <= 1 << 20);
                    }
                })
            });
            for writer in writers {
                writer.join().unwrap();
            }
            while unsettled.depth().0 > 0 {
                yield_now();
            }
            assert_eq!(unsettled.depth(), (0, 0));
            assert!(!unsettled.holds_up_any(u64::MAX));
            unsettled.close();
            let settled: Vec<_> = settlers.into_iter().flat_map(|settler| settler.join().unwrap()).collect();
            for (id, newest) in [(1, 5), (2, 4), (3, 6)] {
                let newest = (row(id, newest, 0, &[]).home(), Version::new(0, 0, newest));
                assert!(settled.contains(&newest), "the newest version was not settled");
            }
        });
    }

    #[test]
    fn what_is_newer_than_what_was_taken_or_lifted_stays() {
        explore(|| {
            let unsettled = Arc::new(Unsettled::new(1 << 20));
            unsettled.insert(row(1, 1, 1, &[])).unwrap();
            let settler = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || {
                    let taken = unsettled.take(1).remove(0);
                    yield_now();
                    unsettled.settled(&taken);
                    taken.version.sequence()
                })
            };
            let lifter = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || unsettled.lift(&row(1, 1, 1, &[]).home(), Version::new(0, 0, 1)))
            };
            unsettled.insert(row(1, 2, 2, &[])).unwrap();
            unsettled.insert(row(1, 3, 3, &[])).unwrap();
            lifter.join().unwrap();
            if settler.join().unwrap() < 3 {
                let left = unsettled.take(1).remove(0);
                assert_eq!(left.version.sequence(), 3);
                assert!(unsettled.settled(&left));
            }
            assert_eq!(unsettled.depth(), (0, 0));
        });
    }

    #[test]
    fn whoever_waits_for_a_row_that_was_put_off_wakes_for_another() {
        explore(|| {
            let unsettled = Arc::new(Unsettled::new(1 << 20));
            unsettled.insert(Row { due: never(), ..row(1, 1, 1, &[]) }).unwrap();
            let settler = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || unsettled.take(2).iter().map(Row::home).collect::<Vec<_>>())
            };
            unsettled.insert(row(2, 1, 1, &[])).unwrap();
            assert_eq!(settler.join().unwrap(), [row(2, 1, 1, &[]).home()]);
            let waiting = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || unsettled.take(2).is_empty())
            };
            unsettled.close();
            assert!(waiting.join().unwrap());
        });
    }

    /// As [`settle`] by a thread that may panic at any moment: it then begins anew by giving back what it held.
    /// Once for each row it finds that the store holds a mark of version 9.
    fn settle_and_panic(unsettled: &Unsettled) -> Vec<(Key, Version)> {
        let (mut settled, mut raised) = (Vec::new(), Vec::new());
        'anew: loop {
            unsettled.release(Duration::ZERO);
            loop {
                let taken = unsettled.take(2);
                if taken.is_empty() {
                    return settled;
                }
                for row in taken {
                    yield_now();
                    if thread_rng().gen_bool(0.2) {
                        continue 'anew;
                    }
                    if raised.contains(&row.home()) {
                        unsettled.settled(&row);
                        settled.push((row.home(), row.version));
                    } else {
                        raised.push(row.home());
                        unsettled.raise(&row, Version::new(0, 0, 9));
                        unsettled.again(&row, Stage::Masked, 1, Duration::ZERO);
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_thread_that_panicked_held_is_taken_again_and_a_higher_mark_is_settled_too() {
        explore(|| {
            let unsettled = Arc::new(Unsettled::new(1 << 20));
            let settler = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || settle_and_panic(&unsettled))
            };
            let writer = {
                let unsettled = Arc::clone(&unsettled);
                spawn(move || {
                    for (id, version) in [(1, 1), (2, 2), (1, 3)] {
                        unsettled.insert(row(id, version, version, &[])).unwrap();
                    }
                })
            };
            writer.join().unwrap();
            while unsettled.depth() != (0, 0) {
                yield_now();
            }
            unsettled.close();
            let settled = settler.join().unwrap();
            for id in [1, 2] {
                let marked = (row(id, 9, 0, &[]).home(), Version::new(0, 0, 9));
                assert!(settled.contains(&marked), "{id} was settled below the mark in the store: {settled:?}");
            }
        });
    }
}
