//! Entries that have an end, in stores that keep them until they are swept and in one that does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use diesel::prelude::*;
use kvsync::clock::ManualClock;
use kvsync::store::{EmbeddedStore, MemoryStore, SyncStore};
use kvsync::{Lookup, Miss};
use kvsync_tests::Tested;

use crate::rig::*;

const HOUR: Duration = Duration::from_hours(1);

fn expires_and_is_swept(store: impl SyncStore + 'static) -> Tested {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let own = Arc::clone(&clock);
    let mut app = App::new(store, |builder| builder.expiration(HOUR).clock(own));
    // Its clock is not ours, so its end comes later than in this test; what stands there is left alone.
    let keys = |app: &App| app.kv.store().scan("", None, 1000).unwrap().keys.len();
    let session = Session { id: 1, token: "t".into(), n: 1 };
    app.put(&user(1, "a", 1));
    app.put(&user(1, "b", 2));
    diesel::insert_into(sessions::table).values(&session).execute(&mut app.conn)?;
    app.flush();
    clock.advance(HOUR / 2);
    assert_eq!(User::fetch_by_email(&app.kv, "b")?, Some(user(1, "b", 2)));
    assert_eq!(Session::fetch_by_token(&app.kv, "t")?, Some(session));
    // The end is drawn from when the change was captured, by the clock of the system.
    clock.advance(HOUR);
    assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::NotStored));
    assert_eq!(User::lookup_by_email(&app.kv, "b")?, Lookup::Unknown(Miss::NotStored));
    assert_eq!(User::fetch_by_handle(&app.kv, "h1")?, None);
    assert_eq!(User::fetch_strict_by_email(&app.kv, "b")?, None);
    assert_eq!(User::fetch_strict_by_handle(&app.kv, "h1")?, None);
    assert_eq!(User::fetch_many_by_id(&app.kv, [1, 2])?, [None, None]);
    assert_eq!(Session::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::NotStored));
    assert_eq!(Session::lookup_by_token(&app.kv, "t")?, Lookup::Unknown(Miss::NotStored));
    until("all but the record is swept", || keys(&app) == 1);
    // What the row has left is not forgotten with it.
    app.put(&user(1, "c", 3));
    app.flush();
    assert_eq!(User::fetch_by_email(&app.kv, "b")?, None);
    app.delete(1);
    app.flush();
    clock.advance(15 * 24 * HOUR);
    until("the record is swept", || keys(&app) == 0);
    Ok(())
}

#[test]
fn in_memory() -> Tested {
    expires_and_is_swept(MemoryStore::new())
}

#[test]
fn on_disk() -> Tested {
    let dir = tempfile::tempdir()?;
    expires_and_is_swept(EmbeddedStore::open(dir.path())?)
}
