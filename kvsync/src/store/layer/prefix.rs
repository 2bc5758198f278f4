//! Every key under a prefix.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;

use super::in_steps;
use crate::clock::millis;
use crate::envelope::{Envelope, Head, State, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Delta, Order, Terms, Write};
use crate::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use crate::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use crate::version::Version;

/// Where the epoch of this prefix stands, behind the prefix. No format of a key can begin with its `!`.
const EPOCH: &str = "!epoch";

/// A store whose keys all stand under a prefix, so that several programs, environments or tests share one.
///
/// The prefix is put before the keys by which entries are found, rows' and commands'. What entries say of
/// each other, in ledgers and pointers, stays as it is without the layer, so that no entry is rewritten and the bytes
/// are those that a store with a prefix of its own holds. For that the layer takes
/// changes in steps only ([`Capabilities::whole_changes`] is off): a store that applies a whole change writes the keys
/// that it lists itself. The epoch is the prefix's own.
///
/// No prefix of those that share a store may begin with another one (`a:` and `a:b:`): the shorter would list the keys of
/// the longer as its own.
///
/// ```
/// use kvsync::store::MemoryStore;
/// use kvsync::store::data::DataCommands;
/// use kvsync::store::layer::Prefix;
///
/// let shared = MemoryStore::new();
/// let test = Prefix::new("test:", shared.clone())?;
/// test.set("name", "ann")?;
/// assert_eq!(shared.get("test:name")?.as_deref(), Some(b"ann".as_slice()));
/// # Ok::<(), kvsync::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Prefix<S> {
    store: S,
    before: Box<str>,
    name: Box<str>,
}

impl<S: Store> Prefix<S> {
    /// This store under a prefix, such as `staging:`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a prefix that is empty, that begins with `@`, `~`, `!` or `=`, which kvsync's own keys
    /// begin with, or that holds a brace: keys that share a `{tag}` would no longer share a slot of a cluster.
    pub fn new(prefix: impl Into<String>, store: S) -> Result<Self> {
        let prefix: String = prefix.into();
        if prefix.is_empty() || prefix.starts_with(['@', '~', '!', '=']) || prefix.contains(['{', '}']) {
            let message = format!(
                "`{prefix}` is no prefix; take one such as `staging:`, not empty, without braces, and not beginning with `@`, `~`, `!` or `=`"
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let name = format!("{} under {prefix}", store.name());
        Ok(Self { store, before: prefix.into(), name: name.into() })
    }

    fn key(&self, key: &Key) -> Key {
        Key::new(format!("{}{key}", self.before))
    }

    /// The step as the store has to take it: the key that it is about under the prefix, those that it tells of as
    /// they are.
    fn step(&self, step: &Step) -> Result<Step> {
        Ok(match step {
            Step::Apply(change) => Step::Apply(Arc::new(self.change(change)?)),
            Step::Merge(change) => Step::Merge(Arc::new(self.change(change)?)),
            Step::Write(write) => Step::Write(Write { key: self.key(&write.key), ..write.clone() }),
            Step::Confirm { home, released } => Step::Confirm { home: self.key(home), released: released.clone() },
            Step::Sweep(key) => Step::Sweep(self.key(key)),
            Step::Remove { key, stands } => Step::Remove { key: self.key(key), stands: stands.clone() },
        })
    }

    /// A merge leaves the home key out of the keys that it lists: the row's own here, and the key that the store
    /// knows as its home nowhere.
    fn change(&self, change: &Delta) -> Result<Delta> {
        let home = self.key(&change.home);
        let mut delta = change.clone();
        delta.gone.retain(|(key, _)| *key != change.home);
        let mut listed = delta.gone.iter().map(|(key, _)| key).collect::<Vec<_>>();
        if let Content::Put { keys, .. } = &mut delta.content {
            keys.retain(|listed| listed.key != change.home);
            listed.extend(keys.iter().map(|listed| &listed.key));
        }
        if listed.contains(&&home) {
            let message = format!(
                "a row stands under `{}` and, without the prefix, under `{home}`; take another prefix",
                change.home
            );
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        delta.home = home;
        Ok(delta)
    }

    fn command(&self, command: &Command) -> Command {
        let mut command = command.clone();
        for key in command.keys_mut() {
            *key = [self.before.as_bytes(), key].concat().into();
        }
        command
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Prefix<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn health(&self, deadline: Duration) -> Health {
        self.store.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SyncStore> SyncStore for Prefix<S> {
    fn capabilities(&self) -> Capabilities {
        let can = self.store.capabilities();
        Capabilities { whole_changes: false, max_key: can.max_key.saturating_sub(self.before.len()), ..can }
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        in_steps(steps, |step| self.step(step), |steps| self.store.execute(steps, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<Key> = keys.iter().map(|key| self.key(key)).collect();
        self.store.get_many(&keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let Page { keys, next } = self.store.scan(&format!("{}{prefix}", self.before), cursor, limit)?;
        let keys = keys.iter().filter_map(|key| key.as_str().strip_prefix(&*self.before));
        Ok(Page { keys: keys.filter(|key| *key != EPOCH).map(Key::new).collect(), next })
    }

    fn epoch(&self) -> Result<u32> {
        let stands = self.get_many(&[Key::new(EPOCH)])?.pop().flatten();
        stands.map_or(Ok(0), |bytes| Envelope::parse(&bytes).map(|entry| entry.head.version.epoch()))
    }

    /// The epoch is the version of an entry, which a store lets rise and never fall.
    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        let head = Head { version: Version::new(epoch, 0, 0), state: State::Value, expires_at: 0 };
        let write = Write { key: Key::new(EPOCH), head, value: Value::none(), order: Order::Register };
        let terms = Terms { now: millis(SystemTime::now()), left: 0, dead: 0 };
        self.execute(&[Step::Write(write)], &terms).into_iter().try_for_each(|answer| answer.map(drop))?;
        self.epoch()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore> DataStore for Prefix<S> {
    fn data_capabilities(&self) -> DataCapabilities {
        let can = self.store.data_capabilities();
        DataCapabilities { max_key: can.max_key.saturating_sub(self.before.len()), ..can }
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        let commands: Vec<Command> = commands.iter().map(|command| self.command(command)).collect();
        self.store.run(&commands, reads)
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        let operations = operations.iter().map(|operation| Operation::new(self.command(operation.command())));
        self.store.run_atomic(&operations.collect::<Result<Vec<_>>>()?)
    }
}
