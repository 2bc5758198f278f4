//! Sorted hashes.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::times::gone;
use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, Dice, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{
    AtomicWrite, Command, DataCommands, DataStore, Direction, Entry, LexRange, Reads, Reply, ScoreRange, Scored,
};

pub(super) const CASES: &[Case] = &[
    Case::data("a_field_of_a_sorted_hash_has_a_value_and_a_score", Needs::Nothing, fields),
    Case::data("zh_add_if_absent_leaves_a_field_as_it_is", Needs::Nothing, if_absent),
    Case::data("fields_come_by_score_with_their_values", Needs::Nothing, by_score),
    Case::data("fields_of_equal_score_are_a_dictionary", Needs::Nothing, by_lex),
    Case::data("fields_are_found_as_members_are", Needs::Nothing, as_members),
    Case::data("a_score_of_a_field_is_moved_without_its_value", Needs::Nothing, increments),
    Case::data("an_emptied_sorted_hash_is_gone", Needs::Nothing, emptied),
    Case::data("nothing_of_a_replaced_sorted_hash_comes_back", Needs::Nothing, replaced),
    Case::data("a_sorted_hash_is_in_no_other_keys_way", Needs::Nothing, alone),
    Case::data("a_sorted_hash_takes_large_values", Needs::Nothing, large),
    Case::data("a_sorted_hash_takes_fields_of_any_bytes", Needs::Nothing, odd),
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

/// Every range of a sorted hash finds the fields that the same range of a sorted set finds as members.
fn as_members(store: &dyn DataStore) -> Checked {
    let places = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 2.0, 2.0, f64::INFINITY];
    let names = ["", "B", "a", "ab", "b", "ä", "\u{ff5e}", "🙂"];
    for (number, name) in names.iter().enumerate() {
        let place = places.get(number % places.len()).copied().unwrap_or_default();
        for (key, place) in [("scores", place), ("equal", 7.0)] {
            ok(store.zadd(format!("{key} of members"), name, place), "zadd")?;
            ok(store.zh_add(format!("{key} of fields"), name, format!("value of {name}"), place), "zh_add")?;
        }
    }
    let ends = |end: f64| [Bound::Included(end), Bound::Excluded(end), Bound::Unbounded];
    let ends: Vec<Bound<f64>> = [f64::NEG_INFINITY, 0.0, 2.0, f64::INFINITY].into_iter().flat_map(ends).collect();
    let letters = |end: &'static str| [Bound::Included(end.into()), Bound::Excluded(end.into()), Bound::Unbounded];
    let letters: Vec<Bound<Bytes>> = ["", "a", "ä", "🙂"].into_iter().flat_map(letters).collect();
    let mut of_members = Vec::new();
    let mut of_fields = Vec::new();
    let mut dice = Dice(5);
    let unbounded = || Bound::Unbounded;
    for _ in 0..60 {
        let mut end = || dice.pick(&ends).copied().unwrap_or(Bound::Unbounded);
        let scores = ScoreRange { min: end(), max: end() };
        let mut end = || dice.pick(&letters).cloned().unwrap_or_else(unbounded);
        let range = LexRange { min: end(), max: end() };
        let direction = *dice.pick(&[Direction::Forward, Direction::Reverse]).unwrap_or(&Direction::Forward);
        let limit = *dice.pick(&[None, Some(0), Some(1), Some(3), Some(100)]).unwrap_or(&None);
        let key = |of: &str| Bytes::from(format!("scores of {of}"));
        let equal = |of: &str| Bytes::from(format!("equal of {of}"));
        of_members.extend([
            Command::ZCount { key: key("members"), scores },
            Command::ZRangeByScore { key: key("members"), scores, direction, limit },
            Command::ZLexCount { key: equal("members"), members: range.clone() },
            Command::ZRangeByLex { key: equal("members"), members: range.clone(), direction, limit },
        ]);
        of_fields.extend([
            Command::ZhCount { key: key("fields"), scores },
            Command::ZhRangeByScore { key: key("fields"), scores, direction, limit },
            Command::ZhLexCount { key: equal("fields"), fields: range.clone() },
            Command::ZhRangeByLex { key: equal("fields"), fields: range, direction, limit },
        ]);
    }
    let wanted = store.run(&of_members, Reads::Latest).into_iter().map(|reply| ok(reply, "a range of members"));
    let found = store.run(&of_fields, Reads::Latest).into_iter().map(|reply| ok(reply, "a range of fields"));
    for ((command, wanted), found) in of_fields.iter().zip(wanted).zip(found) {
        let (wanted, found) = (wanted?, found?);
        if let Reply::Entries(entries) = &found {
            let own = |entry: &Entry| entry.value == [b"value of ", &entry.field[..]].concat();
            check!(entries.iter().all(own), "{command:?} found {entries:?}, with values of other fields");
        }
        let as_members = match (&wanted, found) {
            (Reply::Scored(_), Reply::Entries(entries)) => {
                let to_scored = |entry: Entry| Scored { member: entry.field, score: entry.score };
                Reply::Scored(entries.into_iter().map(to_scored).collect())
            }
            (Reply::Members(_), Reply::Entries(entries)) => {
                Reply::Members(entries.into_iter().map(|entry| entry.field).collect())
            }
            (_, found) => found,
        };
        same!(as_members, wanted, "{command:?}");
    }
    Ok(())
}

fn increments(store: &dyn DataStore) -> Checked {
    same!(ok(store.zh_incr_by("key", "a", 1.0), "zh_incr_by")?, None, "a field that is absent");
    check!(!ok(store.delete("key"), "a delete")?, "nothing was made");
    filled(store, &[entry("a", "one", 1.0), entry("b", "two", 2.0)])?;
    same!(ok(store.zh_incr_by("key", "a", 1.5), "zh_incr_by")?, Some(2.5), "1 + 1.5");
    let found = ok(store.zh_range_by_score("key", .., None), "a range")?;
    same!(found, [entry("b", "two", 2.0), entry("a", "one", 2.5)], "the sorted hash");
    fails(store.zh_incr_by("key", "a", f64::NAN), ErrorKind::Rejected, "adding what is no number")?;
    fails(store.zh_add("key", "c", "", f64::NAN), ErrorKind::Rejected, "a score that is no number")?;
    fails(store.zh_count("key", f64::NAN..), ErrorKind::Rejected, "a range from what is no number")?;
    fails(store.zh_range_by_score("key", ..f64::NAN, None), ErrorKind::Rejected, "a range to what is no number")?;
    ok(store.zh_add("key", "a", "one", f64::INFINITY), "zh_add")?;
    fails(store.zh_incr_by("key", "a", f64::NEG_INFINITY), ErrorKind::Rejected, "a sum that is no number")?;
    same!(ok(store.zh_get("key", "a"), "zh_get")?.as_deref(), Some(b"one".as_slice()), "the value");
    same!(ok(store.zh_count("key", ..), "zh_count")?, 2, "the fields");
    Ok(())
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

/// Whatever writes over a sorted hash, one that begins anew has nothing of it.
fn replaced(store: &dyn DataStore) -> Checked {
    type Replace = fn(&dyn DataStore) -> crate::Result<bool>;
    let ways: [(&str, Replace); 5] = [
        ("a set", |store| store.set("key", "string").map(|()| true)),
        ("a set for a time", |store| store.set_for("key", "string", Duration::from_millis(1)).map(|()| true)),
        ("a set where something stands", |store| store.set_if_present("key", "string")),
        ("a delete", |store| store.delete("key")),
        ("an atomic write", |store| {
            let mut write = AtomicWrite::new();
            write.set("key", "string");
            store.atomic_write(&write).map(|outcome| outcome.is_done())
        }),
    ];
    for (what, replace) in ways {
        filled(store, &[entry("a", "old", 1.0), entry("b", "old", 2.0)])?;
        check!(ok(replace(store), what)?, "{what} replaces a sorted hash");
        if what == "a set for a time" {
            gone(store, "key")?;
        } else {
            ok(store.delete("key"), "a delete")?;
        }
        same!(ok(store.zh_get("key", "a"), "zh_get")?, None, "a field after {what}");
        same!(ok(store.zh_score("key", "a"), "zh_score")?, None, "a score after {what}");
        same!(ok(store.zh_count("key", ..), "zh_count")?, 0, "the count after {what}");
        same!(ok(store.zh_lex_count("key", ..), "zh_lex_count")?, 0, "the count after {what}");
        same!(ok(store.zh_range_by_score("key", .., None), "a range")?, [], "the fields after {what}");
        same!(ok(store.zh_incr_by("key", "a", 1.0), "zh_incr_by")?, None, "a score after {what}");
        same!(ok(store.zh_rem("key", ["b"]), "zh_rem")?, 0, "what was there to be removed after {what}");
        filled(store, &[entry("b", "new", 3.0)])?;
        let found = ok(store.zh_range_by_score("key", .., None), "a range")?;
        same!(found, [entry("b", "new", 3.0)], "the fields that were added after {what}");
        same!(ok(store.zh_get("key", "a"), "zh_get")?, None, "a field that was not added after {what}");
        // A sorted set in its place has members and nothing else.
        ok(store.zh_rem("key", ["b"]), "zh_rem")?;
        ok(store.zadd("key", "a", 1.0), "zadd")?;
        fails(store.zh_get("key", "a"), ErrorKind::WrongType, "a field of a sorted set")?;
        ok(store.delete("key"), "a delete")?;
    }
    Ok(())
}

/// Keys that a store may have made of the key of a sorted hash are those of whoever writes them.
fn alone(store: &dyn DataStore) -> Checked {
    let others = |key: &str| {
        let behind = ["\0values", "\0", "\0scores", ":values", "values", "/values", "\u{1}"];
        let before = ["!values:", "!scores:", "!values{", "values:", "{", "=", "!"];
        let behind = behind.iter().map(|behind| format!("{key}{behind}"));
        let before = before.iter().flat_map(|before| [format!("{before}{key}"), format!("{before}{key}}}")]);
        behind.chain(before).collect::<Vec<_>>()
    };
    let intact = |others: &[String], what: &str| -> Checked {
        let found = ok(store.mget(others), "mget")?;
        for (other, found) in others.iter().zip(found) {
            same!(found.as_deref(), Some(other.as_bytes()), "{other:?} after {what}");
        }
        Ok(())
    };
    for key in ["key", "{tag}key", "k{e}y"] {
        let others = others(key);
        for other in &others {
            ok(store.set(other, other), "a set")?;
        }
        ok(store.zh_add(key, "field", "value", 1.0), "zh_add")?;
        intact(&others, "a sorted hash began")?;
        for other in &others {
            ok(store.set(other, other), "a set")?;
        }
        same!(ok(store.zh_get(key, "field"), "zh_get")?.as_deref(), Some(b"value".as_slice()), "the field of {key:?}");
        ok(store.set(key, "string"), "a set")?;
        intact(&others, "a sorted hash was replaced")?;
        ok(store.delete(key), "a delete")?;
        intact(&others, "a delete")?;
        ok(store.zh_add(key, "field", "value", 1.0), "zh_add")?;
        for other in &others {
            ok(store.delete(other), "a delete")?;
        }
        same!(ok(store.zh_get(key, "field"), "zh_get")?.as_deref(), Some(b"value".as_slice()), "the field of {key:?}");
        ok(store.zh_rem(key, ["field"]), "zh_rem")?;
    }
    Ok(())
}

fn odd(store: &dyn DataStore) -> Checked {
    // In the order of bytes; each has its own bytes as its value, and a line's end.
    let odd: [&[u8]; 11] =
        [b"", b"\0", b"\0\xff", b"\n", b"a", b"a\0", b"a\xfe", b"a\xff", b"\xfe", b"\xff", b"\xff\xff"];
    let own = |field: &[u8]| [field, b"\xff\0\n"].concat();
    for field in odd.iter().rev() {
        check!(ok(store.zh_add("key", field, own(field), 7.0), "zh_add")?, "{field:?} is another field");
    }
    let wanted: Vec<Entry> = odd
        .iter()
        .map(|field| Entry { field: Bytes::from_static(field), value: own(field).into(), score: 7.0 })
        .collect();
    same!(ok(store.zh_range_by_score("key", .., None), "a range")?, wanted, "by score");
    same!(ok(store.zh_range_by_lex("key", .., None), "a range")?, wanted, "by lexicographic order");
    for field in odd {
        same!(ok(store.zh_get("key", field), "zh_get")?, Some(own(field).into()), "the value of {field:?}");
        same!(ok(store.zh_rem("key", [field]), "zh_rem")?, 1, "{field:?} was there");
    }
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
