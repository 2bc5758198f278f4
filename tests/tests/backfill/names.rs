//! A table that has one name in `table!` and another in the database.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::MemoryStore;
use kvsync::{KvSync, Syncable};
use serde::{Deserialize, Serialize};

use crate::rig::LONG;

diesel::table! {
    #[sql_name = "Odd Tab'le"]
    odds (id) {
        id -> Integer,
        name -> Text,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = odds)]
#[sync_key(name = "id", fmt = "odd:<id>")]
struct Odd {
    id: i32,
    name: String,
}

#[test]
fn a_dirty_table_is_found_by_the_name_that_its_model_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let mut plain = SqliteConnection::establish(&path).unwrap();
    plain.batch_execute("CREATE TABLE \"Odd Tab'le\" (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").unwrap();
    let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path)).model::<Odd>();
    let kv = KvSync::builder().store(MemoryStore::new()).database(database).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    diesel::insert_into(odds::table).values((odds::id.eq(1), odds::name.eq("old"))).execute(&mut conn).unwrap();
    conn.batch_execute("UPDATE \"Odd Tab'le\" SET name = 'mid'; UPDATE \"Odd Tab'le\" SET name = 'new'").unwrap();
    kv.flush(LONG).unwrap();
    let dirty = kv.health(LONG).pipeline.dirty;
    assert_eq!((dirty.len(), dirty[0].table.as_deref()), (1, Some(Odd::SCHEMA.table)), "{dirty:?}");

    assert_eq!(kv.backfill_dirty(|backfill| backfill).unwrap().len(), 1);
    assert_eq!(Odd::fetch_by_id(&kv, 1).unwrap(), Some(Odd { id: 1, name: "new".into() }));
    kv.repair::<Odd>().in_flight(Duration::from_millis(1)).run().unwrap();
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
}
