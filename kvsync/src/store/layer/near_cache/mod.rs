//! What was read lately, in the memory of the process.

mod coherent;
mod command;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::coherent::Coherent;
use self::command::{Data, Known, Tokens, answer, is_kept, learn};
use super::in_steps;
use crate::clock::FOR_EVER;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;
use crate::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use crate::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};

/// A store with a cache of its readings in the memory of the process, for those who ask for it. Clones share it.
///
/// # Who is answered from memory
///
/// - **Rows:** the [`reader`](Self::reader), a view of the same store. Give it to fetches
///   ([`Builder::read_from`](crate::Builder::read_from)); `fetch_strict`, workers and upkeep go to the store.
/// - **Commands** that are run with [`Reads::Eventual`] (`store.eventual()`): `get`, `mget`, `hget`, `hgetall` and
///   `smembers`. Those run with [`Reads::Latest`] go to the store, and refresh what is cached.
///
/// # What it promises
///
/// - **What this process has written is seen**: once a write that passed through this layer has been answered, nothing
///   older is answered from memory. A write forgets its keys before it begins, and while it is under way none of them
///   is cached; a reading that began before it and ends after it is not kept.
/// - **What others have written is seen after the time to live**, and so is a write that was cut off and takes effect
///   after it failed, a value that has expired, and a store that forgot. Servers do not tell of writes
///   (`CLIENT TRACKING` of Redis is not used).
/// - **What is cached is read from the store itself**, never from a replica of it that may lag in its turn.
/// - **Errors are never cached**; that nothing stands under a key is.
/// - At most so many bytes are kept, for rows and for commands each; a moment's overshoot aside. What is read
///   often stays.
///
/// Changes are taken in steps only ([`Capabilities::whole_changes`] is off): of one that is applied as a whole only the
/// store learns which keys it has left.
///
/// ```
/// # fn main() -> Result<(), kvsync::Error> {
/// use std::time::Duration;
///
/// use kvsync::KvSync;
/// use kvsync::store::MemoryStore;
/// use kvsync::store::layer::NearCache;
///
/// let store = NearCache::new(MemoryStore::new(), 64 << 20, Duration::from_secs(5));
/// let kv = KvSync::builder().read_from(store.reader()).store(store).build()?;
/// # drop(kv);
/// # Ok(())
/// # }
/// ```
pub struct NearCache<S> {
    shared: Arc<Shared<S>>,
    reads: Reads,
}

struct Shared<S> {
    store: S,
    rows: Coherent<Key, Option<Bytes>>,
    data: Data,
}

impl<S> NearCache<S> {
    /// This store with a cache of at most `bytes` for rows and as many for commands, each entry for at most
    /// `time_to_live`, a year at most.
    #[must_use]
    pub fn new(store: S, bytes: u64, time_to_live: Duration) -> Self {
        let of_row = |key: &Key, value: &Option<Bytes>| key.as_str().len() + value.as_ref().map_or(0, Bytes::len);
        let time_to_live = time_to_live.min(FOR_EVER);
        let rows = Coherent::new(bytes, time_to_live, of_row);
        let data = Coherent::new(bytes, time_to_live, Known::size);
        Self { shared: Arc::new(Shared { store, rows, data }), reads: Reads::Latest }
    }

    /// The same store, whose [`get_many`](SyncStore::get_many) is answered from memory where it can be. The writes of
    /// both are seen by both.
    #[must_use]
    pub fn reader(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), reads: Reads::Eventual }
    }

    /// How many bytes are kept, of rows and of commands together, with their keys.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.rows.bytes() + self.shared.data.bytes()
    }
}

impl<S> Clone for NearCache<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), reads: self.reads }
    }
}

impl<S: fmt::Debug> fmt::Debug for NearCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("store", &self.shared.store)
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for NearCache<S> {
    fn name(&self) -> &str {
        self.shared.store.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.shared.store.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.shared.store.close()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SyncStore> SyncStore for NearCache<S> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { whole_changes: false, ..self.shared.store.capabilities() }
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let Shared { store, rows, .. } = &*self.shared;
        let _writing = rows.write(steps.iter().map(Step::key));
        in_steps(steps, |step| Ok(step.clone()), |steps| store.execute(steps, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let Shared { store, rows, .. } = &*self.shared;
        let (mut found, asked): (Vec<_>, Vec<Key>) = match self.reads {
            // What upkeep reads once is not worth keeping; what is kept must not be older than what was read.
            Reads::Latest => (vec![None; keys.len()], keys.to_vec()),
            Reads::Eventual => {
                let found: Vec<_> = keys.iter().map(|key| rows.get(key)).collect();
                let asked = keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key.clone());
                let asked = asked.collect();
                (found, asked)
            }
        };
        if !asked.is_empty() {
            let token = |key| match self.reads {
                Reads::Latest => rows.token_if_cached(key),
                Reads::Eventual => rows.token(key),
            };
            let tokens: Vec<_> = asked.iter().map(token).collect();
            let read = store.get_many(&asked)?;
            if read.len() != asked.len() {
                return Err(wrong_number(store));
            }
            let mut missing = found.iter_mut().filter(|found| found.is_none());
            for ((key, value), token) in asked.into_iter().zip(read).zip(tokens) {
                if let Some(missing) = missing.next() {
                    *missing = Some(value.clone());
                }
                rows.fill(key, value, token);
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.shared.store.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.shared.store.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.shared.store.raise_epoch(epoch)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore> DataStore for NearCache<S> {
    fn data_capabilities(&self) -> DataCapabilities {
        self.shared.store.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        let Shared { store, data, .. } = &*self.shared;
        // Begun before anything is looked up: a reading behind a write of the same call sees it.
        let written = commands.iter().filter(|command| command.writes()).flat_map(Command::keys);
        let _writing = data.write(written);
        let mut answers: Vec<Option<Result<Reply>>> = match reads {
            Reads::Latest => commands.iter().map(|_| None).collect(),
            Reads::Eventual => commands.iter().map(|command| answer(data, command).map(Ok)).collect(),
        };
        let missing = commands.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let asked: Vec<&Command> = missing.map(|(command, _)| command).collect();
        if !asked.is_empty() {
            let token = |key: &Bytes| match reads {
                Reads::Latest => data.token_if_cached(key),
                Reads::Eventual => data.token(key),
            };
            let tokens_of = |command: &&Command| -> Tokens {
                if is_kept(command) { command.keys().iter().map(token).collect() } else { Tokens::new() }
            };
            let tokens: Vec<Tokens> = asked.iter().map(tokens_of).collect();
            // What is kept must not be older than what this process has written, as a replica may be.
            let reads = if asked.iter().any(|command| is_kept(command)) { Reads::Latest } else { reads };
            let replies = if asked.len() == commands.len() {
                store.run(commands, reads)
            } else {
                store.run(&asked.iter().copied().cloned().collect::<Vec<_>>(), reads)
            };
            let mut missing = answers.iter_mut().filter(|answer| answer.is_none());
            for ((command, reply), tokens) in asked.into_iter().zip(replies).zip(tokens) {
                if let Ok(reply) = &reply {
                    learn(data, command, reply, &tokens);
                }
                if let Some(missing) = missing.next() {
                    *missing = Some(reply);
                }
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(wrong_number(store)))).collect()
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        let Shared { store, data, .. } = &*self.shared;
        let _writing = data.write(operations.iter().flat_map(|operation| operation.command().keys()));
        store.run_atomic(operations)
    }
}

fn wrong_number(store: &impl Store) -> Error {
    let message =
        format!("{} gave another number of answers than it was asked; this is a fault of the store", store.name());
    Error::new(ErrorKind::Corrupt, message)
}
