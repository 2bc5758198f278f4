//! A store in a key-value bucket of NATS JetStream.
//!
//! ```no_run
//! use kvsync::store::nats::NatsStore;
//!
//! # fn main() -> kvsync::Result<()> {
//! let store = NatsStore::connect("nats://127.0.0.1:4222")?;
//! let three = NatsStore::builder(["nats://10.0.0.1", "nats://10.0.0.2"]).bucket("shop").replicas(3).connect()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Each step, and each command, is atomic on its key**: the entry is read, changed in memory, and written under
//!   the condition that its revision is still the one that was read; otherwise again, until it wins or
//!   [`retry_for`](Builder::retry_for) has passed ([`Contention`](crate::ErrorKind::Contention)).
//! - **A failure is an error.** A write that was sent and not answered may have been done. What may be done twice is
//!   done again; a command that may not, such as an increment, is
//!   [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome). A late copy of a write changes nothing: its revision has
//!   passed. Only a plain `set` asks for no revision, as in Redis: a copy of one whose connection broke, and that still
//!   lies in the buffers of a server, may come after what was written since.
//! - **Readings ask the leader** of the bucket's stream, with [`Reads::Eventual`]
//!   any server that keeps it, which may lag. On one server, or while a cluster has one leader, what was acknowledged
//!   before is seen. NATS has no reading that waits for a quorum: a leader that was cut off from the others
//!   answers with what it has until it notices, some seconds later. Nothing is decided by such a reading, because a
//!   write by its revision is refused; but a fetch may see it.
//! - **An atomic write is on one key.** Several keys are [`Rejected`](crate::ErrorKind::Rejected), as
//!   [`data_capabilities`](crate::store::data::DataStore::data_capabilities) says.
//!
//! # Where things stand
//!
//! A bucket is the stream `KV_<bucket>`, as every client of NATS makes it, with a history of one. Keys are cut
//! at their colons: the row `user:id:7` stands at `kvsync.row.user.id.7`, where `kvsync` is the
//! [`prefix`](Builder::prefix), and data under `kvsync.data.`. Bytes other than letters, digits, `-`, `_` and `/`
//! are `=` and two hexadecimal digits, an empty piece is `=`. Keys are at most 1024 bytes long.
//!
//! A removed entry is marked first, as every client does, and the mark is purged at once.
//! All that stands under one key of data, a set or a sorted hash with all its members too, **is one entry**.
//!
//! # Costs and limits
//!
//! - A step or command that writes is two round trips, one that reads is one, and so is a plain `set`; those of a call
//!   run side by side, those on one key in one write.
//! - A command on a set, hash, sorted set or sorted hash reads and writes **the whole of it**, whatever it asks for. It
//!   has to fit into the server's `max_payload` (1 MB unless it was raised), or is
//!   [`Rejected`](crate::ErrorKind::Rejected). Keep collections small here, or give many writers many keys.
//! - A scan reads entry by entry, with what they hold.
//! - Nothing expires by itself. Upkeep sweeps rows. A string whose time to live has passed is never returned, and is
//!   removed when its key is written; [`sweep_data`](NatsStore::sweep_data) removes the others.
//!
//! # What it needs
//!
//! - A server 2.9 or newer with JetStream (tested with 2.9.10). A bucket that is missing is made, on disk and without
//!   limits. A bucket with a history, a mirror, or a stream of another kind is refused; one that forgets by itself
//!   (`max_age`, `discard old`) degrades [`health`](crate::store::Store::health).
//! - A server acknowledges what its system has not yet put on the disk, unless it is told `sync_interval: always`: with
//!   one replica a crash of its machine loses the last seconds. Use three, or the outbox.
//! - A user with few rights has to publish to `$KV.<bucket>.>`, `$JS.API.STREAM.INFO.KV_<bucket>`,
//!   `$JS.API.STREAM.MSG.GET.KV_<bucket>`, `$JS.API.STREAM.PURGE.KV_<bucket>`, `$JS.API.DIRECT.GET.KV_<bucket>.>`
//!   and, to make the bucket, `$JS.API.STREAM.CREATE.KV_<bucket>`; and to subscribe to `_INBOX.>` or
//!   [another prefix](Builder::inbox_prefix).

mod bucket;
mod builder;
mod client;
mod data;
mod health;
mod scan;
mod steps;
mod subject;
mod update;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};

pub use self::builder::Builder;
use self::client::{Client, Stands};
use self::subject::{MAX_KEY, Subjects};
use self::update::{Next, Turns, update};
use super::data::Reads;
use super::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use crate::bridge::{Bridge, Cut};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;

/// How many steps one call should carry.
const BATCH: usize = 512;
/// How much longer than its own deadlines a call is waited for, on a machine that is slow.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait before a question is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// A store in a bucket of NATS JetStream. Clones share its connection.
///
/// See the [module](self) for what it promises, costs and needs.
#[derive(Clone)]
pub struct NatsStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    client: Client,
    subjects: Subjects,
    turns: Turns,
    /// The largest entry, in bytes.
    most: usize,
    concurrency: usize,
    command_timeout: Duration,
    retry_for: Duration,
    closed: AtomicBool,
    // Dropped last: the connection lives on it.
    bridge: Arc<Bridge>,
}

impl NatsStore {
    /// A store in the bucket `kvsync` of the server at this URL, `nats://[user:password@]host[:port]`, or `tls://` for
    /// TLS; `nats://token@host` for servers that want a token.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or would refuse what the store needs: JetStream, rights, a bucket
    /// that keeps what is written. The message says what to do.
    pub fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder([url]).connect()
    }

    /// Begins to configure a store. One server of a cluster is enough to find the others.
    pub fn builder(urls: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(urls.into_iter().map(Into::into).collect())
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Store for NatsStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn health(&self, deadline: Duration) -> Health {
        health::health(&self.inner, deadline)
    }

    /// Closes the connection; further calls fail with [`ErrorKind::Closed`]. What was acknowledged is as durable as
    /// the servers make it.
    fn close(&self) -> Result<()> {
        if !self.inner.closed.swap(true, Ordering::AcqRel) {
            let inner = Arc::clone(&self.inner);
            // A connection that cannot be drained is dropped.
            let _ = self.inner.bridge.run(self.inner.command_timeout, async move { inner.client.link.close().await });
        }
        Ok(())
    }
}

impl SyncStore for NatsStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX_KEY, self.inner.most, BATCH)
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let (store, owned, terms) = (Arc::clone(&self.inner), steps.to_vec(), *terms);
        let answers =
            self.inner.call(ErrorKind::UnknownOutcome, async move { Ok(steps::execute(store, owned, terms).await) });
        answers.unwrap_or_else(|error| steps.iter().map(|_| Err(error.clone())).collect())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let (store, keys) = (Arc::clone(&self.inner), keys.to_vec());
        self.inner.call(ErrorKind::Deadline, async move {
            let readings = keys.into_iter().map(|key| {
                let store = &store;
                async move {
                    within(key.as_str().len())?;
                    store.read(&store.subjects.row(key.as_str()), Reads::Latest).await
                }
            });
            let found: Vec<_> = futures_util::stream::iter(readings).buffered(store.concurrency).collect().await;
            found.into_iter().collect()
        })
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let (store, prefix) = (Arc::clone(&self.inner), prefix.to_owned());
        self.inner.call(ErrorKind::Deadline, scan::page(store, prefix, cursor, limit))
    }

    fn epoch(&self) -> Result<u32> {
        let store = Arc::clone(&self.inner);
        self.inner.call(ErrorKind::Deadline, async move {
            epoch_of(store.read(&store.subjects.epoch(), Reads::Latest).await?.as_ref())
        })
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        let store = Arc::clone(&self.inner);
        self.inner.call(ErrorKind::UnknownOutcome, async move {
            let how = store.terms(store.until(), true);
            update(&store.client, &store.turns, &store.subjects.epoch(), &how, |stands| {
                let known = epoch_of(stands)?;
                let next = if epoch > known { Next::Put(epoch.to_string().into()) } else { Next::Stay };
                Ok((next, known.max(epoch)))
            })
            .await
        })
    }
}

impl Inner {
    /// Runs a call on the bridge, which has deadlines of its own.
    fn call<T: Send + 'static>(
        &self,
        cut: ErrorKind,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.open()?;
        match self.bridge.run(self.command_timeout + self.retry_for + GRACE, work) {
            Ok(answer) => answer,
            Err(Cut::Deadline) => Err(Error::new(cut, format!("{} did not answer in time", self.name))),
            Err(Cut::Panic) => {
                let message = format!("a call to {} ended in a panic; this is a fault of kvsync", self.name);
                Err(Error::new(ErrorKind::UnknownOutcome, message))
            }
            Err(Cut::OwnThread) => {
                let message = "a store was called on the thread of its own connections, which it would block";
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)));
        }
        Ok(())
    }

    /// When a write is given up that begins now.
    fn until(&self) -> Instant {
        Instant::now() + self.command_timeout + self.retry_for
    }

    /// How a write is gone about that is given up then.
    fn terms(&self, until: Instant, repeats: bool) -> update::Terms {
        update::Terms { again: until - self.command_timeout, until, repeats, most: self.most }
    }

    /// What stands at a subject. Asked again while the servers cannot be reached, for as long as a command may take.
    async fn read(&self, subject: &str, reads: Reads) -> Result<Option<Bytes>> {
        let until = Instant::now() + self.command_timeout;
        loop {
            let found = match reads {
                Reads::Latest => self.client.latest(subject, until).await,
                Reads::Eventual => self.client.eventual(subject, until).await,
            };
            match found {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + AGAIN < until => {
                    sleep(AGAIN).await;
                }
                answer => return answer.map(|stands| stands.value),
            }
        }
    }

    /// The next entry, asked for as [`read`](Self::read) does.
    async fn next(&self, filter: &str, from: u64, until: Instant) -> Result<Option<(String, Stands)>> {
        loop {
            match self.client.next(filter, from, until).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + AGAIN < until => {
                    sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Fails for a key that is too long.
fn within(length: usize) -> Result<()> {
    if length > MAX_KEY {
        let message = format!("a key of {length} bytes; a nats store takes {MAX_KEY}");
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    Ok(())
}

fn epoch_of(stands: Option<&Bytes>) -> Result<u32> {
    let Some(stands) = stands else { return Ok(0) };
    let epoch = std::str::from_utf8(stands).ok().and_then(|text| text.parse().ok());
    epoch.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the bucket holds no epoch where it should; did another program write it?")
    })
}
