//! A Redis Cluster, entries that live for a year, a prefix of one's own, BSON, four workers and a
//! report of every key that was written.
//!
//! ```text
//! KVSYNC_REDIS_CLUSTER_URLS=redis://127.0.0.1:7000,redis://127.0.0.1:7001 \
//!     cargo run --example redis_cluster --features redis
//! ```

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::codec::Bson;
use kvsync::store::redis::RedisStore;
use kvsync::{KvSync, Syncable};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync(codec = Bson)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>")]
struct User {
    id: i32,
    uuid: String,
    username: String,
}

const YEAR: Duration = Duration::from_hours(365 * 24);
const LONG: Duration = Duration::from_mins(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let urls = std::env::var("KVSYNC_REDIS_CLUSTER_URLS")
        .unwrap_or_else(|_| "redis://127.0.0.1:7000,redis://127.0.0.1:7001,redis://127.0.0.1:7002".into());
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&database)?.batch_execute(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)",
    )?;

    // The timeouts are for machines that are busy with other things; by default they are a second or two.
    let cluster = RedisStore::builder(urls.split(',')).connect_timeout(LONG).command_timeout(LONG);
    let cluster = cluster.prefix("gorm:kvsync:").cluster()?;
    let kv = KvSync::builder()
        .store(cluster)
        .database(Database::<Sqlite>::new("main", move || SqliteConnection::establish(&database)).model::<User>())
        .expiration(YEAR)
        .workers(4)
        .on_report(|report| println!("{report}"))
        .build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;

    let ann = User { id: 1, uuid: "test-uuid".into(), username: "ann".into() };
    diesel::insert_into(users::table).values(&ann).execute(&mut conn)?;
    kv.flush(LONG)?;

    println!("by uuid:         {:?}", User::fetch_by_uuid(&kv, "test-uuid")?);
    println!("by name of key:  {:?}", kv.fetch::<User>("composite", (1, "test-uuid"))?);
    let partly_filled = User { id: 1, uuid: String::new(), username: String::new() };
    println!("by a like model: {:?}", kv.fetch_like("id", &partly_filled)?);
    assert_eq!(kv.fetch_like("id", &partly_filled)?, Some(ann));

    println!("shut down: {}", kv.shutdown(LONG));
    Ok(())
}
