use std::fmt;

/// What a store says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// This row stands under the key.
    Found(T),
    /// No row stands under the key: it was deleted, or it has left the key.
    Absent,
    /// The store cannot tell. Ask the database.
    Unknown(Miss),
}

/// Why a store cannot tell what stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Miss {
    /// Nothing is stored under the key: it was never synced, has expired, was evicted, or is longer than the store takes.
    NotStored,
    /// A row stands here, but its newest content is not known to the store yet.
    Masked,
    /// The entry was written before the epoch was raised.
    OldEpoch,
    /// The stored model lacks a field of the reader, or has it with another type: another version of
    /// the program wrote it.
    OtherFields,
    /// The stored model is in another codec than the reader's.
    OtherCodec,
    /// The key points to a record that is not there, or that the row has left by now.
    Dangling,
    /// `fetch_strict` only: the row's record does not confirm that the row stands under the key.
    Unconfirmed,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStored => "nothing is stored under the key",
            Self::Masked => "the row's newest content is not known to the store yet",
            Self::OldEpoch => "the entry was written before the epoch was raised",
            Self::OtherFields => "the stored model lacks a field of this one, or has it with another type",
            Self::OtherCodec => "the stored model is in another codec",
            Self::Dangling => "the key points to a record that is not there",
            Self::Unconfirmed => "the row's record does not confirm the key",
        })
    }
}

impl<T> Lookup<T> {
    /// The row, when there is one.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(row) => Some(row),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Whether the store cannot tell.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
