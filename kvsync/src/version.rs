//! The order of the changes of one row.

use std::fmt;

/// When a row was written, in the order of commits: for one row a later commit has a higher version.
///
/// Sixteen bytes, big-endian, compared as bytes: epoch (4), timeline (4), sequence (8). Postgres
/// gives its timeline and the WAL insert position; `SQLite` a counter, with timeline 0. Versions of
/// rows of different databases do not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version([u8; Self::LEN]);

impl Version {
    /// Bytes in a version.
    pub const LEN: usize = 16;
    /// Lower than every version that a database gives.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// The version of these three numbers.
    #[must_use]
    pub fn new(epoch: u32, timeline: u32, sequence: u64) -> Self {
        let high = (u64::from(epoch) << 32) | u64::from(timeline);
        Self(((u128::from(high) << 64) | u128::from(sequence)).to_be_bytes())
    }

    /// The version stored in these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes to store; they compare as the versions do.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The lowest version above this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self(u128::from_be_bytes(self.0).saturating_add(1).to_be_bytes())
    }

    /// The highest version below this one.
    #[must_use]
    pub fn previous(&self) -> Self {
        Self(u128::from_be_bytes(self.0).saturating_sub(1).to_be_bytes())
    }

    /// The epoch: raised once a database was restored to an earlier state.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        u32::try_from(u128::from_be_bytes(self.0) >> 96).unwrap_or(u32::MAX)
    }

    /// The timeline of a Postgres server; 0 elsewhere.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        u32::try_from((u128::from_be_bytes(self.0) >> 64) & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// The WAL position or counter within the epoch and timeline.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        u64::try_from(u128::from_be_bytes(self.0) & u128::from(u64::MAX)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch(), self.timeline(), self.sequence())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_beats_timeline_beats_sequence() {
        assert!(Version::new(1, 0, 0) > Version::new(0, 9, u64::MAX));
        assert!(Version::new(0, 2, 0) > Version::new(0, 1, u64::MAX));
        assert!(Version::new(0, 1, 256) > Version::new(0, 1, 255));
    }

    #[test]
    fn its_parts_come_back() {
        let version = Version::new(7, 3, 0x0102_0304_0506_0708);
        assert_eq!((version.epoch(), version.timeline(), version.sequence()), (7, 3, 0x0102_0304_0506_0708));
        assert_eq!(Version::from_bytes(*version.as_bytes()), version);
    }
}
