//! The migration that makes the outbox, up and down.

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel_migrations::MigrationHarness;
use kvsync::capture::Database;
use kvsync::capture::outbox::migrations;
use kvsync::store::MemoryStore;
use kvsync::{ErrorKind, KvSync};
use kvsync_tests::postgres;

use super::setup::*;

macro_rules! up_and_down {
    ($kv:expr, $db:ty) => {{
        let kv = $kv;
        let mut conn = kv.connect::<$db>("main").unwrap();
        conn.batch_execute(TABLES).unwrap();
        let error = kv.check(&mut conn).unwrap_err();
        assert!(error.to_string().contains("migration"), "{error}");
        let insert = || diesel::insert_into(users::table).values((users::id.eq(1), users::name.eq("ann")));
        let refused = insert().execute(&mut conn).unwrap_err();
        assert!(refused.to_string().contains("migration"), "{refused}");
        for _ in 0..2 {
            assert_eq!(conn.unsynced().run_pending_migrations(migrations()).unwrap().len(), 1);
            assert_eq!(conn.unsynced().run_pending_migrations(migrations()).unwrap().len(), 0);
            kv.check(&mut conn).unwrap();
            insert().execute(&mut conn).unwrap();
            kv.flush(LONG).unwrap();
            assert_eq!(User::fetch_by_id(&kv, 1).unwrap().map(|user| user.name.0), Some("ann".to_owned()));
            diesel::delete(users::table.find(1)).execute(&mut conn).unwrap();
            kv.flush(LONG).unwrap();
            assert_eq!(conn.unsynced().revert_all_migrations(migrations()).unwrap().len(), 1);
        }
        assert_eq!(kv.flush(LONG).unwrap_err().kind(), ErrorKind::Config);
    }};
}

#[test]
fn the_migration_of_sqlite_goes_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db").to_string_lossy().into_owned();
    let database = Database::<Sqlite>::new("main", move || sqlite(&path)).model::<User>().outbox();
    up_and_down!(KvSync::builder().store(MemoryStore::new()).database(database).build().unwrap(), Sqlite);
}

#[test]
fn the_migration_of_postgres_goes_up_and_down() {
    let fresh = postgres::fresh_database().unwrap();
    let url = fresh.url();
    let database = Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<User>().outbox();
    let kv = KvSync::builder().store(MemoryStore::new()).database(database).build().unwrap();
    up_and_down!(kv, Pg);
}
