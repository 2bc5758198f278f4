//! Which commands are answered from memory, and what their answers say of a key.

use std::sync::Arc;

use bytes::Bytes;

use super::coherent::{Coherent, Token};
use crate::store::data::{Command, Reply};

/// What stands under a key, as far as a reading told.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// Nothing of any kind.
    Absent,
    /// No string; perhaps something else.
    NoString,
    /// A string.
    String(Bytes),
    /// A hash.
    Hash(Arc<[(Bytes, Bytes)]>),
    /// A set.
    Set(Arc<[Bytes]>),
}

pub(super) type Data = Coherent<Bytes, Known>;

/// The tokens of a command's keys.
pub(super) type Tokens = Vec<Option<Token>>;

impl Known {
    pub(super) fn size(key: &Bytes, known: &Self) -> usize {
        // Each part is a pointer into memory of its own.
        let part = |bytes: &Bytes| bytes.len() + size_of::<Bytes>();
        key.len()
            + match known {
                Self::Absent | Self::NoString => 0,
                Self::String(value) => value.len(),
                Self::Hash(fields) => fields.iter().map(|(field, value)| part(field) + part(value)).sum(),
                Self::Set(members) => members.iter().map(part).sum(),
            }
    }
}

/// The answer to a command, if all of it is in memory.
pub(super) fn answer(data: &Data, command: &Command) -> Option<Reply> {
    match command {
        Command::Get { key } => match data.get(key)? {
            Known::Absent => Some(Reply::Value(None)),
            Known::String(value) => Some(Reply::Value(Some(value))),
            // It fails on a value of another kind, in the store's words.
            Known::NoString | Known::Hash(_) | Known::Set(_) => None,
        },
        Command::MGet { keys } => {
            let one = |key| match data.get(key)? {
                Known::String(value) => Some(Some(value)),
                Known::Absent | Known::NoString | Known::Hash(_) | Known::Set(_) => Some(None),
            };
            keys.iter().map(one).collect::<Option<_>>().map(Reply::Values)
        }
        Command::HGet { key, field } => match data.get(key)? {
            Known::Absent => Some(Reply::Value(None)),
            Known::Hash(fields) => {
                let found = fields.iter().find(|(name, _)| name == field);
                Some(Reply::Value(found.map(|(_, value)| value.clone())))
            }
            Known::NoString | Known::String(_) | Known::Set(_) => None,
        },
        Command::HGetAll { key } => match data.get(key)? {
            Known::Absent => Some(Reply::Fields(Vec::new())),
            Known::Hash(fields) => Some(Reply::Fields(fields.to_vec())),
            Known::NoString | Known::String(_) | Known::Set(_) => None,
        },
        Command::SMembers { key } => match data.get(key)? {
            Known::Absent => Some(Reply::Members(Vec::new())),
            Known::Set(members) => Some(Reply::Members(members.to_vec())),
            Known::NoString | Known::String(_) | Known::Hash(_) => None,
        },
        Command::Set { .. }
        | Command::Del { .. }
        | Command::IncrBy { .. }
        | Command::SAdd { .. }
        | Command::SRem { .. }
        | Command::HSet { .. }
        | Command::HSetNx { .. }
        | Command::HDel { .. }
        | Command::ZAdd { .. }
        | Command::ZRem { .. }
        | Command::ZScore { .. }
        | Command::ZIncrBy { .. }
        | Command::ZCount { .. }
        | Command::ZLexCount { .. }
        | Command::ZRangeByScore { .. }
        | Command::ZRangeByLex { .. }
        | Command::ZhAdd { .. }
        | Command::ZhGet { .. }
        | Command::ZhScore { .. }
        | Command::ZhRem { .. }
        | Command::ZhIncrBy { .. }
        | Command::ZhCount { .. }
        | Command::ZhLexCount { .. }
        | Command::ZhRangeByScore { .. }
        | Command::ZhRangeByLex { .. } => None,
    }
}

/// Whether the answer to a command is kept.
pub(super) const fn is_kept(command: &Command) -> bool {
    matches!(command, Command::Get { .. } | Command::MGet { .. } | Command::HGetAll { .. } | Command::SMembers { .. })
}

/// Keeps what the answer to a command tells of its keys.
pub(super) fn learn(data: &Data, command: &Command, reply: &Reply, tokens: &[Option<Token>]) {
    let each = command.keys().iter().zip(tokens);
    let fill = |known: Known| each.clone().for_each(|(key, token)| data.fill(key.clone(), known.clone(), *token));
    match reply {
        // The value of a field tells little of its hash.
        Reply::Value(value) if matches!(command, Command::Get { .. }) => {
            fill(value.clone().map_or(Known::Absent, Known::String));
        }
        Reply::Values(values) => {
            for ((key, token), value) in each.zip(values) {
                data.fill(key.clone(), value.clone().map_or(Known::NoString, Known::String), *token);
            }
        }
        Reply::Fields(fields) if fields.is_empty() => fill(Known::Absent),
        Reply::Fields(fields) => fill(Known::Hash(fields.as_slice().into())),
        // Members of a sorted set are some of many.
        Reply::Members(members) if matches!(command, Command::SMembers { .. }) => {
            fill(if members.is_empty() { Known::Absent } else { Known::Set(members.as_slice().into()) });
        }
        Reply::Value(_)
        | Reply::Members(_)
        | Reply::Taken(_)
        | Reply::Integer(_)
        | Reply::Count(_)
        | Reply::Score(_)
        | Reply::Scored(_)
        | Reply::Entries(_) => {}
    }
}
