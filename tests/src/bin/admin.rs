//! A program that mounts kvsync's command line, as the tests run it. What it works on stands in its environment.

use std::env;
use std::process::ExitCode;

use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::RedisStore;
use kvsync::{KvSync, Syncable};
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

fn build() -> Result<KvSync, Box<dyn std::error::Error + Send + Sync>> {
    let path = env::var("ADMIN_DATABASE")?;
    let store = RedisStore::builder([env::var("ADMIN_REDIS")?]).prefix(&env::var("ADMIN_PREFIX")?).connect()?;
    let mut database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path));
    database = match env::var("ADMIN_OUTBOX").as_deref() {
        Ok("triggers") => database.outbox().triggers::<User>(),
        Ok(_) => database.outbox().model::<User>(),
        Err(_) => database.model::<User>(),
    };
    Ok(KvSync::builder().store(store).database(database).build()?)
}

fn main() -> ExitCode {
    kvsync::cli::run(build)
}
