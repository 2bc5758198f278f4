//! The ways in which anything is written: read, decide, and write if the revision is still that one; and, where nothing
//! is to be decided, write.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::{Client, Stands};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::Refused;

/// How many keys of one process can be written at a time.
const TURNS: usize = 256;

/// Who may write now. Threads of one process that write the same key would only make each other read again.
pub(super) struct Turns(Vec<Mutex<()>>);

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..TURNS).map(|_| Mutex::new(())).collect())
    }

    async fn take(&self, subject: &str, terms: &Terms) -> Result<Option<MutexGuard<'_, ()>>> {
        let Some(turn) = self.of(subject) else { return Ok(None) };
        timeout_at(terms.until, turn.lock()).await.map(Some).map_err(|_| busy(subject))
    }

    fn of(&self, subject: &str) -> Option<&Mutex<()>> {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % TURNS as u64).ok()?;
        self.0.get(place)
    }
}

/// What a decision makes of what stands at a subject.
pub(super) enum Next {
    /// It stays.
    Stay,
    /// It is written over.
    Put(Bytes),
    /// It goes.
    Remove,
}

/// How a write is gone about.
pub(super) struct Terms {
    /// When to begin no further attempt.
    pub(super) again: Instant,
    /// When to give up.
    pub(super) until: Instant,
    /// Whether it may be done again when it may have been done.
    pub(super) repeats: bool,
    /// The largest entry, in bytes.
    pub(super) most: usize,
}

/// Decides until a decision was written, or needed no writing, and returns what it answers.
pub(super) async fn update<T>(
    client: &Client,
    turns: &Turns,
    subject: &str,
    terms: &Terms,
    mut decide: impl FnMut(Option<&Bytes>) -> Result<(Next, T)>,
) -> Result<T> {
    let busy = || busy(subject);
    let _turn = turns.take(subject, terms).await?;
    // A write that may have been done outlives every later failure: that one did nothing, but this one may have.
    let (mut unknown, mut attempt) = (None, 0);
    let mut may_lag = client.is_direct();
    loop {
        let lags = std::mem::take(&mut may_lag);
        let failed = match attempt_once(client, subject, terms, lags, &mut decide).await {
            Ok(answer) => return Ok(answer),
            Err(Refused::Conflict) if lags => continue,
            Err(Refused::Conflict) => busy(),
            Err(Refused::Unknown(error)) if !terms.repeats => return Err(error),
            Err(Refused::Unknown(error)) => {
                unknown = Some(error.clone());
                error
            }
            Err(Refused::Failed(error)) if error.kind() == ErrorKind::Unavailable => error,
            Err(Refused::Failed(error) | Refused::Full(error)) => return Err(unknown.unwrap_or(error)),
        };
        let again = Instant::now() + pause(attempt);
        if again >= terms.again {
            return Err(unknown.unwrap_or(failed));
        }
        sleep_until(again).await;
        attempt += 1;
    }
}

/// Writes an entry over whatever stands there, once.
pub(super) async fn put(
    client: &Client,
    turns: &Turns,
    subject: &str,
    terms: &Terms,
    entry: Bytes,
) -> Result<u64, Refused> {
    let _turn = turns.take(subject, terms).await.map_err(Refused::Failed)?;
    client.write(subject, None, Some(entry), client.soon(terms.until)).await
}

/// Reads, decides and writes. A reading that lags decides on nothing: a write by its revision is refused, and where
/// nothing is to be written the leader is asked.
async fn attempt_once<T>(
    client: &Client,
    subject: &str,
    terms: &Terms,
    lags: bool,
    decide: &mut impl FnMut(Option<&Bytes>) -> Result<(Next, T)>,
) -> Result<T, Refused> {
    let until = client.soon(terms.until);
    let read = if lags { client.eventual(subject, until).await } else { client.latest(subject, until).await };
    let Stands { revision, value } = read.map_err(Refused::Failed)?;
    let (next, answer) = match decide(value.as_ref()) {
        Ok(decided) => decided,
        Err(_) if lags => return Err(Refused::Conflict),
        Err(error) => return Err(Refused::Failed(error)),
    };
    let entry = match next {
        Next::Put(entry) if entry.len() <= terms.most => Some(entry),
        Next::Remove if value.is_some() => None,
        _ if lags => return Err(Refused::Conflict),
        Next::Put(entry) => {
            let message =
                format!("`{subject}` would hold {} bytes; an entry of this bucket holds {}", entry.len(), terms.most);
            return Err(Refused::Failed(Error::new(ErrorKind::Rejected, message)));
        }
        Next::Stay | Next::Remove => return Ok(answer),
    };
    let removes = entry.is_none();
    let written = client.write(subject, Some(revision), entry, client.soon(terms.until)).await?;
    if removes {
        client.forget(subject, written, client.soon(terms.until)).await;
    }
    Ok(answer)
}

fn busy(subject: &str) -> Error {
    let message = format!("others never stopped writing `{subject}`; try again, or spread the writes over more keys");
    Error::new(ErrorKind::Contention, message)
}

/// Longer each time, and never the same for two who were in each other's way.
fn pause(attempt: u32) -> Duration {
    let most = 2_u64 << attempt.min(7);
    Duration::from_micros(rand::random_range(0..most * 500))
}
