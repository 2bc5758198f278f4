//! What a strict fetch answers when any keys are lost, at any moment.
//!
//! Stated exactly: the answer of a strict fetch is a row as a committed change left it, it stood under this
//! key then, and the change is the newest of the row that was delivered since the row's record was last lost.
//! So where no change is delivered later than a newer one of its row, it is what the database holds, or none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use kvsync::clock::ManualClock;
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::model::Model;
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::{Capabilities, Cursor, Health, MemoryStore, Outcome, Page, Step, Store, SyncStore};
use kvsync::{Key, KvSync, Lookup, Miss, Result, Syncable, Version};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::rig::*;

const TERMS: Terms = Terms { now: 1_000_000, left: 600_000, dead: 604_800_000 };

/// One change of the rows: what the row is from then on.
#[derive(Debug, Clone)]
enum Row {
    User(User),
    Session(Session),
    NoUser(i32),
    NoSession(i32, &'static str),
}

/// A store that can be exchanged for an empty one, so that one handle reads them all.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<MemoryStore>>);

impl Shelf {
    fn now(&self) -> MemoryStore {
        self.0.lock().clone()
    }

    fn keys(&self) -> Vec<Key> {
        self.now().scan("", None, 1000).unwrap().keys
    }

    fn evict(&self, key: &Key) {
        let store = self.now();
        let stands = store.get_many(std::slice::from_ref(key)).unwrap().remove(0);
        let Some(bytes) = stands else { return };
        store.execute(&[Step::Remove { key: key.clone(), stands: bytes }], &TERMS).remove(0).unwrap();
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shelf")
    }
}

impl Store for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.now().health(deadline)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for Shelf {
    fn capabilities(&self) -> Capabilities {
        self.now().capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.now().execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.now().get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.now().scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        Ok(0)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        Ok(epoch)
    }
}

fn version(at: usize) -> Version {
    Version::new(0, 1, at as u64 + 1)
}

fn value_of<M: Syncable>(row: &M) -> Value {
    let mut bytes = Vec::new();
    row.encode(&mut bytes).unwrap();
    Value::model(row.codec(), M::SCHEMA.fields, &bytes)
}

fn register(key: Key, at: Version, state: State, value: Value) -> Step {
    let expires_at = if state == State::Value { 0 } else { TERMS.now + TERMS.dead };
    Step::Write(Write { key, head: Head { version: at, state, expires_at }, value, order: Order::Register })
}

/// Delivers a change as a worker does: whole, or in the steps of a store that knows single keys only.
fn deliver(store: &dyn SyncStore, row: &Row, at: usize, whole: bool) {
    let run = |step: Step| store.execute(&[step], &TERMS).remove(0).unwrap();
    let version = version(at);
    let (home, content) = match row {
        Row::User(user) => {
            let listed = |index: usize, pointer: bool| Some(Listed { key: Model::key(user, index)?, pointer });
            let keys = [listed(1, false), listed(2, true)].into_iter().flatten().collect();
            (Model::home(user), Content::Put { value: value_of(user), expires_at: 0, keys })
        }
        Row::NoUser(id) => (User::key_by_id(*id), Content::Delete),
        Row::Session(session) => {
            for index in 0..2 {
                run(register(Model::key(session, index).unwrap(), version, State::Value, value_of(session)));
            }
            return;
        }
        Row::NoSession(id, token) => {
            for key in [Session::key_by_id(*id), Session::key_by_token(token)] {
                run(register(key, version, State::Tombstone, Value::none()));
            }
            return;
        }
    };
    let delta = Arc::new(Delta { home: home.clone(), version, content, gone: Vec::new() });
    if whole {
        run(Step::Apply(delta));
        return;
    }
    let Outcome::Merged { record, .. } = run(Step::Merge(delta)) else { panic!("a merge answers with a record") };
    for write in record.project(&home, &TERMS) {
        run(Step::Write(write));
    }
    let released: Vec<_> = record.dirty.into_iter().collect();
    if !released.is_empty() {
        run(Step::Confirm { home, released });
    }
}

/// Moves, a swap, a deletion and a return, over two rows of each kind and the values `a` to `c`.
fn script() -> Vec<Row> {
    let session = |id: i32, token: &str, n: i32| Row::Session(Session { id, token: token.into(), n });
    vec![
        Row::User(user(1, "a", 1)),
        Row::User(user(2, "b", 1)),
        session(1, "s", 1),
        Row::User(user(1, "c", 2)),
        Row::User(user(2, "a", 2)),
        Row::User(user(1, "b", 3)),
        session(1, "s", 2),
        Row::NoUser(2),
        Row::NoSession(1, "s"),
        Row::User(user(1, "a", 4)),
        session(2, "s", 3),
        Row::User(user(2, "", 5)),
    ]
}

const VALUES: [&str; 3] = ["a", "b", "c"];

/// What the database holds after a part of a script.
#[derive(Debug, Default, Clone, PartialEq)]
struct Truth {
    users: BTreeMap<i32, User>,
    sessions: BTreeMap<i32, Session>,
}

impl Truth {
    fn after(script: &[Row]) -> Self {
        let mut truth = Self::default();
        for row in script {
            match row {
                Row::User(user) => drop(truth.users.insert(user.id, user.clone())),
                Row::Session(session) => drop(truth.sessions.insert(session.id, session.clone())),
                Row::NoUser(id) => drop(truth.users.remove(id)),
                Row::NoSession(id, _) => drop(truth.sessions.remove(id)),
            }
        }
        truth
    }
}

/// How fetches that are not strict went wrong.
#[derive(Debug, Default)]
struct Wrong {
    /// A row under a key that it has left.
    left: u64,
}

/// Compares every answer with the database: strict ones are right or none.
fn check(kv: &KvSync, truth: &Truth, wrong: &mut Wrong) {
    for value in VALUES {
        let owner = truth.users.values().find(|user| user.email.as_deref() == Some(value));
        let strict = User::fetch_strict_by_email(kv, value).unwrap();
        assert!(strict.is_none() || strict.as_ref() == owner, "{value}: {strict:?}, and {owner:?} stands there");
        match User::lookup_by_email(kv, value).unwrap() {
            Lookup::Found(found) if Some(&found) != owner => {
                assert_eq!(found.email.as_deref(), Some(value), "it stood there once");
                wrong.left += 1;
            }
            _ => {}
        }
    }
    for id in 1..=2 {
        let (user, session) = (truth.users.get(&id), truth.sessions.get(&id));
        let right = |found: Option<User>| assert!(found.is_none() || found.as_ref() == user, "{found:?}, {user:?}");
        // The record itself and pointers to it need not be strict.
        right(User::fetch_strict_by_id(kv, id).unwrap());
        right(User::fetch_by_id(kv, id).unwrap());
        right(User::fetch_strict_by_handle(kv, &format!("h{id}")).unwrap());
        right(User::fetch_by_handle(kv, &format!("h{id}")).unwrap());
        let found = Session::fetch_by_id(kv, id).unwrap();
        assert!(found.is_none() || found.as_ref() == session, "{found:?}, {session:?}");
    }
    // Nor do keys that never change.
    let owner = truth.sessions.values().find(|session| session.token == "s");
    for found in [Session::fetch_by_token(kv, "s").unwrap(), Session::fetch_strict_by_token(kv, "s").unwrap()] {
        assert!(found.is_none() || found.as_ref() == owner, "{found:?}, {owner:?}");
    }
}

fn shelf() -> (Shelf, KvSync, Arc<ManualClock>) {
    let shelf = Shelf::default();
    let clock = Arc::new(ManualClock::at(UNIX_EPOCH + Duration::from_millis(TERMS.now)));
    let kv = KvSync::builder().store(shelf.clone()).clock(Arc::clone(&clock) as _).build().unwrap();
    (shelf, kv, clock)
}

#[test]
fn a_strict_fetch_is_right_whatever_keys_are_lost_at_any_moment() {
    let script = script();
    let (shelf, kv, _) = shelf();
    let (mut wrong, mut runs) = (Wrong::default(), 0_u64);
    for whole in [true, false] {
        for moment in 1..=script.len() {
            *shelf.0.lock() = MemoryStore::new();
            for (at, row) in script[..moment].iter().enumerate() {
                deliver(&shelf, row, at, whole);
            }
            check(&kv, &Truth::after(&script[..moment]), &mut Wrong::default());
            let keys = shelf.keys();
            for subset in 1_u32..1 << keys.len() {
                // All of them where code is optimized.
                if cfg!(debug_assertions) && subset.count_ones() > 2 && subset % 5 != 0 {
                    continue;
                }
                runs += 1;
                *shelf.0.lock() = MemoryStore::new();
                for (at, row) in script.iter().enumerate() {
                    deliver(&shelf, row, at, whole);
                    if at + 1 == moment {
                        let lost = keys.iter().enumerate().filter(|(index, _)| subset & 1 << index != 0);
                        lost.for_each(|(_, key)| shelf.evict(key));
                    }
                    // A record that was not lost is asked again by the next deliveries.
                    if at + 1 >= moment {
                        check(&kv, &Truth::after(&script[..=at]), &mut wrong);
                    }
                }
            }
        }
    }
    println!("{runs} subsets; not strict: {wrong:?}");
    assert!(wrong.left > 0, "a plain fetch may answer under a left key; if it never does, strict ones are needless");
}

#[test]
fn any_two_losses_and_deliveries_in_any_order_show_nothing_older_than_the_record_has_seen() {
    let rounds = if cfg!(debug_assertions) { 1_000 } else { 100_000 };
    let script = script();
    let (shelf, kv, _) = shelf();
    let mut late = 0;
    for seed in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed);
        *shelf.0.lock() = MemoryStore::new();
        let whole = random.random_bool(0.5);
        let mut order: Vec<usize> = (0..script.len()).collect();
        for _ in 0..random.random_range(0..12) {
            let from = random.random_range(0..order.len() - 1);
            let to = (from + random.random_range(1..5)).min(order.len() - 1);
            order.swap(from, to);
            if random.random_bool(0.3) {
                order.push(order[from]);
            }
        }
        // The newest change of each user that was delivered since its record was lost.
        let mut newest: BTreeMap<i32, usize> = BTreeMap::new();
        for at in order {
            deliver(&shelf, &script[at], at, whole);
            if let Row::User(User { id, .. }) | Row::NoUser(id) = &script[at] {
                let newest = newest.entry(*id).or_insert(at);
                *newest = at.max(*newest);
            }
            while random.random_bool(0.3) {
                let keys = shelf.keys();
                let lost = &keys[random.random_range(0..keys.len().max(1)).min(keys.len() - 1)];
                shelf.evict(lost);
                newest.retain(|id, _| User::key_by_id(*id) != *lost);
                if shelf.keys().is_empty() {
                    break;
                }
            }
            for value in VALUES {
                let Some(found) = User::fetch_strict_by_email(&kv, value).unwrap() else { continue };
                let seen = &script[newest[&found.id]];
                assert!(matches!(seen, Row::User(row) if *row == found), "seed {seed}: {found:?}, {seen:?}");
                late += u64::from(Truth::after(&script).users.get(&found.id) != Some(&found));
            }
        }
    }
    assert!(late > 0, "no delivery was late");
}

#[test]
fn a_lost_record_with_left_keys_leaves_orphans_that_end_with_their_ttl() {
    let (shelf, kv, clock) = shelf();
    // It stands under `a` until the end that the model gives it, and moves to `b`.
    let ends = TERMS.now + 1;
    let put = |email: &str, at: usize| {
        let user = user(1, email, 1);
        let keys = vec![Listed { key: User::key_by_email(email), pointer: false }];
        let content = Content::Put { value: value_of(&user), expires_at: ends, keys };
        Step::Apply(Arc::new(Delta { home: Model::home(&user), version: version(at), content, gone: Vec::new() }))
    };
    shelf.execute(&[put("a", 0)], &TERMS).remove(0).unwrap();
    shelf.evict(&User::key_by_id(1));
    shelf.execute(&[put("b", 1)], &TERMS).remove(0).unwrap();
    let stands = shelf.get_many(&[User::key_by_email("a")]).unwrap().remove(0).unwrap();
    let head = Envelope::parse(&stands).unwrap().head;
    assert_eq!((head.state, head.version, head.expires_at), (State::Value, version(0), ends), "nobody knows of it");
    assert_eq!(User::fetch_by_email(&kv, "a").unwrap(), Some(user(1, "a", 1)));
    assert_eq!(User::fetch_strict_by_email(&kv, "a").unwrap(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(User::fetch_by_email(&kv, "a").unwrap(), None);
}

#[test]
fn of_a_key_whose_entry_was_lost_a_lookup_may_say_absent_and_a_fetch_finds_nothing() {
    let (shelf, kv, _) = shelf();
    let moved = Row::User(user(1, "b", 2));
    deliver(&shelf, &Row::User(user(1, "a", 1)), 0, true);
    // The worker stops after it has released `a`, before it has confirmed that.
    let keys = [("b", false), ("h1", true)];
    let key = |(text, pointer)| if pointer { User::key_by_handle(text) } else { User::key_by_email(text) };
    let keys = keys.map(|one| Listed { key: key(one), pointer: one.1 }).into();
    let content = Content::Put { value: value_of(&user(1, "b", 2)), expires_at: 0, keys };
    let delta = Arc::new(Delta { home: User::key_by_id(1), version: version(1), content, gone: Vec::new() });
    shelf.execute(&[Step::Merge(delta)], &TERMS).remove(0).unwrap();
    deliver(&shelf, &Row::User(user(2, "a", 3)), 2, true);
    assert_eq!(User::lookup_by_email(&kv, "a").unwrap(), Lookup::Found(user(2, "a", 3)));
    shelf.evict(&User::key_by_email("a"));
    assert_eq!(User::lookup_by_email(&kv, "a").unwrap(), Lookup::Unknown(Miss::NotStored));
    deliver(&shelf, &moved, 1, true);
    assert_eq!(User::lookup_by_email(&kv, "a").unwrap(), Lookup::Absent, "and row 2 stands there");
    deliver(&shelf, &Row::User(user(2, "a", 4)), 3, true);
    assert_eq!(User::lookup_by_email(&kv, "a").unwrap(), Lookup::Found(user(2, "a", 4)));
}
