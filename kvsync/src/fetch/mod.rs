//! From a key to a model.

mod lookup;
mod read;

pub use self::lookup::{Lookup, Miss};
pub(crate) use self::read::Reader;
