//! Entries of a store, ledgers of records, models in each codec, parts of keys.

use kvsync::fuzzing::{self, seeds};
use proptest::prelude::*;

use crate::allocated;
use crate::mutate::{mutate, mutations};

/// A decoder may make room for as many elements as a length announces, up to a mebibyte a list; a list
/// stands in a list at most, and what was read is read again.
const ROOM: usize = 8 << 20;
/// Bytes that a byte of input may cost: the shortest key of a ledger is a string of its own, copied into
/// what is projected.
const EACH: usize = 256;

fn feed(reader: fn(&[u8]), bytes: &[u8]) -> Result<(), TestCaseError> {
    let (allocated, ()) = allocated::by(|| reader(bytes));
    prop_assert!(allocated <= EACH * bytes.len() + ROOM, "{allocated} bytes for {}: {bytes:?}", bytes.len());
    Ok(())
}

const READERS: [fn(&[u8]); 6] =
    [fuzzing::envelope, fuzzing::ledger, fuzzing::key, fuzzing::model, fuzzing::outbox, fuzzing::message];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for reader in READERS {
            feed(reader, &bytes)?;
        }
    }

    #[test]
    fn almost_right(seed in any::<prop::sample::Index>(), mutations in mutations()) {
        let (reader, bytes) = seeds().swap_remove(seed.index(seeds().len()));
        feed(reader, &mutate(bytes, &mutations))?;
    }

    #[test]
    fn parts_of_keys(text in "[a0%:_/é\u{1f511}\0-]{0,24}", stop in any::<u8>()) {
        let bytes = [&[stop], text.as_bytes()].concat();
        feed(fuzzing::key, &bytes)?;
    }
}

#[test]
fn whole_ones_are_read() {
    for (reader, bytes) in seeds() {
        feed(reader, &bytes).unwrap();
    }
}

#[test]
fn cut_anywhere() {
    for (reader, bytes) in seeds() {
        for end in 0..bytes.len() {
            feed(reader, &bytes[..end]).unwrap();
        }
    }
}

#[test]
fn with_every_length_as_large_as_can_be() {
    for (reader, bytes) in seeds() {
        for at in 0..bytes.len() {
            for width in [1, 2, 4, 8] {
                let mut bytes = bytes.clone();
                bytes.iter_mut().skip(at).take(width).for_each(|byte| *byte = 0xff);
                feed(reader, &bytes).unwrap();
            }
        }
    }
}

/// Deep enough to end a thread with an ordinary stack, if somebody descended as often as they are told to.
const DEEP: usize = 200_000;

#[test]
fn nested_without_end() {
    let map = |key: &[u8]| [&[0x81, 0xa1], key, &[]].concat();
    let mut inputs = vec![
        // MessagePack: lists in lists, maps in maps.
        [vec![0], vec![0x91; DEEP]].concat(),
        [vec![0], map(b"x"), vec![0x91; DEEP]].concat(),
        [vec![0], map(b"x").repeat(DEEP)].concat(),
        // JSON
        [b"\x01{\"x\":".to_vec(), vec![b'['; DEEP]].concat(),
        [b"\x01".to_vec(), b"{\"x\":".repeat(DEEP)].concat(),
    ];
    inputs.push([vec![2], nested_bson(DEEP, 0x03)].concat());
    inputs.push([vec![2], nested_bson(DEEP, 0x04)].concat());
    for bytes in inputs {
        feed(fuzzing::model, &bytes).unwrap();
    }
}

/// Documents in documents (0x03), or arrays in arrays (0x04).
fn nested_bson(depth: usize, kind: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for left in (1..=depth).rev() {
        // Each level: a length, a type, a name of one character, and at its end a zero.
        bytes.extend_from_slice(&i32::try_from(left * 8 + 5).unwrap().to_le_bytes());
        bytes.extend_from_slice(&[kind, b'0', 0]);
    }
    bytes.extend_from_slice(&5_i32.to_le_bytes());
    bytes.resize(bytes.len() + depth + 1, 0);
    bytes
}
