//! What Redis answers, as replies.

use bytes::Bytes;
use redis::Value;

use super::super::{bytes_of, strange};
use crate::error::Result;
use crate::store::data::{Command, Entry, Reply, Scored};

/// The reply to a command whose requests were answered with these values.
pub(super) fn of(command: &Command, values: Vec<Value>) -> Result<Reply> {
    if let Command::MGet { keys } = command {
        let mut found = Vec::with_capacity(keys.len());
        for value in values {
            found.extend(array(value)?.into_iter().map(bytes_of).collect::<Result<Vec<_>>>()?);
        }
        return if found.len() == keys.len() { Ok(Reply::Values(found)) } else { Err(strange()) };
    }
    // Nothing was asked where nothing was to be done.
    let value = values.into_iter().next().unwrap_or(Value::Int(0));
    match command {
        Command::Get { .. } | Command::HGet { .. } | Command::ZhGet { .. } => bytes_of(value).map(Reply::Value),
        Command::MGet { .. } => Err(strange()),
        Command::Set { .. } => match value {
            Value::Okay | Value::Int(1) => Ok(Reply::Taken(true)),
            Value::Nil | Value::Int(0) => Ok(Reply::Taken(false)),
            _ => Err(strange()),
        },
        Command::Del { .. } | Command::HSetNx { .. } | Command::ZAdd { .. } | Command::ZhAdd { .. } => {
            int(&value).map(|count| Reply::Taken(count > 0))
        }
        Command::IncrBy { .. } => int(&value).map(Reply::Integer),
        Command::SAdd { .. }
        | Command::SRem { .. }
        | Command::HSet { .. }
        | Command::HDel { .. }
        | Command::ZRem { .. }
        | Command::ZCount { .. }
        | Command::ZLexCount { .. }
        | Command::ZhRem { .. }
        | Command::ZhCount { .. }
        | Command::ZhLexCount { .. } => u64::try_from(int(&value)?).map(Reply::Count).map_err(|_| strange()),
        Command::SMembers { .. } | Command::ZRangeByLex { .. } => strings(value).map(Reply::Members),
        Command::HGetAll { .. } => {
            Ok(Reply::Fields(chunks(value)?.into_iter().map(|[field, value]| (field, value)).collect()))
        }
        Command::ZScore { .. } | Command::ZIncrBy { .. } | Command::ZhScore { .. } | Command::ZhIncrBy { .. } => {
            bytes_of(value)?.map(|text| score(&text)).transpose().map(Reply::Score)
        }
        Command::ZRangeByScore { .. } => {
            let scored = |[member, text]: [Bytes; 2]| Ok(Scored { member, score: score(&text)? });
            chunks(value)?.into_iter().map(scored).collect::<Result<_>>().map(Reply::Scored)
        }
        Command::ZhRangeByScore { .. } | Command::ZhRangeByLex { .. } => {
            let entry = |[field, text, value]: [Bytes; 3]| Ok(Entry { field, value, score: score(&text)? });
            chunks(value)?.into_iter().map(entry).collect::<Result<_>>().map(Reply::Entries)
        }
    }
}

pub(super) fn int(value: &Value) -> Result<i64> {
    if let Value::Int(number) = value { Ok(*number) } else { Err(strange()) }
}

pub(super) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(strange()),
    }
}

fn strings(value: Value) -> Result<Vec<Bytes>> {
    array(value)?.into_iter().map(|value| bytes_of(value)?.ok_or_else(strange)).collect()
}

/// A flat list, cut into pieces of one size.
fn chunks<const N: usize>(value: Value) -> Result<Vec<[Bytes; N]>> {
    let mut strings = strings(value)?.into_iter();
    let mut pieces = Vec::with_capacity(strings.len() / N);
    while strings.len() > 0 {
        let piece: Vec<Bytes> = strings.by_ref().take(N).collect();
        pieces.push(piece.try_into().map_err(|_| strange())?);
    }
    Ok(pieces)
}

fn score(text: &[u8]) -> Result<f64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(strange)
}
