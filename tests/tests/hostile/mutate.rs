//! Bytes that are almost right.

use proptest::prelude::*;
use proptest::sample::Index;

/// What becomes of bytes.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    /// A length that is far too large, in one, two, four or eight bytes.
    Huge(Index, usize),
    Cut(Index),
    Remove(Index, Index),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
}

pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<Index>;
    let mutation = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (at(), 0..4_usize).prop_map(|(at, width)| Mutation::Huge(at, 1 << width)),
        at().prop_map(Mutation::Cut),
        (at(), at()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        (at(), at()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
        (at(), prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
    ];
    prop::collection::vec(mutation, 1..5)
}

pub(crate) fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            return bytes;
        }
        let len = bytes.len();
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(len), to.index(len));
            from.min(to)..from.max(to)
        };
        match mutation {
            Mutation::Set(at, byte) => bytes[at.index(len)] = *byte,
            Mutation::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Mutation::Huge(at, width) => {
                let at = at.index(len);
                bytes[at..len.min(at + width)].fill(0xff);
            }
            Mutation::Cut(at) => bytes.truncate(at.index(len)),
            Mutation::Remove(from, to) => drop(bytes.drain(range(from, to))),
            Mutation::Repeat(from, to) => bytes.extend_from_within(range(from, to)),
            Mutation::Insert(at, more) => drop(bytes.splice(at.index(len)..at.index(len), more.iter().copied())),
        }
    }
    bytes
}
