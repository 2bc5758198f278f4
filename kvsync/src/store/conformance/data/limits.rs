//! Sizes, and servers that are not there.

use bytes::Bytes;

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{DataCommands, DataStore};

pub(super) const CASES: &[Case] = &[
    Case::data("values_of_every_size_up_to_the_limit", Needs::Nothing, values),
    Case::data("a_value_beyond_the_limit_is_refused", Needs::ValueLimit, too_large),
    Case::data("the_longest_key_and_member", Needs::MemberLimit, longest),
    Case::data("a_key_or_member_beyond_the_limit_is_refused", Needs::MemberLimit, too_long),
    Case::data("odd_keys_of_data_are_themselves", Needs::Nothing, odd),
];

/// What a test has memory and time for.
const LARGEST: usize = 8 << 20;

fn values(store: &dyn DataStore) -> Checked {
    let most = store.data_capabilities().max_value;
    let sizes = [0, 1, 2, 255, 256, 4_095, 65_535, 65_536, 262_144, 1 << 20, LARGEST, most];
    for size in sizes.into_iter().filter(|size| *size <= most.min(LARGEST)) {
        let bytes =
            |salt: usize| (0..size).map(|at| (at.wrapping_mul(31) + salt).to_le_bytes()[0]).collect::<Vec<u8>>();
        let value = Bytes::from(bytes(7));
        ok(store.set("key", value.clone()), &format!("a set of {size} bytes"))?;
        check!(ok(store.get("key"), "a get")?.as_ref() == Some(&value), "a value of {size} bytes came back changed");
        check!(ok(store.set_if_equal("key", value, ""), "set_if_equal")?, "a value of {size} bytes equals itself");
        let value = Bytes::from(bytes(8));
        ok(store.hset("hash", [("field", value.clone())]), &format!("hset of {size} bytes"))?;
        check!(
            ok(store.hget("hash", "field"), "hget")?.as_ref() == Some(&value),
            "a field of {size} bytes came back changed"
        );
        ok(store.zh_add("sorted hash", "field", value.clone(), 1.0), &format!("zh_add of {size} bytes"))?;
        check!(
            ok(store.zh_get("sorted hash", "field"), "zh_get")?.as_ref() == Some(&value),
            "a field of {size} bytes came back changed"
        );
    }
    Ok(())
}

fn too_large(store: &dyn DataStore) -> Checked {
    let value = Bytes::from(vec![b'x'; store.data_capabilities().max_value + 1]);
    ok(store.set("key", "before"), "a set")?;
    fails(store.set("key", value.clone()), ErrorKind::Rejected, "a value beyond the limit")?;
    same!(ok(store.get("key"), "a get")?.as_deref(), Some(b"before".as_slice()), "the key");
    fails(store.hset("hash", [("a", value.clone())]), ErrorKind::Rejected, "a field beyond the limit")?;
    fails(store.zh_add("sorted hash", "a", value, 1.0), ErrorKind::Rejected, "a field beyond the limit")
}

fn longest(store: &dyn DataStore) -> Checked {
    let can = store.data_capabilities();
    for byte in [b'k', 0, 0xff] {
        let (key, member) = (vec![byte; can.max_key], vec![byte; can.max_member]);
        ok(store.set(&key, "value"), "a set under the longest key")?;
        same!(ok(store.get(&key), "a get")?.as_deref(), Some(b"value".as_slice()), "the longest key");
        ok(store.delete(&key), "a delete")?;
        ok(store.zadd(&key, &member, 1.5), "zadd of the longest member")?;
        same!(ok(store.zrange_by_score(&key, .., None), "a range")?, [&member], "the longest member");
        ok(store.delete(&key), "a delete")?;
        ok(store.hset(&key, [(&member, "value")]), "hset of the longest field")?;
        same!(ok(store.hget(&key, &member), "hget")?.as_deref(), Some(b"value".as_slice()), "the longest field");
    }
    Ok(())
}

fn too_long(store: &dyn DataStore) -> Checked {
    let can = store.data_capabilities();
    let (key, member) = (vec![b'k'; can.max_key + 1], vec![b'm'; can.max_member + 1]);
    fails(store.set(&key, "value"), ErrorKind::Rejected, "a key beyond the limit")?;
    fails(store.get(&key), ErrorKind::Rejected, "a key beyond the limit")?;
    fails(store.sadd("set", [&member]), ErrorKind::Rejected, "a member beyond the limit")?;
    fails(store.zadd("sorted", &member, 1.0), ErrorKind::Rejected, "a member beyond the limit")?;
    same!(ok(store.smembers("set"), "smembers")?.len(), 0, "the set");
    Ok(())
}

fn odd(store: &dyn DataStore) -> Checked {
    let binary: [&[u8]; 11] =
        [b"\0", b"\0\xff", b"\xff", b"\xfe", b"\xfe\xfe", b"a\xff", b"a\xfe", b"\xffa", b"\xfea", b"a\0", b"a\0b"];
    // Two of each length that differ in their last byte.
    let most = store.data_capabilities().max_key;
    let lengths = [255, 256, 257, 300, 1_000].into_iter().filter(|length| *length <= most);
    let long: Vec<Vec<u8>> =
        lengths.flat_map(|length| [b"x", b"y"].map(|last| [&vec![b'k'; length - 1][..], last].concat())).collect();
    let odd = crate::store::conformance::keys::ODD.iter().map(|key| key.as_bytes());
    let keys: Vec<&[u8]> = odd.chain(binary).chain(long.iter().map(Vec::as_slice)).collect();
    for key in &keys {
        ok(store.set(key, key), &format!("a set under {key:?}"))?;
    }
    for key in &keys {
        same!(ok(store.get(key), "a get")?.as_deref(), Some(*key), "the key {key:?}");
    }
    let found = ok(store.mget(&keys), "mget")?;
    check!(found.iter().zip(&keys).all(|(found, key)| found.as_deref() == Some(*key)), "many odd keys");
    for key in &keys {
        check!(ok(store.delete(key), "a delete")?, "the key {key:?} was there once, and is not another's");
    }
    Ok(())
}
