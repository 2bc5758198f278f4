use super::KvSync;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::Lookup;
use crate::key::{Key, KeyParts, KeyWriter};
use crate::model::{KeySpec, Model, Syncable};

#[allow(clippy::needless_pass_by_value, reason = "key parts read better by value: `fetch(\"id\", 1)`")]
impl KvSync {
    /// The row under the key of this name, chosen at run time. `parts` is one key part or a tuple of
    /// them, in the order of the format. Their types are not checked against the fields': a part of
    /// another type finds nothing.
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
