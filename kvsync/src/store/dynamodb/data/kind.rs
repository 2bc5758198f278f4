//! What kind of value stands under a key, and which one a command is for.

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::store::data::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Set,
    Hash,
    Sorted,
    SortedHash,
}

impl Kind {
    /// How it is stored.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::String => "v",
            Self::Set => "s",
            Self::Hash => "h",
            Self::Sorted => "z",
            Self::SortedHash => "y",
        }
    }

    pub(super) fn of(code: &str) -> Option<Self> {
        [Self::String, Self::Set, Self::Hash, Self::Sorted, Self::SortedHash]
            .into_iter()
            .find(|kind| kind.code() == code)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Set => "a set",
            Self::Hash => "a hash",
            Self::Sorted => "a sorted set",
            Self::SortedHash => "a sorted hash",
        }
    }

    /// The kind that a command is for; none for one that any will do.
    pub(super) const fn wanted(command: &Command) -> Option<Self> {
        match command {
            Command::MGet { .. } | Command::Set { .. } | Command::Del { .. } => None,
            Command::Get { .. } | Command::IncrBy { .. } => Some(Self::String),
            Command::SAdd { .. } | Command::SRem { .. } | Command::SMembers { .. } => Some(Self::Set),
            Command::HSet { .. }
            | Command::HSetNx { .. }
            | Command::HGet { .. }
            | Command::HGetAll { .. }
            | Command::HDel { .. } => Some(Self::Hash),
            Command::ZAdd { .. }
            | Command::ZRem { .. }
            | Command::ZScore { .. }
            | Command::ZIncrBy { .. }
            | Command::ZCount { .. }
            | Command::ZLexCount { .. }
            | Command::ZRangeByScore { .. }
            | Command::ZRangeByLex { .. } => Some(Self::Sorted),
            Command::ZhAdd { .. }
            | Command::ZhGet { .. }
            | Command::ZhScore { .. }
            | Command::ZhRem { .. }
            | Command::ZhIncrBy { .. }
            | Command::ZhCount { .. }
            | Command::ZhLexCount { .. }
            | Command::ZhRangeByScore { .. }
            | Command::ZhRangeByLex { .. } => Some(Self::SortedHash),
        }
    }

    pub(super) fn wrong(self, key: &Bytes, wanted: Self) -> Error {
        let message =
            format!("`{}` holds {}, and the command is for {}", key.escape_ascii(), self.as_str(), wanted.as_str());
        Error::new(ErrorKind::WrongType, message)
    }
}
