//! What holds for every command.

use std::ops::Bound::Unbounded;
use std::time::Duration;

use bytes::Bytes;

use super::{fails, ok};
use crate::error::{ErrorKind, Result};
use crate::store::Status;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{
    Command, Condition, DataCommands, DataStore, Direction, Kind, LexRange, Operation, Outcome, Reads, Reply,
    ScoreRange,
};

pub(super) const CASES: &[Case] = &[
    Case::data("string_commands_refuse_other_kinds", Needs::Nothing, |store| refuse(store, Kind::String)),
    Case::data("set_commands_refuse_other_kinds", Needs::Nothing, |store| refuse(store, Kind::Set)),
    Case::data("hash_commands_refuse_other_kinds", Needs::Nothing, |store| refuse(store, Kind::Hash)),
    Case::data("sorted_set_commands_refuse_other_kinds", Needs::Nothing, |store| refuse(store, Kind::Sorted)),
    Case::data("sorted_hash_commands_refuse_other_kinds", Needs::Nothing, |store| refuse(store, Kind::SortedHash)),
    Case::data("what_names_no_member_answers_nothing_whatever_stands_there", Needs::Nothing, of_nothing),
    Case::data("a_store_whose_calls_are_closed_is_down", Needs::Nothing, closed),
    Case::data("an_unreachable_server_is_an_error_and_never_an_absence", Needs::Outage, unreachable),
];

const KINDS: [Kind; 5] = [Kind::String, Kind::Set, Kind::Hash, Kind::Sorted, Kind::SortedHash];

/// Every command, on one key; those with a condition or a direction in each form.
fn every(key: &str) -> Vec<Command> {
    let key = || Bytes::copy_from_slice(key.as_bytes());
    let a = || Bytes::from_static(b"a");
    let scores = ScoreRange { min: Unbounded, max: Unbounded };
    let set = |when| Command::Set { key: key(), value: a(), when, expires: None };
    let (forward, reverse, limit) = (Direction::Forward, Direction::Reverse, None);
    vec![
        Command::Get { key: key() },
        Command::MGet { keys: vec![key()] },
        set(Condition::Always),
        set(Condition::Absent),
        set(Condition::Present),
        set(Condition::Equals(a())),
        Command::Del { key: key(), must_exist: false },
        Command::Del { key: key(), must_exist: true },
        Command::IncrBy { key: key(), by: 1 },
        Command::SAdd { key: key(), members: vec![a()] },
        Command::SRem { key: key(), members: vec![a()] },
        Command::SMembers { key: key() },
        Command::HSet { key: key(), fields: vec![(a(), a())] },
        Command::HSetNx { key: key(), field: a(), value: a() },
        Command::HGet { key: key(), field: a() },
        Command::HGetAll { key: key() },
        Command::HDel { key: key(), fields: vec![a()] },
        Command::ZAdd { key: key(), member: a(), score: 1.0, if_absent: false },
        Command::ZAdd { key: key(), member: a(), score: 1.0, if_absent: true },
        Command::ZRem { key: key(), members: vec![a()] },
        Command::ZScore { key: key(), member: a() },
        Command::ZIncrBy { key: key(), member: a(), by: 1.0 },
        Command::ZCount { key: key(), scores },
        Command::ZLexCount { key: key(), members: LexRange::all() },
        Command::ZRangeByScore { key: key(), scores, direction: forward, limit },
        Command::ZRangeByScore { key: key(), scores, direction: reverse, limit },
        Command::ZRangeByLex { key: key(), members: LexRange::all(), direction: forward, limit },
        Command::ZRangeByLex { key: key(), members: LexRange::all(), direction: reverse, limit },
        Command::ZhAdd { key: key(), field: a(), value: a(), score: 1.0, if_absent: false },
        Command::ZhAdd { key: key(), field: a(), value: a(), score: 1.0, if_absent: true },
        Command::ZhGet { key: key(), field: a() },
        Command::ZhScore { key: key(), field: a() },
        Command::ZhRem { key: key(), fields: vec![a()] },
        Command::ZhIncrBy { key: key(), field: a(), by: 1.0 },
        Command::ZhCount { key: key(), scores },
        Command::ZhLexCount { key: key(), fields: LexRange::all() },
        Command::ZhRangeByScore { key: key(), scores, direction: forward, limit },
        Command::ZhRangeByScore { key: key(), scores, direction: reverse, limit },
        Command::ZhRangeByLex { key: key(), fields: LexRange::all(), direction: forward, limit },
        Command::ZhRangeByLex { key: key(), fields: LexRange::all(), direction: reverse, limit },
    ]
}

/// Commands of one kind on keys of all others.
fn refuse(store: &dyn DataStore, kind: Kind) -> Checked {
    for stands in KINDS {
        if stands == kind {
            continue;
        }
        let key = format!("{stands:?}");
        fill(store, &key, stands)?;
        let commands: Vec<Command> = every(&key).into_iter().filter(|command| command.kind() == Some(kind)).collect();
        let replies = store.run(&commands, Reads::Latest);
        same!(replies.len(), commands.len(), "answers");
        for (command, reply) in commands.into_iter().zip(replies) {
            fails(reply, ErrorKind::WrongType, &format!("{command:?} where a {stands:?} stands"))?;
            if let Ok(operation) = Operation::new(command) {
                let what = format!("an atomic write of {operation:?} where a {stands:?} stands");
                fails(store.run_atomic(&[operation]), ErrorKind::WrongType, &what)?;
            }
        }
        intact(store, &key, stands)?;
    }
    Ok(())
}

fn fill(store: &dyn DataStore, key: &str, kind: Kind) -> Checked {
    match kind {
        Kind::String => ok(store.set(key, "a"), "a set"),
        Kind::Set => ok(store.sadd(key, ["a"]), "sadd").map(|_| ()),
        Kind::Hash => ok(store.hset(key, [("a", "b")]), "hset").map(|_| ()),
        Kind::Sorted => ok(store.zadd(key, "a", 1.0), "zadd").map(|_| ()),
        Kind::SortedHash => ok(store.zh_add(key, "a", "b", 1.0), "zh_add").map(|_| ()),
    }
}

/// Fails unless what was filled in stands as it was.
fn intact(store: &dyn DataStore, key: &str, kind: Kind) -> Checked {
    let stands = match kind {
        Kind::String => ok(store.get(key), "a get")?.as_deref() == Some(b"a"),
        Kind::Set => ok(store.smembers(key), "smembers")? == ["a"],
        Kind::Hash => ok(store.hget_all(key), "hget_all")? == [("a".into(), "b".into())],
        Kind::Sorted => {
            let found = ok(store.zrange_by_score_with_scores(key, .., None), "a range")?;
            found.iter().map(|found| (&*found.member, found.score)).eq([(b"a".as_slice(), 1.0)])
        }
        Kind::SortedHash => {
            let found = ok(store.zh_range_by_score(key, .., None), "a range")?;
            found.iter().map(|found| (&*found.field, &*found.value, found.score)).eq([(
                b"a".as_slice(),
                b"b".as_slice(),
                1.0,
            )])
        }
    };
    if stands { Ok(()) } else { Err(format!("the {kind:?} was changed by commands that are for other kinds")) }
}

/// Commands that add or remove nothing, alone, in a batch and in an atomic write.
fn of_nothing(store: &dyn DataStore) -> Checked {
    let of_nothing = |key: &str| {
        let key = || Bytes::copy_from_slice(key.as_bytes());
        [
            Command::SAdd { key: key(), members: Vec::new() },
            Command::SRem { key: key(), members: Vec::new() },
            Command::HSet { key: key(), fields: Vec::new() },
            Command::HDel { key: key(), fields: Vec::new() },
            Command::ZRem { key: key(), members: Vec::new() },
            Command::ZhRem { key: key(), fields: Vec::new() },
        ]
    };
    let check = |key: &str| -> Checked {
        for command in of_nothing(key) {
            let reply = store.run(std::slice::from_ref(&command), Reads::Latest).pop();
            same!(reply.and_then(Result::ok), Some(Reply::Count(0)), "{command:?}");
            let operation = ok(Operation::new(command), "an operation")?;
            let done = ok(store.run_atomic(std::slice::from_ref(&operation)), "an atomic write of nothing")?;
            same!(done, Outcome::Done, "{operation:?}");
        }
        let replies = store.run(&of_nothing(key), Reads::Latest);
        check!(replies.iter().all(|reply| matches!(reply, Ok(Reply::Count(0)))), "a batch of nothing: {replies:?}");
        Ok(())
    };
    for stands in KINDS {
        let key = format!("{stands:?}");
        fill(store, &key, stands)?;
        check(&key)?;
        intact(store, &key, stands)?;
    }
    check("absent")?;
    check!(!ok(store.delete("absent"), "a delete")?, "nothing made something");
    Ok(())
}

/// A store may go on after it was closed; one that does not has to say so, and may not come back for being asked.
fn closed(store: &dyn DataStore) -> Checked {
    ok(store.set("key", "value"), "a set")?;
    ok(store.close(), "closing")?;
    for _ in 0..2 {
        let health = store.health(Duration::from_secs(10));
        match store.set("another", "value") {
            Ok(()) => check!(health.status != Status::Down, "it answers and says: {:?}", health.details),
            Err(error) => {
                same!(error.kind(), ErrorKind::Closed, "a call after it was closed: {error}");
                same!(health.status, Status::Down, "the health of what is closed: {:?}", health.details);
            }
        }
    }
    Ok(())
}

fn unreachable(store: &dyn DataStore) -> Checked {
    fn down<T: std::fmt::Debug>(answer: Result<T>, what: &str) -> Checked {
        match answer {
            Err(error) if error.is_retryable() => Ok(()),
            Err(error) => Err(format!("{what} failed in a way that no retry helps: {error}")),
            Ok(answer) => Err(format!("{what} has to fail when the server is not there, and answered {answer:?}")),
        }
    }
    let commands = every("key");
    for reads in [Reads::Latest, Reads::Eventual] {
        let replies: Vec<Result<Reply>> = store.run(&commands, reads);
        same!(replies.len(), commands.len(), "answers");
        for (command, reply) in commands.iter().zip(replies) {
            down(reply, &format!("{command:?} in a batch, read as {reads:?}"))?;
        }
    }
    down(store.get("key"), "a get")?;
    down(store.set("key", "value"), "a set")?;
    let operation = Operation::new(Command::IncrBy { key: "key".into(), by: 1 });
    down(store.run_atomic(&[ok(operation, "an increment as an operation")?]), "an atomic write")?;
    let health = store.health(Duration::from_secs(2));
    same!(health.status, Status::Down, "the health: {:?}", health.details);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::every;
    use crate::store::data::Command;

    #[test]
    fn every_command_is_there() {
        let names: BTreeSet<&str> = every("key").iter().map(Command::name).collect();
        assert_eq!(names.len(), 30, "{names:?}");
    }
}
