//! The commands of [`DataStore`]: those that Redis has are its own, the others are scripts.
//!
//! A sorted hash is three keys of one slot. Under its own name stands a list of one word, a type that no other kind of
//! value has here, so that the commands of every other kind refuse it by themselves. Its scores and its values stand
//! among the store's own keys, which begin with the prefix and `!`: no key of a user's reaches them.

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
            commands.iter().map(|command| request::of(store, command, can)).collect();
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

    /// Fails for a key under which rows stand, which a data prefix shorter than that of the rows could reach.
    fn apart(&self, command: &Command) -> Result<()> {
        let own = |key: &[u8]| {
            let rest = self.prefix.as_bytes().strip_prefix(self.data_prefix.as_bytes());
            rest.is_some_and(|rest| key.starts_with(rest))
        };
        match command.keys().iter().find(|key| own(key)) {
            None => Ok(()),
            Some(key) => {
                let (key, prefix) = (key.escape_ascii(), &self.prefix);
                let message = format!("the key `{key}` would stand among the rows, which begin with `{prefix}`");
                Err(Error::new(ErrorKind::Rejected, message))
            }
        }
    }

    /// The keys of a sorted hash, in one slot: its own, that of its scores, and that of its values.
    fn sorted_hash(&self, key: &[u8]) -> Result<[Vec<u8>; 3]> {
        let own = self.data_key(key);
        let prefix = self.prefix.as_bytes();
        // Told apart, because an untagged key in braces may be a tagged key of somebody's.
        let as_it_is = has_tag(&own) || !self.is_cluster();
        let part = |name: &[u8]| {
            if as_it_is { [prefix, name, b":", &own].concat() } else { [prefix, name, b"{", &own, b"}"].concat() }
        };
        let (scores, values) = (part(b"!scores"), part(b"!values"));
        if self.servers.slot(&scores) == self.servers.slot(&own) {
            return Ok([own, scores, values]);
        }
        let message = "a sorted hash in a cluster, under a key with `}` and without a {tag}, or with another {tag} than \
                       the prefix of the rows; give it that one, or leave the braces out";
        Err(Error::new(ErrorKind::Rejected, message))
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
