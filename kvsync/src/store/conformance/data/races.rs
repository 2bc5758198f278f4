//! Several writers at once.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::ok;
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::races::{THREADS, race, rounds};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{AtomicWrite, DataCommands, DataStore, Outcome};

pub(super) const CASES: &[Case] = &[
    Case::data("a_counter_loses_no_increment", Needs::Nothing, counter),
    Case::data("one_of_many_sets_if_absent_wins", Needs::Nothing, lease),
    Case::data("one_of_many_wins_whatever_there_is_to_win", Needs::Nothing, winners),
    Case::data("set_if_equal_is_a_compare_and_set", Needs::Nothing, compare_and_set),
    Case::data("a_set_loses_no_member", Needs::Nothing, members),
    Case::data("what_is_added_while_a_collection_empties_stays", Needs::Nothing, emptied),
    Case::data("a_sorted_set_keeps_one_place_a_member", Needs::Nothing, sorted),
    Case::data("scores_lose_no_increment", Needs::Nothing, scores),
    Case::data("a_hash_loses_no_field", Needs::Nothing, fields),
    Case::data("racing_atomic_writes_are_whole", Needs::AtomicSlot, atomic),
    Case::data("no_reader_sees_half_an_atomic_write", Needs::Nothing, whole),
];

const ROUNDS: u64 = 20;

fn counter(store: &dyn DataStore) -> Checked {
    let added = AtomicU64::new(0);
    race(|_| {
        rounds(ROUNDS).try_for_each(|_| {
            added.fetch_add(1, Ordering::Relaxed);
            ok(store.incr_by("key", 1), "incr_by").map(|_| ())
        })
    })?;
    same!(ok(store.incr_by("key", 0), "incr_by")?.unsigned_abs(), added.into_inner(), "the counter");
    Ok(())
}

fn lease(store: &dyn DataStore) -> Checked {
    for round in 0..10 {
        let won = AtomicU64::new(0);
        let key = format!("lease:{round}");
        race(|number| {
            if ok(store.set_if_absent(&key, number.to_string()), "set_if_absent")? {
                won.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })?;
        same!(won.into_inner(), 1, "who won");
    }
    Ok(())
}

type Win = fn(&dyn DataStore, &str) -> crate::Result<bool>;

fn winners(store: &dyn DataStore) -> Checked {
    // In the order in which they can be won once each.
    let wins: [(&str, Win); 8] = [
        ("hset_if_absent", |store, key| store.hset_if_absent(key, "a", "x")),
        ("hdel", |store, key| store.hdel(key, ["a"]).map(|gone| gone == 1)),
        ("sadd", |store, key| store.sadd(key, ["a"]).map(|new| new == 1)),
        ("srem", |store, key| store.srem(key, ["a"]).map(|gone| gone == 1)),
        ("zadd_if_absent", |store, key| store.zadd_if_absent(key, "a", 1.0)),
        ("zrem", |store, key| store.zrem(key, ["a"]).map(|gone| gone == 1)),
        ("zh_add_if_absent", |store, key| store.zh_add_if_absent(key, "a", "x", 1.0)),
        ("delete", |store, key| store.delete(key)),
    ];
    for round in 0..5 {
        let key = format!("prize:{round}");
        for (what, win) in wins {
            let won = AtomicU64::new(0);
            race(|_| {
                won.fetch_add(u64::from(ok(win(store, &key), what)?), Ordering::SeqCst);
                Ok(())
            })?;
            same!(won.into_inner(), 1, "how many won by {what}");
        }
    }
    Ok(())
}

fn fields(store: &dyn DataStore) -> Checked {
    race(|number| {
        for round in 0..ROUNDS {
            let own = format!("{number}:{round}");
            ok(store.hset("key", [(own.as_str(), own.as_str()), ("all", "x")]), "hset")?;
            ok(store.zh_add("sorted", &own, &own, 1.0), "zh_add")?;
            if round % 2 == 1 {
                same!(ok(store.hdel("key", [&own]), "hdel")?, 1, "a field of one's own");
                same!(ok(store.zh_rem("sorted", [&own]), "zh_rem")?, 1, "a field of one's own");
            }
        }
        Ok(())
    })?;
    same!(ok(store.hget_all("key"), "hget_all")?.len() as u64, THREADS * ROUNDS / 2 + 1, "the hash");
    same!(ok(store.zh_count("sorted", ..), "zh_count")?, THREADS * ROUNDS / 2, "the sorted hash");
    for entry in ok(store.zh_range_by_lex("sorted", .., None), "a range")? {
        same!(entry.value, entry.field, "the value of a field");
    }
    Ok(())
}

fn compare_and_set(store: &dyn DataStore) -> Checked {
    ok(store.set("key", "0"), "a set")?;
    let raised = AtomicU64::new(0);
    race(|_| {
        for _ in rounds(ROUNDS / 4) {
            raised.fetch_add(1, Ordering::Relaxed);
            loop {
                let stands = ok(store.get("key"), "a get")?.unwrap_or_default();
                let number: u64 =
                    std::str::from_utf8(&stands).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
                if ok(store.set_if_equal("key", &stands, (number + 1).to_string()), "set_if_equal")? {
                    break;
                }
            }
        }
        Ok(())
    })?;
    let wanted = raised.into_inner().to_string();
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(wanted.as_bytes()), "the number");
    Ok(())
}

fn members(store: &dyn DataStore) -> Checked {
    race(|number| {
        for round in 0..ROUNDS {
            ok(store.sadd("key", [format!("{number}:{round}"), "all".into()]), "sadd")?;
            if round % 2 == 1 {
                same!(ok(store.srem("key", [format!("{number}:{round}")]), "srem")?, 1, "a member of one's own");
            }
        }
        Ok(())
    })?;
    same!(ok(store.smembers("key"), "smembers")?.len() as u64, THREADS * ROUNDS / 2 + 1, "the set");
    Ok(())
}

/// A member is added, seen and removed again: how often each.
type Cycle = fn(&dyn DataStore, &str) -> crate::Result<[u64; 3]>;

fn emptied(store: &dyn DataStore) -> Checked {
    // Each thread has a member of its own, so that the collection begins and ends again and again.
    let cycles: [(&str, Cycle); 4] = [
        ("set", |store, own| {
            let (new, seen) = (store.sadd("set", [own])?, store.smembers("set")?);
            Ok([new, seen.iter().filter(|member| *member == own).count() as u64, store.srem("set", [own])?])
        }),
        ("hash", |store, own| {
            let (new, seen) = (store.hset("hash", [(own, own)])?, store.hget_all("hash")?);
            Ok([new, seen.iter().filter(|(field, _)| field == own).count() as u64, store.hdel("hash", [own])?])
        }),
        ("sorted set", |store, own| {
            let new = u64::from(store.zadd("sorted set", own, 1.0)?);
            let seen = store.zrange_by_score("sorted set", .., None)?;
            let seen = seen.iter().filter(|member| *member == own).count() as u64;
            Ok([new, seen, store.zrem("sorted set", [own])?])
        }),
        ("sorted hash", |store, own| {
            let new = u64::from(store.zh_add("sorted hash", own, own, 1.0)?);
            let seen = store.zh_range_by_lex("sorted hash", .., None)?;
            let seen = seen.iter().filter(|entry| entry.field == own).count() as u64;
            Ok([new, seen, store.zh_rem("sorted hash", [own])?])
        }),
    ];
    for (kind, cycle) in cycles {
        race(|number| {
            for round in rounds(3) {
                let found = ok(cycle(store, &number.to_string()), kind)?;
                same!(found, [1; 3], "how often a member was added to a {kind}, seen and removed, in round {round}");
            }
            Ok(())
        })?;
        check!(!ok(store.delete(kind), "a delete")?, "a {kind} whose members all went is not there");
    }
    Ok(())
}

fn sorted(store: &dyn DataStore) -> Checked {
    race(|number| {
        for round in 0..ROUNDS {
            let place = f64::from(u32::try_from(number * ROUNDS + round).unwrap_or_default());
            ok(store.zadd("key", format!("{}", round % 5), place), "zadd")?;
            ok(store.zadd("key", format!("own:{number}"), place), "zadd")?;
        }
        Ok(())
    })?;
    let found = ok(store.zrange_by_score_with_scores("key", .., None), "a range")?;
    same!(found.len() as u64, 5 + THREADS, "members, each at one place");
    for found in found {
        same!(ok(store.zscore("key", &found.member), "zscore")?, Some(found.score), "the score of {:?}", found.member);
    }
    Ok(())
}

fn scores(store: &dyn DataStore) -> Checked {
    let added = AtomicU32::new(0);
    race(|_| {
        rounds(ROUNDS).try_for_each(|_| {
            added.fetch_add(1, Ordering::Relaxed);
            ok(store.zincr_by("key", "a", 1.0), "zincr_by").map(|_| ())
        })
    })?;
    let wanted = f64::from(added.into_inner());
    same!(ok(store.zscore("key", "a"), "zscore")?, Some(wanted), "the score");
    same!(ok(store.zrange_by_score("key", .., None), "a range")?, ["a"], "the sorted set");
    Ok(())
}

/// Repeats an atomic write while others are in its way.
fn settled(store: &dyn DataStore, write: &AtomicWrite) -> Checked<Outcome> {
    loop {
        match store.atomic_write(write) {
            Err(error) if error.kind() == ErrorKind::Contention => {}
            answer => return ok(answer, "an atomic write"),
        }
    }
}

fn atomic(store: &dyn DataStore) -> Checked {
    // Each takes a name and counts it; who fails to take it counts nothing.
    let taken = AtomicU64::new(0);
    race(|number| {
        for round in 0..ROUNDS / 2 {
            let mut write = AtomicWrite::new();
            write.set_if_absent(format!("{{race}}:name:{round}"), number.to_string());
            write.incr_by("{race}:names", 1);
            write.sadd("{race}:all", [format!("{round}:{number}")]);
            if settled(store, &write)?.is_done() {
                taken.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    })?;
    same!(taken.into_inner(), ROUNDS / 2, "names that were taken");
    same!(ok(store.incr_by("{race}:names", 0), "incr_by")?.unsigned_abs(), ROUNDS / 2, "names that were counted");
    same!(ok(store.smembers("{race}:all"), "smembers")?.len() as u64, ROUNDS / 2, "names that were listed");
    Ok(())
}

fn whole(store: &dyn DataStore) -> Checked {
    let over = AtomicBool::new(false);
    let at = |value: u64| {
        let mut write = AtomicWrite::new();
        write.hset("key", [("a", value.to_string())]);
        write.hset("key", [("b", value.to_string())]);
        write
    };
    settled(store, &at(0))?;
    race(|number| {
        if number == 0 {
            let written = (1..=ROUNDS).try_for_each(|round| settled(store, &at(round)).map(|_| ()));
            over.store(true, Ordering::SeqCst);
            return written;
        }
        while !over.load(Ordering::SeqCst) {
            let fields = ok(store.hget_all("key"), "hget_all")?;
            let mut values = fields.iter().map(|(_, value)| value);
            let (first, second) = (values.next(), values.next());
            check!(first.is_some() && first == second, "a reader saw {fields:?}");
        }
        Ok(())
    })
}
