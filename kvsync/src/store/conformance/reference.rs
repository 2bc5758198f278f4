//! Any steps at all, compared with what the pure functions say.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ground::{Checked, Dice, check, same, terms, value, version};
use super::{Case, Needs};
use crate::envelope::{Envelope, Head, State, Value};
use crate::key::Key;
use crate::record::{Content, Delta, Listed, Order, Terms, Write};
use crate::store::steps::plan;
use crate::store::{Outcome, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("any_steps_leave_what_the_pure_functions_leave", Needs::Nothing, in_steps),
    Case::sync("any_whole_changes_leave_what_the_pure_functions_leave", Needs::WholeChanges, as_wholes),
];

const KEYS: &[&str] = &["a", "b{x}", "c c", "home:1", "home:2{x}"];
const HOMES: &[&str] = &["home:1", "home:2{x}", "c c"];

fn in_steps(store: &dyn SyncStore) -> Checked {
    compare(store, false)
}

fn as_wholes(store: &dyn SyncStore) -> Checked {
    compare(store, true)
}

fn compare(store: &dyn SyncStore, whole: bool) -> Checked {
    let terms = terms();
    let mut dice = Dice(if whole { 11 } else { 7 });
    let mut reference: BTreeMap<Key, bytes::Bytes> = BTreeMap::new();
    let keys: Vec<Key> = KEYS.iter().map(|key| Key::new(*key)).collect();
    for round in 0..250 {
        let count = 1 + dice.roll(4);
        let steps: Vec<Step> = (0..count).map(|_| any_step(&mut dice, whole, &terms)).collect();
        let (wanted, changed) = plan(&steps, &terms, &|key| Ok(reference.get(key).cloned()));
        for (key, entry) in changed {
            match entry {
                Some(entry) => reference.insert(key, entry),
                None => reference.remove(&key),
            };
        }
        let answers = store.execute(&steps, &terms);
        same!(answers.len(), steps.len(), "answers in round {round}");
        for ((answer, wanted), step) in answers.into_iter().zip(wanted).zip(&steps) {
            let answer = answer.map_err(|error| format!("round {round}: {step:?} failed: {error}"))?;
            let wanted = wanted.map_err(|error| format!("round {round}: {step:?}: {error}"))?;
            check!(alike(&answer, &wanted, step), "round {round}: {step:?} answered {answer:?}, wanted {wanted:?}");
        }
        let found = store.get_many(&keys).map_err(|error| error.to_string())?;
        for (key, found) in keys.iter().zip(found) {
            let wanted = reference.get(key);
            check!(
                found.as_ref() == wanted,
                "round {round}: under {key:?} stands {:?}, wanted {:?}, after {steps:?}",
                found.as_ref().map(Envelope::parse),
                wanted.map(Envelope::parse)
            );
        }
    }
    Ok(())
}

/// The bytes of a record may be left out when they are the change's own.
fn alike(answer: &Outcome, wanted: &Outcome, step: &Step) -> bool {
    match (answer, wanted, step) {
        (
            Outcome::Merged { superseded, record },
            Outcome::Merged { superseded: wanted_superseded, record: wanted },
            Step::Merge(change),
        ) => {
            let mut record = record.clone();
            super::ground::own_bytes(&mut record, change);
            superseded == wanted_superseded && record == *wanted
        }
        _ => answer == wanted,
    }
}

fn any_key(dice: &mut Dice, of: &[&str]) -> Key {
    Key::new(*dice.pick(of).unwrap_or(&""))
}

fn any_step(dice: &mut Dice, whole: bool, terms: &Terms) -> Step {
    match dice.roll(if whole { 6 } else { 10 }) {
        0 | 1 => Step::Write(any_write(dice, terms)),
        2 => {
            let released = (0..=dice.roll(3)).map(|_| (any_key(dice, KEYS), version(dice.roll(12)))).collect();
            Step::Confirm { home: any_key(dice, HOMES), released }
        }
        _ if whole => Step::Apply(Arc::new(any_change(dice, terms))),
        _ => Step::Merge(Arc::new(any_change(dice, terms))),
    }
}

fn any_write(dice: &mut Dice, terms: &Terms) -> Write {
    let state = *dice.pick(&super::ground::STATES).unwrap_or(&State::Value);
    let expires_at = *dice.pick(&[0, terms.now + terms.left, terms.now + terms.dead * 2]).unwrap_or(&0);
    let at = version(dice.roll(12));
    let value = if state == State::Value { value(&format!("slot {at}")) } else { Value::none() };
    let order = *dice.pick(&super::ground::ORDERS).unwrap_or(&Order::Slot);
    Write { key: any_key(dice, KEYS), head: Head { version: at, state, expires_at }, value, order }
}

fn any_change(dice: &mut Dice, terms: &Terms) -> Delta {
    let at = version(dice.roll(12));
    let content = match dice.roll(5) {
        0 => Content::Delete,
        1 => Content::Unknown,
        _ => Content::Put {
            // Two changes of one version have the same bytes.
            value: value(&format!(
                "row at {at} {}",
                "x".repeat(at.as_bytes().iter().map(|byte| usize::from(*byte) * 9).sum())
            )),
            expires_at: *dice.pick(&[0, 0, terms.now + 3_600_000, terms.now + 7_200_000]).unwrap_or(&0),
            keys: (0..dice.roll(4)).map(|_| Listed { key: any_key(dice, KEYS), pointer: dice.roll(3) == 0 }).collect(),
        },
    };
    let gone = (0..dice.roll(3)).map(|_| (any_key(dice, KEYS), version(dice.roll(12)))).collect();
    Delta { home: any_key(dice, HOMES), version: at, content, gone }
}
