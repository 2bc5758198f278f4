//! The builder and the handle: the only file that knows every part.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{Lookup, Reader};
use crate::key::{Key, KeyParts, KeyWriter, Scope};
use crate::model::{KeySpec, Model, Syncable};
use crate::store::SyncStore;

/// The handle of everything: fetches, connections, the queue and its workers. Clones are cheap and
/// share all of it.
#[derive(Clone)]
pub struct KvSync {
    inner: Arc<Inner>,
    scope: Scope,
}

struct Inner {
    store: Arc<dyn SyncStore>,
    reader: Reader,
}

#[allow(clippy::needless_pass_by_value, reason = "key parts read better by value: `fetch(\"id\", 1)`")]
impl KvSync {
    /// Begins to configure a `KvSync`.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The same handle within a scope: it fetches the rows of that tenant or schema and no others.
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        Self { inner: Arc::clone(&self.inner), scope }
    }

    /// The row under the key of this name, chosen at run time. `parts` is one key part or a tuple of
    /// them, in the order of the format.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the model has no key of this name or it takes another number of
    /// parts; otherwise as [`lookup`](Self::lookup).
    pub fn fetch<M: Syncable>(&self, name: &str, parts: impl KeyParts) -> Result<Option<M>> {
        self.lookup(name, parts).map(Lookup::found)
    }

    /// What the store says of the key of this name, chosen at run time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] as in [`fetch`](Self::fetch); [`ErrorKind::Unavailable`] when the store
    /// does not answer; [`ErrorKind::Corrupt`], [`ErrorKind::UnknownLayout`] and [`ErrorKind::Codec`]
    /// when what is stored there cannot be read at all.
    pub fn lookup<M: Syncable>(&self, name: &str, parts: impl KeyParts) -> Result<Lookup<M>> {
        let (index, key) = named_key::<M, _>(name, &parts)?;
        match key {
            Some(key) => self.__lookup(index, key),
            None => Ok(Lookup::Absent),
        }
    }

    /// The row under the key of this name that a partly filled model has: only the fields that the
    /// key is made of need to be set. `None` when one of them is `None`.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    pub fn fetch_like<M: Syncable>(&self, name: &str, model: &M) -> Result<Option<M>> {
        let (index, _) = spec::<M>(name)?;
        match Model::key(model, index) {
            Some(key) => self.__fetch(index, key),
            None => Ok(None),
        }
    }

    /// The store that is read.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn SyncStore> {
        &self.inner.store
    }
}

/// What the methods that the derive generates call. Not for others.
impl KvSync {
    #[doc(hidden)]
    pub fn __fetch<M: Syncable>(&self, index: usize, key: Key) -> Result<Option<M>> {
        self.__lookup(index, key).map(Lookup::found)
    }

    #[doc(hidden)]
    pub fn __fetch_strict<M: Syncable>(&self, index: usize, key: Key) -> Result<Option<M>> {
        let key = key.within(&self.scope);
        self.inner.reader.lookup_strict(index, &key, &self.scope).map(Lookup::found)
    }

    #[doc(hidden)]
    pub fn __lookup<M: Syncable>(&self, index: usize, key: Key) -> Result<Lookup<M>> {
        self.inner.reader.lookup(index, &key.within(&self.scope), &self.scope)
    }

    #[doc(hidden)]
    pub fn __fetch_many<M: Syncable>(&self, index: usize, keys: Vec<Key>) -> Result<Vec<Option<M>>> {
        let keys: Vec<Key> = keys.into_iter().map(|key| key.within(&self.scope)).collect();
        let found = self.inner.reader.lookup_many(index, &keys, &self.scope)?;
        Ok(found.into_iter().map(Lookup::found).collect())
    }
}

impl fmt::Debug for KvSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvSync")
            .field("store", &self.inner.store.name())
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Configures a [`KvSync`].
#[derive(Default)]
pub struct Builder {
    stores: Vec<Arc<dyn SyncStore>>,
}

impl Builder {
    /// A store to sync into. The first one is also the one that is read.
    #[must_use]
    pub fn store(mut self, store: impl SyncStore + 'static) -> Self {
        self.stores.push(Arc::new(store));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no store was given; otherwise what the store says when it is asked
    /// for its epoch.
    pub fn build(self) -> Result<KvSync> {
        let store = self
            .stores
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(ErrorKind::Config, "no store was given; call `.store(..)` on the builder"))?;
        let epoch = Arc::new(AtomicU32::new(store.epoch()?));
        let reader = Reader::new(Arc::clone(&store), epoch, now);
        Ok(KvSync { inner: Arc::new(Inner { store, reader }), scope: Scope::NONE })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn spec<M: Syncable>(name: &str) -> Result<(usize, &'static KeySpec)> {
    let keys = M::SCHEMA.keys;
    keys.iter().enumerate().find(|(_, key)| key.name == name).ok_or_else(|| {
        let names: Vec<String> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
        Error::new(ErrorKind::Config, format!("`{}` has no key `{name}`; it has {}", M::SCHEMA.model, names.join(", ")))
    })
}

fn named_key<M: Syncable, P: KeyParts>(name: &str, parts: &P) -> Result<(usize, Option<Key>)> {
    let (index, spec) = spec::<M>(name)?;
    if P::COUNT + 1 != spec.literals.len() {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "key `{name}` of `{}` takes {} parts (`{}`), {} were given",
                M::SCHEMA.model,
                spec.literals.len() - 1,
                spec.format,
                P::COUNT
            ),
        ));
    }
    let mut key = KeyWriter::default();
    parts.write(spec.literals, &mut key);
    Ok((index, key.finish()))
}
