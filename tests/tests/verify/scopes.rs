//! Scopes that connections choose: nobody knows which rows of a shared table are theirs.

use std::iter::successors;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::MemoryStore;
use kvsync::{Error, ErrorKind, KvSync, Lookup, Scope};
use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use tempfile::TempDir;

use crate::models::*;

const SOON: Duration = Duration::from_millis(1);

/// A row that was written in each of the scopes `one` and `two`, in one table.
fn shared(single: bool) -> Tested<(KvSync, [KvSync; 2], TempDir)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&path)?.batch_execute(TABLES)?;
    let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path)).model::<User>();
    let database = if single { database.single_tenant() } else { database };
    let kv = KvSync::builder().store(MemoryStore::new()).database(database).build()?;
    let tenants = ["one", "two"].map(|name| kv.scoped(Scope::named(name)));
    for (id, tenant) in tenants.iter().enumerate() {
        diesel::sql_query(format!("INSERT INTO users VALUES ({id}, 'e{id}@x', 'n')"))
            .execute(&mut tenant.connect::<Sqlite>("main")?)?;
    }
    kv.flush(LONG)?;
    Ok((kv, tenants, dir))
}

fn is_refused<T>(done: Result<T, impl Into<Error>>) {
    let error = done.map(drop).map_err(Into::into).unwrap_err();
    let causes: Vec<String> =
        successors(Some(&error as &dyn std::error::Error), |error| error.source()).map(ToString::to_string).collect();
    assert!(error.kind() == ErrorKind::Config && causes.concat().contains("single_tenant"), "{causes:?}");
}

#[test]
fn of_a_shared_table_no_row_is_taken_for_that_of_a_scope() -> Tested {
    let (kv, [one, two], _dir) = shared(false)?;
    is_refused(two.backfill::<User>().run());
    is_refused(two.verify::<User>().in_flight(SOON).run());
    is_refused(two.repair_all().in_flight(SOON).run());
    is_refused(two.verifier().start());
    let mut conn = two.connect::<Sqlite>("main")?;
    let mut worked = false;
    is_refused(two.bulk::<User, _, _, Error>(&mut conn, |_| {
        worked = true;
        Ok(())
    }));
    assert!(!worked && kv.health(LONG).pipeline.dirty.is_empty());

    // What was written unseen may be of any scope.
    conn.batch_execute("UPDATE users SET name = 'm'; UPDATE users SET name = 'o'")?;
    assert_eq!(kv.health(LONG).pipeline.dirty.len(), 1);
    is_refused(two.backfill_dirty(|backfill| backfill));
    assert_eq!(kv.health(LONG).pipeline.dirty.len(), 1);
    assert!(!matches!(User::lookup_by_id(&two, 0)?, Lookup::Found(_)), "a row of another tenant");
    // One row at a time is the caller's to know.
    let own = User { id: 1, email: None, name: String::new() };
    assert!(two.sync(&own)? && User::fetch_by_id(&two, 1)?.is_some_and(|user| user.name == "o"));
    assert!(User::fetch_by_id(&one, 0)?.is_some());
    Ok(())
}

#[test]
fn of_a_single_tenant_all_rows_are_those_of_the_scope() -> Tested {
    let (kv, [one, two], _dir) = shared(true)?;
    two.backfill::<User>().run()?;
    assert!(User::fetch_by_id(&two, 0)?.is_some() && two.verify::<User>().in_flight(SOON).run()?.is_clean());
    assert_eq!(one.repair::<User>().in_flight(SOON).run()?.mended, 2);
    let mut conn = two.connect::<Sqlite>("main")?;
    two.bulk::<User, _, _, Box<dyn std::error::Error + Send + Sync>>(&mut conn, |conn| {
        Ok(conn.batch_execute("UPDATE users SET name = 'bulk'")?)
    })?;
    assert!(User::fetch_by_id(&two, 0)?.is_some_and(|user| user.name == "bulk"));
    drop(two.verifier().start()?);
    assert!(kv.health(LONG).pipeline.dirty.is_empty());
    Ok(())
}
