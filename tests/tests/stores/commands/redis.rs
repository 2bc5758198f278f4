//! A bare Redis, asked by its own client in its own words.

use std::ops::Bound;

use bytes::Bytes;
use kvsync::ErrorKind;
use kvsync::store::data::{Command, Condition, Direction, LexRange, Reply, ScoreRange, Scored};
use kvsync_tests::{Tested, env};
use redis::{Cmd, Connection, RedisResult, Value, cmd};

use super::Answer;

pub(super) fn connect() -> Tested<Connection> {
    Ok(redis::Client::open(env::redis_url()?)?.get_connection()?)
}

pub(super) fn forget(bare: &mut Connection, keys: &[Bytes]) -> Tested {
    keys.iter().try_for_each(|key| cmd("DEL").arg(&key[..]).query(bare)).map_err(Into::into)
}

/// Whether Redis has the command.
pub(super) fn has(command: &Command) -> bool {
    !command.name().starts_with("zh")
}

/// Runs a command that Redis [has](has).
pub(super) fn run(bare: &mut Connection, command: &Command) -> Tested<Answer> {
    let value: RedisResult<Value> = request(command)?.query(bare);
    match value {
        Ok(value) => reply(command, value).map(Ok),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Err(ErrorKind::WrongType)),
        Err(error) if error.code() == Some("ERR") || error.kind() == redis::ServerErrorKind::ResponseError.into() => {
            Ok(Err(ErrorKind::Rejected))
        }
        Err(error) => Err(error.into()),
    }
}

fn request(command: &Command) -> Tested<Cmd> {
    let mut request = match command {
        Command::Set { .. } => cmd("SET"),
        // Redis 6.2 asks for ranges in one way, where the store uses the older commands.
        Command::ZRangeByScore { .. } | Command::ZRangeByLex { .. } => cmd("ZRANGE"),
        _ if has(command) => cmd(&command.name().to_uppercase()),
        _ => return Err(format!("Redis has no {}", command.name()).into()),
    };
    let slices = |elements: &[Bytes]| elements.iter().map(|element| element.to_vec()).collect::<Vec<_>>();
    request.arg(slices(command.keys()));
    match command {
        Command::Set { value, when, expires, .. } => {
            request.arg(&value[..]);
            match when {
                Condition::Always => {}
                Condition::Absent => {
                    request.arg("NX");
                }
                Condition::Present => {
                    request.arg("XX");
                }
                Condition::Equals(_) => return Err("Redis has no set-if-equal".into()),
            }
            if let Some(expires) = expires {
                request.arg("PX").arg(expires.as_millis().to_string());
            }
        }
        Command::IncrBy { by, .. } => {
            request.arg(by);
        }
        Command::SAdd { members, .. } | Command::SRem { members, .. } | Command::ZRem { members, .. } => {
            request.arg(slices(members));
        }
        Command::HSet { fields, .. } => {
            for (field, value) in fields {
                request.arg(&field[..]).arg(&value[..]);
            }
        }
        Command::HSetNx { field, value, .. } => {
            request.arg(&field[..]).arg(&value[..]);
        }
        Command::HGet { field: element, .. } | Command::ZScore { member: element, .. } => {
            request.arg(&element[..]);
        }
        Command::HDel { fields, .. } => {
            request.arg(slices(fields));
        }
        Command::ZAdd { member, score, if_absent, .. } => {
            if *if_absent {
                request.arg("NX");
            }
            request.arg(number(*score)).arg(&member[..]);
        }
        Command::ZIncrBy { member, by, .. } => {
            request.arg(number(*by)).arg(&member[..]);
        }
        Command::ZCount { scores, .. } => {
            request.arg(&score_ends(scores));
        }
        Command::ZLexCount { members, .. } => {
            request.arg(&lex_ends(members));
        }
        Command::ZRangeByScore { scores, direction, limit, .. } => {
            range(&mut request, score_ends(scores), "BYSCORE", *direction, *limit);
            request.arg("WITHSCORES");
        }
        Command::ZRangeByLex { members, direction, limit, .. } => {
            range(&mut request, lex_ends(members), "BYLEX", *direction, *limit);
        }
        _ => {}
    }
    Ok(request)
}

fn range(request: &mut Cmd, [min, max]: [Vec<u8>; 2], by: &str, direction: Direction, limit: Option<usize>) {
    match direction {
        Direction::Forward => {
            request.arg(min).arg(max).arg(by);
        }
        Direction::Reverse => {
            request.arg(max).arg(min).arg(by).arg("REV");
        }
    }
    if let Some(limit) = limit {
        request.arg("LIMIT").arg(0).arg(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

fn number(score: f64) -> String {
    if score.is_nan() { "nan".into() } else { format!("{score:e}") }
}

fn score_ends(scores: &ScoreRange) -> [Vec<u8>; 2] {
    let end = |bound: Bound<f64>, unbounded: &str| match bound {
        Bound::Included(score) => number(score),
        Bound::Excluded(score) => format!("({}", number(score)),
        Bound::Unbounded => unbounded.to_owned(),
    };
    [end(scores.min, "-inf").into_bytes(), end(scores.max, "+inf").into_bytes()]
}

fn lex_ends(members: &LexRange) -> [Vec<u8>; 2] {
    let end = |bound: &Bound<Bytes>, unbounded: &str| match bound {
        Bound::Included(member) => [b"[", &member[..]].concat(),
        Bound::Excluded(member) => [b"(", &member[..]].concat(),
        Bound::Unbounded => unbounded.into(),
    };
    [end(&members.min, "-"), end(&members.max, "+")]
}

fn reply(command: &Command, value: Value) -> Tested<Reply> {
    let text = |text: Vec<u8>| -> Tested<f64> { Ok(std::str::from_utf8(&text)?.parse()?) };
    let pairs = |value: Value| -> Tested<Vec<(Vec<u8>, Vec<u8>)>> { Ok(redis::from_redis_value(value)?) };
    Ok(match command {
        Command::Get { .. } | Command::HGet { .. } => {
            Reply::Value(redis::from_redis_value::<Option<Vec<u8>>>(value)?.map(Bytes::from))
        }
        Command::MGet { .. } => {
            let values: Vec<Option<Vec<u8>>> = redis::from_redis_value(value)?;
            Reply::Values(values.into_iter().map(|value| value.map(Bytes::from)).collect())
        }
        Command::Set { .. } => Reply::Taken(value == Value::Okay),
        Command::Del { .. } | Command::HSetNx { .. } | Command::ZAdd { .. } => Reply::Taken(value == Value::Int(1)),
        Command::IncrBy { .. } => Reply::Integer(redis::from_redis_value(value)?),
        Command::SMembers { .. } | Command::ZRangeByLex { .. } => {
            let members: Vec<Vec<u8>> = redis::from_redis_value(value)?;
            Reply::Members(members.into_iter().map(Bytes::from).collect())
        }
        Command::HGetAll { .. } => {
            Reply::Fields(pairs(value)?.into_iter().map(|(field, value)| (field.into(), value.into())).collect())
        }
        Command::ZScore { .. } | Command::ZIncrBy { .. } => {
            let score: Option<Vec<u8>> = redis::from_redis_value(value)?;
            Reply::Score(score.map(text).transpose()?)
        }
        Command::ZRangeByScore { .. } => {
            let scored = |(member, score): (Vec<u8>, Vec<u8>)| -> Tested<Scored> {
                Ok(Scored { member: member.into(), score: text(score)? })
            };
            Reply::Scored(pairs(value)?.into_iter().map(scored).collect::<Tested<_>>()?)
        }
        _ => Reply::Count(redis::from_redis_value(value)?),
    })
}
