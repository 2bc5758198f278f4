//! The scripts do what the pure functions do, on thousands of random histories: the same answers, and the
//! same bytes under every key.

use std::sync::Arc;

use kvsync::envelope::{Head, State, Value};
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::redis::RedisStore;
use kvsync::store::{MemoryStore, Step, Store, SyncStore};
use kvsync::{Key, Version};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env};
use rand::prelude::*;

use super::{prefix, terms};

#[test]
fn whole_changes_equal_the_pure_functions() -> Tested {
    let store = patient([env::redis_url()?]).prefix(prefix("scripts-whole")).connect()?;
    (0..40).for_each(|seed| compare(&store, "w", seed, Kind::Whole));
    Ok(())
}

#[test]
fn steps_equal_the_pure_functions() -> Tested {
    let store = patient([env::redis_url()?]).prefix(prefix("scripts-steps")).connect()?;
    (0..40).for_each(|seed| compare(&store, "s", seed, Kind::Steps));
    Ok(())
}

#[test]
fn steps_in_a_cluster_equal_the_pure_functions() -> Tested {
    let store = patient(env::redis_cluster_urls()?).prefix(prefix("scripts-cluster")).cluster()?;
    (0..20).for_each(|seed| compare(&store, "c", seed, Kind::Steps));
    Ok(())
}

#[test]
fn entries_of_all_sizes_equal_the_pure_functions() -> Tested {
    let store = patient([env::redis_url()?]).prefix(prefix("scripts-sizes")).connect()?;
    (0..20).for_each(|seed| compare(&store, "z", seed, Kind::Sizes));
    Ok(())
}

#[test]
fn rows_that_keep_their_keys_equal_the_pure_functions() -> Tested {
    let store = patient([env::redis_url()?]).prefix(prefix("scripts-tame")).connect()?;
    (0..40).for_each(|seed| compare(&store, "t", seed, Kind::Tame));
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    /// Whole changes of rows that seldom change their keys, with versions that doubles cannot tell apart.
    Tame,
    Steps,
    /// Whole changes and entries, from none to many kilobytes.
    Sizes,
}

/// Both stores get the same calls and must stay the same.
fn compare(redis: &RedisStore, run: &str, seed: u64, kind: Kind) {
    let mut dice = StdRng::seed_from_u64(seed);
    let memory = MemoryStore::new();
    let names = names(run, seed);
    for round in 0..12 {
        let terms = terms();
        let size = if kind == Kind::Sizes { *[0, 100, 3_000, 9_000].choose(&mut dice).unwrap() } else { 60 };
        let count = *[1, 3, 20, 150].choose(&mut dice).unwrap();
        let steps: Vec<Step> = (0..count)
            .map(|index| {
                if kind == Kind::Tame && !dice.random_ratio(1, 40) {
                    tame_step(&mut dice, &names, size, round * 150 + index)
                } else {
                    any_step(&mut dice, &names, kind, size, &terms)
                }
            })
            .collect();
        let (found, wanted) = (redis.execute(&steps, &terms), memory.execute(&steps, &terms));
        assert_eq!(found.len(), steps.len());
        for ((found, wanted), step) in found.into_iter().zip(wanted).zip(&steps) {
            assert_eq!(found.unwrap(), wanted.unwrap(), "seed {seed}, round {round}: {step:?}");
        }
        let (found, wanted) = (redis.get_many(&names).unwrap(), memory.get_many(&names).unwrap());
        for ((found, wanted), name) in found.iter().zip(&wanted).zip(&names) {
            assert!(found == wanted, "seed {seed}, round {round}: {name}\nfound  {found:?}\nwanted {wanted:?}");
        }
    }
    assert!(memory.len() <= names.len());
    assert!(redis.health(LONG).status != kvsync::store::Status::Down);
}

/// Keys that a locale would sort otherwise than bytes are, some so long that a ledger outgrows what is
/// read of it at first.
fn names(run: &str, seed: u64) -> Vec<Key> {
    let tails = ["a", "B", "b", "é", "z", "_", "\u{10348}", "{tag}", "a\0b", "a b"];
    let long = ["x", "y", "z"].map(|tail| format!("{}{tail}", "long".repeat(120)));
    tails.iter().map(ToString::to_string).chain(long).map(|tail| Key::new(format!("{run}{seed}:{tail}"))).collect()
}

fn any_version(dice: &mut StdRng) -> Version {
    let sequence = match dice.random_range(0..8) {
        0 => u64::MAX - dice.random_range(0..3),
        1 => (1 << 53) + dice.random_range(0..3),
        2 => 255 + dice.random_range(0..3),
        _ => dice.random_range(0..12),
    };
    let words = [0, 1, 1, 1, 1, u32::MAX];
    Version::new(*words.choose(dice).unwrap(), *words.choose(dice).unwrap(), sequence)
}

fn any_key(dice: &mut StdRng, names: &[Key]) -> Key {
    names.choose(dice).unwrap().clone()
}

/// A few of the keys are homes, and slots as well.
fn any_home(dice: &mut StdRng, names: &[Key]) -> Key {
    any_key(dice, &names[..4])
}

/// Far enough away that nothing ends while the test runs.
fn any_end(dice: &mut StdRng, terms: &Terms) -> u64 {
    *[0, 0, terms.now + 3_600_000, terms.now + 7_200_000, u64::MAX].choose(dice).unwrap()
}

fn any_step(dice: &mut StdRng, names: &[Key], kind: Kind, size: usize, terms: &Terms) -> Step {
    match (dice.random_range(0..10), kind) {
        (0..=2, _) => Step::Write(any_write(dice, names, size, terms)),
        (3, _) => {
            let home = any_home(dice, names);
            let released = (0..dice.random_range(0..4)).map(|_| (any_key(dice, names), any_version(dice)));
            Step::Confirm { home, released: released.collect() }
        }
        (_, Kind::Steps) => Step::Merge(Arc::new(any_change(dice, names, size, terms))),
        _ => Step::Apply(Arc::new(any_change(dice, names, size, terms))),
    }
}

/// A put of a row under its own keys, or an entry under one of them; mostly newer than what was before.
fn tame_step(dice: &mut StdRng, names: &[Key], size: usize, about: u64) -> Step {
    let version = Version::new(0, 1, (1 << 53) - 100 + about + dice.random_range(0..8));
    let row = dice.random_range(0..3);
    let own = &names[4 + 3 * row..][..3];
    if dice.random_ratio(1, 8) {
        let head = Head { version, state: State::Value, expires_at: 0 };
        let key = own.choose(dice).unwrap().clone();
        return Step::Write(Write { key, head, value: any_value(dice, size), order: Order::Slot });
    }
    let listed = |(key, pointer): (&Key, _)| Listed { key: key.clone(), pointer };
    let keys = own.iter().zip([false, true, false]).map(listed).collect();
    let content = Content::Put { value: any_value(dice, size), expires_at: 0, keys };
    Step::Apply(Arc::new(Delta { home: names[row].clone(), version, content, gone: Vec::new() }))
}

fn any_value(dice: &mut StdRng, size: usize) -> Value {
    let body: Vec<u8> = (0..size).map(|_| dice.random()).collect();
    Value::model(1, &[1, 2], &body)
}

fn any_write(dice: &mut StdRng, names: &[Key], size: usize, terms: &Terms) -> Write {
    let state = *[State::Value, State::Unknown, State::Tombstone].choose(dice).unwrap();
    let value = if state == State::Value { any_value(dice, size) } else { Value::none() };
    let head = Head { version: any_version(dice), state, expires_at: any_end(dice, terms) };
    let order = *[Order::Slot, Order::Slot, Order::Slot, Order::Register].choose(dice).unwrap();
    Write { key: any_key(dice, names), head, value, order }
}

fn any_change(dice: &mut StdRng, names: &[Key], size: usize, terms: &Terms) -> Delta {
    let content = match dice.random_range(0..8) {
        0 => Content::Delete,
        1 => Content::Unknown,
        _ => Content::Put {
            value: any_value(dice, size),
            expires_at: any_end(dice, terms),
            keys: (0..dice.random_range(0..5))
                .map(|_| Listed { key: any_key(dice, names), pointer: dice.random_ratio(1, 4) })
                .collect(),
        },
    };
    let gone = if dice.random_ratio(1, 4) { dice.random_range(1..3) } else { 0 };
    let gone = (0..gone).map(|_| (any_key(dice, names), any_version(dice))).collect();
    Delta { home: any_home(dice, names), version: any_version(dice), content, gone }
}
