//! Sorted sets.

use std::ops::Bound::{Excluded, Included, Unbounded};

use bytes::Bytes;

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{DataCommands, DataStore, LexRange, ScoreRange};

pub(super) const CASES: &[Case] = &[
    Case::data("a_member_has_one_score", Needs::Nothing, one_score),
    Case::data("zadd_if_absent_moves_no_member", Needs::Nothing, if_absent),
    Case::data("scores_are_added_up", Needs::Nothing, increments),
    Case::data("scores_keep_every_bit", Needs::Nothing, exact),
    Case::data("a_score_is_a_number", Needs::Nothing, not_a_number),
    Case::data("members_come_in_the_order_of_scores", Needs::Nothing, by_score),
    Case::data("equal_scores_come_in_the_order_of_members", Needs::Nothing, equal),
    Case::data("bounds_of_scores_include_exclude_and_are_infinite", Needs::Nothing, bounds),
    Case::data("a_range_that_ends_before_it_begins_is_empty", Needs::Nothing, backwards),
    Case::data("a_limit_takes_the_first", Needs::Nothing, limits),
    Case::data("members_of_equal_score_are_a_dictionary", Needs::Nothing, by_lex),
    Case::data("bounds_of_members_include_exclude_and_are_infinite", Needs::Nothing, lex_bounds),
    Case::data("a_sorted_set_takes_members_of_any_bytes", Needs::Nothing, odd),
    Case::data("an_emptied_sorted_set_is_gone", Needs::Nothing, emptied),
    Case::data("a_large_sorted_set_keeps_its_order", Needs::Nothing, large),
];

/// Members with these scores.
fn filled(store: &dyn DataStore, members: &[(&str, f64)]) -> Checked {
    for (member, score) in members {
        ok(store.zadd("key", member, *score), "zadd")?;
    }
    Ok(())
}

/// The members of a range of scores, from below; and that they are the same from above, and counted.
fn range(store: &dyn DataStore, scores: impl Into<ScoreRange>) -> Checked<Vec<Bytes>> {
    let scores: ScoreRange = scores.into();
    let found = ok(store.zrange_by_score("key", scores, None), "zrange_by_score")?;
    let mut reverse = ok(store.zrev_range_by_score("key", scores, None), "zrev_range_by_score")?;
    reverse.reverse();
    same!(reverse, found, "the same from above");
    same!(ok(store.zcount("key", scores), "zcount")?, found.len() as u64, "the count");
    Ok(found)
}

/// As [`range`], of members.
fn lex(store: &dyn DataStore, members: impl Into<LexRange>) -> Checked<Vec<Bytes>> {
    let members: LexRange = members.into();
    let found = ok(store.zrange_by_lex("key", members.clone(), None), "zrange_by_lex")?;
    let mut reverse = ok(store.zrev_range_by_lex("key", members.clone(), None), "zrev_range_by_lex")?;
    reverse.reverse();
    same!(reverse, found, "the same from above");
    same!(ok(store.zlex_count("key", members), "zlex_count")?, found.len() as u64, "the count");
    Ok(found)
}

fn one_score(store: &dyn DataStore) -> Checked {
    check!(ok(store.zadd("key", "a", 1.0), "zadd")?, "a new member");
    check!(!ok(store.zadd("key", "a", 2.5), "zadd")?, "a member that was there");
    same!(ok(store.zscore("key", "a"), "zscore")?, Some(2.5), "its score");
    same!(range(store, ..)?, ["a"], "the sorted set");
    same!(range(store, ..=1.0)?, [""; 0], "where it was before");
    same!(ok(store.zrem("key", ["x", "a", "a"]), "zrem")?, 1, "one member that was there");
    same!(ok(store.zscore("key", "a"), "zscore")?, None, "the score of a member that was removed");
    same!(range(store, ..)?, [""; 0], "the sorted set");
    Ok(())
}

fn if_absent(store: &dyn DataStore) -> Checked {
    check!(ok(store.zadd_if_absent("key", "a", 1.0), "zadd_if_absent")?, "a new member");
    check!(!ok(store.zadd_if_absent("key", "a", 2.0), "zadd_if_absent")?, "a member that was there");
    same!(ok(store.zscore("key", "a"), "zscore")?, Some(1.0), "its score");
    same!(range(store, ..)?, ["a"], "the sorted set");
    Ok(())
}

fn increments(store: &dyn DataStore) -> Checked {
    same!(ok(store.zincr_by("key", "a", 1.5), "zincr_by").map(Some)?, Some(1.5), "a member that was absent");
    same!(ok(store.zincr_by("key", "a", -4.0), "zincr_by").map(Some)?, Some(-2.5), "1.5 - 4");
    same!(ok(store.zincr_by("key", "b", 0.0), "zincr_by").map(Some)?, Some(0.0), "a member that was absent");
    same!(range(store, ..)?, ["a", "b"], "the sorted set");
    same!(range(store, 0.0..)?, ["b"], "above 0");
    Ok(())
}

fn exact(store: &dyn DataStore) -> Checked {
    let scores = [
        0.1,
        1.0 / 3.0,
        -1e-300,
        1e300,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        9_007_199_254_740_993.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    for score in scores {
        ok(store.zadd("key", "a", score), "zadd")?;
        same!(ok(store.zscore("key", "a"), "zscore")?, Some(score), "a score");
        let found = ok(store.zrange_by_score_with_scores("key", score..=score, None), "a range")?;
        same!(found.len(), 1, "members at {score}");
        same!(found.first().map(|found| found.score), Some(score), "the score in a range");
    }
    // Scores that 32 bits cannot tell apart, against the order of their members.
    let close = [("b", 16_777_216.0), ("a", 16_777_217.0), ("z", 0.1), ("y", 0.1 + f64::EPSILON / 8.0)];
    for (member, score) in close {
        ok(store.zadd("close", member, score), "zadd")?;
    }
    same!(ok(store.zrange_by_score("close", .., None), "a range")?, ["z", "y", "b", "a"], "scores that are close");
    let above = (Excluded(16_777_216.0), Unbounded);
    same!(ok(store.zrange_by_score("close", above, None), "a range")?, ["a"], "above one that is close");
    same!(ok(store.zcount("close", ..16_777_217.0), "zcount")?, 3, "below one that is close");
    Ok(())
}

fn not_a_number(store: &dyn DataStore) -> Checked {
    fails(store.zadd("key", "a", f64::NAN), ErrorKind::Rejected, "a score that is no number")?;
    fails(store.zincr_by("key", "a", f64::NAN), ErrorKind::Rejected, "adding what is no number")?;
    fails(store.zcount("key", f64::NAN..), ErrorKind::Rejected, "a range from what is no number")?;
    fails(store.zcount("key", ..f64::NAN), ErrorKind::Rejected, "a range to what is no number")?;
    fails(store.zrange_by_score("key", f64::NAN.., None), ErrorKind::Rejected, "a range from what is no number")?;
    fails(store.zrev_range_by_score("key", ..=f64::NAN, 1), ErrorKind::Rejected, "a range to what is no number")?;
    check!(!ok(store.delete("key"), "a delete")?, "nothing was made");
    ok(store.zadd("key", "a", f64::INFINITY), "zadd")?;
    fails(store.zincr_by("key", "a", f64::NEG_INFINITY), ErrorKind::Rejected, "a sum that is no number")?;
    same!(ok(store.zscore("key", "a"), "zscore")?, Some(f64::INFINITY), "the score");
    Ok(())
}

fn by_score(store: &dyn DataStore) -> Checked {
    filled(
        store,
        &[("d", 10.0), ("b", -1.0), ("c", 9.5), ("a", -10.0), ("e", f64::INFINITY), ("0", f64::NEG_INFINITY)],
    )?;
    same!(range(store, ..)?, ["0", "a", "b", "c", "d", "e"], "all");
    let found = ok(store.zrange_by_score_with_scores("key", -10.0..10.0, None), "with scores")?;
    let found: Vec<(&[u8], f64)> = found.iter().map(|found| (&*found.member, found.score)).collect();
    same!(found, vec![(b"a".as_slice(), -10.0), (b"b", -1.0), (b"c", 9.5)], "with scores");
    let found = ok(store.zrev_range_by_score_with_scores("key", 9.5.., 2), "with scores")?;
    let found: Vec<(&[u8], f64)> = found.iter().map(|found| (&*found.member, found.score)).collect();
    same!(found, vec![(b"e".as_slice(), f64::INFINITY), (b"d", 10.0)], "with scores, from above");
    Ok(())
}

fn equal(store: &dyn DataStore) -> Checked {
    filled(
        store,
        &[("b", 1.0), ("", 1.0), ("ab", 1.0), ("a", 1.0), ("B", 1.0), ("z", 0.0), ("ä", 1.0), ("minus", -0.0)],
    )?;
    same!(range(store, 1.0..=1.0)?, ["", "B", "a", "ab", "b", "ä"], "equal scores");
    same!(range(store, -0.0..=-0.0)?, ["minus", "z"], "the two zeros are equal");
    same!(range(store, (Excluded(-0.0), Included(1.0)))?.len(), 6, "above both zeros");
    same!(range(store, 0.0..=0.0)?, ["minus", "z"], "the two zeros are equal");
    for (member, zero) in [("d", -0.0), ("c", 0.0), ("b", -0.0), ("a", 0.0)] {
        ok(store.zadd("zeros", member, zero), "zadd")?;
    }
    same!(ok(store.zrange_by_score("zeros", .., None), "a range")?, ["a", "b", "c", "d"], "equal zeros");
    same!(ok(store.zrev_range_by_score("zeros", .., 3), "a range")?, ["d", "c", "b"], "equal zeros, from above");
    Ok(())
}

fn bounds(store: &dyn DataStore) -> Checked {
    filled(
        store,
        &[("a", -1.0), ("b", 0.0), ("c", 1.0), ("d", 2.0), ("low", f64::NEG_INFINITY), ("high", f64::INFINITY)],
    )?;
    same!(range(store, 0.0..=1.0)?, ["b", "c"], "inclusive");
    same!(range(store, 0.0..1.0)?, ["b"], "without the end");
    same!(range(store, (Excluded(0.0), Included(2.0)))?, ["c", "d"], "without the beginning");
    same!(range(store, (Excluded(0.0), Excluded(2.0)))?, ["c"], "without both");
    same!(range(store, (Excluded(0.0), Unbounded))?, ["c", "d", "high"], "without an end");
    same!(range(store, ..0.0)?, ["low", "a"], "without a beginning");
    same!(range(store, f64::NEG_INFINITY..=f64::INFINITY)?, ["low", "a", "b", "c", "d", "high"], "infinite, inclusive");
    same!(
        range(store, (Excluded(f64::NEG_INFINITY), Excluded(f64::INFINITY)))?,
        ["a", "b", "c", "d"],
        "infinite, exclusive"
    );
    same!(range(store, 0.5..0.75)?, [""; 0], "between members");
    Ok(())
}

fn backwards(store: &dyn DataStore) -> Checked {
    filled(store, &[("a", 1.0), ("b", 2.0)])?;
    same!(range(store, ScoreRange { min: Included(2.0), max: Included(1.0) })?, [""; 0], "from 2 to 1");
    same!(range(store, (Excluded(1.0), Excluded(1.0)))?, [""; 0], "from 1 to 1, exclusive");
    same!(range(store, (Excluded(1.0), Included(1.0)))?, [""; 0], "from behind 1 to 1");
    same!(lex(store, (Included("b"), Included("a")))?, [""; 0], "from b to a");
    same!(lex(store, (Excluded("a"), Excluded("a")))?, [""; 0], "from a to a, exclusive");
    same!(lex(store, (Excluded("a"), Included("a")))?, [""; 0], "from behind a to a");
    Ok(())
}

fn limits(store: &dyn DataStore) -> Checked {
    filled(store, &[("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)])?;
    same!(ok(store.zrange_by_score("key", .., 2), "a range")?, ["a", "b"], "the first two");
    same!(ok(store.zrev_range_by_score("key", .., 2), "a range")?, ["d", "c"], "the last two");
    same!(ok(store.zrange_by_lex("key", "b".., 2), "a range")?, ["b", "c"], "two from b");
    same!(ok(store.zrev_range_by_lex("key", .."d", 2), "a range")?, ["c", "b"], "two before d");
    same!(ok(store.zrange_by_score("key", .., 0), "a range")?, [""; 0], "none");
    same!(ok(store.zrange_by_lex("key", .., 0), "a range")?, [""; 0], "none");
    same!(ok(store.zrev_range_by_score("key", .., 0), "a range")?, [""; 0], "none");
    same!(ok(store.zrev_range_by_lex("key", .., 0), "a range")?, [""; 0], "none");
    for more in [4, 5, 100, usize::MAX] {
        same!(ok(store.zrange_by_score("key", .., more), "a range")?.len(), 4, "at most {more}");
        same!(ok(store.zrev_range_by_score("key", .., more), "a range")?, ["d", "c", "b", "a"], "at most {more}");
        same!(ok(store.zrange_by_lex("key", .., more), "a range")?.len(), 4, "at most {more}");
        same!(ok(store.zrev_range_by_lex("key", .., more), "a range")?, ["d", "c", "b", "a"], "at most {more}");
    }
    filled(store, &[("e", 1.0), ("f", 2.0)])?;
    same!(ok(store.zrange_by_score("key", 0.0.., 5), "a range")?, ["a", "b", "c", "d", "e"], "of several scores");
    same!(ok(store.zrev_range_by_score("key", ..2.0, 2), "a range")?, ["e", "d"], "of several scores, from above");
    Ok(())
}

fn by_lex(store: &dyn DataStore) -> Checked {
    let unordered = ["b", "a", "ab", "A", "", "🙂", "\u{ff5e}", "ä", "z", "é"];
    filled(store, &unordered.map(|member| (member, 0.0)))?;
    // Bytes: neither letters, nor the order of UTF-16, where the smile would stand before the tilde.
    same!(lex(store, ..)?, ["", "A", "a", "ab", "b", "z", "ä", "é", "\u{ff5e}", "🙂"], "all");
    same!(lex(store, LexRange::starting_with(b"a"))?, ["a", "ab"], "what begins with a");
    same!(lex(store, LexRange::starting_with(b""))?.len(), 10, "what begins with nothing");
    same!(lex(store, LexRange::starting_with("🙂".as_bytes()))?, ["🙂"], "what begins with a smile");
    same!(lex(store, "ä".."é")?, ["ä"], "from ä, without é");
    same!(lex(store, (Excluded("ä"), Included("\u{ff5e}")))?, ["é", "\u{ff5e}"], "between letters of many bytes");
    Ok(())
}

fn lex_bounds(store: &dyn DataStore) -> Checked {
    filled(store, &[("a", 0.0), ("b", 0.0), ("c", 0.0), ("cc", 0.0)])?;
    same!(lex(store, "b"..="c")?, ["b", "c"], "inclusive");
    same!(lex(store, "b".."c")?, ["b"], "without the end");
    same!(lex(store, (Excluded("a"), Included("cc")))?, ["b", "c", "cc"], "without the beginning");
    same!(lex(store, (Excluded("a"), Excluded("cc")))?, ["b", "c"], "without both");
    same!(lex(store, "c"..)?, ["c", "cc"], "without an end");
    same!(lex(store, ..="b")?, ["a", "b"], "without a beginning");
    same!(lex(store, "bb".."bz")?, [""; 0], "between members");
    same!(lex(store, ""..="")?, [""; 0], "the empty member, which is absent");
    Ok(())
}

fn odd(store: &dyn DataStore) -> Checked {
    // In the order of bytes.
    let odd: [&[u8]; 10] = [b"", b"\0", b"\0\0", b"\0\xff", b"\x01", b"a", b"a\0", b"a\0\x01", b"\xff", b"\xff\xff"];
    for member in odd.iter().rev() {
        ok(store.zadd("key", member, 7.0), "zadd")?;
    }
    let found = range(store, ..)?;
    same!(found.iter().map(|member| &**member).collect::<Vec<_>>(), odd, "by score");
    let found = lex(store, ..)?;
    same!(found.iter().map(|member| &**member).collect::<Vec<_>>(), odd, "by lexicographic order");
    same!(lex(store, b"\0".as_slice()..=b"\0\xff".as_slice())?.len(), 3, "a range of odd members");
    same!(lex(store, (Excluded(b"a".as_slice()), Excluded(b"\xff".as_slice())))?.len(), 2, "between odd members");
    same!(lex(store, LexRange::starting_with(b"\xff"))?.len(), 2, "what begins with the highest byte");
    for member in odd {
        same!(ok(store.zscore("key", member), "zscore")?, Some(7.0), "the score of {member:?}");
        same!(ok(store.zrem("key", [member]), "zrem")?, 1, "{member:?} was there");
    }
    same!(range(store, ..)?.len(), 0, "all removed");
    Ok(())
}

fn emptied(store: &dyn DataStore) -> Checked {
    filled(store, &[("a", 1.0), ("b", 2.0)])?;
    same!(ok(store.zrem("key", ["a", "b"]), "zrem")?, 2, "both members");
    check!(!ok(store.delete("key"), "a delete")?, "a sorted set without members is not there");
    same!(ok(store.zrem("key", Vec::<&str>::new()), "zrem")?, 0, "no member");
    same!(ok(store.sadd("key", ["a"]), "sadd")?, 1, "a set in its place");
    Ok(())
}

fn large(store: &dyn DataStore) -> Checked {
    const MEMBERS: u32 = 600;
    for number in 0..MEMBERS {
        // Every score twice, in an order that is none.
        let place = f64::from(number.wrapping_mul(7_919) % (MEMBERS / 2));
        ok(store.zadd("key", format!("{number:0>100}"), place), "zadd")?;
    }
    let found = ok(store.zrange_by_score_with_scores("key", .., None), "a range")?;
    same!(found.len(), MEMBERS as usize, "all members");
    let ordered = found.iter().zip(found.iter().skip(1));
    let rising = |(one, next): (&crate::store::data::Scored, &crate::store::data::Scored)| {
        (one.score, &one.member) < (next.score, &next.member)
    };
    check!(ordered.into_iter().all(rising), "members out of order");
    same!(ok(store.zcount("key", 100.0..200.0), "zcount")?, 200, "a count");
    same!(ok(store.zrev_range_by_score("key", .., 10), "a range")?.len(), 10, "the last ten");
    Ok(())
}
