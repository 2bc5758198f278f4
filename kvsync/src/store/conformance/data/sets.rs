//! Sets.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::ok;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{DataCommands, DataStore};

pub(super) const CASES: &[Case] = &[
    Case::data("a_set_holds_each_member_once", Needs::Nothing, once),
    Case::data("an_emptied_set_is_gone", Needs::Nothing, emptied),
    Case::data("nothing_added_makes_no_set", Needs::Nothing, nothing),
    Case::data("a_set_takes_members_of_any_bytes", Needs::Nothing, odd),
    Case::data("a_set_of_many_members_is_read_whole", Needs::Nothing, large),
];

fn members(store: &dyn DataStore, key: &str) -> Checked<BTreeSet<Bytes>> {
    let members = ok(store.smembers(key), "smembers")?;
    let distinct: BTreeSet<_> = members.iter().cloned().collect();
    same!(distinct.len(), members.len(), "each member once");
    Ok(distinct)
}

fn wanted<'a>(members: impl IntoIterator<Item = &'a str>) -> BTreeSet<Bytes> {
    members.into_iter().map(|member| Bytes::copy_from_slice(member.as_bytes())).collect()
}

fn once(store: &dyn DataStore) -> Checked {
    same!(ok(store.sadd("key", ["a", "b"]), "sadd")?, 2, "two new members");
    same!(ok(store.sadd("key", ["b", "c", "c"]), "sadd")?, 1, "one new member, named twice");
    same!(members(store, "key")?, wanted(["a", "b", "c"]), "the set");
    same!(ok(store.srem("key", ["b", "x", "b"]), "srem")?, 1, "one member that was there");
    same!(members(store, "key")?, wanted(["a", "c"]), "the set");
    same!(members(store, "other")?, wanted([]), "another set");
    Ok(())
}

fn emptied(store: &dyn DataStore) -> Checked {
    ok(store.sadd("key", ["a", "b"]), "sadd")?;
    same!(ok(store.srem("key", ["a", "b"]), "srem")?, 2, "both members");
    check!(!ok(store.delete("key"), "a delete")?, "a set without members is not there");
    same!(ok(store.srem("key", ["a"]), "srem")?, 0, "a member of no set");
    // Its key is free for another kind.
    same!(ok(store.hset("key", [("a", "b")]), "hset")?, 1, "a hash in its place");
    Ok(())
}

fn nothing(store: &dyn DataStore) -> Checked {
    same!(ok(store.sadd("key", Vec::<&str>::new()), "sadd")?, 0, "no member");
    same!(ok(store.srem("key", Vec::<&str>::new()), "srem")?, 0, "no member");
    check!(!ok(store.delete("key"), "a delete")?, "no set was made");
    Ok(())
}

fn odd(store: &dyn DataStore) -> Checked {
    let odd: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"\0\0",
        b"\x01",
        b"\xff",
        b"\xff\xff",
        b"a\0b",
        b"a",
        "ü".as_bytes(),
        "🙂".as_bytes(),
        b"{a}",
        b"*",
    ];
    for key in &odd {
        same!(ok(store.sadd(key, &odd), "sadd")?, odd.len() as u64, "members of {key:?}");
    }
    for key in &odd {
        let found: BTreeSet<Bytes> = ok(store.smembers(key), "smembers")?.into_iter().collect();
        same!(found, odd.iter().map(|member| Bytes::copy_from_slice(member)).collect(), "members of {key:?}");
        ok(store.srem(key, [b"\0"]), "srem")?;
        same!(ok(store.smembers(key), "smembers")?.len(), odd.len() - 1, "members of {key:?} but one");
    }
    Ok(())
}

fn large(store: &dyn DataStore) -> Checked {
    let all: Vec<String> = (0..3_000).map(|number| format!("{number:0>200}")).collect();
    for some in all.chunks(100) {
        same!(ok(store.sadd("key", some), "sadd")?, some.len() as u64, "new members");
    }
    same!(members(store, "key")?, wanted(all.iter().map(String::as_str)), "the set");
    check!(ok(store.delete("key"), "a delete")?, "a large set was there");
    same!(members(store, "key")?, wanted([]), "a large set that was deleted");
    Ok(())
}
