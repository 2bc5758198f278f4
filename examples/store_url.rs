//! Opens the store that a setting names. The library has no such function: a program names its stores in its types.
//!
//! | `KVSYNC_STORE` | store | feature |
//! |---|---|---|
//! | `memory:` | in the process, gone with it | |
//! | `embedded:PATH` | on disk; without a path in a temporary folder, which is the default | |
//! | `redis://HOST:PORT/` | a Redis server | `redis` |
//! | `redis+cluster://HOST:PORT,HOST:PORT` | a Redis Cluster, by some of its nodes | `redis` |
//! | `dynamodb:TABLE?region=..&endpoint=..` | a table of DynamoDB, made where there is none; credentials as AWS's tools take them | `dynamodb` |
//! | `nats://HOST:PORT/BUCKET` | a bucket of NATS JetStream; no atomic writes over several keys, which `users_store` needs | `nats` |

use std::sync::Arc;

use kvsync::store::data::DataStore;
use kvsync::store::{EmbeddedStore, MemoryStore, SyncStore};
use tempfile::TempDir;

/// A store, for both of its uses.
pub struct Opened {
    /// For data of the program's own.
    pub data: Arc<dyn DataStore>,
    /// For rows that are synced.
    pub rows: Arc<dyn SyncStore>,
    /// The folder goes with this.
    pub folder: Option<TempDir>,
}

/// The setting.
pub fn from_env() -> String {
    std::env::var("KVSYNC_STORE").unwrap_or_else(|_| "embedded:".to_owned())
}

/// Opens the store of this URL.
///
/// # Errors
///
/// When it names no store, or the store cannot be opened.
pub fn open(url: &str) -> Result<Opened, Box<dyn std::error::Error + Send + Sync>> {
    let (kind, rest) = url.split_once(':').ok_or("KVSYNC_STORE is like `embedded:path` or `redis://host:port/`")?;
    match kind {
        "memory" => Ok(opened(MemoryStore::new(), None)),
        "embedded" if rest.is_empty() => {
            let folder = tempfile::tempdir()?;
            Ok(opened(EmbeddedStore::open(folder.path().join("store"))?, Some(folder)))
        }
        "embedded" => Ok(opened(EmbeddedStore::open(rest)?, None)),
        #[cfg(feature = "redis")]
        "redis" => Ok(opened(kvsync::store::RedisStore::connect(url)?, None)),
        #[cfg(feature = "redis")]
        "redis+cluster" => {
            let nodes = rest.trim_matches('/').split(',').map(|node| format!("redis://{node}/"));
            Ok(opened(kvsync::store::RedisStore::cluster(nodes)?, None))
        }
        #[cfg(feature = "dynamodb")]
        "dynamodb" => {
            let (table, settings) = rest.split_once('?').unwrap_or((rest, ""));
            let mut builder = kvsync::store::DynamoDbStore::builder(table);
            for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
                builder = match setting.split_once('=') {
                    Some(("region", region)) => builder.region(region),
                    Some(("endpoint", endpoint)) => builder.endpoint(endpoint),
                    _ => return Err(format!("`{setting}` is no setting of a table").into()),
                };
            }
            builder.create_table()?;
            Ok(opened(builder.connect()?, None))
        }
        #[cfg(feature = "nats")]
        "nats" => {
            let (server, bucket) = url.rsplit_once('/').ok_or("a bucket is like `nats://host:port/bucket`")?;
            Ok(opened(kvsync::store::NatsStore::builder([server]).bucket(bucket).connect()?, None))
        }
        _ => Err(format!("no store is named `{kind}`, or its feature is not enabled").into()),
    }
}

fn opened<S: SyncStore + DataStore + Clone + 'static>(store: S, folder: Option<TempDir>) -> Opened {
    Opened { data: Arc::new(store.clone()), rows: Arc::new(store), folder }
}
