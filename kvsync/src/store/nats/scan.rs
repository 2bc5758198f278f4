//! Scans, in the order in which entries were written.
//!
//! An entry that is written moves to the end. So one that stands there all the while is met: either where it stood
//! when the scan began, or later.

use std::sync::Arc;

use tokio::time::Instant;

use super::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::store::{Cursor, Page};

/// What a cursor begins with, before the last revision that was seen.
const MARK: &[u8] = b"nats";

/// One page of the rows whose keys begin with a prefix.
pub(super) async fn page(store: Arc<Inner>, prefix: String, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
    let until = Instant::now() + store.command_timeout;
    // A page that took half of its time ends, so that one over many entries of others ends too.
    let enough = Instant::now() + store.command_timeout / 2;
    let mut seen = cursor.as_ref().map_or(Ok(0), decode)?;
    let filter = store.subjects.rows(&prefix);
    let mut keys = Vec::new();
    loop {
        let Some((subject, stands)) = store.next(&filter, seen + 1, until).await? else {
            return Ok(Page { keys, next: None });
        };
        seen = stands.revision;
        let key = store.subjects.row_of(&subject).filter(|key| stands.value.is_some() && key.starts_with(&prefix));
        keys.extend(key.map(Key::new));
        if keys.len() >= limit.max(1) || Instant::now() > enough {
            return Ok(Page { keys, next: Some(Cursor([MARK, &seen.to_be_bytes()].concat())) });
        }
    }
}

fn decode(cursor: &Cursor) -> Result<u64> {
    let seen = cursor.0.strip_prefix(MARK).and_then(|seen| seen.try_into().ok()).map(u64::from_be_bytes);
    seen.filter(|seen| *seen < u64::MAX).ok_or_else(|| {
        Error::new(ErrorKind::Rejected, "this cursor is not of a scan of a nats store; begin again without one")
    })
}
