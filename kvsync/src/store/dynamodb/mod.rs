//! A store in one table of Amazon DynamoDB.
//!
//! ```no_run
//! use kvsync::store::dynamodb::DynamoDbStore;
//!
//! # fn main() -> kvsync::Result<()> {
//! let store = DynamoDbStore::connect("kvsync")?; // region and credentials as every AWS tool finds them
//!
//! let local = DynamoDbStore::builder("kvsync").endpoint("http://127.0.0.1:8000").credentials("any", "any");
//! local.create_table()?;
//! let local = local.connect()?;
//! # Ok(())
//! # }
//! ```
//!
//! The feature `dynamodb` brings the AWS SDK, with rustls and ring for TLS.
//!
//! # The table
//!
//! One table holds everything: keys of two binary parts, `hk` and `rk`, a local index by `rk2` for scores, and the
//! attribute `ttl` by which DynamoDB removes what has expired.
//! [`Builder::create_table`] makes it, paid for by the request. With `CloudFormation`:
//!
//! ```yaml
//! KvsyncTable:
//!   Type: AWS::DynamoDB::Table
//!   Properties:
//!     TableName: kvsync
//!     BillingMode: PAY_PER_REQUEST
//!     AttributeDefinitions:
//!       - { AttributeName: hk, AttributeType: B }
//!       - { AttributeName: rk, AttributeType: B }
//!       - { AttributeName: rk2, AttributeType: B }
//!     KeySchema:
//!       - { AttributeName: hk, KeyType: HASH }
//!       - { AttributeName: rk, KeyType: RANGE }
//!     LocalSecondaryIndexes:
//!       - IndexName: by_score
//!         KeySchema:
//!           - { AttributeName: hk, KeyType: HASH }
//!           - { AttributeName: rk2, KeyType: RANGE }
//!         Projection: { ProjectionType: KEYS_ONLY }
//!     TimeToLiveSpecification: { AttributeName: ttl, Enabled: true }
//! ```
//!
//! Rights: `dynamodb:GetItem`, `BatchGetItem`, `PutItem`, `DeleteItem`, `BatchWriteItem`, `ConditionCheckItem`,
//! `Query` and `Scan` on the table and `table/kvsync/index/by_score`; `DescribeTable` and `DescribeTimeToLive`, with
//! which connecting and [`health`](crate::store::Store::health) say what is wrong with the table; `CreateTable` and
//! `UpdateTimeToLive` for whoever creates it.
//!
//! # What it promises
//!
//! - Each step of the protocol is a conditional write of one item, which compares a tag that every write draws anew.
//!   Reads are strongly consistent, but for those that ask for [`Reads::Eventual`](crate::store::data::Reads).
//! - What DynamoDB throttles or leaves unprocessed is tried again, with pauses that grow and are random, until
//!   [`retry_for`](Builder::retry_for) has passed. An answer that was lost is no second increment: a write that is
//!   sent again is recognised by its tag or token.
//! - **What has expired is never returned**, though DynamoDB removes it days later. Readers judge by their own
//!   clocks, so those of all processes have to agree within seconds.
//! - **Contention is no failed condition.** Where others keep writing the same items until the time is up, the error
//!   is [`Contention`](crate::ErrorKind::Contention), and nothing was done.
//! - The table cannot forget: what is acknowledged stands on several disks. Global tables are not safe: their
//!   regions overwrite each other without conditions. Feed one region, and replicate for reading only.
//!
//! # What it costs
//!
//! Reading 4 KB is a read unit (half of one, where it may be eventual), writing 1 KB a write unit, each at least one
//! for an item; a transaction doubles them. The commands are those of [`DataCommands`](crate::store::data::DataCommands).
//!
//! | | requests | units |
//! |---|---|---|
//! | a batch of the protocol's steps | one that reads for 100 keys, one write a key; without reading for entries other than records | a read (of records) and a write for each entry's size |
//! | `fetch` | 1 | a read |
//! | `scan`, so `verify` and `repair` | 1 for each page | **reads the whole table**, the commands' data too: give them tables of their own |
//! | `get`, `hget`, `smembers`, `hget_all` | 1; 2 where the set or hash is large | a read of it; large: of its list of pages, and of a page (`hget`) or all |
//! | `set` | 1 | a write |
//! | `incr_by`, `sadd`, `hset`, .. and a `set` with a condition | 2; 3 or 4 where it is large | a read and a write of it; large: of a page and the list of pages |
//! | `zadd`, `zincr_by`, `zrem` and for sorted hashes | 3 | 2 reads; 2 writes for the key, 4 for each member |
//! | `zscore`, `zh_get` | 2 | 2 reads |
//! | a range or count by score or bytes | 3 and more: 1 MB a page | reads what it finds; a sorted hash by score also a read for each field |
//! | `delete` | 2; of something large also its removal, afterwards | a read and a write; a write for each page or member |
//! | an atomic write | as its commands, one transaction | double writes |
//!
//! Sets and hashes up to 32 KB are one item; larger ones are cut into pages of that size, of which a write replaces
//! those that it touches. Members of sorted sets and hashes are items of their own, found by score in the index. All
//! writes on one such key meet at its head: about as many a second as one item bears, some hundreds.
//!
//! A process that ends in the middle of a `delete`, or of a write to something large, may leave items that nobody sees
//! and that are never removed.
//!
//! # Limits
//!
//! A key has 2047 bytes less the prefix, a member or field 1008, a value or entry 391 KB; a set or hash about 100 MB; a
//! sorted set or hash 10 GB, index included, which DynamoDB allows for one hash key. A transaction of
//! DynamoDB has 100 items and 4 MB, names of attributes included. So an atomic write, or one `zrem`, touches
//! [100 entries](crate::store::data::DataCapabilities::max_entries) at most: a string, set or hash is one, a sorted one is
//! one and one more for each member named.
//!
//! # DAX
//!
//! There is no Rust client for the accelerator, so this store does not use it. It would not serve the protocol either,
//! which reads consistently; the near cache of this crate does what it would for `fetch`.
//!
//! # Tables shared with others
//!
//! [`PlainTable`] reads and writes strings in a table of another layout: `pk` and `value`.

mod builder;
mod call;
mod data;
mod error;
mod items;
mod layout;
mod plain;
mod rows;
mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use bytes::Bytes;

pub use self::builder::Builder;
use self::call::Effect;
use self::layout::{Layout, MAX_VALUE};
pub use self::plain::PlainTable;
use super::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};
use crate::bridge::Bridge;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;

/// A store in a table of DynamoDB. Clones share its connections.
///
/// See the [module](self) for the table, what it promises and what it costs.
#[derive(Clone)]
pub struct DynamoDbStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    table: String,
    layout: Layout,
    client: Client,
    bridge: Arc<Bridge>,
    settings: Settings,
    /// Whether the table is known to remove what has expired.
    removes: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    command_timeout: Duration,
    retry_for: Duration,
    batch: usize,
}

impl DynamoDbStore {
    /// A store in this table, with region and credentials from where every AWS tool takes them: the environment,
    /// profiles, the role of the machine or the container.
    ///
    /// # Errors
    ///
    /// When the table is not there or has other keys, when no credentials are found, and when DynamoDB cannot be
    /// reached. The message says what to do.
    pub fn connect(table: impl Into<String>) -> Result<Self> {
        Self::builder(table).connect()
    }

    /// Begins to configure a store in this table.
    pub fn builder(table: impl Into<String>) -> Builder {
        Builder::new(table.into())
    }
}

impl fmt::Debug for DynamoDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStore").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Store for DynamoDbStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// Reads from the table. It is degraded where the table does not remove what has expired.
    fn health(&self, deadline: Duration) -> Health {
        let inner = &self.inner;
        // The bridge waits a moment beyond the time that a call is given.
        let budget = deadline.mul_f64(0.5);
        let answer = inner.call(Effect::Reads, budget, |call| async move {
            rows::epoch(call.clone()).await?;
            Ok(table::removes(&call).await)
        });
        match answer {
            Ok(None | Some(true)) => Health::new(Status::Up, Vec::new()),
            Ok(Some(false)) => {
                let what = format!(
                    "the table `{}` keeps what has expired: enable its time to live on the attribute `ttl`",
                    inner.table
                );
                Health::new(Status::Degraded, vec![what])
            }
            Err(error) => Health::new(Status::Down, vec![error.to_string()]),
        }
    }

    /// Further calls fail with [`ErrorKind::Closed`]. What was acknowledged is durable.
    fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        Ok(())
    }
}

impl SyncStore for DynamoDbStore {
    /// It expires: what has ended is absent at once, and DynamoDB removes it later and for nothing, while a sweep
    /// would have to read the whole table.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.inner.layout.max_key(), MAX_VALUE, self.inner.settings.batch).with_expiry()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        let (own, terms) = (steps.to_vec(), *terms);
        let answers = self.inner.write_about(own.len(), |call| rows::execute(call, own, terms));
        answers.unwrap_or_else(|error| steps.iter().map(|_| Err(error.clone())).collect())
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let keys = keys.to_vec();
        self.inner.read_about(keys.len(), |call| rows::get_many(call, keys))
    }

    /// One request of a scan that goes through the whole table, whatever the prefix: a page may be empty and have a
    /// next one.
    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let prefix = prefix.to_owned();
        self.inner.read(|call| rows::scan(call, prefix, cursor, limit))
    }

    fn epoch(&self) -> Result<u32> {
        self.inner.read(rows::epoch)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.inner.write(|call| rows::raise_epoch(call, epoch))
    }
}

impl Inner {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn read<T, F>(self: &Arc<Self>, work: impl FnOnce(call::Call) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.read_about(1, work)
    }

    /// Reads this many items.
    fn read_about<T, F>(self: &Arc<Self>, items: usize, work: impl FnOnce(call::Call) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.call_about(items, Effect::Reads, self.budget(Effect::Reads), work)
    }

    fn write<T, F>(self: &Arc<Self>, work: impl FnOnce(call::Call) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.write_about(1, work)
    }

    /// Writes, after this many items were read.
    fn write_about<T, F>(self: &Arc<Self>, items: usize, work: impl FnOnce(call::Call) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.call_about(items, Effect::Writes, self.budget(Effect::Writes), work)
    }

    /// Fails for a key that DynamoDB does not take.
    fn fits(&self, key: &Key) -> Result<()> {
        let (length, most) = (key.as_str().len(), self.layout.max_key());
        if length > most {
            let message = format!("a key of {length} bytes; dynamodb takes {most} behind the prefix");
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        Ok(())
    }
}
