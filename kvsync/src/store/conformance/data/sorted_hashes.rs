//! Sorted hashes.

use bytes::Bytes;

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{DataCommands, DataStore, Entry, LexRange};

pub(super) const CASES: &[Case] = &[
    Case::data("a_field_of_a_sorted_hash_has_a_value_and_a_score", Needs::Nothing, fields),
    Case::data("zh_add_if_absent_leaves_a_field_as_it_is", Needs::Nothing, if_absent),
    Case::data("fields_come_by_score_with_their_values", Needs::Nothing, by_score),
    Case::data("fields_of_equal_score_are_a_dictionary", Needs::Nothing, by_lex),
    Case::data("a_score_of_a_field_is_moved_without_its_value", Needs::Nothing, increments),
    Case::data("an_emptied_sorted_hash_is_gone", Needs::Nothing, emptied),
    Case::data("a_sorted_hash_takes_large_values", Needs::Nothing, large),
    Case::data("sorted_hash_commands_refuse_other_kinds", Needs::Nothing, kinds),
];

fn entry(field: &'static str, value: &'static str, score: f64) -> Entry {
    Entry { field: field.into(), value: value.into(), score }
}

fn filled(store: &dyn DataStore, entries: &[Entry]) -> Checked {
    for Entry { field, value, score } in entries {
        ok(store.zh_add("key", field, value, *score), "zh_add")?;
    }
    Ok(())
}

fn fields(store: &dyn DataStore) -> Checked {
    check!(ok(store.zh_add("key", "a", "one", 1.0), "zh_add")?, "a new field");
    check!(!ok(store.zh_add("key", "a", "two", 2.0), "zh_add")?, "a field that was there");
    same!(ok(store.zh_get("key", "a"), "zh_get")?.as_deref(), Some(b"two".as_slice()), "its value");
    same!(ok(store.zh_score("key", "a"), "zh_score")?, Some(2.0), "its score");
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, [entry("a", "two", 2.0)], "the sorted hash");
    same!(ok(store.zh_get("key", "x"), "zh_get")?, None, "a field that is absent");
    same!(ok(store.zh_rem("key", ["a", "x", "a"]), "zh_rem")?, 1, "one field that was there");
    same!(ok(store.zh_get("key", "a"), "zh_get")?, None, "a field that was removed");
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, [], "the sorted hash");
    Ok(())
}

fn if_absent(store: &dyn DataStore) -> Checked {
    check!(ok(store.zh_add_if_absent("key", "a", "one", 1.0), "zh_add_if_absent")?, "a new field");
    check!(!ok(store.zh_add_if_absent("key", "a", "two", 2.0), "zh_add_if_absent")?, "a field that was there");
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, [entry("a", "one", 1.0)], "the sorted hash");
    Ok(())
}

fn by_score(store: &dyn DataStore) -> Checked {
    let sorted = [entry("z", "", -1.0), entry("a", "1", 0.0), entry("b", "\0", 0.0), entry("c", "ü", 5.0)];
    let mut shuffled = sorted.clone();
    shuffled.reverse();
    filled(store, &shuffled)?;
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, sorted, "all");
    same!(ok(store.zh_range_by_score("key", 0.0..5.0, None), "a range")?.as_slice(), &sorted[1..3], "from 0 to 5");
    same!(
        ok(store.zh_rev_range_by_score("key", .., 2), "a range")?,
        [sorted[3].clone(), sorted[2].clone()],
        "from above"
    );
    same!(ok(store.zh_count("key", 0.0..=0.0), "zh_count")?, 2, "the count");
    same!(ok(store.zh_count("key", ..), "zh_count")?, 4, "the count");
    Ok(())
}

fn by_lex(store: &dyn DataStore) -> Checked {
    let sorted = [entry("", "0", 1.0), entry("a", "1", 1.0), entry("ab", "2", 1.0), entry("b", "3", 1.0)];
    let mut shuffled = sorted.clone();
    shuffled.reverse();
    filled(store, &shuffled)?;
    same!(ok(store.zh_range_by_lex("key", .., None), "a range")?, sorted, "all");
    same!(
        ok(store.zh_range_by_lex("key", LexRange::starting_with(b"a"), None), "a range")?.as_slice(),
        &sorted[1..3],
        "what begins with a"
    );
    same!(ok(store.zh_rev_range_by_lex("key", .."b", 1), "a range")?.as_slice(), &sorted[2..3], "the last before b");
    same!(ok(store.zh_lex_count("key", "a".."b"), "zh_lex_count")?, 2, "the count");
    Ok(())
}

fn increments(store: &dyn DataStore) -> Checked {
    same!(ok(store.zh_incr_by("key", "a", 1.0), "zh_incr_by")?, None, "a field that is absent");
    check!(!ok(store.delete("key"), "a delete")?, "nothing was made");
    filled(store, &[entry("a", "one", 1.0), entry("b", "two", 2.0)])?;
    same!(ok(store.zh_incr_by("key", "a", 1.5), "zh_incr_by")?, Some(2.5), "1 + 1.5");
    let found = ok(store.zh_range_by_score("key", .., None), "a range")?;
    same!(found, [entry("b", "two", 2.0), entry("a", "one", 2.5)], "the sorted hash");
    fails(store.zh_incr_by("key", "a", f64::NAN), ErrorKind::Rejected, "adding what is no number")
}

fn emptied(store: &dyn DataStore) -> Checked {
    filled(store, &[entry("a", "one", 1.0), entry("b", "two", 2.0)])?;
    same!(ok(store.zh_rem("key", ["a", "b"]), "zh_rem")?, 2, "both fields");
    check!(!ok(store.delete("key"), "a delete")?, "a sorted hash without fields is not there");
    filled(store, &[entry("c", "three", 3.0)])?;
    check!(ok(store.delete("key"), "a delete")?, "a sorted hash was there");
    same!(ok(store.zh_get("key", "c"), "zh_get")?, None, "a field of what was deleted");
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, [], "what was deleted");
    Ok(())
}

fn large(store: &dyn DataStore) -> Checked {
    let size = store.data_capabilities().max_value.min(100_000);
    let value = Bytes::from(vec![b'x'; size]);
    for number in 0..5_u32 {
        ok(store.zh_add("key", format!("{number}"), value.clone(), f64::from(number)), "zh_add")?;
    }
    let found = ok(store.zh_rev_range_by_score("key", .., 3), "a range")?;
    same!(found.len(), 3, "three of five");
    check!(found.iter().all(|entry| entry.value == value), "a large value came back changed");
    Ok(())
}

fn kinds(store: &dyn DataStore) -> Checked {
    ok(store.set("string", "a"), "a set")?;
    ok(store.sadd("set", ["a"]), "sadd")?;
    ok(store.hset("hash", [("a", "b")]), "hset")?;
    for key in ["string", "set", "hash"] {
        fails(store.zh_add(key, "a", "b", 1.0), ErrorKind::WrongType, &format!("zh_add on a {key}"))?;
        fails(
            store.zh_add_if_absent(key, "a", "b", 1.0),
            ErrorKind::WrongType,
            &format!("zh_add_if_absent on a {key}"),
        )?;
        fails(store.zh_get(key, "a"), ErrorKind::WrongType, &format!("zh_get on a {key}"))?;
        fails(store.zh_score(key, "a"), ErrorKind::WrongType, &format!("zh_score on a {key}"))?;
        fails(store.zh_rem(key, ["a"]), ErrorKind::WrongType, &format!("zh_rem on a {key}"))?;
        fails(store.zh_incr_by(key, "a", 1.0), ErrorKind::WrongType, &format!("zh_incr_by on a {key}"))?;
        fails(store.zh_count(key, ..), ErrorKind::WrongType, &format!("zh_count on a {key}"))?;
        fails(store.zh_range_by_score(key, .., None), ErrorKind::WrongType, &format!("a range of a {key}"))?;
        fails(store.zh_range_by_lex(key, .., None), ErrorKind::WrongType, &format!("a range of a {key}"))?;
    }
    ok(store.zh_add("sorted hash", "a", "b", 1.0), "zh_add")?;
    fails(store.get("sorted hash"), ErrorKind::WrongType, "a get of a sorted hash")?;
    fails(store.sadd("sorted hash", ["a"]), ErrorKind::WrongType, "sadd on a sorted hash")
}
