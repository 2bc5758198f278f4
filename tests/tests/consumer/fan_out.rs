//! One exchange or stream feeds several stores, each through a queue and a consumer of its own.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::Lookup;
use kvsync::capture::Database;
use kvsync::store::{EmbeddedStore, MemoryStore, SyncStore};
use kvsync_tests::accounts::{self, Account};
use kvsync_tests::env;
use kvsync_tests::redis::patient;

use crate::places::{Place, over_each_broker};
use crate::rig::{App, LONG, User, reader, until, user, users};

over_each_broker!(
    a_queue_of_some_tables_gets_no_others,
    a_queue_that_is_made_later_is_filled_by_a_backfill,
    each_store_has_a_queue_and_one_that_is_down_catches_up,
);

/// Waits until a store has these rows, under each key, and none beside them.
#[track_caller]
pub fn until_has(store: impl SyncStore + 'static, rows: &[User], ids: std::ops::Range<i32>) {
    let kv = reader(store);
    let stored = |id: i32| rows.iter().find(|row| row.id == id).cloned();
    let wanted: Vec<Option<User>> = ids.clone().map(stored).collect();
    let emails: Vec<String> = rows.iter().filter_map(|row| row.email.clone()).collect();
    until("the store has the rows", || {
        let by_email = User::fetch_many_by_email(&kv, &emails).unwrap();
        User::fetch_many_by_id(&kv, ids.clone()).unwrap() == wanted && by_email.iter().flatten().eq(rows)
    });
}

fn each_store_has_a_queue_and_one_that_is_down_catches_up(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let redis = patient([env::redis_url().unwrap()]).prefix(&place.name).connect().unwrap();
    let disk = EmbeddedStore::open(folder.path()).unwrap();
    let to_redis = || place.consuming("redis", &[]).store(redis.clone()).build().unwrap();
    let to_disk = || place.consuming("disk", &[]).store(disk.clone()).build().unwrap();
    place.declare("disk");

    let first = to_redis();
    let mut app = App::with(place.publishing(), true);
    (0..20).for_each(|id| app.insert(&user(id, &format!("e{id}"), "first")));
    app.flush();
    let early = app.rows();
    until_has(redis.clone(), &early, 0..20);
    assert_eq!(User::fetch_by_id(&reader(disk.clone()), 0).unwrap(), None);

    // Now the other one.
    assert!(first.shutdown(LONG).is_clean());
    let second = to_disk();
    (0..20).for_each(|id| app.rename(id, &format!("f{id}")));
    (0..20).step_by(3).for_each(|id| app.delete(id));
    app.flush();
    until_has(disk, &app.rows(), 0..20);
    until_has(redis.clone(), &early, 0..20);

    let again = to_redis();
    until_has(redis, &app.rows(), 0..20);
    assert_eq!([&second, &again].map(|consumer| consumer.health(LONG).dead), [0, 0]);
}

fn a_queue_that_is_made_later_is_filled_by_a_backfill(place: &Place) {
    let (early, late) = (MemoryStore::new(), MemoryStore::new());
    let first = place.consuming("early", &[]).store(early.clone()).build().unwrap();
    let mut app = App::with(place.publishing(), true);
    (0..10).for_each(|id| app.insert(&user(id, &format!("e{id}"), "first")));
    app.delete(3);
    app.flush();
    until_has(early.clone(), &app.rows(), 0..10);

    place.until_forgotten();
    // From its making on the queue gets what is written, deletions too; the backfill tells it of the rest.
    let second = place.consuming("late", &[]).store(late.clone()).build().unwrap();
    app.delete(4);
    app.rename(5, "f5");
    app.flush();
    let kv = reader(late.clone());
    until("what was written since is there", || User::fetch_by_id(&kv, 5).unwrap().is_some());
    assert_eq!(User::fetch_by_id(&kv, 0).unwrap(), None);
    assert_eq!(app.kv.backfill::<User>().run().unwrap().rows, 8);
    app.rename(6, "f6");
    app.flush();
    for (consumer, store) in [(&second, late), (&first, early)] {
        until_has(store, &app.rows(), 0..10);
        assert_eq!(consumer.health(LONG).dead, 0);
    }
}

/// A queue of users, and then one of everything.
fn a_queue_of_some_tables_gets_no_others(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db").to_string_lossy().into_owned();
    let mut own = SqliteConnection::establish(&file).unwrap();
    own.batch_execute(kvsync_tests::users::TABLE).unwrap();
    own.batch_execute(accounts::TABLE).unwrap();
    let open = move || SqliteConnection::establish(&file);
    let database = Database::<Sqlite>::new("main", open).model::<User>().model::<Account>();
    let kv = place.publishing().database(database).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();

    let (some, all) = (MemoryStore::new(), MemoryStore::new());
    let of_some = place.consuming("some", &["users"]).store(some.clone()).build().unwrap();
    let account = Account { id: 1, email: None, handle: "ann".to_owned(), n: 1 };
    diesel::insert_into(accounts::accounts::table).values(&account).execute(&mut conn).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "ann")).execute(&mut conn).unwrap();
    // What no queue wants yet waits at the publisher, and holds up no other.
    let (has_some, has_all) = (reader(some), reader(all.clone()));
    until("the user is there", || User::fetch_by_id(&has_some, 1).unwrap().is_some());

    let of_all = place.consuming("all", &[]).store(all).build().unwrap();
    kv.flush(LONG).unwrap();
    until("the account is there", || Account::fetch_by_id(&has_all, 1).unwrap().as_ref() == Some(&account));
    diesel::delete(users::table).execute(&mut conn).unwrap();
    kv.flush(LONG).unwrap();
    until("the user is gone", || User::lookup_by_id(&has_some, 1).unwrap() == Lookup::Absent);
    assert_eq!(Account::fetch_by_id(&has_some, 1).unwrap(), None);
    assert_eq!((of_some.health(LONG).dead, of_all.health(LONG).dead), (0, 0));
}
