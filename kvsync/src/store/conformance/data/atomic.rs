//! Atomic writes. It is long because a write takes every command, and each way to fail has to undo all of them.

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{AtomicWrite, DataCommands, DataStore, Outcome};

pub(super) const CASES: &[Case] = &[
    Case::data("an_atomic_write_of_nothing_is_done", Needs::Nothing, nothing),
    Case::data("an_atomic_write_on_one_key_is_whole", Needs::Nothing, one_key),
    Case::data("all_operations_happen", Needs::AtomicSlot, all),
    Case::data("a_failed_condition_undoes_all_and_is_named", Needs::AtomicSlot, refused),
    Case::data("every_failed_condition_is_told_from_those_that_hold", Needs::AtomicSlot, each),
    Case::data("conditions_are_looked_at_before_anything_is_written", Needs::AtomicSlot, before),
    Case::data("a_wrong_kind_undoes_all", Needs::AtomicSlot, wrong_kind),
    Case::data("a_failed_condition_is_told_before_a_wrong_kind", Needs::AtomicSlot, refused_first),
    Case::data("what_a_command_refuses_an_atomic_write_refuses", Needs::AtomicSlot, refused_for_good),
    Case::data("an_overflow_undoes_all", Needs::AtomicSlot, overflow),
    Case::data("a_hundred_operations_are_portable", Needs::AtomicSlot, hundred),
    Case::data("too_many_operations_are_refused", Needs::Nothing, too_many),
    Case::data("as_many_entries_as_it_says_are_written_as_one", Needs::Nothing, entries),
    Case::data("a_write_that_touches_too_many_entries_is_refused", Needs::EntryLimit, too_many_entries),
    Case::data("one_operation_may_name_the_same_twice", Needs::Nothing, twice_in_one),
    Case::data("raising_an_absent_field_is_no_condition", Needs::AtomicSlot, absent_field),
    Case::data("two_operations_on_the_same_are_refused", Needs::Nothing, twice),
    Case::data("an_atomic_write_over_slots_is_refused_clearly", Needs::SlotsOnly, slots),
    Case::data("an_atomic_write_over_keys_is_refused_clearly", Needs::KeysOnly, keys),
];

/// Keys of one slot, for stores that have slots.
fn key(name: &str) -> String {
    format!("{{atomic}}:{name}")
}

fn done(store: &dyn DataStore, write: &AtomicWrite, what: &str) -> Checked {
    same!(ok(store.atomic_write(write), what)?, Outcome::Done, "{what}");
    Ok(())
}

fn nothing(store: &dyn DataStore) -> Checked {
    done(store, &AtomicWrite::new(), "a write of nothing")
}

fn one_key(store: &dyn DataStore) -> Checked {
    let mut write = AtomicWrite::new();
    write.hset_if_absent("key", "a", "1");
    write.hset("key", [("b", "2"), ("c", "3")]);
    done(store, &write, "fields of one hash")?;
    same!(ok(store.hget_all("key"), "hget_all")?.len(), 3, "the hash");
    let refused = ok(store.atomic_write(&write), "the same again")?;
    check!(refused.refused(0), "the field is there: {refused:?}");
    check!(!refused.refused(1), "the other operation has no condition: {refused:?}");
    Ok(())
}

fn all(store: &dyn DataStore) -> Checked {
    ok(store.set(key("old"), "x"), "a set")?;
    ok(store.sadd(key("set"), ["a", "b"]), "sadd")?;
    ok(store.hset(key("hash"), [("a", "1"), ("b", "2")]), "hset")?;
    ok(store.zadd(key("sorted"), "a", 1.0), "zadd")?;
    ok(store.zh_add(key("sorted hash"), "a", "1", 1.0), "zh_add")?;
    ok(store.zh_add(key("moved"), "a", "kept", 1.0), "zh_add")?;
    for name in ["present", "deleted", "also deleted"] {
        ok(store.set(key(name), "x"), "a set")?;
    }
    let mut write = AtomicWrite::new();
    write.set(key("new"), "1");
    write.set_if_absent(key("absent"), "2");
    write.set_if_equal(key("old"), "x", "y");
    write.incr_by(key("counter"), 5);
    write.sadd(key("set"), ["c"]);
    write.srem(key("set"), ["a"]);
    write.hset(key("hash"), [("a", "3")]);
    write.hdel(key("hash"), ["b"]);
    write.zadd(key("sorted"), "b", 2.0);
    write.zrem(key("sorted"), ["a"]);
    write.zh_add(key("sorted hash"), "b", "2", 2.0);
    write.zh_rem(key("sorted hash"), ["a"]);
    write.zincr_by(key("other"), "m", 1.5);
    write.set_if_present(key("present"), "z");
    write.delete(key("deleted"));
    write.delete_if_present(key("also deleted"));
    write.hset_if_absent(key("hash"), "c", "4");
    write.zadd_if_absent(key("sorted"), "c", 3.0);
    write.zh_add_if_absent(key("sorted hash"), "c", "3", 3.0);
    write.zh_incr_by(key("moved"), "a", 1.5);
    done(store, &write, "one of each")?;
    same!(ok(store.get(key("new")), "a get")?.as_deref(), Some(b"1".as_slice()), "a set");
    same!(ok(store.get(key("absent")), "a get")?.as_deref(), Some(b"2".as_slice()), "a set if absent");
    same!(ok(store.get(key("old")), "a get")?.as_deref(), Some(b"y".as_slice()), "a set if equal");
    same!(ok(store.get(key("counter")), "a get")?.as_deref(), Some(b"5".as_slice()), "a counter");
    let mut members = ok(store.smembers(key("set")), "smembers")?;
    members.sort();
    same!(members, ["b", "c"], "a set");
    let mut fields = ok(store.hget_all(key("hash")), "hget_all")?;
    fields.sort();
    same!(fields, [("a".into(), "3".into()), ("c".into(), "4".into())], "a hash");
    same!(ok(store.zrange_by_score(key("sorted"), .., None), "a range")?, ["b", "c"], "a sorted set");
    let entries = ok(store.zh_range_by_score(key("sorted hash"), .., None), "a range")?;
    same!(entries.into_iter().map(|entry| entry.field).collect::<Vec<_>>(), ["b", "c"], "a sorted hash");
    same!(ok(store.get(key("present")), "a get")?.as_deref(), Some(b"z".as_slice()), "a set if present");
    same!(ok(store.mget([key("deleted"), key("also deleted")]), "mget")?, [None, None], "what was deleted");
    let moved = (ok(store.zh_score(key("moved"), "a"), "zh_score")?, ok(store.zh_get(key("moved"), "a"), "zh_get")?);
    same!(moved, (Some(2.5), Some("kept".into())), "a field that was moved");
    same!(ok(store.zscore(key("other"), "m"), "zscore")?, Some(1.5), "a score");
    Ok(())
}

fn refused(store: &dyn DataStore) -> Checked {
    ok(store.set(key("taken"), "x"), "a set")?;
    let mut write = AtomicWrite::new();
    write.set(key("first"), "1");
    let taken = write.set_if_absent(key("taken"), "2");
    write.incr_by(key("counter"), 1);
    write.sadd(key("set"), ["a"]);
    write.zadd(key("sorted"), "a", 1.0);
    let answer = ok(store.atomic_write(&write), "an atomic write")?;
    same!(answer, Outcome::Refused(vec![taken]), "what failed");
    for name in ["first", "counter"] {
        same!(ok(store.get(key(name)), "a get")?, None, "{name}");
    }
    same!(ok(store.smembers(key("set")), "smembers")?.len(), 0, "the set");
    same!(ok(store.zcount(key("sorted"), ..), "zcount")?, 0, "the sorted set");
    same!(ok(store.get(key("taken")), "a get")?.as_deref(), Some(b"x".as_slice()), "what was taken");
    Ok(())
}

type Add = fn(&mut AtomicWrite) -> usize;

fn each(store: &dyn DataStore) -> Checked {
    ok(store.set(key("string"), "x"), "a set")?;
    ok(store.hset(key("hash"), [("a", "1")]), "hset")?;
    ok(store.zadd(key("sorted"), "a", 1.0), "zadd")?;
    ok(store.zh_add(key("sorted hash"), "a", "1", 1.0), "zh_add")?;
    let failing: [(&str, Add); 9] = [
        ("set_if_absent", |write| write.set_if_absent(key("string"), "y")),
        ("set_if_present", |write| write.set_if_present(key("nothing"), "y")),
        ("set_if_equal", |write| write.set_if_equal(key("string"), "z", "y")),
        ("set_if_equal of what is absent", |write| write.set_if_equal(key("nothing"), "", "y")),
        ("delete_if_present", |write| write.delete_if_present(key("nothing"))),
        ("hset_if_absent", |write| write.hset_if_absent(key("hash"), "a", "2")),
        ("zadd_if_absent", |write| write.zadd_if_absent(key("sorted"), "a", 2.0)),
        ("zh_add_if_absent", |write| write.zh_add_if_absent(key("sorted hash"), "a", "2", 2.0)),
        ("a set_if_absent with a time to live", |write| {
            write.set_if_absent_for(key("string"), "y", std::time::Duration::from_secs(9))
        }),
    ];
    for (what, add) in failing {
        let mut write = AtomicWrite::new();
        write.set(key("never"), "1");
        let failing = add(&mut write);
        let holds = write.hset_if_absent(key("hash"), "b", "2");
        let answer = ok(store.atomic_write(&write), what)?;
        check!(answer.refused(failing), "{what} has failed, and the answer is {answer:?}");
        check!(!answer.refused(holds) && !answer.refused(0), "only {what} has failed, and the answer is {answer:?}");
        same!(ok(store.get(key("never")), "a get")?, None, "{what}: what stood before it");
        same!(ok(store.hget(key("hash"), "b"), "hget")?, None, "{what}: what stood behind it");
    }
    let mut write = AtomicWrite::new();
    write.delete(key("nothing"));
    done(store, &write, "the delete of what is absent, without a condition")
}

fn before(store: &dyn DataStore) -> Checked {
    ok(store.hset(key("hash"), [("a", "1")]), "hset")?;
    // Were the first operation's effect seen, the second's condition would hold.
    let mut write = AtomicWrite::new();
    write.hdel(key("other"), ["x"]);
    let present = write.set_if_present(key("later"), "2");
    write.hset(key("hash"), [("b", "2")]);
    let answer = ok(store.atomic_write(&write), "an atomic write")?;
    check!(answer.refused(present), "nothing stands there: {answer:?}");
    same!(ok(store.hget_all(key("hash")), "hget_all")?.len(), 1, "the hash");
    // Nor may what another makes be in its own way.
    let mut write = AtomicWrite::new();
    write.zadd_if_absent(key("new"), "a", 1.0);
    write.zadd_if_absent(key("new"), "b", 1.0);
    write.set_if_absent(key("string"), "1");
    done(store, &write, "conditions that hold before anything is written")
}

fn wrong_kind(store: &dyn DataStore) -> Checked {
    ok(store.set(key("string"), "x"), "a set")?;
    let mut write = AtomicWrite::new();
    write.set(key("first"), "1");
    write.sadd(key("string"), ["a"]);
    write.set(key("last"), "1");
    fails(store.atomic_write(&write), ErrorKind::WrongType, "an atomic write with sadd on a string")?;
    same!(ok(store.get(key("first")), "a get")?, None, "what stood before it");
    same!(ok(store.get(key("last")), "a get")?, None, "what stood behind it");
    Ok(())
}

/// A condition that failed, beside operations that are wrong in every other way, before and behind it.
fn refused_first(store: &dyn DataStore) -> Checked {
    ok(store.set(key("string"), "x"), "a set")?;
    ok(store.set(key("counter"), i64::MAX.to_string()), "a set")?;
    ok(store.sadd(key("set"), ["a"]), "sadd")?;
    ok(store.zadd(key("sorted"), "a", f64::INFINITY), "zadd")?;
    ok(store.zh_add(key("sorted hash"), "a", "x", f64::INFINITY), "zh_add")?;
    let wrong: [(&str, ErrorKind, Add); 9] = [
        ("sadd on a string", ErrorKind::WrongType, |write| write.sadd(key("string"), ["b"])),
        ("incr_by on a set", ErrorKind::WrongType, |write| write.incr_by(key("set"), 1)),
        ("set_if_equal on a set", ErrorKind::WrongType, |write| write.set_if_equal(key("set"), "a", "b")),
        ("hset_if_absent on a string", ErrorKind::WrongType, |write| write.hset_if_absent(key("string"), "a", "b")),
        ("zadd_if_absent on a set", ErrorKind::WrongType, |write| write.zadd_if_absent(key("set"), "b", 1.0)),
        ("zh_add_if_absent on a sorted set", ErrorKind::WrongType, |write| {
            write.zh_add_if_absent(key("sorted"), "b", "", 1.0)
        }),
        ("an overflow", ErrorKind::Rejected, |write| write.incr_by(key("counter"), 1)),
        ("a sum that is no number", ErrorKind::Rejected, |write| write.zincr_by(key("sorted"), "a", f64::NEG_INFINITY)),
        ("a field's sum that is no number", ErrorKind::Rejected, |write| {
            write.zh_incr_by(key("sorted hash"), "a", f64::NEG_INFINITY)
        }),
    ];
    for (what, kind, add) in wrong {
        let mut alone = AtomicWrite::new();
        alone.delete_if_present(key("first"));
        alone.set_if_absent(key("last"), "x");
        add(&mut alone);
        ok(store.set(key("first"), "x"), "a set")?;
        fails(store.atomic_write(&alone), kind, &format!("{what}, where no condition fails,"))?;
        ok(store.delete(key("first")), "a delete")?;
        let mut write = AtomicWrite::new();
        let first = write.delete_if_present(key("first"));
        add(&mut write);
        same!(
            ok(store.atomic_write(&write), &format!("a failed condition before {what}"))?,
            Outcome::Refused(vec![first]),
            "a failed condition before {what}"
        );
        let mut write = AtomicWrite::new();
        add(&mut write);
        let last = write.set_if_present(key("last"), "x");
        same!(
            ok(store.atomic_write(&write), &format!("a failed condition behind {what}"))?,
            Outcome::Refused(vec![last]),
            "a failed condition behind {what}"
        );
    }
    Ok(())
}

fn refused_for_good(store: &dyn DataStore) -> Checked {
    let can = store.data_capabilities();
    let refused: [(&str, Add); 5] = [
        ("a score that is no number", |write| write.zadd(key("other"), "a", f64::NAN)),
        ("a field's score that is no number", |write| write.zh_add(key("other"), "a", "", f64::NAN)),
        ("adding what is no number", |write| write.zincr_by(key("other"), "a", f64::NAN)),
        ("a time to live of nothing", |write| write.set_for(key("other"), "x", std::time::Duration::ZERO)),
        ("a counter that is no number", |write| write.incr_by(key("text"), 1)),
    ];
    ok(store.set(key("text"), "text"), "a set")?;
    let mut writes: Vec<(&str, AtomicWrite)> = Vec::new();
    for (what, add) in refused {
        let mut write = AtomicWrite::new();
        write.set(key("first"), "1");
        add(&mut write);
        writes.push((what, write));
    }
    if can.max_value <= 1 << 24 {
        let mut write = AtomicWrite::new();
        write.set(key("first"), "1");
        write.set(key("other"), vec![b'x'; can.max_value + 1]);
        writes.push(("a value beyond the limit", write));
    }
    for (what, write) in writes {
        fails(store.atomic_write(&write), ErrorKind::Rejected, &format!("an atomic write with {what}"))?;
        same!(ok(store.get(key("first")), "a get")?, None, "what stood before {what}");
        check!(!ok(store.delete(key("other")), "a delete")?, "{what} was written");
    }
    Ok(())
}

fn overflow(store: &dyn DataStore) -> Checked {
    ok(store.incr_by(key("counter"), i64::MAX), "incr_by")?;
    ok(store.set_for(key("lives"), "5", std::time::Duration::from_mins(10)), "set_for")?;
    let mut write = AtomicWrite::new();
    write.set(key("first"), "1");
    write.incr_by(key("lowest"), i64::MIN);
    write.incr_by(key("lives"), 1);
    write.incr_by(key("counter"), 1);
    fails(store.atomic_write(&write), ErrorKind::Rejected, "an atomic write that overflows")?;
    same!(ok(store.get(key("first")), "a get")?, None, "what stood before it");
    same!(ok(store.incr_by(key("counter"), 0), "incr_by")?, i64::MAX, "the counter");
    same!(ok(store.get(key("lowest")), "a get")?, None, "a counter that was counted before");
    same!(ok(store.get(key("lives")), "a get")?.as_deref(), Some(b"5".as_slice()), "a counter that was counted before");
    Ok(())
}

fn hundred(store: &dyn DataStore) -> Checked {
    let most = store.data_capabilities().max_operations.min(100);
    let mut write = AtomicWrite::new();
    for number in 0..most {
        write.set_if_absent(key(&number.to_string()), number.to_string());
    }
    done(store, &write, "as many operations as a store has to take")?;
    for number in 0..most {
        let found = ok(store.get(key(&number.to_string())), "a get")?;
        same!(found.as_deref(), Some(number.to_string().as_bytes()), "operation {number}");
    }
    let answer = ok(store.atomic_write(&write), "the same again")?;
    check!(!answer.is_done(), "all keys are there");
    Ok(())
}

fn too_many(store: &dyn DataStore) -> Checked {
    let most = store.data_capabilities().max_operations;
    let mut write = AtomicWrite::new();
    for number in 0..=most {
        write.hset("key", [(number.to_string(), "x")]);
    }
    fails(store.atomic_write(&write), ErrorKind::Rejected, "more operations than the store takes")?;
    same!(ok(store.hget_all("key"), "hget_all")?.len(), 0, "the hash");
    Ok(())
}

fn entries(store: &dyn DataStore) -> Checked {
    let can = store.data_capabilities();
    let most = can.max_operations.min(100).min(can.max_entries.saturating_sub(1));
    for round in ["added", "moved"] {
        let mut write = AtomicWrite::new();
        for number in 0..most {
            write.zadd("sorted", number.to_string(), if round == "added" { 1.0 } else { 2.0 });
        }
        done(store, &write, &format!("{most} members of one sorted set, {round}"))?;
    }
    same!(ok(store.zcount("sorted", 2.0..=2.0), "zcount")?, most as u64, "the members");
    let names: Vec<String> = (0..most).map(|number| number.to_string()).collect();
    same!(ok(store.zrem("sorted", &names), "zrem")?, most as u64, "those removed");
    check!(!ok(store.delete("sorted"), "a delete")?, "a sorted set without members is gone");
    Ok(())
}

fn too_many_entries(store: &dyn DataStore) -> Checked {
    let can = store.data_capabilities();
    let names: Vec<String> = (0..can.max_entries).map(|number| number.to_string()).collect();
    ok(store.zadd(key("sorted"), "0", 1.0), "zadd")?;
    fails(store.zrem(key("sorted"), &names), ErrorKind::Rejected, "a zrem of too many members")?;
    let (some, others) = names.split_at(names.len() / 2);
    let mut write = AtomicWrite::new();
    write.zrem(key("sorted"), some);
    write.zh_rem(key("sorted hash"), others);
    fails(store.atomic_write(&write), ErrorKind::Rejected, "an atomic write that touches too many members")?;
    same!(ok(store.zcount(key("sorted"), ..), "zcount")?, 1, "the members");
    Ok(())
}

fn twice_in_one(store: &dyn DataStore) -> Checked {
    // On one key each, for stores that write no more as one.
    let mut write = AtomicWrite::new();
    write.sadd("set", ["a", "b", "a"]);
    done(store, &write, "an atomic sadd of a member twice")?;
    let mut members = ok(store.smembers("set"), "smembers")?;
    members.sort();
    same!(members, ["a", "b"], "the set");
    let mut write = AtomicWrite::new();
    write.srem("set", ["a", "a"]);
    write.sadd("set", ["c", "c"]);
    done(store, &write, "an atomic srem of a member twice")?;
    let mut members = ok(store.smembers("set"), "smembers")?;
    members.sort();
    same!(members, ["b", "c"], "the set");
    let mut write = AtomicWrite::new();
    write.hset("hash", [("a", "1"), ("b", "2"), ("a", "3")]);
    done(store, &write, "an atomic hset of a field twice")?;
    let mut fields = ok(store.hget_all("hash"), "hget_all")?;
    fields.sort();
    same!(fields, [("a".into(), "3".into()), ("b".into(), "2".into())], "the hash, of which the last counts");
    let mut write = AtomicWrite::new();
    write.hdel("hash", ["a", "a"]);
    done(store, &write, "an atomic hdel of a field twice")?;
    same!(ok(store.hget_all("hash"), "hget_all")?, [("b".into(), "2".into())], "the hash");
    ok(store.zadd("sorted", "a", 1.0), "zadd")?;
    ok(store.zadd("sorted", "b", 2.0), "zadd")?;
    let mut write = AtomicWrite::new();
    write.zrem("sorted", ["a", "x", "a", "x"]);
    done(store, &write, "an atomic zrem of a member twice")?;
    same!(ok(store.zrange_by_score("sorted", .., None), "a range")?, ["b"], "the sorted set");
    ok(store.zh_add("sorted hash", "a", "1", 1.0), "zh_add")?;
    let mut write = AtomicWrite::new();
    write.zh_rem("sorted hash", ["a", "a"]);
    done(store, &write, "an atomic zh_rem of a field twice")?;
    check!(!ok(store.delete("sorted hash"), "a delete")?, "a sorted hash without fields is not there");
    Ok(())
}

fn absent_field(store: &dyn DataStore) -> Checked {
    ok(store.zh_add(key("sorted hash"), "a", "kept", 1.0), "zh_add")?;
    let mut write = AtomicWrite::new();
    write.set(key("string"), "1");
    write.zh_incr_by(key("sorted hash"), "x", 1.0);
    write.zh_incr_by(key("nothing"), "x", 1.0);
    done(store, &write, "raising fields that are absent")?;
    same!(ok(store.get(key("string")), "a get")?.as_deref(), Some(b"1".as_slice()), "what stood before it");
    same!(ok(store.zh_count(key("sorted hash"), ..), "zh_count")?, 1, "the sorted hash");
    check!(!ok(store.delete(key("nothing")), "a delete")?, "nothing was made");
    Ok(())
}

fn twice(store: &dyn DataStore) -> Checked {
    type Add = fn(&mut AtomicWrite);
    let pairs: [Add; 6] = [
        // A kind has to be made up where nothing stands.
        |write| {
            write.zadd("key", "a", 1.0);
            write.srem("key", ["b"]);
        },
        |write| {
            write.hset_if_absent("key", "a", "1");
            write.zh_add("key", "b", "1", 1.0);
        },
        |write| {
            write.set("key", "1");
            write.set("key", "2");
        },
        |write| {
            write.set("key", "1");
            write.sadd("key", ["a"]);
        },
        |write| {
            write.hset("key", [("a", "1")]);
            write.hdel("key", ["a"]);
        },
        |write| {
            write.zadd("key", "a", 1.0);
            write.delete("key");
        },
    ];
    for add in pairs {
        let mut write = AtomicWrite::new();
        add(&mut write);
        fails(store.atomic_write(&write), ErrorKind::Rejected, "two operations on the same")?;
        check!(!ok(store.delete("key"), "a delete")?, "nothing was written by {write:?}");
    }
    Ok(())
}

fn slots(store: &dyn DataStore) -> Checked {
    let mut write = AtomicWrite::new();
    for number in 0..10 {
        write.set(format!("slot:{number}"), "x");
    }
    fails(store.atomic_write(&write), ErrorKind::Rejected, "an atomic write over several slots")?;
    same!(ok(store.get("slot:0"), "a get")?, None, "the first key");
    Ok(())
}

fn keys(store: &dyn DataStore) -> Checked {
    let mut write = AtomicWrite::new();
    write.set(key("a"), "x");
    write.set(key("b"), "x");
    fails(store.atomic_write(&write), ErrorKind::Rejected, "an atomic write over several keys")?;
    same!(ok(store.get(key("a")), "a get")?, None, "the first key");
    Ok(())
}
