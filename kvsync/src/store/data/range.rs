//! Ranges of scores, and of members in the order of their bytes.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use bytes::Bytes;

/// A range of scores. Any Rust range of `f64` is one: `1.0..=2.0`, `..5.0`, `..`; a pair of
/// [`Bound`]s excludes its beginning. One that ends before it begins holds nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    /// Where it begins.
    pub min: Bound<f64>,
    /// Where it ends.
    pub max: Bound<f64>,
}

impl<R: RangeBounds<f64>> From<R> for ScoreRange {
    fn from(range: R) -> Self {
        Self { min: range.start_bound().cloned(), max: range.end_bound().cloned() }
    }
}

impl ScoreRange {
    /// Whether a score is in it.
    #[must_use]
    pub fn contains(&self, score: f64) -> bool {
        (self.min, self.max).contains(&score)
    }

    /// Whether one of its ends is not a number, which every store refuses.
    #[must_use]
    pub fn is_nan(&self) -> bool {
        let nan = |bound: Bound<f64>| matches!(bound, Bound::Included(end) | Bound::Excluded(end) if end.is_nan());
        nan(self.min) || nan(self.max)
    }
}

/// A range of members in the order of their bytes. Any Rust range of text or bytes is one: `"a".."b"`,
/// `"a"..`, `..`; a pair of [`Bound`]s excludes its beginning. One that ends before it begins holds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexRange {
    /// Where it begins.
    pub min: Bound<Bytes>,
    /// Where it ends.
    pub max: Bound<Bytes>,
}

impl LexRange {
    /// All members.
    #[must_use]
    pub const fn all() -> Self {
        Self { min: Bound::Unbounded, max: Bound::Unbounded }
    }

    /// The members that begin with these bytes.
    #[must_use]
    pub fn starting_with(prefix: &[u8]) -> Self {
        // The first bytes that no such member reaches: the prefix with its last byte below 255 raised.
        let raised = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut end = prefix.get(..=last).unwrap_or_default().to_vec();
            if let Some(byte) = end.last_mut() {
                *byte += 1;
            }
            Bound::Excluded(end.into())
        });
        Self { min: Bound::Included(Bytes::copy_from_slice(prefix)), max: raised.unwrap_or(Bound::Unbounded) }
    }

    /// Whether a member is in it.
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        let bound = |bound: &Bound<Bytes>| bound.clone();
        (bound(&self.min), bound(&self.max)).contains(&Bytes::copy_from_slice(member))
    }
}

macro_rules! from_ranges {
    ($($range:ty),*) => {$(
        impl<T: AsRef<[u8]>> From<$range> for LexRange {
            fn from(range: $range) -> Self {
                let bytes = |bound: Bound<&T>| bound.map(|end| Bytes::copy_from_slice(end.as_ref()));
                Self { min: bytes(range.start_bound()), max: bytes(range.end_bound()) }
            }
        }
    )*};
}

from_ranges!(Range<T>, RangeInclusive<T>, RangeFrom<T>, RangeTo<T>, RangeToInclusive<T>, (Bound<T>, Bound<T>));

impl From<RangeFull> for LexRange {
    fn from(_: RangeFull) -> Self {
        Self::all()
    }
}

/// Which end of a range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// The lowest.
    #[default]
    Forward,
    /// The highest.
    Reverse,
}
