//! Entries that are no record: which of two stands.

use std::sync::Arc;

use super::ground::{
    Checked, ORDERS, STATES, check, entry, merge, put, record, same, stands, step, steps, terms, value, version, write,
};
use super::{Case, Needs};
use crate::envelope::State;
use crate::key::Key;
use crate::record::{Order, Record, Write};
use crate::store::{Outcome, Step, SyncStore};
use crate::version::Version;

pub(super) const CASES: &[Case] = &[
    Case::sync("what_is_written_stands", Needs::Nothing, stands_whole),
    Case::sync("the_higher_version_wins_whatever_it_says", Needs::Nothing, higher),
    Case::sync("of_one_version_the_order_of_states_decides", Needs::Nothing, ties),
    Case::sync("versions_compare_as_bytes", Needs::Nothing, bytes),
    Case::sync("a_slot_over_a_record_keeps_the_ledger", Needs::Nothing, ledger),
    Case::sync("a_slot_over_a_record_hides_no_change_from_it", Needs::Nothing, generations),
    Case::sync("steps_of_one_call_take_effect_in_order", Needs::Nothing, in_order),
    Case::sync("a_thousand_steps_are_answered_each", Needs::Nothing, thousand),
];

fn stands_whole(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for state in STATES {
        for end in [0, terms.now + 86_400_000] {
            let mut write = write(&format!("{state:?}:{end}"), version(4), state, Order::Slot);
            write.head.expires_at = end;
            same!(step(store, Step::Write(write.clone()), &terms)?, Outcome::Written, "a first write");
            let Some(found) = entry(store, write.key.as_str())? else {
                return Err(format!("nothing stands where {state:?} was written"));
            };
            same!(
                (found.head, found.ledger, found.value),
                (write.head, None, write.value),
                "what was written as {state:?}"
            );
        }
    }
    Ok(())
}

/// Writes `first`, then `second`, to a key of their own, and says whether the second one stands.
fn second_stands(store: &dyn SyncStore, first: &Write, second: &Write) -> Checked<bool> {
    let terms = terms();
    same!(step(store, Step::Write(first.clone()), &terms)?, Outcome::Written, "a first write");
    let answer = step(store, Step::Write(second.clone()), &terms)?;
    let found = entry(store, first.key.as_str())?.map(|found| (found.head, found.value));
    let (won, winner) = match answer {
        Outcome::Written => (true, second),
        Outcome::Superseded => (false, first),
        other => return Err(format!("a write answered {other:?}")),
    };
    same!(
        found,
        Some((winner.head, winner.value.clone())),
        "what stands after {answer:?} for {second:?} over {first:?}"
    );
    Ok(won)
}

fn pairs() -> impl Iterator<Item = (Order, State, State, String)> {
    ORDERS.into_iter().flat_map(|order| {
        STATES.into_iter().flat_map(move |old| {
            STATES.into_iter().map(move |new| (order, old, new, format!("{order:?}:{old:?}:{new:?}")))
        })
    })
}

fn higher(store: &dyn SyncStore) -> Checked {
    for (order, old, new, name) in pairs() {
        let key = format!("up:{name}");
        let (first, second) = (write(&key, version(4), old, order), write(&key, version(5), new, order));
        check!(second_stands(store, &first, &second)?, "{new:?}@5 did not replace {old:?}@4 ({order:?})");
        let key = format!("down:{name}");
        let (first, second) = (write(&key, version(5), old, order), write(&key, version(4), new, order));
        check!(!second_stands(store, &first, &second)?, "{new:?}@4 replaced {old:?}@5 ({order:?})");
    }
    Ok(())
}

fn ties(store: &dyn SyncStore) -> Checked {
    let rank = |order, state| match (order, state) {
        (Order::Slot, State::Value) | (Order::Register, State::Unknown) => 0,
        (Order::Slot, State::Unknown) | (Order::Register, State::Value) => 1,
        (_, State::Tombstone) => 2,
    };
    for (order, old, new, name) in pairs() {
        let (first, mut second) = (write(&name, version(4), old, order), write(&name, version(4), new, order));
        if new == State::Value {
            second.value = value("another");
        }
        same!(
            second_stands(store, &first, &second)?,
            rank(order, new) > rank(order, old),
            "whether {new:?} replaces {old:?} of its version ({order:?})"
        );
    }
    Ok(())
}

fn bytes(store: &dyn SyncStore) -> Checked {
    let ascending = [
        Version::ZERO,
        Version::new(0, 0, 1),
        Version::new(0, 0, 127),
        Version::new(0, 0, 128),
        Version::new(0, 0, 255),
        Version::new(0, 0, 256),
        Version::new(0, 0, 0x0a0d),
        Version::new(0, 0, 1 << 31),
        Version::new(0, 0, 1 << 32),
        // Beyond what a floating point number tells apart.
        Version::new(0, 0, 1 << 53),
        Version::new(0, 0, (1 << 53) + 1),
        Version::new(0, 0, u64::MAX - 1),
        Version::new(0, 0, u64::MAX),
        Version::new(0, 1, 0),
        Version::new(0, 1, 1),
        Version::new(0, 0x8000_0000, 0),
        Version::new(0, u32::MAX, u64::MAX),
        Version::new(1, 0, 0),
        Version::new(0x7fff_ffff, 0, 5),
        Version::new(0x8000_0000, 0, 5),
        Version::new(u32::MAX, u32::MAX, u64::MAX),
    ];
    for pair in ascending.windows(2) {
        let [low, high] = pair else { continue };
        for order in ORDERS {
            let key = format!("{order:?}:{low}:{high}");
            let (first, second) = (write(&key, *low, State::Tombstone, order), write(&key, *high, State::Value, order));
            check!(second_stands(store, &first, &second)?, "{high} did not replace {low}");
            same!(step(store, Step::Write(first), &terms())?, Outcome::Superseded, "{low} over {high}");
        }
        let home = format!("home:{low}:{high}");
        let at = |version| crate::record::Delta { version, ..put(&home, 0, &[]) };
        merge(store, &at(*high), &terms())?;
        let (superseded, record) = merge(store, &at(*low), &terms())?;
        same!((superseded, record.version), (true, *high), "a merge of {low} into {high}");
    }
    Ok(())
}

fn ledger(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for (number, (state, end)) in [
        (State::Value, 0),
        (State::Value, terms.now + 1_000_000),
        (State::Unknown, terms.now + 1_000_000),
        (State::Tombstone, terms.now + 1_000_000),
    ]
    .into_iter()
    .enumerate()
    {
        let home = format!("home:{number}");
        merge(store, &put(&home, 2, &["a", "b"]), &terms)?;
        merge(store, &put(&home, 4, &["b"]), &terms)?;
        let before = entry(store, &home)?.and_then(|envelope| envelope.ledger);
        check!(before.is_some(), "a record has no ledger");
        let mut over = write(&home, version(6), state, Order::Slot);
        over.head.expires_at = end;
        same!(step(store, Step::Write(over.clone()), &terms)?, Outcome::Written, "a slot over a record");
        let Some(after) = entry(store, &home)? else {
            return Err("a slot over a record removed it".into());
        };
        same!((after.head.version, after.head.state), (version(6), state), "the head over a record");
        same!(after.value, over.value, "the bytes over a record");
        same!(after.head.expires_at, 0, "when a record ends after {state:?} was written that ends before it");
        check!(after.ledger == before, "{state:?} over a record changed its ledger");
    }
    Ok(())
}

fn generations(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for (home, slot_first) in [("slot first", true), ("record first", false)] {
        let slot = Step::Write(write(home, version(6), State::Value, Order::Slot));
        if slot_first {
            step(store, slot.clone(), &terms)?;
        }
        merge(store, &put(home, 2, &["a"]), &terms)?;
        if !slot_first {
            step(store, slot, &terms)?;
        }
        let masked = record(store, home)?;
        check!(!masked.is_known(), "{home}: the ledger does not see that something newer was written");
        let (superseded, merged) = merge(store, &put(home, 6, &["b"]), &terms)?;
        check!(!superseded, "{home}: the slot of another generation superseded a change of its version");
        same!(merged.live.iter().map(|listed| listed.key.as_str()).collect::<Vec<_>>(), ["b"], "{home}: the live keys");
        same!(merged.dirty.get(&Key::new("a")), Some(&version(2)), "{home}: the left key");
        check!(merged.is_known(), "{home}: the record did not catch up");
        check!(record(store, home)?.foreign.is_none(), "{home}: the slot's bytes outlived a change of its version");
    }
    Ok(())
}

fn in_order(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let at = |number| write("key", version(number), State::Value, Order::Slot);
    let ascending: Vec<Step> = (1..=20).map(|number| Step::Write(at(number))).collect();
    for answer in steps(store, &ascending, &terms)? {
        same!(answer, Outcome::Written, "an ascending write of one call");
    }
    let descending: Vec<Step> = (21..=40).rev().map(|number| Step::Write(at(number))).collect();
    for (index, answer) in steps(store, &descending, &terms)?.into_iter().enumerate() {
        let wanted = if index == 0 { Outcome::Written } else { Outcome::Superseded };
        same!(answer, wanted, "write {index} of a descending call");
    }
    let merges: Vec<Step> = [put("home", 2, &["a"]), put("home", 6, &["b"]), put("home", 4, &["c"])]
        .into_iter()
        .map(|change| Step::Merge(Arc::new(change)))
        .collect();
    let mut pure = Record::new();
    for (answer, merge) in steps(store, &merges, &terms)?.into_iter().zip(&merges) {
        let (Outcome::Merged { record, .. }, Step::Merge(change)) = (answer, merge) else {
            return Err("a merge answered something else".into());
        };
        pure.merge(change, &terms);
        same!(
            (record.version, &record.live, &record.dirty),
            (pure.version, &pure.live, &pure.dirty),
            "a merge of one call"
        );
    }
    let released = vec![(Key::new("a"), version(2))];
    let mixed = [Step::Confirm { home: Key::new("home"), released }, Step::Merge(Arc::new(put("home", 8, &["b"])))];
    steps(store, &mixed, &terms)?;
    same!(record(store, "home")?.dirty.len(), 0, "dirty keys after their confirmation in the call of a merge");
    Ok(())
}

fn thousand(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let writes: Vec<Step> = (0..1_000)
        .map(|number| match number % 3 {
            0 => Step::Write(write(&format!("slot:{number}"), version(7), State::Value, Order::Slot)),
            1 => Step::Merge(Arc::new(put(&format!("home:{number}"), 7, &["k"]))),
            _ => Step::Write(write("one key", version(number), State::Tombstone, Order::Register)),
        })
        .collect();
    for (number, answer) in steps(store, &writes, &terms)?.into_iter().enumerate() {
        let right = match number % 3 {
            1 => {
                let home = format!("home:{number}");
                matches!(answer, Outcome::Merged { superseded: false, ref record } if record.version == version(7))
                    && stands(store, &home)?.is_some()
            }
            _ => answer == Outcome::Written,
        };
        check!(right, "step {number} of a thousand answered {answer:?}");
    }
    same!(stands(store, "one key")?.map(|(at, ..)| at), Some(version(998)), "a key written 333 times in one call");
    Ok(())
}
