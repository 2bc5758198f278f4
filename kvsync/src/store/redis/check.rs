//! What is wrong with a server is said when the store is made, not at the first write.

use std::time::Instant;

use redis::{Cmd, Value, cmd};

use super::error::Failure;
use super::pipeline::{Patience, Request};
use super::script::{self, Script};
use super::{Inner, strange};
use crate::error::{Error, ErrorKind, Result};

/// Checks a single server.
pub(super) fn one(store: &Inner) -> Result<()> {
    if let Some(info) = info(store)? {
        let says = |line: &str| info.lines().any(|other| other.trim_end() == line);
        if says("redis_mode:sentinel") {
            let message =
                format!("{} is a sentinel; use `RedisStore::builder(sentinels).sentinel(master)`", store.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if says("cluster_enabled:1") {
            let message = format!("{} is a node of a cluster; use `RedisStore::cluster`", store.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if says("role:slave") {
            let find = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)).unwrap_or("?");
            let primary = format!("{}:{}", find("master_host:"), find("master_port:"));
            let message = format!("{} is a read-only replica; connect to its primary, {primary}", store.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
    }
    rights(store)
}

/// Checks a cluster whose map is known.
pub(super) fn cluster(store: &Inner) -> Result<()> {
    rights(store)?;
    // So that no call has to find out that a node lacks them. One that cannot be reached now gets them later.
    for node in store.servers.nodes() {
        let deadline = Instant::now() + store.settings.command_timeout;
        if let Ok(mut connection) = node.open(deadline)
            && script::load(&mut connection, &node.address, deadline).is_ok()
        {
            node.keep(connection);
        }
    }
    Ok(())
}

/// What the server says of itself, where the user may ask.
fn info(store: &Inner) -> Result<Option<String>> {
    let request = Request { slot: None, command: cmd("INFO").get_packed_command(), writes: false, once: false };
    match store.run(&[request], Patience::Long).pop() {
        Some(Ok(Value::BulkString(info))) => Ok(Some(String::from_utf8_lossy(&info).into_owned())),
        Some(Ok(Value::VerbatimString { text, .. })) => Ok(Some(text)),
        Some(Err(failure)) if failure.is_lack_of_rights() => Ok(None),
        Some(Err(failure)) => Err(failure.into()),
        Some(Ok(_)) | None => Err(strange()),
    }
}

/// Loads the scripts and asks one of them what the user may not do.
fn rights(store: &Inner) -> Result<()> {
    let node = store.servers.node(None)?;
    let deadline = Instant::now() + store.settings.command_timeout;
    let lacks = |failure: Failure| -> Error {
        let what = if failure.is_lack_of_rights() { Some(advice(store)) } else { None };
        match what {
            Some(advice) => Error::new(ErrorKind::Rejected, advice).with_source(Error::from(failure)),
            None => failure.into(),
        }
    };
    let mut connection = node.open(deadline)?;
    script::load(&mut connection, &node.address, deadline).map_err(lacks)?;
    node.keep(connection);
    let slot = store.servers.slot(&store.epoch_key());
    let request = Request { slot, command: question(store).get_packed_command(), writes: false, once: false };
    match store.run(&[request], Patience::Long).pop() {
        Some(Ok(Value::Array(missing))) => {
            lacking(store, &missing).map_or(Ok(()), |message| Err(Error::new(ErrorKind::Rejected, message)))
        }
        Some(Err(failure)) => Err(lacks(failure)),
        Some(Ok(_)) | None => Err(strange()),
    }
}

/// Asks what the user may not do.
pub(super) fn question(store: &Inner) -> Cmd {
    let key = store.epoch_key();
    let mut command = Script::Rights.call(1, key.len());
    command.arg(&key);
    command
}

/// What follows from the answer, if anything is missing.
pub(super) fn lacking(store: &Inner, missing: &[Value]) -> Option<String> {
    let name =
        |name: &Value| if let Value::BulkString(name) = name { String::from_utf8(name.clone()).ok() } else { None };
    let names: Vec<String> = missing.iter().filter_map(name).collect();
    if names.is_empty() {
        return None;
    }
    Some(format!("{}; it may not run {} on these keys", advice(store), names.join(", ")))
}

/// What gives a user its rights.
pub(super) fn advice(store: &Inner) -> String {
    let user = store.settings.login.username.as_deref().unwrap_or("default");
    let cluster = if store.is_cluster() { " +cluster" } else { "" };
    format!(
        "{}: the user `{user}` lacks rights; `ACL SETUSER {user} ~{}* +@read +@write +@scripting +@connection +info{cluster}` gives them",
        store.name, store.prefix
    )
}
