use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, DEEPEST};
use crate::error::{Error, ErrorKind, Result};

/// MessagePack with field names: small, fast, and read by every language.
///
/// Names, because the positional form reads a reordered struct without an error, its fields swapped.
#[derive(Debug, Clone, Copy)]
pub struct MessagePack;

impl Codec for MessagePack {
    const ID: u8 = 0;
    const NAME: &'static str = "MessagePack";

    fn encode<T: Serialize>(model: &T) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Self::encode_into(model, &mut bytes)?;
        Ok(bytes)
    }

    fn encode_into<T: Serialize>(model: &T, bytes: &mut Vec<u8>) -> Result<()> {
        rmp_serde::encode::write_named(bytes, model)
            .map_err(|error| Error::new(ErrorKind::Codec, "the model has no form in MessagePack").with_source(error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        let mut rest = bytes;
        let mut decoder = rmp_serde::Deserializer::new(&mut rest);
        decoder.set_max_depth(DEEPEST);
        let model = T::deserialize(&mut decoder).map_err(|error| {
            Error::new(ErrorKind::Codec, "the stored MessagePack is not this model").with_source(error)
        })?;
        if !rest.is_empty() {
            return Err(Error::new(ErrorKind::Codec, format!("{} bytes follow the stored model", rest.len())));
        }
        Ok(model)
    }
}
