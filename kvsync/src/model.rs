//! What the derive implements for a model, and how the rest of the crate holds models of any type.

mod guard;
mod kind;
mod source;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::Codec;
use crate::error::Result;
use crate::key::{Key, KeyWriter};

pub(crate) use self::guard::{guarded, panic_message};
pub use self::kind::Kind;
pub use self::source::{Looked, Position, Reread, RowsPage, Scanned, Source, Wanted};

/// A type whose rows are kept in the store under its keys. Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a synced model",
    label = "does not implement `Syncable`",
    note = "add `#[derive(kvsync::Syncable)]` and at least one `#[sync_key(name = \"..\", fmt = \"..<field>..\")]`"
)]
pub trait Syncable: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// The bytes that it is stored as.
    type Codec: Codec;
    /// Its primary key, as Diesel compares it: the field's type, or a tuple of them.
    type PrimaryKey: Clone + Send + Sync + 'static;

    /// What is known of the model at compile time.
    const SCHEMA: &'static Schema;

    /// The row's primary key.
    fn primary_key(&self) -> Self::PrimaryKey;

    /// Writes the primary key as one part after another, separated by `:`.
    fn write_primary_key(primary_key: &Self::PrimaryKey, key: &mut KeyWriter);

    /// Writes the key that is made of the primary key alone ([`Schema::primary`]); nothing where the
    /// model declares none.
    fn write_primary(primary_key: &Self::PrimaryKey, key: &mut KeyWriter);

    /// Writes the key of this index in [`Schema::keys`].
    fn write_key(&self, index: usize, key: &mut KeyWriter);
}

/// What the derive knows of a model.
#[derive(Debug)]
#[non_exhaustive]
pub struct Schema {
    /// The struct's name.
    pub model: &'static str,
    /// The table's name as `#[diesel(table_name = ..)]` gives it, without the schema.
    pub table: &'static str,
    /// Columns of the primary key, in its order.
    pub primary_key: &'static [&'static str],
    /// Its keys, in the order in which they were declared.
    pub keys: &'static [KeySpec],
    /// The index of the key that is made of the primary key alone, where there is one.
    pub primary: Option<usize>,
    /// One hash for each field, of its serialized name and its type; ascending.
    pub fields: &'static [u32],
    /// The serialized names of these fields, in the same order.
    pub field_names: &'static [&'static str],
    /// The key generation: raised when keys are added, removed or reformatted between deploys.
    pub generation: u32,
    /// How long an entry lives; `None` is for ever.
    pub ttl: Option<Ttl>,
    /// The SQL condition under which a row counts as live; `None` is always.
    pub live_if: Option<&'static str>,
}

/// One key of a model.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools, reason = "each is an attribute that a user sets or not")]
pub struct KeySpec {
    /// The name that `fetch_by_<name>` carries.
    pub name: &'static str,
    /// The format as it was written.
    pub format: &'static str,
    /// The text of the format before, between and after its parts: one more than there are parts.
    pub literals: &'static [&'static str],
    /// The columns that its parts come from.
    pub columns: &'static [&'static str],
    /// Whether all its parts are primary-key columns.
    pub of_primary_key: bool,
    /// Whether it was declared `immutable`.
    pub immutable: bool,
    /// Whether it holds the home key in place of the row's bytes.
    pub pointer: bool,
    /// Whether `kv.check` takes its uniqueness on trust.
    pub assume_unique: bool,
}

/// How long an entry lives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ttl {
    /// The longest that it lives.
    pub lifetime: Duration,
    /// The share of the lifetime, 0 to 1, that chance takes off, so that entries written together do
    /// not expire together.
    pub jitter: f64,
}

impl Schema {
    /// For the derive. All arguments have the meaning of the fields of their names.
    #[doc(hidden)]
    #[must_use]
    #[allow(
        clippy::too_many_arguments,
        reason = "called by generated code, which names each argument by position once"
    )]
    pub const fn new(
        model: &'static str,
        table: &'static str,
        primary_key: &'static [&'static str],
        keys: &'static [KeySpec],
        primary: Option<usize>,
        fields: &'static [u32],
        generation: u32,
        ttl: Option<Ttl>,
        live_if: Option<&'static str>,
    ) -> Self {
        Self { model, table, primary_key, keys, primary, fields, field_names: &[], generation, ttl, live_if }
    }

    /// For the derive.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_field_names(self, field_names: &'static [&'static str]) -> Self {
        Self { field_names, ..self }
    }

    /// The index of the key of this name.
    #[must_use]
    pub fn key_index(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }

    /// Whether stored bytes with these fields, four bytes each and ascending, can be read as this model:
    /// they have all of its fields, with equal types.
    #[must_use]
    pub fn is_within(&self, stored: &[u8]) -> bool {
        self.lacking(stored).is_none()
    }

    /// A field that keeps such bytes from being read as this model, where there is one: they lack it, or have it with
    /// another type.
    #[must_use]
    pub fn lacking(&self, stored: &[u8]) -> Option<&'static str> {
        let mut stored = stored.chunks_exact(4);
        let lacks = |field: &u32| !stored.any(|hash| hash == field.to_be_bytes());
        let lacking = self.fields.iter().position(lacks)?;
        Some(self.field_names.get(lacking).copied().unwrap_or("?"))
    }

    /// Whether a row can leave one of its keys while it stands in its table. Only then is a ledger kept
    /// for it. A row that stops to be live leaves all its keys, and another row may take those that are
    /// not made of the primary key.
    #[must_use]
    pub fn has_mutable_key(&self) -> bool {
        self.keys.iter().any(|key| !key.of_primary_key && (!key.immutable || self.live_if.is_some()))
    }

    /// The index of the declared key under which the row's record stands; `None` when the record
    /// stands under a hidden key, because no key is made of the primary key alone, or because the
    /// generation was raised and another binary may still use that key as the home of its own.
    #[must_use]
    pub fn home(&self) -> Option<usize> {
        if self.generation == 0 { self.primary } else { None }
    }
}

impl KeySpec {
    /// For the derive.
    #[doc(hidden)]
    #[must_use]
    #[allow(clippy::fn_params_excessive_bools, clippy::too_many_arguments, reason = "called by generated code only")]
    pub const fn new(
        name: &'static str,
        format: &'static str,
        literals: &'static [&'static str],
        columns: &'static [&'static str],
        of_primary_key: bool,
        immutable: bool,
        pointer: bool,
        assume_unique: bool,
    ) -> Self {
        Self { name, format, literals, columns, of_primary_key, immutable, pointer, assume_unique }
    }
}

impl Ttl {
    /// For the derive: a lifetime in seconds and the share that chance takes off.
    #[doc(hidden)]
    #[must_use]
    pub const fn from_secs(seconds: u64, jitter: f64) -> Self {
        Self { lifetime: Duration::from_secs(seconds), jitter }
    }
}

/// A primary key of any model: the home key of its row, and its values for the database.
#[derive(Clone)]
pub struct PrimaryKey {
    home: Key,
    values: Arc<dyn Any + Send + Sync>,
    text: fn(&(dyn Any + Send + Sync)) -> String,
}

impl PrimaryKey {
    /// The primary key of this value of `M`.
    pub fn of<M: Syncable>(values: M::PrimaryKey) -> Self {
        let text = |values: &(dyn Any + Send + Sync)| {
            let mut key = KeyWriter::default();
            if let Some(values) = values.downcast_ref() {
                M::write_primary_key(values, &mut key);
            }
            key.finish().map_or_else(String::new, |key| key.as_str().to_owned())
        };
        Self { home: home_of::<M>(&values), values: Arc::new(values), text }
    }

    /// Its parts, separated by `:`; within a part `%` and `:` are percent-encoded.
    #[must_use]
    pub fn text(&self) -> String {
        (self.text)(&*self.values)
    }

    /// The key under which the row's record stands, before any scope.
    #[must_use]
    pub fn home(&self) -> &Key {
        &self.home
    }

    /// Its values, when it is a primary key of `M`.
    #[must_use]
    pub fn values<M: Syncable>(&self) -> Option<&M::PrimaryKey> {
        self.values.downcast_ref()
    }
}

impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.home, f)
    }
}

fn home_of<M: Syncable>(primary_key: &M::PrimaryKey) -> Key {
    let mut key = KeyWriter::default();
    if M::SCHEMA.home().is_some() {
        M::write_primary(primary_key, &mut key);
    } else {
        let schema = M::SCHEMA;
        key.literal(&format!("~{}:{}:{}:", schema.table, schema.model, schema.generation));
        M::write_primary_key(primary_key, &mut key);
    }
    // A primary key is never NULL, so none of its parts is absent.
    key.finish().unwrap_or_else(|| Key::new(""))
}

/// A row of any model. Implemented for every [`Syncable`].
pub trait Model: Any + Send + Sync {
    /// What is known of its type.
    fn schema(&self) -> &'static Schema;
    /// Its primary key.
    fn primary_key(&self) -> PrimaryKey;
    /// The key under which its record stands, before any scope.
    fn home(&self) -> Key;
    /// Its key of this index in [`Schema::keys`], or nothing when a part of it is `None`.
    fn key(&self, index: usize) -> Option<Key>;
    /// Appends its bytes, in its codec.
    ///
    /// # Errors
    ///
    /// Whatever the codec says; see [`Codec::encode_into`].
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()>;
    /// The id of its codec.
    fn codec(&self) -> u8;
    /// Its fields as an object in JSON, whatever its codec.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) when it has no form in JSON.
    #[cfg(feature = "json")]
    fn json(&self) -> Result<Vec<u8>>;
}

impl<M: Syncable> Model for M {
    fn schema(&self) -> &'static Schema {
        M::SCHEMA
    }

    fn primary_key(&self) -> PrimaryKey {
        PrimaryKey::of::<M>(Syncable::primary_key(self))
    }

    fn home(&self) -> Key {
        home_of::<M>(&Syncable::primary_key(self))
    }

    fn key(&self, index: usize) -> Option<Key> {
        let mut key = KeyWriter::default();
        self.write_key(index, &mut key);
        key.finish()
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        M::Codec::encode_into(self, bytes)
    }

    fn codec(&self) -> u8 {
        M::Codec::ID
    }

    #[cfg(feature = "json")]
    fn json(&self) -> Result<Vec<u8>> {
        crate::codec::Json::encode(self)
    }
}

impl fmt::Debug for dyn Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.schema().model, self.home())
    }
}

impl dyn Model {
    /// Its primary key. Where the code that writes one of its keys panics, it does so here: whoever reads a row
    /// asks this under a guard, and may then rely on its keys.
    pub(crate) fn named(&self) -> PrimaryKey {
        for index in 0..self.schema().keys.len() {
            drop(self.key(index));
        }
        self.primary_key()
    }

    /// The row as its own type.
    #[must_use]
    pub fn downcast_ref<M: Syncable>(&self) -> Option<&M> {
        (self as &dyn Any).downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_readable_if_it_has_all_fields_of_the_reader() {
        let stored: Vec<u8> = [2_u32, 5, 9].iter().flat_map(|field| field.to_be_bytes()).collect();
        let reads = |fields: &'static [u32], stored: &[u8]| {
            Schema::new("Row", "rows", &["id"], &[], None, fields, 0, None, None).is_within(stored)
        };
        assert!(reads(&[2, 5, 9], &stored));
        assert!(reads(&[5], &stored));
        assert!(reads(&[], &stored));
        assert!(!reads(&[2, 5, 9, 10], &stored));
        assert!(!reads(&[3], &stored));
        assert!(!reads(&[3], &[]));
    }
}
