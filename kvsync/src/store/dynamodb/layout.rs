//! Where things stand in the table.
//!
//! | `hk` | `rk` | holds |
//! |---|---|---|
//! | prefix `r` key | `r` | an entry of a row: `v`, and if it has no ledger its version: `n` |
//! | prefix `d` key | `h` | the head of a key of the commands: its kind `k`, and by it a string, or the elements of a small set or hash, or the list of its pages (`v`), or generation and count of a sorted one (`g`, `n`) |
//! | prefix `d` key | `p` id | a page of a large set or hash |
//! | prefix `d` key | `e` generation member | a member of a sorted set or hash; `rk2`: generation, score in order, member |
//! | prefix `!` | `epoch` | the epoch: `n` |
//!
//! `t` is a tag, drawn anew with each write of an item that others may write, too; conditions compare it.
//! `x` is when the item ends, in milliseconds; `ttl` the same in seconds, for DynamoDB.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::error::foreign;
use crate::error::Result;

/// The hash key.
pub(super) const HASH: &str = "hk";
/// The range key.
pub(super) const RANGE: &str = "rk";
/// The range key of the second index.
pub(super) const BY_SCORE: &str = "rk2";
/// The second index.
pub(super) const INDEX: &str = "by_score";
/// The version of an entry, by which it is written over without being read.
pub(super) const VERSION: &str = "n";
/// The attribute by which DynamoDB removes what has expired.
pub(super) const TTL: &str = "ttl";
/// The longest hash key and the longest range key that DynamoDB takes.
pub(super) const MAX_HASH: usize = 2048;
pub(super) const MAX_RANGE: usize = 1024;
/// What an item may hold: 400 KB, less its keys, in the table and in the index, and the rest of its attributes.
pub(super) const MAX_VALUE: usize = 391 * 1024;

pub(super) type Attributes = HashMap<String, AttributeValue>;

/// What an item is told from an earlier one under the same key by.
pub(super) type Tag = [u8; 8];

/// A tag, a generation or an id that nothing else has.
pub(super) fn fresh() -> Tag {
    rand::random()
}

/// The key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) hash: Vec<u8>,
    pub(super) range: Vec<u8>,
}

impl Place {
    pub(super) fn key(&self) -> Attributes {
        let parts = [(HASH, self.hash.clone()), (RANGE, self.range.clone())];
        parts.into_iter().map(|(name, bytes)| (name.to_owned(), binary(bytes))).collect()
    }

    pub(super) fn of(attributes: &Attributes) -> Result<Self> {
        let part = |name| bytes(attributes, name).map(<[u8]>::to_vec).ok_or_else(|| foreign("key"));
        Ok(Self { hash: part(HASH)?, range: part(RANGE)? })
    }
}

/// Whose keys begin with what.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    prefix: String,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The longest key that fits.
    pub(super) fn max_key(&self) -> usize {
        MAX_HASH.saturating_sub(self.prefix.len() + 1)
    }

    pub(super) fn row(&self, key: &str) -> Place {
        Place { hash: self.hash(b'r', key.as_bytes()), range: b"r".to_vec() }
    }

    /// The key of a row's entry, by its hash key.
    pub(super) fn row_key<'a>(&self, hash: &'a [u8]) -> Option<&'a str> {
        let key = hash.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"r")?;
        std::str::from_utf8(key).ok()
    }

    pub(super) fn epoch(&self) -> Place {
        Place { hash: self.hash(b'!', b""), range: b"epoch".to_vec() }
    }

    pub(super) fn head(&self, key: &[u8]) -> Place {
        Place { hash: self.hash(b'd', key), range: b"h".to_vec() }
    }

    pub(super) fn page(&self, key: &[u8], id: &[u8]) -> Place {
        Place { hash: self.hash(b'd', key), range: [b"p", id].concat() }
    }

    pub(super) fn element(&self, key: &[u8], generation: &[u8], member: &[u8]) -> Place {
        Place { hash: self.hash(b'd', key), range: [b"e", generation, member].concat() }
    }

    fn hash(&self, space: u8, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), &[space], key].concat()
    }
}

pub(super) fn binary(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A binary attribute, read in place.
pub(super) fn bytes<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a [u8]> {
    match attributes.get(name) {
        Some(AttributeValue::B(blob)) => Some(blob.as_ref()),
        _ => None,
    }
}

/// A binary attribute, taken out.
pub(super) fn take(attributes: &mut Attributes, name: &str) -> Option<Bytes> {
    match attributes.remove(name) {
        Some(AttributeValue::B(blob)) => Some(blob.into_inner().into()),
        _ => None,
    }
}

pub(super) fn integer(attributes: &Attributes, name: &str) -> Option<u64> {
    match attributes.get(name) {
        Some(AttributeValue::N(number)) => number.parse().ok(),
        _ => None,
    }
}

/// What an item counts: the names and the values of its attributes.
pub(super) fn size(item: &Attributes) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::N(text) | AttributeValue::S(text) => text.len(),
        // Three bytes for a list, and one for each of its elements.
        AttributeValue::L(list) => 3 + list.iter().map(|value| 1 + size_of_value(value)).sum::<usize>(),
        // We write nothing else.
        _ => 0,
    }
}

/// The tag of an item of ours.
pub(super) fn tag(attributes: &Attributes) -> Result<Tag> {
    bytes(attributes, "t").and_then(|tag| tag.try_into().ok()).ok_or_else(|| foreign("tag"))
}

/// Whether an item has ended by `now`, though DynamoDB has not removed it.
pub(super) fn has_ended(attributes: &Attributes, now: u64) -> bool {
    integer(attributes, "x").is_some_and(|at| at <= now)
}

/// Says when an item ends; 0 is never.
pub(super) fn end(attributes: &mut Attributes, at: u64) {
    if at != 0 {
        attributes.insert("x".to_owned(), number(at));
        attributes.insert(TTL.to_owned(), number(at.div_ceil(1000)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DynamoDB counts an item together with its copy in the index, which has the three keys.
    #[test]
    fn the_largest_item_fits_with_its_copy_in_the_index() {
        let layout = Layout::new("shop:");
        let member = vec![b'm'; MAX_RANGE - 16];
        let place = layout.element(&vec![b'k'; layout.max_key()], &fresh(), &member);
        assert_eq!(place.hash.len(), MAX_HASH);
        let mut item = place.key();
        item.insert(BY_SCORE.to_owned(), binary([fresh().as_slice(), &fresh(), &member].concat()));
        let copy = size(&item);
        item.insert("v".to_owned(), binary(vec![b'v'; MAX_VALUE]));
        end(&mut item, u64::MAX);
        item.insert("t".to_owned(), binary(fresh()));
        assert!(size(&item) + copy <= 400 * 1024, "{} and {copy}", size(&item));
    }
}
