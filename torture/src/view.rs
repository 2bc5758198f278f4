//! The store as a stranger sees it: bytes under keys, read past everything that kvsync keeps in memory.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kvsync::envelope::{Body, Envelope, State};
use kvsync::store::SyncStore;
use kvsync::{Key, Version};

use crate::Outcome;
use crate::models::Row;

/// Reads raw entries.
pub(crate) trait View: Send + Sync {
    /// What stands under these keys, in their order.
    fn get(&self, keys: &[String]) -> Outcome<Vec<Option<Bytes>>>;

    /// Every key that stands.
    fn keys(&self) -> Outcome<Vec<String>>;
}

/// A store that this process can open too.
pub(crate) struct Direct(pub(crate) Arc<dyn SyncStore>);

impl View for Direct {
    fn get(&self, keys: &[String]) -> Outcome<Vec<Option<Bytes>>> {
        let keys: Vec<Key> = keys.iter().map(|key| Key::new(key.as_str())).collect();
        Ok(self.0.get_many(&keys)?)
    }

    fn keys(&self) -> Outcome<Vec<String>> {
        let mut keys = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.0.scan("", cursor, 1000)?;
            keys.extend(page.keys.iter().map(|key| key.as_str().to_owned()));
            cursor = page.next;
            if cursor.is_none() {
                keys.sort();
                keys.dedup();
                return Ok(keys);
            }
        }
    }
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// Nothing, or what has expired.
    Nothing,
    /// No row.
    Tombstone(Version),
    /// A row, and readers are sent to the database.
    Unknown(Version),
    /// A row.
    Row(Version, Row),
}

impl Seen {
    /// Reads an entry.
    pub(crate) fn read(key: &str, bytes: Option<&Bytes>) -> Outcome<Self> {
        let Some(bytes) = bytes else { return Ok(Self::Nothing) };
        let envelope = Envelope::parse(bytes)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        if envelope.head.is_expired(u64::try_from(now)?) {
            return Ok(Self::Nothing);
        }
        let version = envelope.head.version;
        Ok(match (envelope.head.state, envelope.body()?) {
            (State::Tombstone, _) => Self::Tombstone(version),
            (State::Unknown, _) => Self::Unknown(version),
            (State::Value, Body::Model { bytes, .. }) => Self::Row(version, Row::decode(key, bytes)?),
            (State::Value, _) => return Err(format!("`{key}` holds a value without a row").into()),
        })
    }

    /// The version of what stands there.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Nothing => None,
            Self::Tombstone(version) | Self::Unknown(version) | Self::Row(version, _) => Some(*version),
        }
    }
}
