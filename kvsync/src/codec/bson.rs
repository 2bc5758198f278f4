use serde::{Serialize, de::DeserializeOwned};

use super::Codec;
use crate::error::{Error, ErrorKind, Result};

/// BSON, as KVSync for Go stores its models by default.
#[derive(Debug, Clone, Copy)]
pub struct Bson;

impl Codec for Bson {
    const ID: u8 = 2;
    const NAME: &'static str = "BSON";

    fn encode<T: Serialize>(model: &T) -> Result<Vec<u8>> {
        bson::serialize_to_vec(model)
            .map_err(|error| Error::new(ErrorKind::Codec, "the model has no form in BSON").with_source(error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        bson::deserialize_from_slice(bytes)
            .map_err(|error| Error::new(ErrorKind::Codec, "the stored BSON is not this model").with_source(error))
    }
}
