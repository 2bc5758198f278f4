//! What is asked of a store, as data: a layer passes it on in one method, and a store answers it in one
//! `match`. It is long because every command is documented in one table, and each question about commands
//! is answered without a wildcard.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::DataCapabilities;
use super::range::{Direction, LexRange, ScoreRange};
use crate::error::{Error, ErrorKind, Result};

/// One command on one key (`MGet`: on several). The names are Redis's where Redis has the command, and
/// so is what each does; `ZH..` are the commands of sorted hashes, which Redis lacks.
///
/// A command on a key that holds another kind of value fails and changes nothing; a sorted set and a sorted hash are two
/// kinds. One that names no member or field, and so does nothing, answers 0 whatever stands there. A set, hash, sorted
/// set or sorted hash whose last member goes is gone itself; one that is not there reads as empty.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// The string under a key. Answers [`Reply::Value`](super::Reply::Value).
    Get {
        /// The key.
        key: Bytes,
    },
    /// The strings under keys, in order; a key with another kind of value reads as absent.
    /// Answers [`Reply::Values`](super::Reply::Values).
    MGet {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// Writes a string over whatever stands there, and its time to live with it.
    /// Answers [`Reply::Taken`](super::Reply::Taken).
    Set {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// What has to hold for it.
        when: Condition,
        /// How long it lives, in whole milliseconds; for ever without. A value of another time to live loses it. What is
        /// longer than a store can count, a hundred million years or more, is as long as that.
        expires: Option<Duration>,
    },
    /// Removes a key of any kind. Answers [`Reply::Taken`](super::Reply::Taken): whether there was one.
    Del {
        /// The key.
        key: Bytes,
        /// In an atomic write: whether its absence is a failed condition.
        must_exist: bool,
    },
    /// Adds to a counter, a string in decimal; one that is absent reads as 0. Keeps the time to live.
    /// Fails as [`Rejected`](ErrorKind::Rejected) on a value that is no number of 64 bits as this command writes it, and on
    /// overflow, and leaves the value as it was.
    /// Answers [`Reply::Integer`](super::Reply::Integer): the new value.
    IncrBy {
        /// The key.
        key: Bytes,
        /// What to add; 0 reads a counter, and makes one that is absent.
        by: i64,
    },
    /// Adds members to a set. Answers [`Reply::Count`](super::Reply::Count): how many were new.
    SAdd {
        /// The key.
        key: Bytes,
        /// The members.
        members: Vec<Bytes>,
    },
    /// Removes members of a set. Answers [`Reply::Count`](super::Reply::Count): how many were there.
    SRem {
        /// The key.
        key: Bytes,
        /// The members.
        members: Vec<Bytes>,
    },
    /// The members of a set, in no order. Answers [`Reply::Members`](super::Reply::Members).
    SMembers {
        /// The key.
        key: Bytes,
    },
    /// Sets fields of a hash. Answers [`Reply::Count`](super::Reply::Count): how many were new.
    HSet {
        /// The key.
        key: Bytes,
        /// The fields with their values; of a field named twice the last counts.
        fields: Vec<(Bytes, Bytes)>,
    },
    /// Sets a field of a hash that has no such field; in an atomic write, one that it has is a failed condition.
    /// Answers [`Reply::Taken`](super::Reply::Taken).
    HSetNx {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// One field of a hash. Answers [`Reply::Value`](super::Reply::Value).
    HGet {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
    },
    /// All fields of a hash with their values, in no order. Answers [`Reply::Fields`](super::Reply::Fields).
    HGetAll {
        /// The key.
        key: Bytes,
    },
    /// Removes fields of a hash. Answers [`Reply::Count`](super::Reply::Count): how many were there.
    HDel {
        /// The key.
        key: Bytes,
        /// The fields.
        fields: Vec<Bytes>,
    },
    /// Adds a member to a sorted set, or moves it to this score. A score that is not a number fails.
    /// Answers [`Reply::Taken`](super::Reply::Taken): whether the member is new.
    ZAdd {
        /// The key.
        key: Bytes,
        /// The member.
        member: Bytes,
        /// Its score.
        score: f64,
        /// Whether a member that is there stays as it is; in an atomic write that is a failed condition.
        if_absent: bool,
    },
    /// Removes members of a sorted set. Answers [`Reply::Count`](super::Reply::Count): how many were there.
    ZRem {
        /// The key.
        key: Bytes,
        /// The members.
        members: Vec<Bytes>,
    },
    /// The score of a member. Answers [`Reply::Score`](super::Reply::Score).
    ZScore {
        /// The key.
        key: Bytes,
        /// The member.
        member: Bytes,
    },
    /// Adds to the score of a member; one that is absent begins at 0. Fails where the sum is not a number.
    /// Answers [`Reply::Score`](super::Reply::Score): the new score.
    ZIncrBy {
        /// The key.
        key: Bytes,
        /// The member.
        member: Bytes,
        /// What to add.
        by: f64,
    },
    /// How many members have a score in a range. Answers [`Reply::Count`](super::Reply::Count).
    ZCount {
        /// The key.
        key: Bytes,
        /// The scores.
        scores: ScoreRange,
    },
    /// How many members are in a range of the order of bytes; all scores must be equal, else which are
    /// counted is unspecified. Answers [`Reply::Count`](super::Reply::Count).
    ZLexCount {
        /// The key.
        key: Bytes,
        /// The members.
        members: LexRange,
    },
    /// Members with a score in a range, by score, equal scores in the order of their bytes.
    /// Answers [`Reply::Scored`](super::Reply::Scored).
    ZRangeByScore {
        /// The key.
        key: Bytes,
        /// The scores.
        scores: ScoreRange,
        /// From the lowest up, or from the highest down, members of equal scores too.
        direction: Direction,
        /// At most so many; all without.
        limit: Option<usize>,
    },
    /// Members in a range of the order of bytes; all scores must be equal, else which are found is
    /// unspecified. Answers [`Reply::Members`](super::Reply::Members).
    ZRangeByLex {
        /// The key.
        key: Bytes,
        /// The members.
        members: LexRange,
        /// In the order of bytes, or against it.
        direction: Direction,
        /// At most so many; all without.
        limit: Option<usize>,
    },
    /// Sets a field of a sorted hash: its value, and the score by which it is found.
    /// Answers [`Reply::Taken`](super::Reply::Taken): whether the field is new.
    ZhAdd {
        /// The key.
        key: Bytes,
        /// The field: what sorts equal scores.
        field: Bytes,
        /// Its value, which may be large.
        value: Bytes,
        /// Its score.
        score: f64,
        /// Whether a field that is there stays as it is; in an atomic write that is a failed condition.
        if_absent: bool,
    },
    /// One field of a sorted hash. Answers [`Reply::Value`](super::Reply::Value).
    ZhGet {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
    },
    /// The score of a field of a sorted hash. Answers [`Reply::Score`](super::Reply::Score).
    ZhScore {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
    },
    /// Removes fields of a sorted hash. Answers [`Reply::Count`](super::Reply::Count): how many were there.
    ZhRem {
        /// The key.
        key: Bytes,
        /// The fields.
        fields: Vec<Bytes>,
    },
    /// Adds to the score of a field that is there and leaves its value; one that is absent stays absent, which is no failed
    /// condition in an atomic write. Answers [`Reply::Score`](super::Reply::Score): the new score, none where there is no such field.
    ZhIncrBy {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
        /// What to add.
        by: f64,
    },
    /// How many fields have a score in a range. Answers [`Reply::Count`](super::Reply::Count).
    ZhCount {
        /// The key.
        key: Bytes,
        /// The scores.
        scores: ScoreRange,
    },
    /// How many fields are in a range of the order of bytes, as [`Command::ZLexCount`].
    /// Answers [`Reply::Count`](super::Reply::Count).
    ZhLexCount {
        /// The key.
        key: Bytes,
        /// The fields.
        fields: LexRange,
    },
    /// Fields with a score in a range, with their values, as [`Command::ZRangeByScore`].
    /// Answers [`Reply::Entries`](super::Reply::Entries).
    ZhRangeByScore {
        /// The key.
        key: Bytes,
        /// The scores.
        scores: ScoreRange,
        /// From the lowest up, or from the highest down, fields of equal scores too.
        direction: Direction,
        /// At most so many; all without.
        limit: Option<usize>,
    },
    /// Fields in a range of the order of bytes, with their values, as [`Command::ZRangeByLex`].
    /// Answers [`Reply::Entries`](super::Reply::Entries).
    ZhRangeByLex {
        /// The key.
        key: Bytes,
        /// The fields.
        fields: LexRange,
        /// In the order of bytes, or against it.
        direction: Direction,
        /// At most so many; all without.
        limit: Option<usize>,
    },
}

/// The kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Set,
    Hash,
    Sorted,
    SortedHash,
}

/// What has to hold for a `Set`. In an atomic write, one that does not hold undoes the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// Nothing of any kind stands under the key.
    Absent,
    /// Something of any kind stands under the key.
    Present,
    /// Exactly this string stands under the key.
    Equals(Bytes),
}

/// The keys of a command, to be read or to be changed.
macro_rules! keys {
    ($command:expr, $one:path) => {
        match $command {
            Command::MGet { keys } => keys,
            Command::Get { key }
            | Command::Set { key, .. }
            | Command::Del { key, .. }
            | Command::IncrBy { key, .. }
            | Command::SAdd { key, .. }
            | Command::SRem { key, .. }
            | Command::SMembers { key }
            | Command::HSet { key, .. }
            | Command::HSetNx { key, .. }
            | Command::HGet { key, .. }
            | Command::HGetAll { key }
            | Command::HDel { key, .. }
            | Command::ZAdd { key, .. }
            | Command::ZRem { key, .. }
            | Command::ZScore { key, .. }
            | Command::ZIncrBy { key, .. }
            | Command::ZCount { key, .. }
            | Command::ZLexCount { key, .. }
            | Command::ZRangeByScore { key, .. }
            | Command::ZRangeByLex { key, .. }
            | Command::ZhAdd { key, .. }
            | Command::ZhGet { key, .. }
            | Command::ZhScore { key, .. }
            | Command::ZhRem { key, .. }
            | Command::ZhIncrBy { key, .. }
            | Command::ZhCount { key, .. }
            | Command::ZhLexCount { key, .. }
            | Command::ZhRangeByScore { key, .. }
            | Command::ZhRangeByLex { key, .. } => $one(key),
        }
    };
}

impl Command {
    /// Whether it can change the store.
    #[must_use]
    pub const fn writes(&self) -> bool {
        match self {
            Self::Set { .. }
            | Self::Del { .. }
            | Self::IncrBy { .. }
            | Self::SAdd { .. }
            | Self::SRem { .. }
            | Self::HSet { .. }
            | Self::HSetNx { .. }
            | Self::HDel { .. }
            | Self::ZAdd { .. }
            | Self::ZRem { .. }
            | Self::ZIncrBy { .. }
            | Self::ZhAdd { .. }
            | Self::ZhRem { .. }
            | Self::ZhIncrBy { .. } => true,
            Self::Get { .. }
            | Self::MGet { .. }
            | Self::SMembers { .. }
            | Self::HGet { .. }
            | Self::HGetAll { .. }
            | Self::ZScore { .. }
            | Self::ZCount { .. }
            | Self::ZLexCount { .. }
            | Self::ZRangeByScore { .. }
            | Self::ZRangeByLex { .. }
            | Self::ZhGet { .. }
            | Self::ZhScore { .. }
            | Self::ZhCount { .. }
            | Self::ZhLexCount { .. }
            | Self::ZhRangeByScore { .. }
            | Self::ZhRangeByLex { .. } => false,
        }
    }

    /// Whether doing it twice is as doing it once, so that it may be repeated when its outcome is unknown.
    /// The answer of the second time may differ.
    #[must_use]
    pub const fn repeats(&self) -> bool {
        !matches!(
            self,
            Self::IncrBy { .. }
                | Self::ZIncrBy { .. }
                | Self::ZhIncrBy { .. }
                | Self::HSetNx { .. }
                | Self::Set { when: Condition::Absent | Condition::Equals(_), .. }
                | Self::ZAdd { if_absent: true, .. }
                | Self::ZhAdd { if_absent: true, .. }
        )
    }

    /// The keys it is about: one, or those of a `MGet`.
    #[must_use]
    pub fn keys(&self) -> &[Bytes] {
        keys!(self, std::slice::from_ref)
    }

    /// The same keys, to be changed.
    pub(crate) fn keys_mut(&mut self) -> &mut [Bytes] {
        keys!(self, std::slice::from_mut)
    }

    /// The name of the command, as Redis writes it, in lower case: for metrics, spans and errors.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::MGet { .. } => "mget",
            Self::Set { .. } => "set",
            Self::Del { .. } => "del",
            Self::IncrBy { .. } => "incrby",
            Self::SAdd { .. } => "sadd",
            Self::SRem { .. } => "srem",
            Self::SMembers { .. } => "smembers",
            Self::HSet { .. } => "hset",
            Self::HSetNx { .. } => "hsetnx",
            Self::HGet { .. } => "hget",
            Self::HGetAll { .. } => "hgetall",
            Self::HDel { .. } => "hdel",
            Self::ZAdd { .. } => "zadd",
            Self::ZRem { .. } => "zrem",
            Self::ZScore { .. } => "zscore",
            Self::ZIncrBy { .. } => "zincrby",
            Self::ZCount { .. } => "zcount",
            Self::ZLexCount { .. } => "zlexcount",
            Self::ZRangeByScore { .. } => "zrangebyscore",
            Self::ZRangeByLex { .. } => "zrangebylex",
            Self::ZhAdd { .. } => "zhadd",
            Self::ZhGet { .. } => "zhget",
            Self::ZhScore { .. } => "zhscore",
            Self::ZhRem { .. } => "zhrem",
            Self::ZhIncrBy { .. } => "zhincrby",
            Self::ZhCount { .. } => "zhcount",
            Self::ZhLexCount { .. } => "zhlexcount",
            Self::ZhRangeByScore { .. } => "zhrangebyscore",
            Self::ZhRangeByLex { .. } => "zhrangebylex",
        }
    }

    /// The kind of value that it is for; `None` for one that takes any.
    pub(crate) const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Get { .. } | Self::IncrBy { .. } | Self::Set { when: Condition::Equals(_), .. } => Some(Kind::String),
            Self::MGet { .. } | Self::Set { .. } | Self::Del { .. } => None,
            Self::SAdd { .. } | Self::SRem { .. } | Self::SMembers { .. } => Some(Kind::Set),
            Self::HSet { .. } | Self::HSetNx { .. } | Self::HGet { .. } | Self::HGetAll { .. } | Self::HDel { .. } => {
                Some(Kind::Hash)
            }
            Self::ZAdd { .. }
            | Self::ZRem { .. }
            | Self::ZScore { .. }
            | Self::ZIncrBy { .. }
            | Self::ZCount { .. }
            | Self::ZLexCount { .. }
            | Self::ZRangeByScore { .. }
            | Self::ZRangeByLex { .. } => Some(Kind::Sorted),
            Self::ZhAdd { .. }
            | Self::ZhGet { .. }
            | Self::ZhScore { .. }
            | Self::ZhRem { .. }
            | Self::ZhIncrBy { .. }
            | Self::ZhCount { .. }
            | Self::ZhLexCount { .. }
            | Self::ZhRangeByScore { .. }
            | Self::ZhRangeByLex { .. } => Some(Kind::SortedHash),
        }
    }

    /// The members or fields that it names, as often as it names them; `None` when it is about the key as a whole.
    #[must_use]
    pub fn elements(&self) -> Option<Vec<&Bytes>> {
        match self {
            Self::Get { .. }
            | Self::MGet { .. }
            | Self::Set { .. }
            | Self::Del { .. }
            | Self::IncrBy { .. }
            | Self::SMembers { .. }
            | Self::HGetAll { .. }
            | Self::ZCount { .. }
            | Self::ZLexCount { .. }
            | Self::ZRangeByScore { .. }
            | Self::ZRangeByLex { .. }
            | Self::ZhCount { .. }
            | Self::ZhLexCount { .. }
            | Self::ZhRangeByScore { .. }
            | Self::ZhRangeByLex { .. } => None,
            Self::SAdd { members, .. } | Self::SRem { members, .. } | Self::ZRem { members, .. } => {
                Some(members.iter().collect())
            }
            Self::HDel { fields, .. } | Self::ZhRem { fields, .. } => Some(fields.iter().collect()),
            Self::HSet { fields, .. } => Some(fields.iter().map(|(field, _)| field).collect()),
            Self::HSetNx { field, .. }
            | Self::HGet { field, .. }
            | Self::ZhAdd { field, .. }
            | Self::ZhGet { field, .. }
            | Self::ZhScore { field, .. }
            | Self::ZhIncrBy { field, .. } => Some(vec![field]),
            Self::ZAdd { member, .. } | Self::ZScore { member, .. } | Self::ZIncrBy { member, .. } => {
                Some(vec![member])
            }
        }
    }

    /// How many members of a sorted set or hash it names, which are entries beside that of their key.
    pub(crate) fn members(&self) -> usize {
        match self.kind() {
            Some(Kind::Sorted | Kind::SortedHash) => self.elements().map_or(0, |members| members.len()),
            Some(Kind::String | Kind::Set | Kind::Hash) | None => 0,
        }
    }

    /// Whether it names no member or field to be added or removed. It answers
    /// [`Reply::Count`](super::Reply::Count) of 0, whatever stands under its key.
    #[must_use]
    pub fn does_nothing(&self) -> bool {
        let names_members = matches!(
            self,
            Self::SAdd { .. }
                | Self::SRem { .. }
                | Self::HSet { .. }
                | Self::HDel { .. }
                | Self::ZRem { .. }
                | Self::ZhRem { .. }
        );
        names_members && self.elements().is_some_and(|named| named.is_empty())
    }

    /// Fails for what no store takes, and for what is beyond the limits of this one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`], saying what is too long, or no number, or no time.
    pub fn check(&self, can: DataCapabilities) -> Result<()> {
        let within = |what: &str, length: usize, most: usize| {
            let message = || format!("{what} of {length} bytes; this store takes {most}");
            if length > most { Err(rejected(message())) } else { Ok(()) }
        };
        for key in self.keys() {
            within("a key", key.len(), can.max_key)?;
        }
        for element in self.elements().into_iter().flatten() {
            within("a member or field", element.len(), can.max_member)?;
        }
        if self.writes() && self.members() >= can.max_entries {
            return Err(rejected(too_many_entries(self.members() + 1, can)));
        }
        match self {
            Self::Set { expires: Some(expires), .. } if expires.as_millis() == 0 => {
                Err(rejected("a time to live of less than a millisecond"))
            }
            Self::Set { value, .. } | Self::HSetNx { value, .. } => within("a value", value.len(), can.max_value),
            Self::HSet { fields, .. } => {
                fields.iter().try_for_each(|(_, value)| within("a value", value.len(), can.max_value))
            }
            Self::ZhAdd { value, score, .. } if !score.is_nan() => within("a value", value.len(), can.max_value),
            Self::ZAdd { score: number, .. }
            | Self::ZhAdd { score: number, .. }
            | Self::ZIncrBy { by: number, .. }
            | Self::ZhIncrBy { by: number, .. }
                if number.is_nan() =>
            {
                Err(rejected("a score that is not a number"))
            }
            Self::ZCount { scores, .. }
            | Self::ZRangeByScore { scores, .. }
            | Self::ZhCount { scores, .. }
            | Self::ZhRangeByScore { scores, .. }
                if scores.is_nan() =>
            {
                Err(rejected("a range of scores whose end is not a number"))
            }
            _ => Ok(()),
        }
    }
}

/// What is said of a write that touches more entries than the store writes as one.
pub(crate) fn too_many_entries(entries: usize, can: DataCapabilities) -> String {
    format!(
        "a write that touches {entries} entries; this store takes {}: each key is one, and of a sorted set or hash each \
         member is one more",
        can.max_entries
    )
}

fn rejected(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Rejected, message)
}
