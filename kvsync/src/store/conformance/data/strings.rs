//! Strings and counters.

use std::time::{Duration, Instant};

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{AtomicWrite, Command, Condition, DataCommands, DataStore, Reads, Reply};

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
    Case::data("a_string_expires", Needs::Nothing, expires),
    Case::data("a_set_takes_the_time_to_live_away", Needs::Nothing, lives_again),
    Case::data("a_set_that_does_not_happen_leaves_the_time_to_live", Needs::Nothing, lives_on),
    Case::data("each_way_to_set_takes_a_time_to_live", Needs::AtomicSlot, leases),
    Case::data("what_has_expired_is_absent_for_conditions", Needs::Nothing, absent_again),
    Case::data("any_kind_takes_the_place_of_what_has_expired", Needs::Nothing, replaced_again),
    Case::data("a_time_to_live_of_nothing_is_refused", Needs::Nothing, no_time),
    Case::data("a_time_to_live_has_no_upper_end", Needs::Nothing, long_time),
    Case::data("a_counter_begins_at_nothing", Needs::Nothing, counts),
    Case::data("a_counter_is_a_decimal_string", Needs::Nothing, decimal),
    Case::data("a_counter_keeps_its_time_to_live", Needs::Nothing, counter_expires),
    Case::data("a_counter_refuses_what_is_no_number", Needs::Nothing, no_number),
    Case::data("a_counter_does_not_overflow", Needs::Nothing, overflow),
];

fn set_and_get(store: &dyn DataStore) -> Checked {
    for value in [b"".as_slice(), b"a", b"\0", b"\xff\xfe\x80", "ünïcode 🙂".as_bytes(), b"line\r\nbreak"] {
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
    let keys: Vec<String> = (0..500).map(|number| format!("many:{number}")).collect();
    for key in keys.iter().step_by(3) {
        ok(store.set(key, key), "a set")?;
    }
    let found = ok(store.mget(&keys), "mget")?;
    same!(found.len(), keys.len(), "answers");
    for (number, (key, found)) in keys.iter().zip(found).enumerate() {
        let wanted = (number % 3 == 0).then_some(key.as_bytes());
        same!(found.as_deref(), wanted, "{key}");
    }
    Ok(())
}

/// Waits until a key is gone: a store's clock is its own. What lives too long fails the case.
pub(super) fn gone(store: &dyn DataStore, key: &str) -> Checked {
    let begun = Instant::now();
    loop {
        // What counts is when the store was asked: the machine may stand still before it answers.
        let asked = begun.elapsed();
        if ok(store.get(key), "a get")?.is_none() {
            return Ok(());
        }
        check!(asked < Duration::from_secs(10), "`{key}` never expired");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn expires(store: &dyn DataStore) -> Checked {
    ok(store.set_for("long", "value", Duration::from_mins(10)), "set_for")?;
    ok(store.set_for("short", "value", Duration::from_millis(1)), "set_for")?;
    gone(store, "short")?;
    same!(
        ok(store.mget(["short", "long"]), "mget")?.iter().map(Option::is_some).collect::<Vec<_>>(),
        vec![false, true],
        "what is left"
    );
    check!(!ok(store.delete("short"), "a delete")?, "what has expired is not there to be deleted");
    Ok(())
}

fn long_time(store: &dyn DataStore) -> Checked {
    let years = |years: u64| Duration::from_secs(years * 365 * 24 * 60 * 60);
    let millis = [1 << 53, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, u64::MAX].map(Duration::from_millis);
    for long in [years(1000), years(10_000_000), Duration::MAX].into_iter().chain(millis) {
        ok(store.set_for("for", "1", long), &format!("a set for {long:?}"))?;
        ok(store.incr_by("for", 1), "a counter with a long time to live")?;
        same!(ok(store.get("for"), "a get")?.as_deref(), Some(b"2".as_slice()), "what was set for {long:?}");
        check!(!ok(store.set_if_absent_for("for", "x", long), "a lease")?, "it is there, for {long:?}");
        let mut write = AtomicWrite::new();
        write.set_for("as one", "1", long);
        let done = ok(store.atomic_write(&write), &format!("an atomic write of a set for {long:?}"))?;
        check!(done.is_done(), "an atomic write of a set for {long:?}");
        same!(ok(store.get("as one"), "a get")?.as_deref(), Some(b"1".as_slice()), "what was set for {long:?}");
        let equal = Command::Set {
            key: "for".into(),
            value: "3".into(),
            when: Condition::Equals("2".into()),
            expires: Some(long),
        };
        let replies = store.run(&[equal], Reads::Latest);
        check!(matches!(replies[..], [Ok(Reply::Taken(true))]), "a set if equal for {long:?}: {replies:?}");
        same!(ok(store.get("for"), "a get")?.as_deref(), Some(b"3".as_slice()), "what was set for {long:?}");
    }
    Ok(())
}

fn lives_again(store: &dyn DataStore) -> Checked {
    let short = Duration::from_millis(300);
    ok(store.set_for("set", "short", short), "set_for")?;
    ok(store.set("set", "for ever"), "a set")?;
    ok(store.set_for("longer", "short", short), "set_for")?;
    ok(store.set_for("longer", "for ever", Duration::from_mins(10)), "set_for")?;
    let mut kept = vec!["set", "longer"];
    // Where the machine stood still, these have expired before; then there was nothing to replace.
    ok(store.set_for("if present", "short", short), "set_for")?;
    if ok(store.set_if_present("if present", "for ever"), "set_if_present")? {
        kept.push("if present");
    }
    ok(store.set_for("if equal", "short", short), "set_for")?;
    if ok(store.set_if_equal("if equal", "short", "for ever"), "set_if_equal")? {
        kept.push("if equal");
    }
    ok(store.set_for("other", "short", 2 * short), "set_for")?;
    gone(store, "other")?;
    for key in kept {
        let found = ok(store.get(key), "a get")?;
        same!(found.as_deref(), Some(b"for ever".as_slice()), "a string whose time to live was taken away: {key}");
    }
    Ok(())
}

fn lives_on(store: &dyn DataStore) -> Checked {
    let keys = ["absent", "equal", "other kind"];
    for key in keys {
        ok(store.set_for(key, "short", Duration::from_millis(300)), "set_for")?;
    }
    // Where the machine stood still, the first may happen, after all.
    if !ok(store.set_if_absent("absent", "for ever"), "set_if_absent")? {
        gone(store, "absent")?;
    }
    check!(!ok(store.set_if_equal("equal", "shor", "for ever"), "set_if_equal")?, "it is another string");
    gone(store, "equal")?;
    let refused = store.sadd("other kind", ["member"]);
    if refused.is_err() {
        gone(store, "other kind")?;
    }
    Ok(())
}

fn leases(store: &dyn DataStore) -> Checked {
    let short = Duration::from_millis(1);
    check!(ok(store.set_if_absent_for("{t}:lease", "mine", short), "set_if_absent_for")?, "it was absent");
    gone(store, "{t}:lease")?;
    check!(ok(store.set_if_absent_for("{t}:lease", "mine", short), "set_if_absent_for")?, "it has expired");
    let mut write = AtomicWrite::new();
    write.set_for("{t}:atomic", "short", short);
    write.set_if_absent_for("{t}:atomic lease", "short", short);
    write.set("{t}:atomic for ever", "for ever");
    check!(ok(store.atomic_write(&write), "an atomic write")?.is_done(), "nothing was in its way");
    for key in ["{t}:lease", "{t}:atomic", "{t}:atomic lease"] {
        gone(store, key)?;
    }
    check!(ok(store.get("{t}:atomic for ever"), "a get")?.is_some(), "a string without a time to live is gone");
    let mut write = AtomicWrite::new();
    let present = write.set_if_present("{t}:atomic", "x");
    check!(ok(store.atomic_write(&write), "an atomic write")?.refused(present), "it has expired");
    let mut write = AtomicWrite::new();
    write.set_if_absent("{t}:atomic", "x");
    check!(ok(store.atomic_write(&write), "an atomic write")?.is_done(), "it has expired");
    Ok(())
}

fn absent_again(store: &dyn DataStore) -> Checked {
    expired(store, ["a", "b", "c", "d", "e"])?;
    check!(!ok(store.set_if_present("a", "x"), "set_if_present")?, "it has expired");
    check!(!ok(store.set_if_equal("b", "7", "x"), "set_if_equal")?, "it has expired");
    check!(ok(store.set_if_absent("c", "x"), "set_if_absent")?, "it has expired");
    same!(ok(store.incr_by("d", 1), "incr_by")?, 1, "a counter that has expired");
    check!(!ok(store.delete_if_present("e"), "a delete")?, "it has expired");
    Ok(())
}

/// Strings that stood under these keys, and do no more.
fn expired<const N: usize>(store: &dyn DataStore, keys: [&str; N]) -> Checked {
    for key in keys {
        ok(store.set_for(key, "7", Duration::from_millis(1)), "set_for")?;
    }
    keys.into_iter().try_for_each(|key| gone(store, key))
}

fn replaced_again(store: &dyn DataStore) -> Checked {
    expired(store, ["set", "hash", "field", "sorted", "sum", "sorted hash", "counter"])?;
    same!(ok(store.sadd("set", ["m"]), "sadd")?, 1, "a set where a string has expired");
    same!(ok(store.hset("hash", [("f", "v")]), "hset")?, 1, "a hash where a string has expired");
    check!(ok(store.hset_if_absent("field", "f", "v"), "hset_if_absent")?, "a hash where a string has expired");
    check!(ok(store.zadd("sorted", "m", 1.0), "zadd")?, "a sorted set where a string has expired");
    same!(ok(store.zincr_by("sum", "m", 1.0), "zincr_by").map(Some)?, Some(1.0), "a score where a string has expired");
    check!(ok(store.zh_add("sorted hash", "f", "v", 1.0), "zh_add")?, "a sorted hash where a string has expired");
    same!(ok(store.incr_by("counter", 1), "incr_by")?, 1, "a counter where a string has expired");
    // A time to live of what stood before is not theirs.
    same!(ok(store.smembers("set"), "smembers")?, ["m"], "the set");
    same!(ok(store.hget_all("hash"), "hget_all")?, [("f".into(), "v".into())], "the hash");
    same!(ok(store.zrange_by_score("sorted", .., None), "a range")?, ["m"], "the sorted set");
    same!(ok(store.zh_get("sorted hash", "f"), "zh_get")?.as_deref(), Some(b"v".as_slice()), "the sorted hash");
    Ok(())
}

fn no_time(store: &dyn DataStore) -> Checked {
    fails(store.set_for("key", "value", Duration::ZERO), ErrorKind::Rejected, "a time to live of 0")?;
    same!(ok(store.get("key"), "a get")?, None, "the key");
    Ok(())
}

fn counts(store: &dyn DataStore) -> Checked {
    same!(ok(store.incr_by("key", 0), "incr_by")?, 0, "a counter that is absent");
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

fn counter_expires(store: &dyn DataStore) -> Checked {
    ok(store.set_for("key", "1", Duration::from_millis(400)), "set_for")?;
    // Where the machine stood still in between, the counter begins anew and has no time to live.
    if ok(store.incr_by("key", 1), "incr_by")? == 2 {
        gone(store, "key")?;
    }
    Ok(())
}

fn no_number(store: &dyn DataStore) -> Checked {
    for text in ["", "a", "1.5", " 1", "1 ", "0x1", "9223372036854775808", "+1"] {
        ok(store.set("key", text), "a set")?;
        fails(store.incr_by("key", 1), ErrorKind::Rejected, &format!("counting on `{text}`"))?;
        same!(ok(store.get("key"), "a get")?.as_deref(), Some(text.as_bytes()), "what is no counter");
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
