//! Records: merging, projecting and confirming.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ground::{
    Checked, Dice, Standing, change, check, delete, deliver, entry, listed, merge, own_bytes, put, record, same,
    stands, step, terms, value, version, write,
};
use super::{Case, Needs};
use crate::envelope::{Body, State, Value};
use crate::key::Key;
use crate::record::{Content, Delta, Listed, Order, Record};
use crate::store::{Outcome, Step, SyncStore};
use crate::version::Version;

pub(super) const CASES: &[Case] = &[
    Case::sync("each_kind_of_change_merges_as_it_should", Needs::Nothing, kinds),
    Case::sync("changes_of_a_row_merge_alike_in_any_order", Needs::Nothing, any_order),
    Case::sync("a_merge_says_what_superseded_it_and_brings_its_bytes", Needs::Nothing, superseded),
    Case::sync("a_confirmation_forgets_what_was_released_and_no_more", Needs::Nothing, confirmed),
    Case::sync("a_delivered_change_stands_under_its_keys_and_no_other", Needs::Nothing, delivered),
    Case::sync("a_key_that_another_row_took_is_not_released", Needs::Nothing, swapped),
    Case::sync("an_unknown_masks_until_something_certain_comes", Needs::Nothing, unknown),
    Case::sync("a_pointer_key_holds_the_home_key", Needs::Nothing, pointers),
    Case::sync("a_row_that_ends_says_when", Needs::Nothing, ends),
    Case::sync("a_change_as_a_whole_equals_its_steps", Needs::WholeChanges, whole),
];

/// The version, whether the row is alive, the mark, the live keys, and the dirty ones.
type Ends = (u64, bool, u64, &'static [&'static str], &'static [(&'static str, u64)]);

/// Changes, and the record that they end in.
struct Scenario {
    name: &'static str,
    changes: Vec<Delta>,
    ends: Ends,
}

fn unknown_at(home: &str, at: u64) -> Delta {
    change(home, at, Content::Unknown)
}

fn gone(delta: Delta, keys: &[(&str, u64)]) -> Delta {
    Delta { gone: keys.iter().map(|(key, at)| (Key::new(*key), version(*at))).collect(), ..delta }
}

fn scenarios(home: &str) -> Vec<Scenario> {
    let scenario = |name, changes: &[Delta], ends| Scenario { name, changes: changes.to_vec(), ends };
    let put = |at, keys: &[&str]| put(home, at, keys);
    let delete = |at, keys: &[&str]| delete(home, at, keys);
    let lost = |at| unknown_at(home, at);
    vec![
        scenario("insert", &[put(2, &["a", "b"])], (2, true, 0, &["a", "b"], &[])),
        scenario("insert under no other key", &[put(2, &[])], (2, true, 0, &[], &[])),
        scenario("keys in no order, one twice", &[put(2, &["b", "a", "b"])], (2, true, 0, &["a", "b"], &[])),
        scenario("touch", &[put(2, &["a"]), put(4, &["a"])], (4, true, 0, &["a"], &[])),
        scenario("key change", &[put(2, &["a"]), put(4, &["b"])], (4, true, 0, &["b"], &[("a", 2)])),
        scenario(
            "key change after a touch: released where last listed",
            &[put(2, &["a"]), put(4, &["a"]), put(6, &["b"])],
            (6, true, 0, &["b"], &[("a", 4)]),
        ),
        scenario("key becomes NULL", &[put(2, &["a", "b"]), put(4, &["b"])], (4, true, 0, &["b"], &[("a", 2)])),
        scenario("key comes back", &[put(2, &["a"]), put(4, &[]), put(6, &["a"])], (6, true, 0, &["a"], &[])),
        scenario("delete", &[put(2, &["a"]), delete(4, &[])], (4, false, 0, &[], &[("a", 2)])),
        scenario("delete that tells its keys", &[put(2, &["a"]), delete(4, &["a"])], (4, false, 0, &[], &[("a", 4)])),
        scenario("delete of what was never heard of", &[delete(4, &["a"])], (4, false, 0, &[], &[("a", 4)])),
        scenario("re-insert", &[put(2, &["a"]), delete(4, &["a"]), put(6, &["b"])], (6, true, 0, &["b"], &[("a", 4)])),
        scenario(
            "delete and re-insert in one transaction",
            &[put(2, &["a"]), gone(put(6, &["b"]), &[("a", 4)])],
            (6, true, 0, &["b"], &[("a", 4)]),
        ),
        scenario(
            "gone from where it stands again",
            &[put(8, &["a"]), gone(delete(4, &[]), &[("a", 4)])],
            (8, true, 0, &["a"], &[]),
        ),
        scenario("gone twice", &[gone(delete(6, &[]), &[("a", 4), ("a", 2)])], (6, false, 0, &[], &[("a", 4)])),
        scenario("an older change comes late", &[put(4, &["b"]), put(2, &["a"])], (4, true, 0, &["b"], &[])),
        scenario("a delete comes late", &[put(4, &["b"]), delete(2, &["a"])], (4, true, 0, &["b"], &[("a", 2)])),
        scenario("unknown", &[put(2, &["a"]), lost(4)], (2, true, 4, &["a"], &[])),
        scenario("unknown first of all", &[lost(4)], (0, false, 4, &[], &[])),
        scenario(
            "certain at the version of the unknown",
            &[put(2, &["a"]), lost(4), put(4, &["b"])],
            (4, true, 0, &["b"], &[("a", 2)]),
        ),
        scenario("unknown at the version of the certain", &[put(4, &["b"]), lost(4)], (4, true, 0, &["b"], &[])),
        scenario("certain below the mark", &[lost(8), put(4, &["b"])], (4, true, 8, &["b"], &[])),
        scenario("two unknowns", &[put(2, &["a"]), lost(8), lost(6)], (2, true, 8, &["a"], &[])),
        scenario(
            "unknown that took a key",
            &[put(2, &["a", "b"]), gone(lost(4), &[("c", 4)])],
            (2, true, 4, &["a", "b"], &[("c", 4)]),
        ),
        scenario("unknown of a dead row", &[delete(2, &[]), lost(4)], (2, false, 4, &[], &[])),
        scenario("settled as absent", &[put(2, &["a"]), lost(4), delete(5, &[])], (5, false, 0, &[], &[("a", 2)])),
    ]
}

fn essence(record: &Record) -> (Version, bool, Version, Vec<String>, BTreeMap<String, Version>) {
    (
        record.version,
        record.alive,
        record.mark,
        record.live.iter().map(|listed| listed.key.to_string()).collect(),
        record.dirty.iter().map(|(key, last)| (key.to_string(), *last)).collect(),
    )
}

fn kinds(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let count = scenarios("").len();
    for index in 0..count {
        let home = format!("home:{index}");
        let Some(Scenario { name, changes, ends }) = scenarios(&home).into_iter().nth(index) else { continue };
        let mut answer = Record::new();
        let mut pure = Record::new();
        for change in &changes {
            answer = merge(store, change, &terms)?.1;
            own_bytes(&mut answer, change);
            pure.merge(change, &terms);
        }
        let zero_or = |at| if at == 0 { Version::ZERO } else { version(at) };
        let wanted = (
            zero_or(ends.0),
            ends.1,
            zero_or(ends.2),
            ends.3.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ends.4.iter().map(|(key, last)| ((*key).to_owned(), version(*last))).collect::<BTreeMap<_, _>>(),
        );
        same!(essence(&answer), wanted, "the record that `{name}` answered");
        same!(answer, pure, "the record that `{name}` answered, whole");
        same!(record(store, &home)?, pure, "the record that `{name}` left");
    }
    Ok(())
}

fn any_order(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let mut dice = Dice(1);
    for round in 0..60 {
        let index = usize::try_from(dice.roll(scenarios("").len() as u64)).unwrap_or_default();
        let home = format!("home:{round}");
        let Some(Scenario { name, changes, .. }) = scenarios(&home).into_iter().nth(index) else { continue };
        let mut pure = Record::new();
        for change in &changes {
            pure.merge(change, &terms);
        }
        let mut deliveries = [changes.clone(), changes].concat();
        dice.shuffle(&mut deliveries);
        for delivery in &deliveries {
            merge(store, delivery, &terms)?;
        }
        let found = record(store, &home)?;
        same!(
            (found.version, found.alive, found.mark, &found.live, &found.value),
            (pure.version, pure.alive, pure.mark, &pure.live, &pure.value),
            "the record of `{name}` delivered twice in another order"
        );
    }
    Ok(())
}

fn superseded(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let newest = put("home", 8, &["a"]);
    same!(merge(store, &newest, &terms)?.0, false, "whether a first change is superseded");
    same!(merge(store, &newest, &terms)?.0, false, "whether a duplicate is superseded");
    for older in [put("home", 4, &["b"]), delete("home", 4, &[]), unknown_at("home", 4)] {
        let (superseded, record) = merge(store, &older, &terms)?;
        check!(superseded, "{older:?} is not superseded by what stands at 8");
        same!((record.version, record.value), (version(8), value("home at 8")), "what superseded {older:?}");
    }
    let (superseded, record) = merge(store, &unknown_at("home", 8), &terms)?;
    same!((superseded, record.value), (false, value("home at 8")), "an unknown of the version that stands");
    merge(store, &unknown_at("home", 12), &terms)?;
    let (superseded, record) = merge(store, &put("home", 10, &["c"]), &terms)?;
    same!((superseded, record.value), (true, Value::none()), "a change below a mark");
    Ok(())
}

fn confirmed(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for at in [2, 4, 6] {
        merge(store, &put("home", at, &["a", "b"]), &terms)?;
    }
    merge(store, &put("home", 8, &["c"]), &terms)?;
    let dirty = |store: &dyn SyncStore| -> Checked<Vec<(String, Version)>> {
        Ok(record(store, "home")?.dirty.into_iter().map(|(key, last)| (key.to_string(), last)).collect())
    };
    let confirm = |home: &str, key: &str, at: u64| {
        let released = vec![(Key::new(key), version(at)), (Key::new("never listed"), version(99))];
        same!(
            step(store, Step::Confirm { home: Key::new(home), released }, &terms)?,
            Outcome::Done,
            "a confirmation of {key}@{at}"
        );
        Ok::<_, String>(())
    };
    let (a, b) = (("a".to_owned(), version(6)), ("b".to_owned(), version(6)));
    confirm("home", "a", 4)?;
    same!(dirty(store)?, [a.clone(), b.clone()], "the dirty keys after a release at a lower version");
    confirm("home", "a", 6)?;
    same!(dirty(store)?, [b], "the dirty keys after a release at the version");
    confirm("home", "b", 9)?;
    same!(dirty(store)?, [], "the dirty keys after a release at a higher version");
    confirm("home", "c", 99)?;
    let record = record(store, "home")?;
    same!(record.live, [listed("c")], "the live keys after a confirmation that names one");
    same!((record.version, record.value), (version(8), value("home at 8")), "the rest of a confirmed record");
    confirm("no record", "a", 6)?;
    same!(entry(store, "no record")?.is_some(), false, "whether a confirmation makes a record");
    let slot = write("slot", version(3), State::Value, Order::Slot);
    step(store, Step::Write(slot.clone()), &terms)?;
    confirm("slot", "a", 6)?;
    same!(stands(store, "slot")?, Some((version(3), State::Value, slot.value)), "a slot after a confirmation");
    Ok(())
}

fn delivered(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let value_at = |at: u64| Some((version(at), State::Value, value(&format!("home at {at}"))));
    let released_at = |at| Some((version(at), State::Tombstone, Value::none()));
    let look = |wanted: &[(&str, Standing)], when: &str| {
        for (key, wanted) in wanted {
            same!(stands(store, key)?, *wanted, "what stands under {key} {when}");
        }
        Ok::<_, String>(())
    };
    deliver(store, &put("home", 2, &["a", "b"]), &terms)?;
    look(&[("home", value_at(2)), ("a", value_at(2)), ("b", value_at(2))], "after the insert")?;
    deliver(store, &put("home", 4, &["b"]), &terms)?;
    look(&[("home", value_at(4)), ("a", released_at(2)), ("b", value_at(4))], "after a left")?;
    deliver(store, &put("home", 6, &["a"]), &terms)?;
    look(&[("home", value_at(6)), ("a", value_at(6)), ("b", released_at(4))], "after it came back")?;
    deliver(store, &put("home", 5, &["c"]), &terms)?;
    look(&[("home", value_at(6)), ("a", value_at(6)), ("b", released_at(4)), ("c", None)], "after a late change")?;
    deliver(store, &delete("home", 8, &["a"]), &terms)?;
    look(&[("home", released_at(8)), ("a", released_at(8)), ("b", released_at(4))], "after the delete")?;
    deliver(store, &put("home", 7, &["d"]), &terms)?;
    look(&[("home", released_at(8)), ("a", released_at(8)), ("d", None)], "after a change that the delete overtook")?;
    deliver(store, &put("home", 10, &["b"]), &terms)?;
    look(&[("home", value_at(10)), ("a", released_at(8)), ("b", value_at(10))], "after the re-insert")?;
    same!(record(store, "home")?.dirty.len(), 0, "the dirty keys after all was confirmed");
    Ok(())
}

fn swapped(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    // r1 stood under a, r2 under b; one transaction swapped them, r2 first. r1's change has the higher
    // version: a release of a at that version would take it from r2.
    deliver(store, &put("r1", 2, &["a"]), &terms)?;
    deliver(store, &put("r2", 3, &["b"]), &terms)?;
    for order in [[0, 1], [1, 0]] {
        let base = 10 + 10 * order[0] as u64;
        let swap = [put("r2", base + 1, &["a"]), put("r1", base + 2, &["b"])];
        for index in order {
            if let Some(change) = swap.get(index) {
                deliver(store, change, &terms)?;
            }
        }
        for (key, home, at) in [("a", "r2", base + 1), ("b", "r1", base + 2)] {
            same!(
                stands(store, key)?,
                Some((version(at), State::Value, value(&format!("{home} at {at}")))),
                "what stands under {key} after a swap, delivered in the order {order:?}"
            );
        }
        // And back, one after the other, by way of NULL.
        deliver(store, &put("r1", base + 3, &[]), &terms)?;
        deliver(store, &put("r2", base + 4, &["b"]), &terms)?;
        deliver(store, &put("r1", base + 5, &["a"]), &terms)?;
    }
    Ok(())
}

fn unknown(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    deliver(store, &put("home", 2, &["a"]), &terms)?;
    deliver(store, &unknown_at("home", 6), &terms)?;
    for key in ["home", "a"] {
        same!(stands(store, key)?, Some((version(2), State::Unknown, Value::none())), "{key} after an unknown");
    }
    deliver(store, &put("home", 4, &["a", "b"]), &terms)?;
    for key in ["home", "a", "b"] {
        same!(stands(store, key)?.map(|(_, state, _)| state), Some(State::Unknown), "{key} after a change below it");
    }
    deliver(store, &put("home", 6, &["b"]), &terms)?;
    for (key, state) in [("home", State::Value), ("b", State::Value), ("a", State::Tombstone)] {
        same!(stands(store, key)?.map(|(_, state, _)| state), Some(state), "{key} after a change of its version");
    }
    deliver(store, &unknown_at("never heard of", 6), &terms)?;
    same!(
        stands(store, "never heard of")?.map(|(_, state, value)| (state, value)),
        Some((State::Unknown, Value::none())),
        "the record of a row of which only an unknown was heard"
    );
    Ok(())
}

fn pointers(store: &dyn SyncStore) -> Checked {
    let pointer = Listed { key: Key::new("a"), pointer: true };
    let put = |at: u64, keys: Vec<Listed>| {
        change("home {1} ä", at, Content::Put { value: value(&format!("at {at}")), expires_at: 0, keys })
    };
    deliver(store, &put(2, vec![pointer, listed("b")]), &terms())?;
    let Some(found) = entry(store, "a")? else { return Err("nothing stands under a pointer key".into()) };
    same!(found.body().map_err(|error| error.to_string())?, Body::Pointer("home {1} ä"), "a pointer key");
    same!(stands(store, "b")?.map(|(.., found)| found), Some(value("at 2")), "a key beside a pointer");
    deliver(store, &put(4, vec![listed("b")]), &terms())?;
    same!(
        stands(store, "a")?.map(|(at, state, _)| (at, state)),
        Some((version(2), State::Tombstone)),
        "a left pointer"
    );
    Ok(())
}

fn ends(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let end = terms.now + 3_600_000;
    let ending = |at, expires_at| {
        change("home", at, Content::Put { value: value("it ends"), expires_at, keys: vec![listed("a")] })
    };
    for (at, end) in [(2, end), (4, end + 5), (6, 0), (8, end)] {
        deliver(store, &ending(at, end), &terms)?;
        for key in ["home", "a"] {
            same!(entry(store, key)?.map(|found| found.head.expires_at), Some(end), "when {key}@{at} ends");
        }
    }
    deliver(store, &delete("home", 10, &[]), &terms)?;
    let found = (entry(store, "home")?, entry(store, "a")?);
    let found = (found.0.map(|found| found.head.expires_at), found.1.map(|found| found.head.expires_at));
    same!(found, (Some(terms.now + terms.dead), Some(terms.now + terms.left)), "when a dead row's entries end");
    Ok(())
}

fn whole(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for index in 0..scenarios("").len() {
        let (in_steps, as_whole) = (format!("steps:{index}:"), format!("whole:{index}:"));
        let under = |home: &str| scenarios(home).into_iter().nth(index).map(|scenario| scenario.changes);
        for (one, other) in under(&in_steps).into_iter().flatten().zip(under(&as_whole).into_iter().flatten()) {
            let (one, other) = (rekeyed(one, &in_steps), rekeyed(other, &as_whole));
            let superseded = record(store, &in_steps)?;
            let superseded = superseded.version.max(superseded.mark) > one.version;
            deliver(store, &one, &terms)?;
            same!(
                step(store, Step::Apply(Arc::new(other.clone())), &terms)?,
                Outcome::Applied { superseded },
                "the answer to {other:?}"
            );
            for key in ["", "a", "b", "c"] {
                let state = |prefix: &str| -> Checked<_> {
                    let found = entry(store, &format!("{prefix}{key}"))?;
                    Ok(found.map(|found| (found.head.version, found.head.state, found.head.expires_at)))
                };
                same!(state(&as_whole)?, state(&in_steps)?, "what {other:?} left under {key:?}");
            }
            let (one, other) = (record(store, &in_steps)?, record(store, &as_whole)?);
            same!(
                (other.version, other.alive, other.mark, other.live.len(), other.dirty.len()),
                (one.version, one.alive, one.mark, one.live.len(), one.dirty.len()),
                "the record after a whole change"
            );
        }
    }
    Ok(())
}

/// The same change with keys of its own.
fn rekeyed(mut change: Delta, prefix: &str) -> Delta {
    let own = |key: &Key| Key::new(format!("{prefix}{key}"));
    if let Content::Put { keys, .. } = &mut change.content {
        for listed in keys {
            listed.key = own(&listed.key);
        }
    }
    for (key, _) in &mut change.gone {
        *key = own(key);
    }
    change
}
