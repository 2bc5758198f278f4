//! The bytes of the column `content`: a model in its codec, with what tells whether a reader can read it.
//!
//! ```text
//! 1 byte    1, the layout
//! 1 byte    the codec's number (`Codec::ID`)
//! 2 bytes   how many fields the model has, big-endian
//! 4 bytes   for each field, the hash of its name and type (`Schema::fields`), big-endian, ascending
//! the rest  the model in its codec
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Model, Schema};

const LAYOUT: u8 = 1;

/// The content of a row of the outbox, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content<'a> {
    codec: u8,
    /// Four bytes for each field, ascending.
    fields: &'a [u8],
    /// The model in its codec.
    pub(crate) body: &'a [u8],
}

/// The content of a row of this model.
///
/// # Errors
///
/// [`ErrorKind::Codec`] when the model has no form in its codec, or its code panics: then the row of the
/// outbox goes without content, and the model's row is read again.
#[allow(dead_code, reason = "capture into the outbox is about to use it")]
pub(crate) fn encode(model: &dyn Model) -> Result<Vec<u8>> {
    let schema = model.schema();
    let count = u16::try_from(schema.fields.len()).map_err(|_| {
        Error::new(ErrorKind::Codec, format!("the model `{}` has more than 65535 fields", schema.model))
    })?;
    let mut bytes = Vec::with_capacity(64 + schema.fields.len() * 4);
    bytes.extend_from_slice(&[LAYOUT, model.codec()]);
    bytes.extend_from_slice(&count.to_be_bytes());
    for field in schema.fields {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    let encoded = catch_unwind(AssertUnwindSafe(|| model.encode(&mut bytes)));
    encoded.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Codec, format!("the code of model `{}` panicked while it was encoded", schema.model)))
    })?;
    Ok(bytes)
}

impl<'a> Content<'a> {
    /// Takes the bytes apart.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownLayout`] and [`ErrorKind::Corrupt`] when these bytes are not what
    /// [`encode`] writes.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "the content of a row of the outbox is cut off");
        let (&[layout, codec, high, low], rest) = bytes.split_first_chunk().ok_or_else(corrupt)?;
        if layout != LAYOUT {
            let message = format!("the content of a row of the outbox has layout {layout}, this kvsync reads {LAYOUT}");
            return Err(Error::new(ErrorKind::UnknownLayout, message));
        }
        let length = usize::from(u16::from_be_bytes([high, low])) * 4;
        let (fields, body) = rest.split_at_checked(length).ok_or_else(corrupt)?;
        Ok(Self { codec, fields, body })
    }

    /// Whether it can be read as this model, whose codec has this number: its fields include all of the
    /// model's, with equal types.
    pub(crate) fn is_readable_as(&self, schema: &Schema, codec: u8) -> bool {
        self.codec == codec && schema.is_within(self.fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Codec, MessagePack};
    use crate::key::KeyWriter;
    use crate::model::{KeySpec, Syncable, Ttl};

    static SCHEMA: Schema = {
        const KEYS: &[KeySpec] = &[];
        const NO_TTL: Option<Ttl> = None;
        Schema::new("Row", "rows", &["id"], KEYS, None, &[3, 70_000], 0, NO_TTL, None)
    };

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Row {
        id: u64,
        text: String,
    }

    impl Syncable for Row {
        type Codec = MessagePack;
        type PrimaryKey = u64;
        const SCHEMA: &'static Schema = &SCHEMA;

        fn primary_key(&self) -> u64 {
            self.id
        }

        fn write_primary_key(primary_key: &u64, key: &mut KeyWriter) {
            key.part(primary_key, None);
        }

        fn write_primary(_: &u64, _: &mut KeyWriter) {}

        fn write_key(&self, _: usize, _: &mut KeyWriter) {
            assert_ne!(self.id, 0);
        }
    }

    #[test]
    fn the_bytes_are_as_documented() -> Result<()> {
        let bytes = encode(&Row { id: 7, text: "x".into() })?;
        assert_eq!(bytes, b"\x01\x00\x00\x02\x00\x00\x00\x03\x00\x01\x11\x70\x82\xa2id\x07\xa4text\xa1x");
        Ok(())
    }

    #[test]
    fn it_is_read_by_those_whose_fields_and_codec_it_has() -> Result<()> {
        let bytes = encode(&Row { id: 1, text: String::new() })?;
        let content = Content::parse(&bytes)?;
        let reader =
            |fields: &'static [u32]| Schema::new("Row", "rows", &["id"], SCHEMA.keys, None, fields, 0, None, None);
        assert!(content.is_readable_as(&SCHEMA, MessagePack::ID) && content.is_readable_as(&reader(&[70_000]), 0));
        assert!(!content.is_readable_as(&SCHEMA, 1) && !content.is_readable_as(&reader(&[3, 4, 70_000]), 0));
        Ok(())
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(id: u64, text: String) {
            let row = Row { id, text };
            let bytes = encode(&row)?;
            prop_assert_eq!(MessagePack::decode::<Row>(Content::parse(&bytes)?.body)?, row);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(content) = Content::parse(&bytes) {
                prop_assert_eq!(4 + content.fields.len() + content.body.len(), bytes.len());
                let _ = content.is_readable_as(&SCHEMA, 0);
            }
        }
    }
}
