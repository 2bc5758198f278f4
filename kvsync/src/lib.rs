//! Keeps a key-value store true to the rows that you write with Diesel, and fetches single objects at
//! key-value speed.
//!
//! Derive the keys on a struct, take a connection from [`KvSync`], and go on writing ordinary Diesel.
//! Every committed insert, update and delete shows up, versioned, in the store.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use diesel::connection::SimpleConnection;
//! use diesel::prelude::*;
//! use diesel::sqlite::Sqlite;
//! use kvsync::capture::Database;
//! use kvsync::store::memory::MemoryStore;
//! use kvsync::{KvSync, Lookup, Syncable};
//! use serde::{Deserialize, Serialize};
//!
//! diesel::table! {
//!     users (id) { id -> Integer, uuid -> Text, username -> Text }
//! }
//!
//! #[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
//! #[diesel(table_name = users)]
//! #[sync_key(name = "id", fmt = "user:id:<id>")]
//! #[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
//! struct User {
//!     id: i32,
//!     uuid: String,
//!     username: String,
//! }
//!
//! let kv = KvSync::builder()
//!     .store(MemoryStore::new())
//!     .database(Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<User>())
//!     .build()?;
//!
//! let mut conn = kv.connect::<Sqlite>("main")?;
//! conn.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)")?;
//!
//! let ann = (users::id.eq(1), users::uuid.eq("a-1"), users::username.eq("ann"));
//! diesel::insert_into(users::table).values(ann).execute(&mut conn)?;
//! kv.flush(Duration::from_secs(5))?;
//!
//! assert_eq!(User::fetch_by_uuid(&kv, "a-1")?.map(|user| user.username), Some("ann".to_owned()));
//!
//! diesel::delete(users::table.find(1)).execute(&mut conn)?;
//! kv.flush(Duration::from_secs(5))?;
//! assert_eq!(User::lookup_by_id(&kv, 1)?, Lookup::Absent);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # Where to look
//!
//! - [`Syncable`](derive@Syncable): all attributes of the derive, and the methods that it generates.
//! - [`KvSync`] and its [`Builder`]: the handle of everything.
//! - [`capture`]: the connection, what it catches, what it cannot, pools, transactions, tests of your own.
//! - [`store`]: the stores, and the contract for one of yours; [`store::layer`]: a near cache, metrics, retry and other
//!   stores around a store.
//! - [`codec`]: MessagePack, JSON, BSON, or your own.
//! - [`guarantees`]: what holds when a store evicts, forgets or fails over, and when the database is restored.
//! - [`transport`]: when to use the queue, the outbox or a broker; [`Consumer`]: from a broker to a store and to hooks.
//! - [`Report`], [`Health`] and [`Shutdown`]: what became of what.
//! - [`upkeep`]: backfill, verify and repair: stores brought back to the database's truth.
//! - [`worker`], [`transport`] and [`change`]: what stands between capture and the stores, for those who
//!   put their own parts together.
//! - [`envelope`] and [`record`]: the bytes that are stored, for those who read them from elsewhere.
//!
//! # From async code
//!
//! Every call blocks its thread: Diesel's, and those of kvsync and its stores. In an async program let
//! `tokio::task::spawn_blocking`, or what your runtime has in its place, run whole units of work, transaction and fetch
//! together; the example `person_api` does so. Threads of any runtime may call: stores whose clients are asynchronous
//! (DynamoDB, NATS) have a thread with a runtime of their own, and need none of yours.
//!
//! | | blocks for |
//! |---|---|
//! | a write through the connection | the database; where the queue is full, for [`Builder::overflow_block`] after COMMIT |
//! | `fetch`, `lookup` and their like | a round trip, a second one for pointers; at most what the store's timeouts allow |
//! | commands of [`DataCommands`](store::data::DataCommands) | the same; writes with their retries |
//! | `flush`, `wait`, `health`, `shutdown` | the deadline that they are given |
//! | connecting a store | its timeouts, seconds by default |
//! | dropping the last [`KvSync`] | [`Builder::drop_deadline`] at most |
//! | backfill, verify, repair | as long as they take: give them a thread |
//!
//! A task that is cancelled does not cancel a call that has begun.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `sqlite`, `postgres` | capture on that database | |
//! | `r2d2` | connections from a pool | |
//! | `redis` | Redis, single server, Cluster and Sentinel | yes |
//! | `redis-tls` | `rediss://`, with rustls and ring | |
//! | `embedded` | a store on disk, in the process (fjall) | |
//! | `nats` | NATS JetStream: a key-value bucket; a collection under one key of data is one entry there | |
//! | `rabbitmq` | a [`transport`] through RabbitMQ | |
//! | `rabbitmq-tls` | `amqps://`, with rustls and ring | |
//! | `near-cache` | a layer: what was read lately, in the memory of the process (moka) | |
//! | `metrics` | a layer: counts, errors, times and bytes of a store, to the `metrics` facade | |
//! | `dynamodb` | a store in a table of Amazon DynamoDB | |
//! | `foundationdb` | a store in FoundationDB; it links that database's client library | |
//! | `json`, `bson` | these codecs | |
//! | `uuid` | `Uuid` as a part of a key | |
//! | `cli` | the command line that a program of yours mounts | |
//! | `conformance` | the suites that every store and every broker passes; not under semantic versioning | |
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "dynamodb", feature = "nats", feature = "rabbitmq"))]
#[allow(dead_code, reason = "its callers come next")]
mod bridge;
pub mod capture;
pub mod change;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod codec;
pub mod consumer;
pub mod envelope;
mod error;
pub mod fetch;
#[cfg(all(test, feature = "metrics"))]
mod figures;
#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod key;
mod kvsync;
pub mod model;
#[cfg(feature = "nats")]
mod nats;
pub mod record;
pub mod report;
mod serial;
mod status;
pub mod store;
mod sync;
pub mod transport;
pub mod upkeep;
mod version;
pub mod worker;

pub use self::consumer::Consumer;
pub use self::error::{Error, ErrorKind, Result};
pub use self::fetch::{Lookup, Miss};
pub use self::key::{Key, KeyPart, KeyParts, KeyWriter, PartWriter, Scope};
pub use self::kvsync::{BrokerStatus, Builder, Health, KvSync, Outbox, StoreStatus};
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

    pub use crate::capture::Column;
    pub use crate::key::{key, no_key};
}
