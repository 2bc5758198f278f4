//! The ledger of a record, as bytes.

use super::{Listed, Record};
use crate::key::Key;
use crate::version::Version;

impl Record {
    /// The bytes of the ledger:
    ///
    /// ```text
    /// version (16)  mark (16)  alive (1)
    /// live keys (4 bytes of count): pointer (1)  length (4)  key
    /// dirty keys (4 bytes of count): version (16)  length (4)  key
    /// ```
    pub(super) fn ledger(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(self.version.as_bytes());
        out.extend_from_slice(self.mark.as_bytes());
        out.push(u8::from(self.alive));
        write_len(&mut out, self.live.len());
        for listed in &self.live {
            out.push(u8::from(listed.pointer));
            write_key(&mut out, &listed.key);
        }
        write_dirty(&mut out, self.dirty.iter());
        out
    }

    /// Fills the record with what the ledger says, or returns nothing when its bytes are damaged.
    pub(super) fn read_ledger(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.version = Version::from_bytes(*take(&mut bytes)?);
        self.mark = Version::from_bytes(*take(&mut bytes)?);
        self.alive = *take::<1>(&mut bytes)? == [1];
        for _ in 0..u32::from_be_bytes(*take(&mut bytes)?) {
            let pointer = *take::<1>(&mut bytes)? == [1];
            self.live.push(Listed { key: read_key(&mut bytes)?, pointer });
        }
        for _ in 0..u32::from_be_bytes(*take(&mut bytes)?) {
            let version = Version::from_bytes(*take(&mut bytes)?);
            self.dirty.insert(read_key(&mut bytes)?, version);
        }
        bytes.is_empty().then_some(())
    }
}

/// Appends keys with their versions as a ledger has its dirty keys.
pub(crate) fn write_dirty<'a>(out: &mut Vec<u8>, dirty: impl ExactSizeIterator<Item = (&'a Key, &'a Version)>) {
    write_len(out, dirty.len());
    for (key, version) in dirty {
        out.extend_from_slice(version.as_bytes());
        write_key(out, key);
    }
}

fn write_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

fn write_key(out: &mut Vec<u8>, key: &Key) {
    write_len(out, key.as_str().len());
    out.extend_from_slice(key.as_str().as_bytes());
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(head)
}

fn read_key(bytes: &mut &[u8]) -> Option<Key> {
    let len = usize::try_from(u32::from_be_bytes(*take(bytes)?)).ok()?;
    let (key, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(key).ok().map(Key::new)
}
