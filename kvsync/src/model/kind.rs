//! A model whose type is not at hand.

use std::fmt;

use super::{Model, PrimaryKey, Schema, Syncable, guarded};
use crate::codec::{Codec, MessagePack};
use crate::error::Result;

/// What can be done with stored rows of a model whose type is not at hand.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What is known of the model.
    pub schema: &'static Schema,
    /// The id of its codec.
    pub codec: u8,
    decode: fn(&[u8]) -> Result<Box<dyn Model>>,
    rekey: fn(&PrimaryKey) -> Option<PrimaryKey>,
    plain: fn(&dyn Model) -> Option<Vec<u8>>,
}

impl Kind {
    /// That of `M`.
    #[must_use]
    pub fn of<M: Syncable>() -> Self {
        Self {
            schema: M::SCHEMA,
            codec: M::Codec::ID,
            decode: |bytes| Ok(Box::new(M::Codec::decode::<M>(bytes)?)),
            rekey: |row| Some(PrimaryKey::of::<M>(row.values::<M>()?.clone())),
            plain: |row| {
                let mut bytes = Vec::new();
                MessagePack::encode_into(row.downcast_ref::<M>()?, &mut bytes).ok()?;
                Some(bytes)
            },
        }
    }

    /// The row that these bytes, in the model's codec, are.
    ///
    /// # Errors
    ///
    /// Whatever the codec says; see [`Codec::decode`]. A panic of the model's code is an error, too.
    pub fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Model>> {
        guarded(self.schema, || {
            let row = (self.decode)(bytes)?;
            row.named();
            Ok(row)
        })?
    }

    /// The primary key of the same row, as another generation of the model has it.
    #[must_use]
    pub fn primary_key(&self, of: &PrimaryKey) -> Option<PrimaryKey> {
        guarded(self.schema, || (self.rekey)(of)).ok().flatten()
    }

    /// Whether two rows of the model say the same. The order in which their maps were written does not
    /// count; that of their sequences does.
    #[must_use]
    pub fn same(&self, one: &dyn Model, other: &dyn Model) -> bool {
        let plain = |row| guarded(self.schema, || (self.plain)(row)).ok().flatten();
        match (plain(one), plain(other)) {
            (Some(one), Some(other)) => one == other || MessagePack::same(&one, &other),
            _ => false,
        }
    }

    /// Whether this is the kind of such a schema.
    #[must_use]
    pub fn is(&self, schema: &Schema) -> bool {
        let own = self.schema;
        std::ptr::eq(own, schema)
            || (own.table, own.model, own.generation) == (schema.table, schema.model, schema.generation)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.schema.model).finish()
    }
}
