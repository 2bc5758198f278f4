//! Atomic writes, each one call of a script.

use redis::{Cmd, Value};

use super::super::error::Failure;
use super::super::pipeline::{Patience, Request};
use super::super::script::Script;
use super::super::{Inner, strange};
use super::request::{lifetime, slices};
use super::{error, reply};
use crate::error::Result;
use crate::store::data::{Command, Condition, DataCapabilities, Operation, Outcome, atomic};

pub(super) fn run(store: &Inner, operations: &[Operation], can: DataCapabilities) -> Result<Outcome> {
    let slot = |key: &[u8]| redis::cluster_routing::Slot::for_key(store.data_key(key));
    atomic::check(operations, can, slot)?;
    let (mut keys, mut arguments) = (Vec::new(), Cmd::new());
    for operation in operations {
        store.apart(operation.command())?;
        append(store, operation.command(), &mut keys, &mut arguments)?;
    }
    let Some(first) = keys.first() else { return Ok(Outcome::Done) };
    let slot = store.servers.slot(first);
    let mut call = Script::Atomic.call(keys.len(), 0);
    call.arg(&keys);
    for argument in arguments.args_iter() {
        if let redis::Arg::Simple(argument) = argument {
            call.arg(argument);
        }
    }
    let request = Request { slot, command: call.get_packed_command(), writes: true, once: true };
    let answer = store.run(&[request], Patience::Long).pop().ok_or_else(strange)?;
    let about =
        |failure: Failure| operations.first().map_or_else(strange, |operation| error(failure, operation.command()));
    match reply::array(answer.map_err(about)?)?.as_slice() {
        [] => Ok(Outcome::Done),
        failed => {
            let place = |value: &Value| usize::try_from(reply::int(value)?).map_err(|_| strange());
            failed.iter().map(place).collect::<Result<_>>().map(Outcome::Refused)
        }
    }
}

/// Adds an operation as the script reads it: its name, how many arguments follow, and these.
fn append(store: &Inner, command: &Command, keys: &mut Vec<Vec<u8>>, to: &mut Cmd) -> Result<()> {
    let mut add = |name: &str, arguments: &[&[u8]]| {
        to.arg(name).arg(arguments.len()).arg(arguments);
    };
    let key = command.keys().first().ok_or_else(strange)?;
    let own = || [(); 3].map(|()| store.data_key(key));
    match command {
        Command::ZhAdd { .. } | Command::ZhRem { .. } | Command::ZhIncrBy { .. } => {
            keys.extend(store.sorted_hash(key)?);
        }
        // Where there can be no sorted hash there is one key to be deleted, three times.
        Command::Del { .. } => keys.extend(store.sorted_hash(key).unwrap_or_else(|_| own())),
        _ => keys.push(store.data_key(key)),
    }
    if command.does_nothing() {
        add("nothing", &[]);
        return Ok(());
    }
    match command {
        Command::Set { value, when, expires, .. } => {
            let millis = expires.map(|expires| lifetime(expires).to_string());
            let (name, stands) = match when {
                Condition::Always => ("set", None),
                Condition::Absent => ("setnx", None),
                Condition::Present => ("setxx", None),
                Condition::Equals(stands) => ("seteq", Some(&stands[..])),
            };
            let mut arguments: Vec<&[u8]> = stands.into_iter().chain([&value[..]]).collect();
            if let Some(millis) = &millis {
                arguments.extend([b"PX".as_slice(), millis.as_bytes()]);
            }
            add(name, &arguments);
        }
        Command::Del { must_exist, .. } => add(if *must_exist { "delxx" } else { "del" }, &[]),
        Command::IncrBy { by, .. } => add("incrby", &[by.to_string().as_bytes()]),
        Command::SAdd { members, .. } => add("sadd", &slices(members)),
        Command::SRem { members, .. } => add("srem", &slices(members)),
        Command::HSet { fields, .. } => {
            add("hset", &fields.iter().flat_map(|(field, value)| [&field[..], &value[..]]).collect::<Vec<_>>());
        }
        Command::HSetNx { field, value, .. } => add("hsetnx", &[field, value]),
        Command::HDel { fields, .. } => add("hdel", &slices(fields)),
        Command::ZAdd { member, score, if_absent, .. } => {
            add(if *if_absent { "zaddnx" } else { "zadd" }, &[score.to_string().as_bytes(), member]);
        }
        Command::ZRem { members, .. } => add("zrem", &slices(members)),
        Command::ZIncrBy { member, by, .. } => add("zincrby", &[by.to_string().as_bytes(), member]),
        Command::ZhAdd { field, value, score, if_absent, .. } => {
            add(if *if_absent { "zhaddnx" } else { "zhadd" }, &[field, value, score.to_string().as_bytes()]);
        }
        Command::ZhRem { fields, .. } => add("zhrem", &slices(fields)),
        Command::ZhIncrBy { field, by, .. } => add("zhincrby", &[by.to_string().as_bytes(), field]),
        _ => return Err(strange()),
    }
    Ok(())
}
