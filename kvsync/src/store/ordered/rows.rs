//! The rows over an engine: each call one transaction, or as few as the engine's limits allow.

use std::ops::Bound;

use bytes::Bytes;

use super::{Engine, Limits, OrderedStore, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Terms};
use crate::store::data::Direction;
use crate::store::steps::{Entries, after, plan};
use crate::store::{Capabilities, Cursor, Outcome, Page, Step, SyncStore};

/// Before the key of each row's entry. What the commands write begins with other letters.
const ROW: u8 = b'r';
/// Where the epoch stands.
const EPOCH: &[u8] = b"e";
/// Room in an entry for the head, the ledger and the keys.
const LEDGER: usize = 16 * 1024;

impl<E: Engine> SyncStore for OrderedStore<E> {
    fn capabilities(&self) -> Capabilities {
        let Limits { key, value, transaction, batch } = self.engine().limits();
        let value = value.min(transaction.saturating_sub(key));
        Capabilities::new(key - 1, value - LEDGER.min(value / 2), batch).with_whole_changes()
    }

    /// Runs steps as one transaction: readers see all of it or none. Steps that are too large together for one
    /// transaction of the engine are several.
    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let limits = self.engine().limits();
        let done = self.engine().write(|writer| {
            writer.prefetch(&mut steps.iter().flat_map(keys_of).map(row));
            let (answers, changed) = plan(steps, terms, &|key| read_to_write(&*writer, key, limits.key));
            if let Err(refused) = fits(&changed, &limits) {
                return Ok(Err(refused));
            }
            for (key, entry) in changed {
                match entry {
                    Some(entry) => writer.put(row(&key), entry),
                    None => writer.remove(row(&key)),
                }
            }
            Ok(Ok(answers))
        });
        match (done, steps) {
            (Ok(Ok(answers)), _) => answers,
            (Ok(Err(refused)), [_] | []) => vec![Err(refused)],
            // Together they are too large, or one of them is: which one shows in the halves.
            (Ok(Err(_)), _) => {
                let (first, second) = steps.split_at(steps.len() / 2);
                let mut answers = self.execute(first, terms);
                answers.extend(self.execute(second, terms));
                answers
            }
            (Err(error), _) => steps.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let longest = self.engine().limits().key;
        self.engine().read(|reader| {
            if keys.len() > 1 {
                reader.prefetch(&mut keys.iter().map(row));
            }
            // What cannot be stored is not there.
            let get = |key: &Key| if key.as_str().len() < longest { reader.get(&row(key)) } else { Ok(None) };
            keys.iter().map(get).collect()
        })
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let limit = limit.max(1);
        if prefix.len() + 2 > self.engine().limits().key {
            return Ok(Page::default());
        }
        let begin = match &cursor {
            Some(cursor) => Bound::Excluded(row(&after(cursor, prefix)?)),
            None => Bound::Included(row(&Key::new(prefix))),
        };
        // No text holds this byte, so what begins with the prefix stands below.
        let end = [&[ROW], prefix.as_bytes(), &[u8::MAX]].concat();
        let between = (begin.as_ref().map(Vec::as_slice), Bound::Excluded(end.as_slice()));
        let found = self.engine().read(|reader| reader.range(between, Direction::Forward, limit))?;
        let keys: Vec<Key> = found.iter().map(|(at, _)| key_of(at)).collect::<Result<_>>()?;
        let next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor(last.as_str().into()));
        Ok(Page { keys, next })
    }

    fn epoch(&self) -> Result<u32> {
        self.engine().read(|reader| epoch(reader))
    }

    fn raise_epoch(&self, raised: u32) -> Result<u32> {
        self.engine().write(|writer| {
            let stands = epoch(&*writer)?;
            if raised > stands {
                writer.put(EPOCH.to_vec(), Bytes::copy_from_slice(&raised.to_be_bytes()));
            }
            Ok(stands.max(raised))
        })
    }
}

impl<E: Engine> OrderedStore<E> {
    /// How many entries of rows it holds, tombstones and records of deleted rows included. Reads all of them.
    ///
    /// # Errors
    ///
    /// When the engine could not be read.
    pub(crate) fn rows(&self) -> Result<usize> {
        let (begin, end) = ([ROW], [ROW + 1]);
        let all = (Bound::Included(begin.as_slice()), Bound::Excluded(end.as_slice()));
        self.engine().read(|reader| reader.range(all, Direction::Forward, usize::MAX).map(|found| found.len()))
    }
}

fn row(key: &Key) -> Vec<u8> {
    let mut at = Vec::with_capacity(key.as_str().len() + 1);
    at.push(ROW);
    at.extend_from_slice(key.as_str().as_bytes());
    at
}

fn key_of(at: &[u8]) -> Result<Key> {
    let text = at.get(1..).and_then(|key| std::str::from_utf8(key).ok());
    text.map(Key::new).ok_or_else(|| Error::new(ErrorKind::Corrupt, "a key among the rows of the store is no text"))
}

/// The keys that a step names. Those that a row has left are known once its record is read.
fn keys_of(step: &Step) -> impl Iterator<Item = &Key> {
    let (key, listed) = match step {
        Step::Apply(change) => match &change.content {
            Content::Put { keys, .. } => (&change.home, keys.as_slice()),
            Content::Unknown | Content::Delete => (&change.home, [].as_slice()),
        },
        Step::Merge(change) => (&change.home, [].as_slice()),
        Step::Write(write) => (&write.key, [].as_slice()),
        Step::Confirm { home: key, .. } | Step::Sweep(key) | Step::Remove { key, .. } => (key, [].as_slice()),
    };
    std::iter::once(key).chain(listed.iter().map(|listed| &listed.key))
}

/// What stands under a key that is about to be written.
fn read_to_write(reader: &(impl Reader + ?Sized), key: &Key, longest: usize) -> Result<Option<Bytes>> {
    let len = key.as_str().len();
    if len >= longest {
        let message = format!("a key of {len} bytes is too long for the store, which takes {}", longest - 1);
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    reader.get(&row(key))
}

/// Whether one transaction can write all of this.
fn fits(changed: &Entries, limits: &Limits) -> Result<()> {
    let size = |key: &Key, entry: &Option<Bytes>| key.as_str().len() + entry.as_ref().map_or(0, Bytes::len);
    let too_large = |what: String| Err(Error::new(ErrorKind::Rejected, what));
    for (key, entry) in changed {
        let len = entry.as_ref().map_or(0, Bytes::len);
        if len > limits.value {
            return too_large(format!("the entry under `{key}` has {len} bytes, and the store takes {}", limits.value));
        }
    }
    let all: usize = changed.iter().map(|(key, entry)| size(key, entry)).sum();
    if all > limits.transaction {
        let most = limits.transaction;
        return too_large(format!("a row and its keys take {all} bytes, and a transaction of the store {most}"));
    }
    Ok(())
}

fn epoch(reader: &(impl Reader + ?Sized)) -> Result<u32> {
    let damaged = |_| Error::new(ErrorKind::Corrupt, "the epoch of the store is damaged");
    reader.get(EPOCH)?.map_or(Ok(0), |bytes| Ok(u32::from_be_bytes(bytes[..].try_into().map_err(damaged)?)))
}
