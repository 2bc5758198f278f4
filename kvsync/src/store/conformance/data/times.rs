//! Times to live.
//!
//! A store's clock is its own, and a machine may stand still: nothing is asked of what has just expired, and what
//! has to be gone is waited for by a key that nobody asks anything else of, since some stores drop what has expired when
//! it is read.

use std::time::{Duration, Instant};

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{AtomicWrite, Command, Condition, DataCommands, DataStore, Reads, Reply};

pub(super) const CASES: &[Case] = &[
    Case::data("a_string_expires", Needs::Nothing, expires),
    Case::data("a_set_takes_the_time_to_live_away", Needs::Nothing, lives_again),
    Case::data("a_set_that_does_not_happen_leaves_the_time_to_live", Needs::Nothing, lives_on),
    Case::data("each_way_to_set_takes_a_time_to_live", Needs::AtomicSlot, leases),
    Case::data("what_has_expired_is_absent_for_conditions", Needs::Nothing, absent_again),
    Case::data("any_kind_takes_the_place_of_what_has_expired", Needs::Nothing, replaced_again),
    Case::data("a_time_to_live_of_nothing_is_refused", Needs::Nothing, no_time),
    Case::data("a_counter_keeps_its_time_to_live", Needs::Nothing, counter_expires),
    Case::data("what_has_expired_is_absent_for_every_command", Needs::Nothing, absent_for_all),
    Case::data("a_time_to_live_is_as_long_as_said", Needs::Nothing, as_long),
    Case::data("a_time_to_live_has_no_upper_end", Needs::Nothing, long_time),
    Case::data("a_long_time_to_live_is_long", Needs::Nothing, long),
];

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

fn lives_again(store: &dyn DataStore) -> Checked {
    let short = Duration::from_millis(100);
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
    // Nor does it outlive a key that is deleted, for what comes in its place.
    for key in ["deleted", "counted", "filled"] {
        ok(store.set_for(key, "7", short), "set_for")?;
        ok(store.delete(key), "a delete")?;
    }
    ok(store.set("deleted", "for ever"), "a set")?;
    kept.push("deleted");
    same!(ok(store.incr_by("counted", 1), "incr_by")?, 1, "a counter that was deleted");
    same!(ok(store.sadd("filled", ["m"]), "sadd")?, 1, "a set where a string was deleted");
    ok(store.set_for("other", "short", 2 * short), "set_for")?;
    gone(store, "other")?;
    same!(ok(store.incr_by("counted", 0), "incr_by")?, 1, "a counter without a time to live");
    same!(ok(store.smembers("filled"), "smembers")?.len(), 1, "a set without a time to live");
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
    gone(store, "{t}:atomic lease")?;
    expired(store, [])?;
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
    check!(!ok(store.delete_if_present("d"), "a delete")?, "it has expired");
    check!(!ok(store.delete("e"), "a delete")?, "it has expired");
    for key in ["a", "b", "d", "e"] {
        same!(ok(store.get(key), "a get")?, None, "{key}");
    }
    Ok(())
}

/// Each command on a key that none has read since it expired; atomic writes are on one key each.
fn absent_for_all(store: &dyn DataStore) -> Checked {
    expired(store, ["many", "other many", "counter", "set", "members", "a", "b", "c", "d", "e", "f"])?;
    same!(ok(store.mget(["many", "other many"]), "mget")?, [None, None], "strings that have expired");
    same!(ok(store.incr_by("counter", 1), "incr_by")?, 1, "a counter that has expired");
    same!(ok(store.sadd("set", ["m"]), "sadd")?, 1, "a set where a string has expired");
    same!(ok(store.smembers("members"), "smembers")?.len(), 0, "the members where a string has expired");
    let outcome = |add: fn(&mut AtomicWrite) -> usize| {
        let mut write = AtomicWrite::new();
        add(&mut write);
        ok(store.atomic_write(&write), "an atomic write").map(|outcome| outcome.is_done())
    };
    check!(!outcome(|write| write.set_if_present("a", "x"))?, "it has expired, and was present for an atomic write");
    check!(!outcome(|write| write.set_if_equal("b", "7", "x"))?, "it has expired, and was equal for an atomic write");
    check!(outcome(|write| write.set_if_absent("c", "x"))?, "it has expired, and stood for an atomic write");
    check!(!outcome(|write| write.delete_if_present("d"))?, "it has expired, and was deleted by an atomic write");
    check!(outcome(|write| write.incr_by("e", 1))?, "it has expired, and an atomic write may count on it");
    same!(ok(store.incr_by("e", 0), "incr_by")?, 1, "a counter that has expired, in an atomic write");
    check!(outcome(|write| write.sadd("f", ["m"]))?, "it has expired, and an atomic write may add to a set");
    same!(ok(store.smembers("f"), "smembers")?, ["m"], "a set where a string has expired, in an atomic write");
    Ok(())
}

fn as_long(store: &dyn DataStore) -> Checked {
    let time = Duration::from_millis(700);
    // It begins between these two, however long a set may take.
    let before = Instant::now();
    ok(store.set_for("key", "value", time), "set_for")?;
    let after = Instant::now();
    loop {
        // Where the machine stands still, a reading is asked earlier than the store sees it, and answered later.
        let asked = after.elapsed();
        if ok(store.get("key"), "a get")?.is_none() {
            let answered = before.elapsed();
            check!(answered >= time / 2, "a time to live of {time:?} was over after {answered:?}");
            return Ok(());
        }
        check!(
            asked < 2 * time + Duration::from_millis(500),
            "a time to live of {time:?} was not over after {asked:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn long(store: &dyn DataStore) -> Checked {
    // A little more than what 31 and 32 bits hold, of microseconds, milliseconds and seconds.
    let micros = [1 << 31, 1 << 32].map(|most| Duration::from_micros(most + 1_000));
    let millis = [1 << 31, 1 << 32].map(|most| Duration::from_millis(most + 1));
    let days = [60, 400, 36_500].map(|days| Duration::from_hours(24 * days));
    let times: Vec<Duration> = micros.into_iter().chain(millis).chain(days).collect();
    for time in &times {
        ok(store.set_for(format!("{time:?}"), "value", *time), "set_for")?;
        check!(ok(store.set_if_absent_for(format!("lease of {time:?}"), "value", *time), "a lease")?, "it was absent");
    }
    expired(store, ["short"])?;
    for time in times {
        for key in [format!("{time:?}"), format!("lease of {time:?}")] {
            check!(ok(store.get(&key), "a get")?.is_some(), "a string with a time to live of {time:?} is gone");
        }
    }
    Ok(())
}

/// Strings that stood under these keys, and do no more; nobody has looked.
fn expired<const N: usize>(store: &dyn DataStore, keys: [&str; N]) -> Checked {
    for key in keys {
        ok(store.set_for(key, "7", Duration::from_millis(1)), "set_for")?;
    }
    // One that goes later than all of them; they are read by none.
    ok(store.set_for("waited for", "7", Duration::from_millis(20)), "set_for")?;
    gone(store, "waited for")
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

fn counter_expires(store: &dyn DataStore) -> Checked {
    ok(store.set_for("key", "1", Duration::from_millis(400)), "set_for")?;
    // Where the machine stood still in between, the counter begins anew and has no time to live.
    if ok(store.incr_by("key", 1), "incr_by")? == 2 {
        gone(store, "key")?;
    }
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
