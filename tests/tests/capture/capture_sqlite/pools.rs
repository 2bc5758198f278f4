//! Pools of `diesel::r2d2`.

use diesel::connection::TransactionManager;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::Error;
use kvsync::capture::{BatchResults, ConnectionManager as SyncManager};

use super::*;

#[test]
fn a_pool_gives_connections_that_capture() {
    let on = InFile::new();
    let manager = SyncManager::new(on.database.downcast::<Sqlite>().unwrap().clone(), Scope::NONE);
    let pool = Pool::builder().max_size(2).build(manager).unwrap();
    let mut conn = pool.get().unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    conn.transaction::<_, Error, _>(|conn| {
        diesel::update(users::table).set(users::username.eq("Bob")).execute(conn)?;
        user(1, "a", "Cy").save_changes::<User>(&mut **conn)
    })
    .unwrap();
    assert_eq!(on.recorder.lines(describe), ["insert 1 a Ann", "update 1 a Bob", "update 1 a Cy"]);
}

#[test]
fn a_connection_that_comes_back_with_an_open_transaction_is_closed() {
    let on = InFile::new();
    let manager = SyncManager::new(on.database.downcast::<Sqlite>().unwrap().clone(), Scope::NONE);
    let pool = Pool::builder().max_size(1).build(manager).unwrap();
    let mut conn = pool.get().unwrap();
    <Conn as Connection>::TransactionManager::begin_transaction(&mut *conn).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut conn).unwrap();
    drop(conn);
    let mut conn = pool.get().unwrap();
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).unwrap(), 0);
    diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(&mut conn).unwrap();
    assert_eq!(on.recorder.lines(describe), ["insert 2 b Bob"]);
}

#[test]
fn connections_of_another_pool_can_be_wrapped_again_and_again() {
    let on = InFile::new();
    let path = on.folder.path().join("app.db").to_str().unwrap().to_owned();
    let pool = Pool::builder().max_size(1).build(ConnectionManager::<SqliteConnection>::new(path)).unwrap();
    let database = on.database.downcast::<Sqlite>().unwrap();
    for (id, more) in [(1, false), (2, true), (3, false)] {
        let mut conn = database.wrap(pool.get().unwrap()).unwrap();
        if more {
            diesel::update(users::table.find(1)).set(users::uuid.eq("z")).execute(&mut conn).unwrap();
        }
        diesel::insert_into(users::table).values(user(id, &id.to_string(), "Ann")).execute(&mut conn).unwrap();
        diesel::update(users::table.find(id)).set(users::username.eq("Bob")).execute(&mut conn).unwrap();
    }
    assert_eq!(
        on.recorder.lines(describe),
        [
            "insert 1 1 Ann",
            "update 1 1 Bob",
            "update 1 z Bob",
            "insert 2 2 Ann",
            "update 2 2 Bob",
            "insert 3 3 Ann",
            "update 3 3 Bob"
        ]
    );
}

#[test]
fn a_batch_returns_its_rows() {
    let (mut conn, recorder) = open();
    let rows = vec![user(1, "a", "Ann"), user(2, "b", "Bob")];
    let back: Vec<User> = diesel::insert_into(users::table).values(&rows).batch_results(&mut conn).unwrap();
    assert_eq!(back, rows);
    let more = vec![user(3, "c", "Cy"), user(4, "d", "Di")];
    let ids: Vec<i32> =
        diesel::insert_into(users::table).values(&more).returning(users::id).batch_results(&mut conn).unwrap();
    assert_eq!(ids, [3, 4]);
    let sets = recorder.take();
    assert_eq!(sets.iter().map(|set| set.changes.len()).collect::<Vec<_>>(), [2, 2]);
    let failed: QueryResult<Vec<User>> = diesel::insert_into(users::table)
        .values(&vec![user(5, "e", "Ed"), user(1, "f", "Fi")])
        .batch_results(&mut conn);
    assert!(failed.is_err());
    assert_eq!(recorder.take().len(), 0);
}
