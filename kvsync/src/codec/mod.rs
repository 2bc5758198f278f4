//! How a model becomes bytes, and bytes a model.

#[cfg(feature = "bson")]
mod bson;
#[cfg(feature = "json")]
mod json;
mod messagepack;
mod same;

use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "bson")]
pub use self::bson::Bson;
#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::messagepack::MessagePack;
use crate::error::Result;

/// The deepest nesting that is decoded: as in `serde_json`, so that a codec can be replaced by another.
const DEEPEST: usize = 128;

/// Turns models into bytes and back. A model names its codec with `#[sync(codec = ..)]`; without it,
/// it is [`MessagePack`].
///
/// # Contract
///
/// `decode(encode(model))` is the model. `decode` reads all of its input or fails: bytes left over
/// are an error. Neither panics on any input, nor descends without end: those of this crate refuse to
/// decode what is nested deeper than 128 levels.
pub trait Codec: 'static {
    /// Stands in the envelope, so that a reader with another codec says so instead of guessing.
    /// MessagePack is 0, JSON 1, BSON 2; 3 to 63 are kept for kvsync; a codec of your own takes 64 to 127.
    const ID: u8;
    /// What people call it.
    const NAME: &'static str;

    /// The bytes of a model.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) when the model has no form in this codec.
    fn encode<T: Serialize>(model: &T) -> Result<Vec<u8>>;

    /// Appends the bytes of a model; what was appended when it fails does not matter.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    fn encode_into<T: Serialize>(model: &T, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.append(&mut Self::encode(model)?);
        Ok(())
    }

    /// The model of these bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) when the bytes are not a whole model.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T>;
}
