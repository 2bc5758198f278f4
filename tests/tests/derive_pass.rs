//! What the derive accepts, and what it makes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use diesel::prelude::*;
use kvsync::store::memory::MemoryStore;
use kvsync::{Key, KeyWriter, KvSync, Syncable};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
        #[sql_name = "type"]
        kind -> Text,
        deleted_at -> Nullable<Timestamp>,
        email -> Nullable<Text>,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>", immutable)]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>", pointer, assume_unique)]
#[sync(live_if = "deleted_at IS NULL", ttl = "365d", jitter = "10%")]
pub struct User {
    id: i32,
    uuid: String,
    username: String,
}

fn key_of<M: Syncable>(model: &M, index: usize) -> Option<Key> {
    let mut key = KeyWriter::default();
    model.write_key(index, &mut key);
    key.finish()
}

#[test]
fn the_schema_says_what_was_declared() {
    let schema = User::SCHEMA;
    assert_eq!((schema.model, schema.table, schema.primary_key), ("User", "users", &["id"][..]));
    assert_eq!((schema.primary, schema.generation, schema.live_if), (Some(0), 0, Some("deleted_at IS NULL")));
    let ttl = schema.ttl.unwrap();
    assert_eq!((ttl.lifetime.as_secs(), ttl.jitter), (365 * 86_400, 0.1));
    assert_eq!(schema.fields.len(), 3);
    let [id, uuid, composite] = schema.keys else { panic!("three keys") };
    assert_eq!((id.name, id.format, id.columns, id.of_primary_key), ("id", "user:id:<id>", &["id"][..], true));
    assert!(uuid.immutable && !uuid.of_primary_key && !uuid.pointer);
    assert!(composite.pointer && composite.assume_unique && !composite.immutable);
    assert_eq!(composite.literals, ["user:composite:", "_", ""]);
}

#[test]
fn builders_and_rows_give_the_same_keys() {
    let user = User { id: 7, uuid: "a_b".into(), username: "x".into() };
    assert_eq!(User::key_by_id(7), Key::new("user:id:7"));
    assert_eq!(User::key_by_composite(7, "a_b"), Key::new("user:composite:7_a_b"));
    assert_eq!(key_of(&user, 0), Some(User::key_by_id(7)));
    assert_eq!(key_of(&user, 1), Some(User::key_by_uuid("a_b")));
    assert_eq!(key_of(&user, 2), Some(User::key_by_composite(7, "a_b")));
    assert_eq!(key_of(&user, 3), None);
}

#[test]
fn every_fetch_takes_the_fields_own_types() {
    let kv = KvSync::builder().store(MemoryStore::new()).build().unwrap();
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap(), None);
    assert_eq!(User::fetch_strict_by_uuid(&kv, "a").unwrap(), None);
    assert!(User::lookup_by_composite(&kv, 1, &String::from("a")).unwrap().found().is_none());
    assert_eq!(User::fetch_many_by_id(&kv, [1, 2]).unwrap(), [None, None]);
    assert_eq!(User::fetch_many_by_uuid(&kv, &["a".to_owned()]).unwrap(), [None]);
    assert_eq!(User::fetch_many_by_composite(&kv, [(1, "a"), (2, "b")]).unwrap(), [None, None]);
}
