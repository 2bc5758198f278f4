//! Hashes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ok;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{DataCommands, DataStore};

pub(super) const CASES: &[Case] = &[
    Case::data("fields_are_set_and_read", Needs::Nothing, fields),
    Case::data("of_a_field_named_twice_the_last_counts", Needs::Nothing, twice),
    Case::data("hset_if_absent_sets_a_field_once", Needs::Nothing, if_absent),
    Case::data("an_emptied_hash_is_gone", Needs::Nothing, emptied),
    Case::data("a_hash_takes_fields_and_values_of_any_bytes", Needs::Nothing, odd),
];

fn all(store: &dyn DataStore, key: &str) -> Checked<BTreeMap<Bytes, Bytes>> {
    let fields = ok(store.hget_all(key), "hget_all")?;
    let distinct: BTreeMap<_, _> = fields.iter().cloned().collect();
    same!(distinct.len(), fields.len(), "each field once");
    Ok(distinct)
}

fn wanted<const N: usize>(fields: [(&'static str, &'static str); N]) -> BTreeMap<Bytes, Bytes> {
    fields.into_iter().map(|(field, value)| (field.into(), value.into())).collect()
}

fn fields(store: &dyn DataStore) -> Checked {
    same!(ok(store.hset("key", [("a", "1"), ("b", "")]), "hset")?, 2, "two new fields");
    same!(ok(store.hset("key", [("a", "2"), ("c", "3")]), "hset")?, 1, "one new field");
    same!(all(store, "key")?, wanted([("a", "2"), ("b", ""), ("c", "3")]), "the hash");
    same!(ok(store.hget("key", "a"), "hget")?.as_deref(), Some(b"2".as_slice()), "a field");
    same!(ok(store.hget("key", "b"), "hget")?.as_deref(), Some(b"".as_slice()), "an empty field");
    same!(ok(store.hget("key", "x"), "hget")?, None, "a field that is absent");
    same!(ok(store.hdel("key", ["a", "x", "a"]), "hdel")?, 1, "one field that was there");
    same!(all(store, "key")?, wanted([("b", ""), ("c", "3")]), "the hash");
    same!(ok(store.hset("key", Vec::<(&str, &str)>::new()), "hset")?, 0, "no field");
    Ok(())
}

fn twice(store: &dyn DataStore) -> Checked {
    same!(ok(store.hset("key", [("a", "1"), ("a", "2")]), "hset")?, 1, "one new field, named twice");
    same!(all(store, "key")?, wanted([("a", "2")]), "the hash");
    Ok(())
}

fn if_absent(store: &dyn DataStore) -> Checked {
    check!(ok(store.hset_if_absent("key", "a", "1"), "hset_if_absent")?, "the hash was absent");
    check!(!ok(store.hset_if_absent("key", "a", "2"), "hset_if_absent")?, "the field was there");
    check!(ok(store.hset_if_absent("key", "b", ""), "hset_if_absent")?, "the field was absent");
    check!(!ok(store.hset_if_absent("key", "b", "2"), "hset_if_absent")?, "an empty field was there");
    same!(all(store, "key")?, wanted([("a", "1"), ("b", "")]), "the hash");
    Ok(())
}

fn emptied(store: &dyn DataStore) -> Checked {
    ok(store.hset("key", [("a", "1"), ("b", "2")]), "hset")?;
    same!(ok(store.hdel("key", ["a", "b"]), "hdel")?, 2, "both fields");
    check!(!ok(store.delete("key"), "a delete")?, "a hash without fields is not there");
    same!(ok(store.hset("key", Vec::<(&str, &str)>::new()), "hset")?, 0, "no field");
    check!(!ok(store.delete("key"), "a delete")?, "no hash was made");
    same!(ok(store.sadd("key", ["a"]), "sadd")?, 1, "a set in its place");
    Ok(())
}

fn odd(store: &dyn DataStore) -> Checked {
    let odd: [&[u8]; 9] = [b"", b"\0", b"\x01\0", b"\xff", b"a\0b", b"a", "ü".as_bytes(), "🙂".as_bytes(), b"{a}"];
    let pairs = odd.iter().zip(odd.iter().rev());
    same!(ok(store.hset("key", pairs.clone()), "hset")?, odd.len() as u64, "new fields");
    let found: BTreeMap<Bytes, Bytes> = all(store, "key")?;
    let copied = |bytes: &&[u8]| Bytes::copy_from_slice(bytes);
    same!(found, pairs.map(|(field, value)| (copied(field), copied(value))).collect(), "the hash");
    for (field, value) in odd.iter().zip(odd.iter().rev()) {
        same!(ok(store.hget("key", field), "hget")?.as_deref(), Some(*value), "the field {field:?}");
    }
    Ok(())
}
