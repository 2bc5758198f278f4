//! A store in Redis, in a Redis Cluster, or in the master that sentinels watch over. Valkey speaks the same protocol.
//!
//! ```no_run
//! use kvsync::store::redis::RedisStore;
//!
//! # fn main() -> kvsync::Result<()> {
//! let one = RedisStore::connect("redis://127.0.0.1/")?;
//! let cluster = RedisStore::cluster(["redis://10.0.0.1:7000", "redis://10.0.0.2:7000"])?;
//! let watched = RedisStore::builder(["redis://10.0.0.1:26379", "redis://10.0.0.2:26379"]).sentinel("mymaster")?;
//! let socket = RedisStore::builder(["redis+unix:///run/redis/redis.sock"]).prefix("shop:").connect()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - Each step is one script, so it is atomic on its key. A single server takes a change as a whole: the
//!   record, the row's other keys and those it has left, and a batch of changes in one round trip.
//! - **A failure is an error.** A write that was sent and not answered is
//!   [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome); doing it again is harmless, and the store does so
//!   by itself until [`retry_for`](Builder::retry_for) has passed. Redirections in a cluster, a flushed
//!   script cache, a restarted server and a failover are lived through.
//! - **No answer is handed to another question.** A connection that failed in any way is closed, with all
//!   that was under way on it.
//! - **What is not ours is left alone.** A key that holds another type, bytes that are no entry, or an
//!   entry of a newer layout, is not written over: that step fails with
//!   [`Corrupt`](crate::ErrorKind::Corrupt) or [`UnknownLayout`](crate::ErrorKind::UnknownLayout), others do
//!   not.
//!
//! # What it needs
//!
//! - Redis 6.2 or newer (tested with 7.0), with `maxmemory-policy noeviction`:
//!   [`health`](crate::store::Store::health) warns otherwise. An append-only file, or the outbox, if the
//!   server may lose its memory. What holds without: [`guarantees`](crate::guarantees).
//! - For a user with an access list: `~kvsync:* +@read +@write +@scripting +@connection +info` (and
//!   `+cluster` in a cluster), with your prefix; with `+config|get` health also tells what the settings lose.
//!   The commands of [`DataCommands`](crate::store::data::DataCommands) need no others; a
//!   [`data_prefix`](Builder::data_prefix) of your own needs its `~` too, beside that of the prefix. On a
//!   single server scripts reach keys that they find in records, which a proxy that shards by key cannot know:
//!   connect to the servers themselves.
//! - The clock of the server need not agree with ours: expiries are sent as durations.
//!
//! # Where things stand
//!
//! Rows stand under the [`prefix`](Builder::prefix), data under the [`data_prefix`](Builder::data_prefix), each value as
//! the type that Redis has for it. A sorted hash is a list of one word under its key, and two keys that begin with the
//! prefix and `!`, for scores and values, in the same slot. A SET over it, or the end of a string that replaced it, leaves
//! these two where they are: they are never seen again, and go when a sorted hash begins anew under the key, or with a
//! delete of it. A program that replaces sorted hashes by strings for good should delete them first.
//!
//! # Sentinels
//!
//! [`sentinel`](Builder::sentinel) asks the sentinels who the master is, again whenever something fails, and once a
//! second while it is used. A server is talked to only while it says itself that it is a master. Replication does
//! not wait: **a failover may forget what was acknowledged last**, that of the seconds for which a master that was
//! cut off or replaced still answered included. [`health`](crate::store::Store::health) says so, and names the run of
//! the master as the life that its memory hangs on: once another one answers, upkeep reports that the store may have
//! forgotten, and each table is dirty until it is mended.
//!
//! # How long a call takes
//!
//! A read ends within [`command_timeout`](Builder::command_timeout), plus the time to connect. A write goes
//! on for [`retry_for`](Builder::retry_for) after a failure that may pass.

mod builder;
mod check;
mod connection;
mod data;
mod error;
mod facts;
mod health;
mod node;
mod outcome;
mod pipeline;
mod scan;
mod script;
mod sentinel;
mod servers;
mod steps;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::{Value, cmd};
use bytes::Bytes;

pub use self::builder::Builder;
use self::error::Failure;
use self::node::Settings;
use self::pipeline::{Patience, Request};
use self::script::Script;
use self::servers::Servers;
use super::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;

/// What Redis calls `proto-max-bulk-len`, unless it was changed.
const MAX_BULK: usize = 512 * 1024 * 1024;
/// Room for the head, the ledger and the keys of an entry.
const MAX_VALUE: usize = MAX_BULK - 1024 * 1024;
/// Where the epoch stands, after the prefix.
const EPOCH: &str = "!epoch";
/// Keys of one command that reads.
const READS: usize = 512;

/// A store in Redis or in a Redis Cluster. Clones share their connections.
///
/// See the [module](self) for what it promises and needs.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    prefix: String,
    data_prefix: String,
    batch: usize,
    servers: Servers,
    settings: Arc<Settings>,
    closed: AtomicBool,
}

impl RedisStore {
    /// A store in the server at this URL, with the prefix `kvsync:`.
    ///
    /// `redis://[[user]:password@]host[:port][/database]`, `rediss://` with TLS (feature `redis-tls`), or
    /// `redis+unix:///path[?db=..&user=..&pass=..]`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or would refuse what the store needs: a wrong password, missing
    /// rights, a replica, a node of a cluster. The message says what to do.
    pub fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder([url]).connect()
    }

    /// A store in the cluster that these nodes belong to, with the prefix `kvsync:`. One of them is enough
    /// to find the others.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and when none of them is a node of a cluster.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::builder(urls).cluster()
    }

    /// Begins to configure a store.
    pub fn builder(urls: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(urls.into_iter().map(Into::into).collect())
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.inner.prefix)
            .field("servers", &self.inner.servers)
            .finish_non_exhaustive()
    }
}

impl Store for RedisStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn health(&self, deadline: Duration) -> Health {
        health::health(&self.inner, deadline)
    }

    /// Closes the connections; further calls fail with [`ErrorKind::Closed`]. What was acknowledged is as
    /// durable as the server makes it.
    fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.servers.forget();
        Ok(())
    }
}

impl SyncStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        let capabilities =
            Capabilities::new(MAX_BULK - self.inner.prefix.len(), MAX_VALUE, self.inner.batch).with_expiry();
        if self.inner.is_cluster() { capabilities } else { capabilities.with_whole_changes() }
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        steps::execute(&self.inner, steps, terms)
    }

    /// Reads these keys: with `MGET` on a single server, with one pipeline a node in a cluster. A key of
    /// another type is an error where it is the only one asked for, and reads as absent among many.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let inner = &*self.inner;
        let full: Vec<Vec<u8>> = keys.iter().map(|key| inner.full(key)).collect();
        // In a cluster a command takes keys of one slot only.
        let (verb, size) = match (inner.is_cluster(), full.len()) {
            (_, 1) => ("GET", 1),
            (true, _) => ("MGET", 1),
            (false, _) => ("MGET", READS),
        };
        let requests: Vec<Request> = full.chunks(size).map(|keys| inner.ask(verb, keys)).collect();
        let mut found = Vec::with_capacity(keys.len());
        for answer in inner.run(&requests, Patience::Short) {
            match answer? {
                Value::Array(values) => found.extend(values.into_iter().map(bytes_of)),
                value => found.push(bytes_of(value)),
            }
        }
        if found.len() == keys.len() { found.into_iter().collect() } else { Err(strange()) }
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        scan::scan(&self.inner, prefix, cursor.as_ref(), limit)
    }

    fn epoch(&self) -> Result<u32> {
        let request = self.inner.ask("GET", &[self.inner.epoch_key()]);
        match self.inner.one(request, Patience::Short)? {
            Value::Nil => Ok(0),
            Value::BulkString(bytes) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| self.inner.no_epoch())
            }
            _ => Err(strange()),
        }
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        let key = self.inner.epoch_key();
        let mut command = Script::Epoch.call(1, key.len());
        command.arg(&key).arg(epoch);
        let slot = self.inner.servers.slot(&key);
        let request = Request { slot, command: command.get_packed_command(), writes: true, once: false };
        match self.inner.one(request, Patience::Long)? {
            Value::Int(epoch) => u32::try_from(epoch).map_err(|_| self.inner.no_epoch()),
            Value::BulkString(_) => Err(self.inner.no_epoch()),
            _ => Err(strange()),
        }
    }
}

impl Inner {
    fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// The key as the server knows it.
    fn full(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_str().as_bytes()].concat()
    }

    fn epoch_key(&self) -> Vec<u8> {
        [self.prefix.as_bytes(), EPOCH.as_bytes()].concat()
    }

    /// A command that reads keys of one slot.
    fn ask(&self, verb: &str, keys: &[Vec<u8>]) -> Request {
        let mut command = cmd(verb);
        for key in keys {
            command.arg(key);
        }
        let slot = keys.first().and_then(|key| self.servers.slot(key));
        Request { slot, command: command.get_packed_command(), writes: false, once: false }
    }

    fn one(&self, request: Request, patience: Patience) -> Result<Value> {
        match self.run(&[request], patience).pop() {
            Some(answer) => Ok(answer?),
            None => Err(strange()),
        }
    }

    fn run(&self, requests: &[Request], patience: Patience) -> Vec<Result<Value, Failure>> {
        if let Err(closed) = self.open() {
            return requests.iter().map(|_| Err(closed.clone())).collect();
        }
        pipeline::run(&self.servers, &self.settings, requests, patience)
    }

    fn open(&self) -> Result<(), Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::new(ErrorKind::Closed, error::Cure::None, format!("{} was closed", self.name)));
        }
        Ok(())
    }

    fn no_epoch(&self) -> Error {
        let message = format!("`{}{EPOCH}` holds no epoch; did another program write it?", self.prefix);
        Error::new(ErrorKind::Corrupt, message)
    }
}

fn bytes_of(value: Value) -> Result<Option<Bytes>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(strange()),
    }
}

/// An answer that no Redis gives.
fn strange() -> Error {
    Error::new(ErrorKind::Corrupt, "redis answered something else than was asked; is it a proxy?")
}
