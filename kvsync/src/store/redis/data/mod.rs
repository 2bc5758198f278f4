//! The commands of [`DataStore`]: those that Redis has are its own, the others are scripts.
//!
//! A sorted hash is two keys: a sorted set under its own name, which has the scores and says what is
//! there, and a hash beside it, in the same slot, which has the values.

mod atomic;
mod reply;
mod request;

use redis::Value;

use super::error::Failure;
use super::pipeline::{Patience, Request};
use super::{Inner, MAX_BULK, RedisStore};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{
    Atomicity, Command, DataCapabilities, DataStore, Operation, Outcome, PORTABLE_OPERATIONS, Reads, Reply,
};

/// A key and a member have to fit into one argument; more than this is a mistake.
const MAX_NAME: usize = 64 * 1024 * 1024;

impl DataStore for RedisStore {
    fn data_capabilities(&self) -> DataCapabilities {
        let atomic = if self.inner.is_cluster() { Atomicity::Slot } else { Atomicity::Store };
        let key = MAX_NAME - self.inner.data_prefix.len();
        DataCapabilities::new(key, MAX_NAME, MAX_BULK).with_atomic(atomic, PORTABLE_OPERATIONS)
    }

    /// Runs commands in one pipeline for each server.
    fn run(&self, commands: &[Command], _reads: Reads) -> Vec<Result<Reply>> {
        let (store, can) = (&*self.inner, self.data_capabilities());
        let planned: Vec<Result<Vec<Request>>> =
            commands.iter().map(|command| command.check(can).and_then(|()| request::of(store, command))).collect();
        let lengths: Vec<Result<usize>> =
            planned.iter().map(|requests| requests.as_ref().map(Vec::len).map_err(Clone::clone)).collect();
        let requests: Vec<Request> = planned.into_iter().flatten().flatten().collect();
        let writes = requests.iter().any(|request| request.writes);
        let patience = if writes { Patience::Long } else { Patience::Short };
        let mut answers = store.run(&requests, patience).into_iter();
        let replies = commands.iter().zip(lengths).map(|(command, length)| {
            let answers: Vec<Result<Value, Failure>> = answers.by_ref().take(length?).collect();
            let values = answers.into_iter().collect::<Result<Vec<Value>, Failure>>();
            reply::of(command, values.map_err(|failure| error(failure, command))?)
        });
        replies.collect()
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        atomic::run(&self.inner, operations, self.data_capabilities())
    }
}

impl Inner {
    /// The key of a user's as the server knows it.
    fn data_key(&self, key: &[u8]) -> Vec<u8> {
        [self.data_prefix.as_bytes(), key].concat()
    }

    /// Where the values of a sorted hash are: beside the key, in the same slot.
    fn values_key(&self, key: &[u8]) -> Result<Vec<u8>> {
        const VALUES: &[u8] = b"\0values";
        let full = self.data_key(key);
        if has_tag(&full) || !self.is_cluster() {
            return Ok([&full, VALUES].concat());
        }
        if full.contains(&b'}') {
            let message =
                "a sorted hash in a cluster, under a key with `}` and without a {tag}; give it one, or leave `}` out";
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        Ok([b"{", full.as_slice(), b"}", VALUES].concat())
    }
}

/// Whether the slot of a key is that of a part of it.
fn has_tag(key: &[u8]) -> bool {
    let behind = key.iter().position(|byte| *byte == b'{').and_then(|at| key.get(at + 1..));
    behind.and_then(|behind| behind.iter().position(|byte| *byte == b'}')).is_some_and(|end| end > 0)
}

/// The error of a command, where a wrong type is one of the caller's.
fn error(failure: Failure, command: &Command) -> Error {
    if failure.kind == ErrorKind::Corrupt {
        let key = command.keys().first().map(|key| key.escape_ascii().to_string()).unwrap_or_default();
        let message = format!("`{key}` holds another kind of value than {} is for", command.name());
        return Error::new(ErrorKind::WrongType, message).with_source(Error::from(failure));
    }
    failure.into()
}
