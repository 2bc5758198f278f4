//! Bytes and versions, for forms that have bytes and for those that are text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::version::Version;

/// Bytes; in text base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bin<'a>(pub(super) Cow<'a, [u8]>);

/// A version: its bytes; in text as many hex digits, which compare as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ordered(pub(super) Version);

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&base64::to_text(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Bin<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = <Cow<'_, str>>::deserialize(deserializer)?;
            let bytes = base64::of_text(&text).ok_or_else(|| D::Error::custom("a body is no base64"))?;
            return Ok(Self(Cow::Owned(bytes)));
        }
        deserializer.deserialize_bytes(Raw).map(|bytes| Self(Cow::Owned(bytes)))
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*self.0.as_bytes())))
        } else {
            serializer.serialize_bytes(self.0.as_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            let text = <Cow<'_, str>>::deserialize(deserializer)?;
            let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            u128::from_str_radix(&text, 16).ok().filter(|_| is_hex).map(u128::to_be_bytes)
        } else {
            deserializer.deserialize_bytes(Raw)?.as_slice().try_into().ok()
        };
        bytes.map(|bytes| Self(Version::from_bytes(bytes))).ok_or_else(|| D::Error::custom("a version has 16 bytes"))
    }
}

struct Raw;

impl Visitor<'_> for Raw {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

/// Base64 with padding, of the standard alphabet.
mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn to_text(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for three in bytes.chunks(3) {
            let group = three.iter().fold(0, |group, byte| group << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let digit = ALPHABET.get(group >> (18 - 6 * place) & 0x3f).copied().unwrap_or(b'=');
                text.push(char::from(if place > three.len() { b'=' } else { digit }));
            }
        }
        text
    }

    pub(super) fn of_text(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
        let groups = text.as_bytes().chunks(4);
        let last = groups.len().checked_sub(1);
        for (place, four) in groups.enumerate() {
            let padding = four.iter().rev().take_while(|digit| **digit == b'=').count();
            if four.len() != 4 || padding > 2 || (padding > 0 && Some(place) != last) {
                return None;
            }
            let digits = four.get(..4 - padding)?;
            let group = digits.iter().try_fold(0_u32, |group, digit| Some(group << 6 | value(*digit)?))?;
            let group = (group << (6 * padding)).to_be_bytes();
            bytes.extend_from_slice(group.get(1..4 - padding)?);
        }
        Some(bytes)
    }

    fn value(digit: u8) -> Option<u32> {
        let (from, base) = match digit {
            b'A'..=b'Z' => (b'A', 0),
            b'a'..=b'z' => (b'a', 26),
            b'0'..=b'9' => (b'0', 52),
            b'+' => (b'+', 62),
            b'/' => (b'/', 63),
            _ => return None,
        };
        Some(u32::from(digit - from) + base)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn it_is_the_base64_of_everyone_and_comes_back() {
            for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
                assert_eq!(to_text(bytes.as_bytes()), text);
                assert_eq!(of_text(text).as_deref(), Some(bytes.as_bytes()));
            }
            let all: Vec<u8> = (0..=255).collect();
            assert_eq!(of_text(&to_text(&all)), Some(all));
            for wrong in ["Z", "Zg=", "Zg==Zg==", "Z===", "====", "Zm9*", "Zm9v\n"] {
                assert_eq!(of_text(wrong), None, "{wrong}");
            }
        }
    }
}
