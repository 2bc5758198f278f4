//! Ordinary Diesel writes in, typed fetches out: SQLite and a store on disk, no server.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::embedded::EmbeddedStore;
use kvsync::{KvSync, Lookup, Syncable};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>")]
struct User {
    id: i32,
    uuid: String,
    username: String,
}

#[derive(Insertable)]
#[diesel(table_name = users)]
struct NewUser<'a> {
    uuid: &'a str,
    username: &'a str,
}

const LONG: Duration = Duration::from_mins(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&database)?.batch_execute(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)",
    )?;

    let kv = KvSync::builder()
        .store(EmbeddedStore::open(dir.path().join("store"))?)
        .database(Database::<Sqlite>::new("main", move || SqliteConnection::establish(&database)).model::<User>())
        .workers(2)
        .build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;

    // Create. The statement is Diesel's own; the row shows up in the store once it is committed.
    diesel::insert_into(users::table).values(NewUser { uuid: "test-uuid", username: "ann" }).execute(&mut conn)?;
    kv.flush(LONG)?;
    let by_id = User::fetch_by_id(&kv, 1)?.ok_or("not under its id")?;
    println!("created        {by_id:?}");
    assert_eq!(User::fetch_by_uuid(&kv, "test-uuid")?.as_ref(), Some(&by_id));
    assert_eq!(User::fetch_by_composite(&kv, 1, "test-uuid")?.as_ref(), Some(&by_id));
    println!("fetched        by id, by uuid and by composite key");

    // Update.
    diesel::update(users::table.find(1)).set(users::username.eq("anne")).execute(&mut conn)?;
    kv.flush(LONG)?;
    let updated = User::fetch_by_uuid(&kv, "test-uuid")?.ok_or("not under its uuid")?;
    assert_eq!(updated.username, "anne");
    println!("updated        {updated:?}");

    // A changed key: nothing is left under the old one.
    diesel::update(users::table.find(1)).set(users::uuid.eq("new-uuid")).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(User::fetch_by_uuid(&kv, "new-uuid")?.map(|user| user.id), Some(1));
    assert_eq!(User::lookup_by_uuid(&kv, "test-uuid")?, Lookup::Absent);
    println!("key changed    found under new-uuid, gone from test-uuid");

    // Rollback: nobody ever sees it.
    let rolled_back = conn.transaction(|conn| {
        diesel::insert_into(users::table).values(NewUser { uuid: "ghost", username: "ghost" }).execute(conn)?;
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(rolled_back, Err(diesel::result::Error::RollbackTransaction));
    kv.flush(LONG)?;
    assert_eq!(User::fetch_by_uuid(&kv, "ghost")?, None);
    println!("rolled back    nothing under ghost");

    // A batch, waited for by the token of its commit, fetched in one round trip.
    let batch: Vec<NewUser<'_>> =
        ["bob", "eve", "joe"].map(|name| NewUser { uuid: name, username: name }).into_iter().collect();
    diesel::insert_into(users::table).values(&batch).execute(&mut conn)?;
    let token = conn.last_commit().ok_or("the batch was not captured")?;
    kv.wait(token, LONG)?;
    let many = User::fetch_many_by_uuid(&kv, ["bob", "nobody", "joe"])?;
    assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    println!("batch          {} of 3 asked for were found", many.iter().flatten().count());

    // Delete.
    diesel::delete(users::table.find(1)).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(User::lookup_by_id(&kv, 1)?, Lookup::Absent);
    assert_eq!(User::lookup_by_uuid(&kv, "new-uuid")?, Lookup::Absent);
    println!("deleted        absent under every key");

    println!("shut down      {}", kv.shutdown(LONG));
    Ok(())
}
