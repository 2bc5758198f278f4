use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

use super::overlay::is_empty;
use super::{Between, Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::Direction;

/// What begins the key of an entry, what comes behind those, and what begins the key of a piece.
const ENTRY: u8 = b'd';
const BEHIND: u8 = b'e';
const PIECE: u8 = b'p';
/// What begins an entry that is whole, and one that is in pieces.
const WHOLE: u8 = 0;
const PIECES: u8 = 1;

/// Splits large values, for engines whose own are small: an entry then says how many pieces it has, and these stand
/// apart, so that ranges do not meet them. Whoever commits it asks [`into_inner`](Self::into_inner) before.
#[derive(Debug)]
pub struct Split<T> {
    under: T,
    piece: usize,
    failed: Option<Error>,
}

impl<T> Split<T> {
    /// How many bytes are added to a key.
    pub const OVERHEAD: usize = 9;

    /// Values in pieces of this many bytes, over readings and writes of an engine.
    pub const fn over(under: T, piece: usize) -> Self {
        Self { under, piece, failed: None }
    }

    /// What it is over.
    ///
    /// # Errors
    ///
    /// When something could not be read that had to be, to know what to remove: nothing may be committed.
    pub fn into_inner(self) -> Result<T> {
        self.failed.map_or(Ok(self.under), Err)
    }
}

impl<T: Reader> Split<T> {
    fn whole(&self, key: &[u8], stored: &Bytes) -> Result<Bytes> {
        let damaged = || Error::new(ErrorKind::Corrupt, format!("a value under `{}` lacks pieces", key.escape_ascii()));
        let Some(count) = pieces_of(stored) else {
            return if stored.is_empty() { Err(damaged()) } else { Ok(stored.slice(1..)) };
        };
        let (begin, end) = (piece(key, 0), piece(key, count));
        let between = (Bound::Included(begin.as_slice()), Bound::Excluded(end.as_slice()));
        let pieces = self.under.range(between, Direction::Forward, usize::MAX)?;
        if u32::try_from(pieces.len()) != Ok(count) {
            return Err(damaged());
        }
        Ok(pieces
            .into_iter()
            .fold(BytesMut::new(), |mut value, (_, piece)| {
                value.put(piece);
                value
            })
            .freeze())
    }
}

impl<T: Reader> Reader for Split<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.under.get(&entry(key))?.map(|stored| self.whole(key, &stored)).transpose()
    }

    fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>) {
        self.under.prefetch(&mut keys.map(|key| entry(&key)));
    }

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        if is_empty(between) {
            return Ok(Vec::new());
        }
        let (begin, end) = (between.0.map(entry), between.1.map(entry));
        let begin = if begin == Bound::Unbounded { Bound::Included(vec![ENTRY]) } else { begin };
        let end = if end == Bound::Unbounded { Bound::Excluded(vec![BEHIND]) } else { end };
        let between = (begin.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let found = self.under.range(between, direction, limit)?;
        let whole = |(at, stored): (Bytes, Bytes)| {
            let key = at.slice(1.min(at.len())..);
            let value = self.whole(&key, &stored)?;
            Ok((key, value))
        };
        found.into_iter().map(whole).collect()
    }
}

impl<T: Writer> Writer for Split<T> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.remove_pieces(&key);
        if value.len() < self.piece {
            let mut stored = BytesMut::with_capacity(value.len() + 1);
            stored.put_u8(WHOLE);
            stored.put(value);
            return self.under.put(entry(&key), stored.freeze());
        }
        let mut count = 0_u32;
        let mut rest = value;
        while !rest.is_empty() {
            let next = rest.split_to(rest.len().min(self.piece));
            self.under.put(piece(&key, count), next);
            count = count.saturating_add(1);
        }
        let stored = [&[PIECES], count.to_be_bytes().as_slice()].concat();
        self.under.put(entry(&key), stored.into());
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.remove_pieces(&key);
        self.under.remove(entry(&key));
    }
}

impl<T: Writer> Split<T> {
    fn remove_pieces(&mut self, key: &[u8]) {
        match self.under.get(&entry(key)) {
            Ok(stored) => {
                let count = stored.as_ref().and_then(pieces_of).unwrap_or(0);
                (0..count).for_each(|number| self.under.remove(piece(key, number)));
            }
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }
}

fn entry(key: &[u8]) -> Vec<u8> {
    [&[ENTRY], key].concat()
}

/// Behind the length of the key, so that no key's pieces stand among another's.
fn piece(key: &[u8], number: u32) -> Vec<u8> {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&[PIECE], len.to_be_bytes().as_slice(), key, number.to_be_bytes().as_slice()].concat()
}

/// How many pieces an entry has, unless it is whole.
fn pieces_of(stored: &Bytes) -> Option<u32> {
    let count = stored.strip_prefix(&[PIECES])?;
    count.try_into().ok().map(u32::from_be_bytes)
}
