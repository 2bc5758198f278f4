use serde::{Serialize, de::DeserializeOwned};

use super::Codec;
use crate::error::{Error, ErrorKind, Result};

/// JSON, for people who look at their store with a text tool.
///
/// JSON has no number that is infinite or none. Such an `f32` or `f64` is written as `null`, without an error; decoding it
/// then fails with [`ErrorKind::Codec`], unless the field is an `Option`, where it is read as `None`. A model that may
/// hold such numbers is for another codec.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    const ID: u8 = 1;
    const NAME: &'static str = "JSON";

    fn encode<T: Serialize>(model: &T) -> Result<Vec<u8>> {
        serde_json::to_vec(model)
            .map_err(|error| Error::new(ErrorKind::Codec, "the model has no form in JSON").with_source(error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::new(ErrorKind::Codec, "the stored JSON is not this model").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_json_lacks_is_null_and_read_as_none_or_not_at_all() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let written = Json::encode(&number).unwrap();
            assert_eq!(written, b"null");
            assert_eq!(Json::decode::<f64>(&written).unwrap_err().kind(), ErrorKind::Codec);
            assert_eq!(Json::decode::<Option<f64>>(&written).unwrap(), None);
        }
    }
}
