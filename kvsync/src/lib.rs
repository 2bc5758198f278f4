//! Keeps a key-value store true to the rows you write with Diesel.
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod capture;
pub mod change;
pub mod clock;
pub mod codec;
pub mod envelope;
mod error;
pub mod fetch;
mod key;
mod kvsync;
pub mod model;
pub mod record;
pub mod report;
pub mod store;
pub mod transport;
mod upkeep;
mod version;
pub mod worker;

pub use self::error::{Error, ErrorKind, Result};
pub use self::fetch::{Lookup, Miss};
pub use self::key::{Key, KeyPart, KeyParts, KeyWriter, PartWriter, Scope};
pub use self::kvsync::{Builder, Health, KvSync};
pub use self::model::Syncable;
pub use self::report::Report;
pub use self::version::Version;
pub use self::worker::Shutdown;

#[doc = include_str!("key_part.md")]
pub use kvsync_derive::KeyPart;
#[doc = include_str!("syncable.md")]
pub use kvsync_derive::Syncable;

/// What generated code calls. Not for others.
#[doc(hidden)]
pub mod __private {
    pub use serde::Serialize;
    pub use serde::de::DeserializeOwned;

    pub use crate::key::{key, no_key};
}
