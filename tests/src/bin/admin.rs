//! A program that mounts kvsync's command line, as the tests run it. What it works on stands in its environment.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::EmbeddedStore;
use kvsync::worker::Backoff;
use kvsync::{KvSync, Syncable};
use kvsync_tests::redis::patient;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Nullable<Text>,
        name -> Text,
    }
}

#[derive(Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
struct User {
    id: i32,
    email: Option<String>,
    name: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn build() -> Result<KvSync, Failure> {
    let mut builder = KvSync::builder().outbox_attempts(1, Backoff { min: Duration::ZERO, max: Duration::ZERO });
    builder = match env::var("ADMIN_STORE") {
        Ok(dir) => builder.store(EmbeddedStore::open(dir)?),
        Err(_) => builder.store(patient([env::var("ADMIN_REDIS")?]).prefix(&env::var("ADMIN_PREFIX")?).connect()?),
    };
    let url = env::var("ADMIN_DATABASE")?;
    let outbox = env::var("ADMIN_OUTBOX");
    let outbox = outbox.as_deref();
    builder = if url.starts_with("postgres:") {
        let database = Database::<Pg>::new("main", move || PgConnection::establish(&url));
        builder.database(match outbox {
            Ok("triggers") => database.outbox().triggers::<User>(),
            Ok(_) => database.outbox().model::<User>(),
            Err(_) => database.model::<User>(),
        })
    } else {
        let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&url));
        let database = if env::var_os("ADMIN_TENANT").is_some() { database.single_tenant() } else { database };
        builder.database(match outbox {
            Ok("triggers") => database.outbox().triggers::<User>(),
            Ok(_) => database.outbox().model::<User>(),
            Err(_) => database.model::<User>(),
        })
    };
    Ok(builder.build()?)
}

fn main() -> ExitCode {
    kvsync::cli::run(build)
}
