//! Strings and counters.

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{Batch, DataCommands, DataStore};

pub(super) const CASES: &[Case] = &[
    Case::data("a_string_is_read_back", Needs::Nothing, set_and_get),
    Case::data("what_is_absent_is_none", Needs::Nothing, absent),
    Case::data("a_set_replaces_any_kind", Needs::Nothing, replaces),
    Case::data("set_if_absent_sets_once", Needs::Nothing, if_absent),
    Case::data("set_if_present_never_creates", Needs::Nothing, if_present),
    Case::data("set_if_equal_compares_all_bytes", Needs::Nothing, if_equal),
    Case::data("conditions_hold_for_every_kind", Needs::Nothing, other_kinds),
    Case::data("a_delete_says_whether_something_was_there", Needs::Nothing, deletes),
    Case::data("many_are_read_in_the_order_asked", Needs::Nothing, many),
    Case::data("a_counter_begins_at_nothing", Needs::Nothing, counts),
    Case::data("a_counter_is_a_decimal_string", Needs::Nothing, decimal),
    Case::data("a_counter_refuses_what_is_no_number", Needs::Nothing, no_number),
    Case::data("a_counter_does_not_overflow", Needs::Nothing, overflow),
];

fn set_and_get(store: &dyn DataStore) -> Checked {
    let odd: [&[u8]; 7] = [b"\n", b"line\n", b"line\r\n", b"line\n\n", b" \t", b"nul\0", b"\n line"];
    let values = [b"".as_slice(), b"a", b"\0", b"\xff\xfe\x80", "ünïcode 🙂".as_bytes(), b"line\r\nbreak"];
    for value in values.into_iter().chain(odd) {
        ok(store.set("key", value), "a set")?;
        same!(ok(store.get("key"), "a get")?.as_deref(), Some(value), "what was set to {value:?}");
    }
    Ok(())
}

fn absent(store: &dyn DataStore) -> Checked {
    same!(ok(store.get("key"), "a get")?, None, "a string");
    same!(ok(store.smembers("key"), "smembers")?.len(), 0, "the members of no set");
    same!(ok(store.hget("key", "field"), "hget")?, None, "a field of no hash");
    same!(ok(store.hget_all("key"), "hget_all")?.len(), 0, "the fields of no hash");
    same!(ok(store.zscore("key", "member"), "zscore")?, None, "a score in no sorted set");
    same!(ok(store.zcount("key", ..), "zcount")?, 0, "the count of no sorted set");
    same!(ok(store.zlex_count("key", ..), "zlex_count")?, 0, "the count of no sorted set");
    same!(ok(store.zrange_by_score("key", .., None), "zrange_by_score")?.len(), 0, "a range of no sorted set");
    same!(ok(store.zrange_by_lex("key", .., None), "zrange_by_lex")?.len(), 0, "a range of no sorted set");
    same!(ok(store.zh_get("key", "field"), "zh_get")?, None, "a field of no sorted hash");
    same!(ok(store.zh_score("key", "field"), "zh_score")?, None, "a score in no sorted hash");
    same!(ok(store.zh_count("key", ..), "zh_count")?, 0, "the count of no sorted hash");
    same!(ok(store.zh_lex_count("key", ..), "zh_lex_count")?, 0, "the count of no sorted hash");
    same!(ok(store.zh_range_by_score("key", .., None), "zh_range_by_score")?.len(), 0, "a range of no sorted hash");
    same!(ok(store.zh_range_by_lex("key", .., None), "zh_range_by_lex")?.len(), 0, "a range of no sorted hash");
    same!(ok(store.get("key"), "a get")?, None, "a key that was only read");
    Ok(())
}

fn replaces(store: &dyn DataStore) -> Checked {
    ok(store.sadd("set", ["a", "b"]), "sadd")?;
    ok(store.hset("hash", [("a", "b")]), "hset")?;
    ok(store.zadd("sorted", "a", 1.0), "zadd")?;
    ok(store.zh_add("sorted hash", "a", "b", 1.0), "zh_add")?;
    for key in ["set", "hash", "sorted", "sorted hash"] {
        ok(store.set(key, "text"), "a set")?;
        same!(ok(store.get(key), "a get")?.as_deref(), Some(b"text".as_slice()), "{key}");
        check!(ok(store.delete(key), "a delete")?, "there was something under `{key}`");
    }
    // Nothing of what stood before may come back.
    same!(ok(store.smembers("set"), "smembers")?.len(), 0, "members of a set that was replaced");
    same!(ok(store.hget_all("hash"), "hget_all")?.len(), 0, "fields of a hash that was replaced");
    same!(ok(store.zcount("sorted", ..), "zcount")?, 0, "members of a sorted set that was replaced");
    ok(store.zh_add("sorted hash", "z", "y", 2.0), "zh_add")?;
    same!(ok(store.zh_count("sorted hash", ..), "zh_count")?, 1, "fields of a sorted hash that was replaced");
    same!(ok(store.zh_get("sorted hash", "a"), "zh_get")?, None, "a field of a sorted hash that was replaced");
    Ok(())
}

fn if_absent(store: &dyn DataStore) -> Checked {
    check!(ok(store.set_if_absent("key", "one"), "set_if_absent")?, "the key was absent");
    check!(!ok(store.set_if_absent("key", "two"), "set_if_absent")?, "the key was there");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"one".as_slice()), "the key");
    ok(store.delete("key"), "a delete")?;
    check!(ok(store.set_if_absent("key", ""), "set_if_absent")?, "the key was deleted");
    check!(!ok(store.set_if_absent("key", "three"), "set_if_absent")?, "an empty string is there");
    Ok(())
}

fn if_present(store: &dyn DataStore) -> Checked {
    check!(!ok(store.set_if_present("key", "one"), "set_if_present")?, "the key was absent");
    same!(ok(store.get("key"), "a get")?, None, "the key");
    ok(store.set("key", ""), "a set")?;
    check!(ok(store.set_if_present("key", "two"), "set_if_present")?, "an empty string is there");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"two".as_slice()), "the key");
    Ok(())
}

fn if_equal(store: &dyn DataStore) -> Checked {
    check!(!ok(store.set_if_equal("key", "", "one"), "set_if_equal")?, "the key was absent, which is not empty");
    ok(store.set("key", b"\0one"), "a set")?;
    for other in [b"".as_slice(), b"\0", b"\0on", b"\0onE", b"\0one\0", b"one"] {
        check!(!ok(store.set_if_equal("key", other, "two"), "set_if_equal")?, "{other:?} is not what stands there");
    }
    check!(ok(store.set_if_equal("key", b"\0one", "two"), "set_if_equal")?, "it is what stands there");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"two".as_slice()), "the key");
    Ok(())
}

fn other_kinds(store: &dyn DataStore) -> Checked {
    ok(store.sadd("key", ["a"]), "sadd")?;
    check!(!ok(store.set_if_absent("key", "text"), "set_if_absent")?, "a set stands there");
    check!(ok(store.set_if_present("key", "text"), "set_if_present")?, "a set stands there");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"text".as_slice()), "the key");
    Ok(())
}

fn deletes(store: &dyn DataStore) -> Checked {
    check!(!ok(store.delete("key"), "a delete")?, "nothing was there");
    ok(store.set("key", ""), "a set")?;
    check!(ok(store.delete("key"), "a delete")?, "an empty string was there");
    check!(!ok(store.delete("key"), "a delete")?, "it was deleted before");
    ok(store.sadd("key", ["a", "b", "c"]), "sadd")?;
    check!(ok(store.delete_if_present("key"), "a delete")?, "a set was there");
    same!(ok(store.smembers("key"), "smembers")?.len(), 0, "a deleted set");
    ok(store.sadd("key", ["d"]), "sadd")?;
    same!(ok(store.smembers("key"), "smembers")?.len(), 1, "a set made anew");
    Ok(())
}

fn many(store: &dyn DataStore) -> Checked {
    same!(ok(store.mget(Vec::<&str>::new()), "mget")?.len(), 0, "nothing asked");
    ok(store.set("a", "1"), "a set")?;
    ok(store.set("c", ""), "a set")?;
    ok(store.sadd("set", ["x"]), "sadd")?;
    let found = ok(store.mget(["c", "b", "a", "set", "a"]), "mget")?;
    let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
    same!(found, vec![Some(b"".as_slice()), None, Some(b"1"), None, Some(b"1")], "many keys");
    let keys: Vec<String> = (0..1_200).map(|number| format!("many:{number}")).collect();
    let mut batch = Batch::new();
    let sets: Vec<_> = keys.iter().step_by(3).map(|key| batch.set(key, key)).collect();
    let mut answers = batch.run(store);
    sets.into_iter().try_for_each(|set| ok(answers.take(set), "a set"))?;
    let found = ok(store.mget(&keys), "mget")?;
    same!(found.len(), keys.len(), "answers");
    for (number, (key, found)) in keys.iter().zip(found).enumerate() {
        let wanted = (number % 3 == 0).then_some(key.as_bytes());
        same!(found.as_deref(), wanted, "{key}");
    }
    Ok(())
}

fn counts(store: &dyn DataStore) -> Checked {
    same!(ok(store.incr_by("key", 0), "incr_by")?, 0, "a counter that is absent");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"0".as_slice()), "a counter that was absent, and is made");
    same!(ok(store.incr_by("key", 5), "incr_by")?, 5, "5");
    same!(ok(store.incr_by("key", -7), "incr_by")?, -2, "5 - 7");
    same!(ok(store.incr_by("key", 0), "incr_by")?, -2, "reading with 0");
    Ok(())
}

fn decimal(store: &dyn DataStore) -> Checked {
    ok(store.set("key", "41"), "a set")?;
    same!(ok(store.incr_by("key", 1), "incr_by")?, 42, "a string of digits");
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"42".as_slice()), "a counter, as a string");
    check!(ok(store.set_if_equal("key", "42", "-1"), "set_if_equal")?, "a counter compares as a string");
    same!(ok(store.incr_by("key", -1), "incr_by")?, -2, "a negative counter");
    Ok(())
}

fn no_number(store: &dyn DataStore) -> Checked {
    for text in ["", "a", "1.5", " 1", "1 ", "0x1", "9223372036854775808", "+1"] {
        ok(store.set("key", text), "a set")?;
        fails(store.incr_by("key", 1), ErrorKind::Rejected, &format!("counting on `{text}`"))?;
        same!(ok(store.get("key"), "a get")?.as_deref(), Some(text.as_bytes()), "what is no counter");
    }
    for bytes in [b"\xff".as_slice(), b"1\xff", b"1\0", b"1\n"] {
        ok(store.set("key", bytes), "a set")?;
        fails(store.incr_by("key", 1), ErrorKind::Rejected, &format!("counting on {bytes:?}"))?;
        same!(ok(store.get("key"), "a get")?.as_deref(), Some(bytes), "what is no counter");
    }
    Ok(())
}

fn overflow(store: &dyn DataStore) -> Checked {
    same!(ok(store.incr_by("key", i64::MAX), "incr_by")?, i64::MAX, "the highest");
    fails(store.incr_by("key", 1), ErrorKind::Rejected, "counting beyond it")?;
    same!(ok(store.incr_by("key", 0), "incr_by")?, i64::MAX, "the counter");
    same!(ok(store.incr_by("low", i64::MIN), "incr_by")?, i64::MIN, "the lowest");
    fails(store.incr_by("low", -1), ErrorKind::Rejected, "counting below it")
}
