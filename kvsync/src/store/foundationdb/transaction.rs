//! A transaction as the layer sees it: readings that block, and writes that wait for the commit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use foundationdb::future::FdbSlice;
use foundationdb::options::StreamingMode;
use foundationdb::{FdbError, FdbResult, KeySelector, RangeOption, Transaction};

use super::error;
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::Direction;
use crate::store::ordered::{Between, Reader, Writer};

type Reading = Pin<Box<dyn Future<Output = FdbResult<Option<FdbSlice>>> + Send>>;

/// Readings of one transaction, and its writes.
pub(super) struct Work<'a> {
    transaction: &'a Transaction,
    prefix: &'a [u8],
    /// Whether readings are no reason for a conflict: those of a transaction that writes nothing.
    snapshot: bool,
    /// Readings that were begun before they were asked for.
    begun: RefCell<HashMap<Vec<u8>, Reading>>,
    /// What ended the transaction, whatever the work made of it.
    failed: &'a Cell<Option<FdbError>>,
    written: usize,
    refused: Option<Error>,
}

impl<'a> Work<'a> {
    /// `failed` is told what ended the transaction.
    pub(super) fn new(
        transaction: &'a Transaction,
        prefix: &'a [u8],
        failed: &'a Cell<Option<FdbError>>,
        snapshot: bool,
    ) -> Self {
        Self { transaction, prefix, snapshot, begun: RefCell::default(), failed, written: 0, refused: None }
    }

    /// Whether anything is to be committed; an error where it cannot be, because it is too large.
    pub(super) fn writes(self) -> Result<bool> {
        let most = super::TRANSACTION;
        match self.refused {
            Some(refused) => Err(refused),
            None if self.written > most => {
                let message = format!(
                    "{} bytes are too many for a transaction in foundationdb, which takes {most}",
                    self.written
                );
                Err(Error::new(ErrorKind::Rejected, message))
            }
            None => Ok(self.written > 0),
        }
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix, key].concat()
    }

    fn wait<T>(&self, reading: impl Future<Output = FdbResult<T>>) -> Result<T> {
        wait(reading).map_err(|failed| {
            self.failed.set(Some(failed));
            error::of(failed, false)
        })
    }

    fn write(&mut self, key: &[u8], value: usize) {
        self.begun.get_mut().remove(key);
        self.written += self.prefix.len() + key.len() + value;
        if self.prefix.len() + key.len() > super::KEY {
            let message =
                format!("a key of {} bytes is too long for foundationdb, which takes {}", key.len(), super::KEY);
            self.refused.get_or_insert_with(|| Error::new(ErrorKind::Rejected, message));
        }
    }
}

impl Reader for Work<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let begun = self.begun.borrow_mut().remove(key);
        let found = match begun {
            Some(reading) => self.wait(reading),
            None => self.wait(self.transaction.get(&self.full(key), self.snapshot)),
        };
        Ok(found?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn prefetch(&self, keys: &mut dyn Iterator<Item = Vec<u8>>) {
        let mut begun = self.begun.borrow_mut();
        for key in keys.filter(|key| self.prefix.len() + key.len() <= super::KEY) {
            let full = self.full(&key);
            begun.entry(key).or_insert_with(|| Box::pin(self.transaction.get(&full, self.snapshot)));
        }
    }

    fn range(&self, (begin, end): Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        let mut range = Some(RangeOption {
            begin: match begin {
                Bound::Included(key) => KeySelector::first_greater_or_equal(self.full(key)),
                Bound::Excluded(key) => KeySelector::first_greater_than(self.full(key)),
                Bound::Unbounded => KeySelector::first_greater_or_equal(self.prefix.to_vec()),
            },
            end: match end {
                Bound::Included(key) => KeySelector::first_greater_than(self.full(key)),
                Bound::Excluded(key) => KeySelector::first_greater_or_equal(self.full(key)),
                Bound::Unbounded => KeySelector::first_greater_or_equal(behind(self.prefix)),
            },
            limit: (limit < usize::MAX).then_some(limit),
            mode: StreamingMode::WantAll,
            reverse: direction == Direction::Reverse,
            ..RangeOption::default()
        });
        // No limit is what the library takes a limit of 0 for.
        for iteration in 1.. {
            let Some(option) = range.filter(|_| limit > 0) else { break };
            let values = self.wait(self.transaction.get_range(&option, iteration, self.snapshot))?;
            let own = |key: &[u8]| Bytes::copy_from_slice(key.get(self.prefix.len()..).unwrap_or_default());
            found.extend(values.iter().map(|entry| (own(entry.key()), Bytes::copy_from_slice(entry.value()))));
            range = option.next_range(&values);
        }
        Ok(found)
    }
}

impl Writer for Work<'_> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.write(&key, value.len());
        if self.refused.is_none() {
            self.transaction.set(&self.full(&key), &value);
        }
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.write(&key, 0);
        if self.refused.is_none() {
            self.transaction.clear(&self.full(&key));
        }
    }
}

/// The first key behind all that begin with this prefix.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(0, |last| last + 1);
    let mut end = prefix.get(..kept).unwrap_or_default().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        // Where the library's own keys begin.
        None => end.push(u8::MAX),
    }
    end
}

/// Blocks until a future of the library's has ended: its network thread wakes us. It ends by the transaction's own
/// timeout at the latest.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
