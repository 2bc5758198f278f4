//! Where things stand in an ordered store.
//!
//! All of a key stands behind one prefix, in which no other key's begins: the key with each 0 byte
//! followed by 255, ended by 0 and 1.
//!
//! | behind the prefix | holds |
//! |---|---|
//! | `h` | the kind of value; of a string also when it expires (8 bytes, 0 for never) and its bytes |
//! | `e` member or field | nothing; the field's value; the score (8 bytes) and the value |
//! | `s` score, in order (8 bytes), member or field | nothing |
//!
//! Before all of it stands `k`; `x` begins the list of what expires: the time (8 bytes), the key.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

pub(super) use crate::store::data::Kind;

/// How many bytes are added to a key and a member, and to a value.
pub(super) const OVERHEAD: usize = 16;

impl Kind {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::String => b'v',
            Self::Set => b's',
            Self::Hash => b'h',
            Self::Sorted => b'z',
            Self::SortedHash => b'y',
        }
    }

    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            b'v' => Some(Self::String),
            b's' => Some(Self::Set),
            b'h' => Some(Self::Hash),
            b'z' => Some(Self::Sorted),
            b'y' => Some(Self::SortedHash),
            _ => None,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Set => "a set",
            Self::Hash => "a hash",
            Self::Sorted => "a sorted set",
            Self::SortedHash => "a sorted hash",
        }
    }
}

/// The place of a key, and of all that stands under it.
#[derive(Debug, Clone)]
pub(super) struct Place(Vec<u8>);

impl Place {
    pub(super) fn of(key: &[u8]) -> Self {
        let mut place = Vec::with_capacity(key.len() + OVERHEAD);
        place.push(b'k');
        for byte in key {
            place.push(*byte);
            if *byte == 0 {
                place.push(u8::MAX);
            }
        }
        place.extend([0, 1]);
        Self(place)
    }

    pub(super) fn head(&self) -> Vec<u8> {
        self.with(b'h', &[], &[])
    }

    pub(super) fn element(&self, element: &[u8]) -> Vec<u8> {
        self.with(b'e', &[], element)
    }

    pub(super) fn by_score(&self, score: f64, element: &[u8]) -> Vec<u8> {
        self.with(b's', &ordered(score), element)
    }

    /// Below and above everything behind the prefix that begins with `tag`.
    pub(super) fn ends(&self, tag: u8) -> (Vec<u8>, Vec<u8>) {
        (self.with(tag, &[], &[]), self.with(tag + 1, &[], &[]))
    }

    /// The ends of what has a score between two.
    pub(super) fn scores(&self, min: Bound<f64>, max: Bound<f64>) -> (Vec<u8>, Vec<u8>) {
        let (first, last) = self.ends(b's');
        let at = |score: f64| self.with(b's', &ordered(score), &[]);
        let behind = |score: f64| {
            // No score's bytes are all ones: those would be a number that is none.
            let after = u64::from_be_bytes(ordered(score)).saturating_add(1);
            self.with(b's', &after.to_be_bytes(), &[])
        };
        let begin = match min {
            Bound::Included(score) => at(score),
            Bound::Excluded(score) => behind(score),
            Bound::Unbounded => first,
        };
        let end = match max {
            Bound::Included(score) => behind(score),
            Bound::Excluded(score) => at(score),
            Bound::Unbounded => last,
        };
        (begin, end)
    }

    /// The member or field of an entry of [`element`](Self::element) or [`by_score`](Self::by_score).
    pub(super) fn element_of(&self, key: &Bytes, by_score: bool) -> Bytes {
        let behind = self.0.len() + 1 + if by_score { 8 } else { 0 };
        if behind <= key.len() { key.slice(behind..) } else { Bytes::new() }
    }

    fn with(&self, tag: u8, middle: &[u8], element: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + 1 + middle.len() + element.len());
        key.extend_from_slice(&self.0);
        key.push(tag);
        key.extend_from_slice(middle);
        key.extend_from_slice(element);
        key
    }
}

/// The place of a key in the list of what expires.
pub(super) fn expiring(at: u64, key: &[u8]) -> Vec<u8> {
    let mut place = vec![b'x'];
    place.extend(at.to_be_bytes());
    place.extend(key);
    place
}

/// The key of such a place.
pub(super) fn expired(place: &Bytes) -> Bytes {
    if place.len() >= 9 { place.slice(9..) } else { Bytes::new() }
}

/// The head of a string.
pub(super) fn string(value: &[u8], expires_at: u64) -> Bytes {
    let mut head = BytesMut::with_capacity(9 + value.len());
    head.put_u8(Kind::String.byte());
    head.put_u64(expires_at);
    head.put_slice(value);
    head.freeze()
}

/// The entry of an element that has a score.
pub(super) fn scored(score: f64, value: &[u8]) -> Bytes {
    let mut entry = BytesMut::with_capacity(8 + value.len());
    entry.put_f64(score);
    entry.put_slice(value);
    entry.freeze()
}

/// The bytes of a score, ordered as scores are. There is one zero.
fn ordered(score: f64) -> [u8; 8] {
    let bits = (score + 0.0).to_bits();
    let negative = bits >> 63 == 1;
    (if negative { !bits } else { bits | (1 << 63) }).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_ordered_as_numbers() {
        let scores = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            0.0,
            f64::MIN_POSITIVE,
            1.0,
            1.5,
            f64::MAX,
            f64::INFINITY,
        ];
        assert!(scores.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
        assert_eq!(ordered(-0.0), ordered(0.0));
    }

    #[test]
    fn no_place_begins_within_another() {
        let keys: [&[u8]; 7] = [b"", b"a", b"a\0", b"a\0\x01", b"a\0\xff", b"ab", b"\0"];
        for one in keys {
            for other in keys.into_iter().filter(|other| *other != one) {
                assert!(!Place::of(other).0.starts_with(&Place::of(one).0), "{one:?} {other:?}");
            }
        }
    }
}
