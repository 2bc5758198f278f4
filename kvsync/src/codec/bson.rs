use bson::spec::ElementType;
use bson::{RawBsonRef, RawDocument};
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, DEEPEST};
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
        let document = RawDocument::from_bytes(bytes);
        if document.is_ok_and(|document| !is_shallow(document, DEEPEST)) {
            return Err(Error::new(
                ErrorKind::Codec,
                format!("the stored BSON is nested deeper than {DEEPEST} levels"),
            ));
        }
        bson::deserialize_from_slice(bytes)
            .map_err(|error| Error::new(ErrorKind::Codec, "the stored BSON is not this model").with_source(error))
    }
}

/// Whether documents and arrays are nested in it no deeper than this. The crate `bson` descends into
/// whatever it finds, and ends the process where the stack ends. What is damaged it refuses by itself.
fn is_shallow(document: &RawDocument, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    let nested = document.iter_elements().map_while(Result::ok).filter(|element| {
        let nests = [ElementType::EmbeddedDocument, ElementType::Array, ElementType::JavaScriptCodeWithScope];
        nests.contains(&element.element_type())
    });
    nested.map_while(|element| element.value().ok()).all(|value| match value {
        RawBsonRef::Document(document) => is_shallow(document, levels),
        RawBsonRef::Array(array) => {
            RawDocument::from_bytes(array.as_bytes()).is_ok_and(|document| is_shallow(document, levels))
        }
        RawBsonRef::JavaScriptCodeWithScope(code) => is_shallow(code.scope, levels),
        _ => true,
    })
}
