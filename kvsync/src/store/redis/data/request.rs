//! Commands as requests.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, cmd};

use super::super::Inner;
use super::super::pipeline::Request;
use super::super::script::Script;
use crate::clock::whole_millis;
use crate::error::Result;
use crate::store::data::{Command, Condition, DataCapabilities, Direction, LexRange, ScoreRange};

/// The requests of a command: one, or one a key where keys are in several slots, or none where Redis refuses
/// to do nothing.
pub(super) fn of(store: &Inner, command: &Command, can: DataCapabilities) -> Result<Vec<Request>> {
    command.check(can)?;
    store.apart(command)?;
    if command.does_nothing() {
        return Ok(Vec::new());
    }
    let plain = |name: &str, key: &Bytes| {
        let mut request = cmd(name);
        request.arg(store.data_key(key));
        request
    };
    let script = |script: Script, key: &Bytes| -> Result<Cmd> {
        let keys = store.sorted_hash(key)?;
        let mut call = script.call(3, keys.iter().map(Vec::len).sum());
        call.arg(&keys);
        Ok(call)
    };
    let request = match command {
        Command::Get { key } => plain("GET", key),
        Command::MGet { keys } => return Ok(reads_many(store, command, keys)),
        Command::Set { key, value, when, expires } => set(&store.data_key(key), value, when, *expires),
        Command::Del { key, .. } => match store.sorted_hash(key) {
            Ok(_) => script(Script::Delete, key)?,
            // No sorted hash can stand there.
            Err(_) => plain("UNLINK", key),
        },
        Command::IncrBy { key, by } => plain("INCRBY", key).arg(by).take(),
        Command::SAdd { key, members } => plain("SADD", key).arg(slices(members)).take(),
        Command::SRem { key, members } => plain("SREM", key).arg(slices(members)).take(),
        Command::SMembers { key } => plain("SMEMBERS", key),
        Command::HSet { key, fields } => {
            let mut request = plain("HSET", key);
            for (field, value) in fields {
                request.arg(&field[..]).arg(&value[..]);
            }
            request
        }
        Command::HSetNx { key, field, value } => plain("HSETNX", key).arg(&field[..]).arg(&value[..]).take(),
        Command::HGet { key, field } => plain("HGET", key).arg(&field[..]).take(),
        Command::HGetAll { key } => plain("HGETALL", key),
        Command::HDel { key, fields } => plain("HDEL", key).arg(slices(fields)).take(),
        Command::ZAdd { key, member, score, if_absent } => {
            let mut request = plain("ZADD", key);
            if *if_absent {
                request.arg("NX");
            }
            request.arg(*score).arg(&member[..]);
            request
        }
        Command::ZRem { key, members } => plain("ZREM", key).arg(slices(members)).take(),
        Command::ZScore { key, member } => plain("ZSCORE", key).arg(&member[..]).take(),
        Command::ZhScore { key, field } => script(Script::ZhScores, key)?.arg("ZSCORE").arg(&field[..]).take(),
        Command::ZIncrBy { key, member, by } => plain("ZINCRBY", key).arg(*by).arg(&member[..]).take(),
        Command::ZCount { key, scores } => {
            let (min, max) = score_ends(scores);
            plain("ZCOUNT", key).arg(min).arg(max).take()
        }
        Command::ZhCount { key, scores } => {
            let (min, max) = score_ends(scores);
            script(Script::ZhScores, key)?.arg("ZCOUNT").arg(min).arg(max).take()
        }
        Command::ZLexCount { key, members } => {
            let (min, max) = lex_ends(members);
            plain("ZLEXCOUNT", key).arg(min).arg(max).take()
        }
        Command::ZhLexCount { key, fields } => {
            let (min, max) = lex_ends(fields);
            script(Script::ZhScores, key)?.arg("ZLEXCOUNT").arg(min).arg(max).take()
        }
        Command::ZRangeByScore { key, scores, direction, limit } => {
            let (name, arguments) = by_score(scores, *direction, *limit);
            plain(name, key).arg(arguments).arg("WITHSCORES").take()
        }
        Command::ZRangeByLex { key, members, direction, limit } => {
            let (name, arguments) = by_lex(members, *direction, *limit);
            plain(name, key).arg(arguments).take()
        }
        Command::ZhAdd { key, field, value, score, if_absent } => {
            script(Script::ZhAdd, key)?.arg(&field[..]).arg(&value[..]).arg(*score).arg(u8::from(*if_absent)).take()
        }
        Command::ZhGet { key, field } => script(Script::ZhGet, key)?.arg(&field[..]).take(),
        Command::ZhRem { key, fields } => script(Script::ZhRem, key)?.arg(slices(fields)).take(),
        Command::ZhIncrBy { key, field, by } => script(Script::ZhIncrBy, key)?.arg(&field[..]).arg(*by).take(),
        Command::ZhRangeByScore { key, scores, direction, limit } => {
            let (name, arguments) = by_score(scores, *direction, *limit);
            script(Script::ZhRange, key)?.arg(name).arg(arguments).take()
        }
        Command::ZhRangeByLex { key, fields, direction, limit } => {
            let (name, arguments) = by_lex(fields, *direction, *limit);
            script(Script::ZhRange, key)?.arg(name).arg(arguments).take()
        }
    };
    Ok(vec![whole(store, command, &request)])
}

fn set(key: &[u8], value: &Bytes, when: &Condition, expires: Option<Duration>) -> Cmd {
    let expires = expires.map(lifetime);
    if let Condition::Equals(stands) = when {
        let mut call = Script::SetIfEqual.call(1, key.len() + value.len());
        return call.arg(key).arg(&stands[..]).arg(&value[..]).arg(expires).take();
    }
    let mut request = cmd("SET");
    request.arg(key).arg(&value[..]);
    if let Some(expires) = expires {
        request.arg("PX").arg(expires);
    }
    match when {
        Condition::Absent => request.arg("NX"),
        Condition::Present => request.arg("XX"),
        Condition::Always | Condition::Equals(_) => &mut request,
    };
    request
}

/// A time to live in milliseconds. Redis adds it to the time now, in 63 bits.
pub(super) fn lifetime(expires: Duration) -> u64 {
    const LONGEST: u64 = 1 << 62;
    whole_millis(expires).min(LONGEST)
}

fn whole(store: &Inner, command: &Command, request: &Cmd) -> Request {
    let slot = command.keys().first().and_then(|key| store.servers.slot(&store.data_key(key)));
    let (writes, once) = (command.writes(), !command.repeats());
    Request { slot, command: request.get_packed_command(), writes, once }
}

fn reads_many(store: &Inner, command: &Command, keys: &[Bytes]) -> Vec<Request> {
    // In a cluster a command takes keys of one slot only.
    let size = if store.is_cluster() { 1 } else { super::super::READS };
    let read = |keys: &[Bytes]| {
        let mut request = cmd("MGET");
        for key in keys {
            request.arg(store.data_key(key));
        }
        let slot = keys.first().and_then(|key| store.servers.slot(&store.data_key(key)));
        Request { slot, command: request.get_packed_command(), writes: command.writes(), once: false }
    };
    keys.chunks(size).map(read).collect()
}

pub(super) fn slices(elements: &[Bytes]) -> Vec<&[u8]> {
    elements.iter().map(|element| &element[..]).collect()
}

fn by_score(scores: &ScoreRange, direction: Direction, limit: Option<usize>) -> (&'static str, Vec<Vec<u8>>) {
    let (min, max) = score_ends(scores);
    match direction {
        Direction::Forward => ("ZRANGEBYSCORE", limited(vec![min.into_bytes(), max.into_bytes()], limit)),
        Direction::Reverse => ("ZREVRANGEBYSCORE", limited(vec![max.into_bytes(), min.into_bytes()], limit)),
    }
}

fn by_lex(members: &LexRange, direction: Direction, limit: Option<usize>) -> (&'static str, Vec<Vec<u8>>) {
    let (min, max) = lex_ends(members);
    match direction {
        Direction::Forward => ("ZRANGEBYLEX", limited(vec![min, max], limit)),
        Direction::Reverse => ("ZREVRANGEBYLEX", limited(vec![max, min], limit)),
    }
}

fn limited(mut arguments: Vec<Vec<u8>>, limit: Option<usize>) -> Vec<Vec<u8>> {
    if let Some(limit) = limit {
        // More than Redis counts is as good as all.
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        arguments.extend([b"LIMIT".to_vec(), b"0".to_vec(), limit.to_string().into_bytes()]);
    }
    arguments
}

fn score_ends(scores: &ScoreRange) -> (String, String) {
    let end = |bound: Bound<f64>, unbounded: &str| match bound {
        Bound::Included(score) => score.to_string(),
        Bound::Excluded(score) => format!("({score}"),
        Bound::Unbounded => unbounded.to_owned(),
    };
    (end(scores.min, "-inf"), end(scores.max, "+inf"))
}

fn lex_ends(members: &LexRange) -> (Vec<u8>, Vec<u8>) {
    let end = |bound: &Bound<Bytes>, unbounded: &[u8]| match bound {
        Bound::Included(member) => [b"[", &member[..]].concat(),
        Bound::Excluded(member) => [b"(", &member[..]].concat(),
        Bound::Unbounded => unbounded.to_vec(),
    };
    (end(&members.min, b"-"), end(&members.max, b"+"))
}
