//! Scopes, generations of keys, and entries that end.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::MemoryStore;
use kvsync::upkeep::DifferenceKind::{Missing, Orphan, Stale, Unknown};
use kvsync::upkeep::{DifferenceKind, Verified};
use kvsync::{Key, KvSync, Scope, Syncable};
use kvsync_tests::postgres::fresh_database;
use kvsync_tests::redis::patient;
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, env};
use serde::{Deserialize, Serialize};

use crate::models::*;
use crate::rig::{On, Rig};

const SOON: Duration = Duration::from_millis(1);

fn named(found: &Verified) -> Vec<(DifferenceKind, &str)> {
    let mut named: Vec<_> = found.differences.iter().map(|found| (found.kind, found.key.as_str())).collect();
    named.sort_unstable();
    named
}

#[test]
fn schemas_that_are_scopes_are_each_compared() -> Tested {
    let fresh = fresh_database()?;
    let mut plain = fresh.connect()?;
    for schema in ["one", "two"] {
        plain.batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {TABLES}"))?;
    }
    let url = fresh.url();
    let database = Database::<Pg>::new("main", move || PgConnection::establish(&url))
        .model::<User>()
        .scopes(|schema| ["one", "two"].contains(&schema).then(|| Scope::named(schema)));
    let prefix = format!("verify:{:016x}:", rand::random::<u64>());
    let store = patient([env::redis_url()?]).prefix(&prefix).connect()?;
    let kv = KvSync::builder().store(store).database(database).build()?;
    let mut conn = kv.connect::<Pg>("main")?;
    for schema in ["one", "two"] {
        conn.batch_execute(&format!("SET search_path = {schema}"))?;
        diesel::sql_query("INSERT INTO users VALUES (1, 'ann@x', 'Ann')").execute(&mut conn)?;
    }
    kv.flush(LONG)?;
    let clean = kv.verify::<User>().in_flight(SOON).run()?;
    assert!(clean.is_clean() && clean.rows == 2, "{clean}: {:#?}", clean.differences);

    plain.batch_execute("UPDATE two.users SET name = 'Anna'; DELETE FROM one.users")?;
    let found = kv.verify::<User>().in_flight(SOON).run()?;
    let wanted = [
        (Stale, "@two:user:email:ann@x"),
        (Stale, "@two:user:id:1"),
        (Orphan, "@one:user:email:ann@x"),
        (Orphan, "@one:user:id:1"),
    ];
    assert_eq!(named(&found), wanted);
    let of_one = kv.scoped(Scope::named("one"));
    assert_eq!(named(&of_one.verify::<User>().in_flight(SOON).run()?), wanted[2..]);
    assert!(of_one.repair::<User>().in_flight(SOON).run()?.is_clean());
    assert_eq!(named(&kv.verify::<User>().in_flight(SOON).run()?), wanted[..2], "the other scope was left alone");
    assert!(kv.repair::<User>().in_flight(SOON).run()?.is_clean());
    assert!(kv.verify::<User>().in_flight(SOON).run()?.is_clean());
    Ok(())
}

mod after {
    use super::*;

    /// The same table with another key: a generation of its own, whose records are hidden.
    #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync(generation = 1)]
    #[sync_key(name = "id", fmt = "user:id:<id>")]
    #[sync_key(name = "name", fmt = "user:name:<name>", assume_unique)]
    pub struct User {
        pub id: i32,
        pub email: Option<String>,
        pub name: String,
    }
}

#[test]
fn two_generations_of_keys_are_compared_side_by_side() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&path)?.batch_execute(TABLES)?;
    let store = MemoryStore::new();
    let url = path.clone();
    let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&url))
        .model::<User>()
        .model::<after::User>();
    let kv = KvSync::builder().store(store.clone()).database(database).build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    diesel::sql_query("INSERT INTO users VALUES (1, 'a@x', 'Ann'), (2, 'b@x', 'Bob')").execute(&mut conn)?;
    diesel::sql_query("UPDATE users SET email = 'c@x', name = 'Cid' WHERE id = 1").execute(&mut conn)?;
    kv.flush(LONG)?;
    let clean = kv.verify_all().in_flight(SOON).run()?;
    assert!(clean.is_clean(), "{clean}: {:#?}", clean.differences);

    SqliteConnection::establish(&path)?.batch_execute("UPDATE users SET name = 'Dan' WHERE id = 1")?;
    let found = kv.verify_all().in_flight(SOON).run()?;
    for wanted in [
        (Stale, "user:id:1"),
        (Stale, "user:email:c@x"),
        (Stale, "~users:User:1:1"),
        (Missing, "user:name:Dan"),
        (Orphan, "user:name:Cid"),
    ] {
        assert!(named(&found).contains(&wanted), "{wanted:?} is not in {:#?}", found.differences);
    }
    let repaired = kv.repair_all().in_flight(SOON).run()?;
    assert!(repaired.is_clean(), "{repaired}: {:?}", repaired.reasons);
    let clean = kv.verify_all().in_flight(SOON).run()?;
    assert!(clean.is_clean(), "{clean}: {:#?}", clean.differences);
    Ok(())
}

#[test]
fn entries_that_have_ended_are_no_differences() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&path)?.batch_execute(TABLES)?;
    let open = path.clone();
    let database =
        Database::<Sqlite>::new("main", move || SqliteConnection::establish(&open)).model::<User>().model::<Session>();
    let kv =
        KvSync::builder().store(MemoryStore::new()).database(database).expiration(Duration::from_millis(1)).build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    diesel::sql_query("INSERT INTO users VALUES (1, 'a@x', 'Ann')").execute(&mut conn)?;
    diesel::sql_query("INSERT INTO sessions VALUES (1, 'one', 'a')").execute(&mut conn)?;
    kv.flush(LONG)?;
    until("they are there, and expired", || {
        kv.store().get_many(&[Key::new("user:id:1")]).unwrap().pop().flatten().is_some()
            && User::fetch_by_id(&kv, 1).unwrap().is_none()
            && Session::fetch_by_token(&kv, "one").unwrap().is_none()
    });
    let found = kv.verify_all().in_flight(SOON).run()?;
    assert!(found.is_clean(), "{found}: {:#?}", found.differences);
    assert_eq!(found.expired, 2 + 3);
    Ok(())
}

#[test]
fn a_table_is_dirty_until_it_is_found_clean() -> Tested {
    let mut rig = Rig::filled(On::SqliteMemory);
    // Several statements in one string are not captured.
    if let crate::rig::Conn::Lite(conn) = &mut rig.conn {
        conn.batch_execute("UPDATE users SET name = 'x' WHERE id = 1; UPDATE users SET name = 'y' WHERE id = 2")?;
    }
    rig.flush();
    let dirty = |rig: &Rig| rig.kv.health(LONG).pipeline.dirty.len();
    assert_eq!(dirty(&rig), 1);
    assert_eq!(rig.verify().count(Stale), 4);
    assert_eq!(dirty(&rig), 1, "a table that is not clean stays dirty");
    assert!(rig.kv.verify::<Session>().in_flight(SOON).run()?.is_clean());
    assert_eq!(dirty(&rig), 1, "another table says nothing of it");
    assert!(rig.repair().is_clean());
    assert_eq!(dirty(&rig), 0);
    Ok(())
}

#[test]
fn entries_of_a_lower_epoch_are_unknown_until_they_are_repaired() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    rig.kv.raise_epoch()?;
    let found = rig.verify();
    assert_eq!((found.count(Unknown), found.found()), (20, 20), "{:#?}", found.differences);
    assert!(rig.repair().is_clean());
    rig.is_clean();
    assert_eq!(User::fetch_by_email(&rig.kv, "ann@x")?.unwrap().name, "Ann");
    Ok(())
}

#[test]
fn a_store_that_is_ahead_of_its_database_is_told_of() -> Tested {
    let rig = Rig::filled(On::SqliteMemory);
    let record = rig.record("user:id:1");
    let head = rig.envelope("user:id:1").head;
    let ahead = kvsync::Version::new(0, 0, head.version.sequence() + (1 << 50));
    let keys = record.live.clone();
    rig.merge("user:id:1", ahead, kvsync::record::Content::Put { value: record.value, expires_at: 0, keys });
    let found = rig.verify();
    assert_eq!(named(&found), [(DifferenceKind::Ahead, "user:id:1")]);
    assert_eq!(rig.repair().left, 1);
    rig.kv.raise_epoch()?;
    assert!(rig.repair().is_clean());
    rig.is_clean();
    Ok(())
}
