use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::{Lookup, Miss};
use crate::clock::{Clock, millis};
use crate::codec::Codec;
use crate::envelope::{Body, Envelope, Head, State};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::{Model, Syncable};
use crate::record::Record;
use crate::store::SyncStore;

/// Reads models out of one store.
pub(crate) struct Reader {
    store: Arc<dyn SyncStore>,
    /// A view of the store that may lag; the store itself where there is none.
    near: Arc<dyn SyncStore>,
    epoch: Arc<AtomicU32>,
    clock: Arc<dyn Clock>,
}

/// What an envelope says before its body is decoded.
enum Entry {
    Value(Envelope),
    Pointer(Key),
    Absent,
    Unknown(Miss),
}

impl Reader {
    /// A reader of this store, through a view of it where it need not be strict. `epoch` is the lowest epoch whose
    /// entries count.
    pub(crate) fn new(
        store: Arc<dyn SyncStore>,
        near: Arc<dyn SyncStore>,
        epoch: Arc<AtomicU32>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, near, epoch, clock }
    }

    /// What stands under the keys, in the order asked: one round trip, and one more where pointers are
    /// among the entries. `index` is the keys' place in the model's schema.
    pub(crate) fn lookup_many<M: Syncable>(&self, index: usize, keys: &[Key], scope: &Scope) -> Result<Vec<Lookup<M>>> {
        self.lookup_in(&*self.near, index, keys, scope)
    }

    fn lookup_in<M: Syncable>(
        &self,
        store: &dyn SyncStore,
        index: usize,
        keys: &[Key],
        scope: &Scope,
    ) -> Result<Vec<Lookup<M>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.entries(store, keys)?;
        let homes: Vec<Key> = entries.iter().filter_map(Entry::home).cloned().collect();
        let mut records = if homes.is_empty() { Vec::new() } else { self.entries(store, &homes)? }.into_iter();
        let one = |(entry, key): (Entry, &Key)| match entry {
            Entry::Absent => Ok(Lookup::Absent),
            Entry::Unknown(miss) => Ok(Lookup::Unknown(miss)),
            Entry::Value(envelope) => match decode::<M>(&envelope, key)? {
                Lookup::Found(row) if stands_under(&row, index, key, scope) => Ok(Lookup::Found(row)),
                Lookup::Found(_) => Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("the entry under `{key}` holds a row with another key; was it copied or renamed?"),
                )),
                miss => Ok(miss),
            },
            Entry::Pointer(_) => match records.next() {
                Some(Entry::Value(envelope)) => match decode::<M>(&envelope, key)? {
                    // The row has moved on and the pointer is about to be replaced.
                    Lookup::Found(row) if !stands_under(&row, index, key, scope) => Ok(Lookup::Unknown(Miss::Dangling)),
                    found => Ok(found),
                },
                Some(Entry::Unknown(miss)) if miss != Miss::NotStored => Ok(Lookup::Unknown(miss)),
                _ => Ok(Lookup::Unknown(Miss::Dangling)),
            },
        };
        entries.into_iter().zip(keys).map(one).collect()
    }

    /// What stands under one key.
    pub(crate) fn lookup<M: Syncable>(&self, index: usize, key: &Key, scope: &Scope) -> Result<Lookup<M>> {
        let answer = self.lookup_many(index, std::slice::from_ref(key), scope)?.pop();
        Ok(answer.unwrap_or(Lookup::Unknown(Miss::NotStored)))
    }

    /// What stands under one key, confirmed by the row's record: right also in a store that evicts. The view that may
    /// lag is not asked.
    pub(crate) fn lookup_strict<M: Syncable>(&self, index: usize, key: &Key, scope: &Scope) -> Result<Lookup<M>> {
        let found = self.lookup_in::<M>(&*self.store, index, std::slice::from_ref(key), scope)?.pop();
        let row = match found.unwrap_or(Lookup::Unknown(Miss::NotStored)) {
            Lookup::Found(row) => row,
            miss => return Ok(miss),
        };
        if !M::SCHEMA.has_mutable_key() {
            return Ok(Lookup::Found(row));
        }
        let home = Model::home(&row).within(scope);
        if home == *key {
            return Ok(Lookup::Found(row));
        }
        let Some(Entry::Value(envelope)) = self.entries(&*self.store, &[home])?.pop() else {
            return Ok(Lookup::Unknown(Miss::Unconfirmed));
        };
        let record = Record::from_envelope(envelope.clone())?;
        // A slot of another generation of the model's keys may stand over a record that has not caught up.
        if !record.is_known() || !record.live.iter().any(|listed| listed.key == *key) {
            return Ok(Lookup::Unknown(Miss::Unconfirmed));
        }
        decode(&envelope, key)
    }

    fn entries(&self, store: &dyn SyncStore, keys: &[Key]) -> Result<Vec<Entry>> {
        let can = store.capabilities();
        if keys.iter().all(|key| can.takes(key)) {
            let stored = store.get_many(keys)?;
            return stored.into_iter().zip(keys).map(|(bytes, key)| self.entry(bytes, key)).collect();
        }
        // Where no entry can stand, the store would refuse the whole call.
        let taken: Vec<Key> = keys.iter().filter(|key| can.takes(key)).cloned().collect();
        let mut stored = if taken.is_empty() { Vec::new() } else { store.get_many(&taken)? }.into_iter();
        keys.iter().map(|key| self.entry(if can.takes(key) { stored.next().flatten() } else { None }, key)).collect()
    }

    fn entry(&self, bytes: Option<Bytes>, key: &Key) -> Result<Entry> {
        let Some(bytes) = bytes else {
            return Ok(Entry::Unknown(Miss::NotStored));
        };
        let envelope = Envelope::parse(&bytes).map_err(|error| about(error, key))?;
        Ok(match self.judge(&envelope.head) {
            Some(miss) => Entry::Unknown(miss),
            None if envelope.head.state == State::Tombstone => Entry::Absent,
            None => match envelope.body().map_err(|error| about(error, key))? {
                Body::Pointer(home) => Entry::Pointer(Key::new(home)),
                Body::None => Entry::Unknown(Miss::Masked),
                Body::Model { .. } => Entry::Value(envelope),
            },
        })
    }

    /// Why this head tells nothing, if it does not.
    fn judge(&self, head: &Head) -> Option<Miss> {
        if head.version.epoch() < self.epoch.load(Ordering::Acquire) {
            Some(Miss::OldEpoch)
        } else if head.state == State::Unknown {
            Some(Miss::Masked)
        } else if head.is_expired(millis(self.clock.now())) {
            Some(Miss::NotStored)
        } else {
            None
        }
    }
}

impl Entry {
    fn home(&self) -> Option<&Key> {
        if let Self::Pointer(home) = self { Some(home) } else { None }
    }
}

fn decode<M: Syncable>(envelope: &Envelope, key: &Key) -> Result<Lookup<M>> {
    match envelope.body().map_err(|error| about(error, key))? {
        Body::Model { codec, .. } if codec != M::Codec::ID => Ok(Lookup::Unknown(Miss::OtherCodec)),
        Body::Model { fields, .. } if !M::SCHEMA.is_within(fields) => Ok(Lookup::Unknown(Miss::OtherFields)),
        Body::Model { bytes, .. } => M::Codec::decode(bytes).map(Lookup::Found).map_err(|error| about(error, key)),
        Body::None | Body::Pointer(_) => Ok(Lookup::Unknown(Miss::Dangling)),
    }
}

fn stands_under<M: Syncable>(row: &M, index: usize, key: &Key, scope: &Scope) -> bool {
    row.key(index).is_some_and(|own| own.within(scope) == *key)
}

/// The same error, saying which key it is about.
fn about(error: Error, key: &Key) -> Error {
    Error::new(error.kind(), format!("cannot read the entry under `{key}`")).with_source(error)
}
