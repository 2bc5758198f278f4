//! All that stands under one key as one value, for stores that write one entry at a time and compare before they
//! do.
//!
//! It is a layout byte, the head, and the members or fields with their values, each with its length before it (4
//! bytes). What is ordered by score and what lists the times to live is made of these again.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::layout::{Kind, Place, expiring};
use crate::error::{Error, ErrorKind, Result};

/// What the value begins with. Another one was written by a newer version.
const LAYOUT: u8 = 1;

/// The entries of a key as one value; nothing where nothing stands.
pub(crate) fn pack(key: &[u8], entries: &BTreeMap<Bytes, Bytes>) -> Option<Bytes> {
    let place = Place::of(key);
    let head = entries.get(place.head().as_slice())?;
    let mut packed = BytesMut::with_capacity(64 + head.len());
    packed.put_u8(LAYOUT);
    put(&mut packed, head);
    let (first, last) = place.ends(b'e');
    let elements = entries.range::<[u8], _>((Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice())));
    for (at, value) in elements {
        put(&mut packed, &place.element_of(at, false));
        put(&mut packed, value);
    }
    Some(packed.freeze())
}

/// The entries that a value holds.
///
/// # Errors
///
/// [`ErrorKind::UnknownLayout`] for what a newer version wrote, [`ErrorKind::Corrupt`] for what is damaged.
pub(crate) fn unpack(key: &[u8], packed: Option<&Bytes>) -> Result<BTreeMap<Bytes, Bytes>> {
    let mut entries = BTreeMap::new();
    let Some(packed) = packed else { return Ok(entries) };
    let damaged = || {
        let message = format!("what stands under `{}` was not written by kvsync, or is damaged", key.escape_ascii());
        Error::new(ErrorKind::Corrupt, message)
    };
    let mut rest = packed.clone();
    match rest.try_get_u8() {
        Ok(LAYOUT) => {}
        Ok(_) => {
            let message = format!("what stands under `{}` has a newer layout; update kvsync", key.escape_ascii());
            return Err(Error::new(ErrorKind::UnknownLayout, message));
        }
        Err(_) => return Err(damaged()),
    }
    let place = Place::of(key);
    let head = take(&mut rest).ok_or_else(damaged)?;
    let kind = head.first().copied().and_then(Kind::of).ok_or_else(damaged)?;
    if kind == Kind::String {
        let expires_at = head.get(1..9).and_then(|at| at.try_into().ok()).map(u64::from_be_bytes);
        let expires_at = expires_at.ok_or_else(damaged)?;
        if expires_at != 0 {
            entries.insert(expiring(expires_at, key).into(), Bytes::new());
        }
    }
    entries.insert(place.head().into(), head);
    while rest.has_remaining() {
        let element = take(&mut rest).ok_or_else(damaged)?;
        let value = take(&mut rest).ok_or_else(damaged)?;
        if matches!(kind, Kind::Sorted | Kind::SortedHash) {
            let score = value.get(..8).and_then(|score| score.try_into().ok()).map(f64::from_be_bytes);
            entries.insert(place.by_score(score.ok_or_else(damaged)?, &element).into(), Bytes::new());
        }
        entries.insert(place.element(&element).into(), value);
    }
    Ok(entries)
}

fn put(packed: &mut BytesMut, bytes: &[u8]) {
    // No store takes an entry of 4 GiB.
    packed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    packed.put_slice(bytes);
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::data::Command;
    use crate::store::ordered::{Overlay, run_one};

    /// What commands leave under a key.
    fn after(key: &[u8], commands: &[Command]) -> BTreeMap<Bytes, Bytes> {
        let mut entries = BTreeMap::new();
        for command in commands {
            let mut overlay = Overlay::new(&entries);
            let _ = run_one(&mut overlay, 1_000, command);
            for (at, value) in overlay.into_changes() {
                match value {
                    Some(value) => entries.insert(at, value),
                    None => entries.remove(&at),
                };
            }
        }
        assert!(entries.keys().all(|at| unpack(key, pack(key, &entries).as_ref()).unwrap().contains_key(at)));
        entries
    }

    fn commands(key: &Bytes) -> impl Strategy<Value = Vec<Command>> + use<> {
        let name = || proptest::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from);
        let (one, two, three, four, five) = (key.clone(), key.clone(), key.clone(), key.clone(), key.clone());
        let write = prop_oneof![
            (name(), 0..3_u64).prop_map(move |(value, expires)| Command::Set {
                key: one.clone(),
                value,
                when: crate::store::data::Condition::Always,
                expires: (expires > 0).then(|| std::time::Duration::from_secs(expires)),
            }),
            name().prop_map(move |member| Command::SAdd { key: two.clone(), members: vec![member] }),
            (name(), name()).prop_map(move |field| Command::HSet { key: three.clone(), fields: vec![field] }),
            (name(), any::<i8>()).prop_map(move |(member, score)| Command::ZAdd {
                key: four.clone(),
                member,
                score: f64::from(score) / 2.0,
                if_absent: false,
            }),
            (name(), name(), any::<i8>()).prop_map(move |(field, value, score)| Command::ZhAdd {
                key: five.clone(),
                field,
                value,
                score: f64::from(score),
                if_absent: false,
            }),
        ];
        proptest::collection::vec(write, 1..12)
    }

    proptest! {
        #[test]
        fn what_commands_leave_comes_back_whole(
            (key, commands) in proptest::collection::vec(any::<u8>(), 0..6)
                .prop_map(Bytes::from)
                .prop_flat_map(|key| (Just(key.clone()), commands(&key)))
        ) {
            let entries = after(&key, &commands);
            let packed = pack(&key, &entries);
            prop_assert_eq!(unpack(&key, packed.as_ref()).unwrap(), entries);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = unpack(b"key", Some(&Bytes::from(bytes)));
        }
    }
}
