//! A store that has forgotten is noticed by every process, once, and its tables are dirty.

use kvsync::envelope::Envelope;
use kvsync::store::{MemoryStore, SyncStore};
use kvsync::{Key, Report, Version};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Redis, RedisOptions};

use crate::rig::*;

/// The mark that processes renew in the store.
fn mark(store: &dyn SyncStore) -> Option<Version> {
    let stands = store.get_many(&[Key::new("!incarnation")]).ok()?.pop()??;
    Some(Envelope::parse(&stands).unwrap().head.version)
}

/// Waits until every process has looked at the store several times more.
fn looked_at(store: &dyn SyncStore, processes: usize) {
    let mut last = None;
    let mut renewed = 0;
    until("the mark is renewed", || {
        let now = mark(store);
        renewed += usize::from(now.is_some() && now != last);
        last = now;
        renewed > 10 * processes
    });
}

fn server(settings: &[(&str, &str)]) -> Tested<Redis> {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok(Redis::start(RedisOptions { settings, ..RedisOptions::default() })?)
}

#[test]
fn a_restart_without_persistence_is_noticed_and_rows_are_filled_in() -> Tested {
    let server = server(&[])?;
    let mut app = App::new(redis(&server.url()), |builder| builder);
    for id in 1..=20 {
        app.put(&user(id, &format!("e{id}"), 1));
    }
    app.flush();
    looked_at(&**app.kv.store(), 1);
    assert_eq!((app.noticed(), app.dirty()), (0, vec![]));
    server.restart()?;
    assert_eq!(User::fetch_by_email(&app.kv, "e7")?, None);
    until("it is noticed", || app.dirty() == ["sessions", "users"]);
    let health = app.kv.health(LONG);
    assert!(health.details.iter().any(|detail| detail.contains("a server was restarted or replaced")), "{health:?}");
    // What is written meanwhile is there at once; all else is filled in.
    app.put(&user(7, "e7", 2));
    app.flush();
    app.kv.backfill_dirty(|backfill| backfill)?;
    for user in app.users() {
        assert_eq!(User::fetch_by_email(&app.kv, user.email.as_deref().unwrap())?.as_ref(), Some(&user));
        assert_eq!(User::fetch_strict_by_handle(&app.kv, &user.handle)?, Some(user));
    }
    assert_eq!(User::fetch_by_id(&app.kv, 7)?, Some(user(7, "e7", 2)));
    app.kv.clear_dirty("main", Some("users"));
    looked_at(&**app.kv.store(), 1);
    assert_eq!(app.dirty(), ["sessions"], "it is not noticed again");
    assert_eq!(app.noticed(), 1);
    Ok(())
}

#[test]
fn an_emptied_store_is_noticed_by_every_process() -> Tested {
    let server = server(&[])?;
    let first = App::new(redis(&server.url()), |builder| builder);
    let others: Vec<App> = (0..2).map(|_| App::of(&first.dir, redis(&server.url()), |builder| builder)).collect();
    let store = first.kv.store();
    let mut emptied = 0;
    // A look that is under way may write its mark into the emptied store before anyone misses it; here looks are under way
    // most of the time.
    until("it is noticed by every process", || {
        looked_at(&**store, 3);
        assert_eq!(server.cli(&["FLUSHALL"]).unwrap(), "OK");
        emptied += 1;
        looked_at(&**store, 3);
        others.iter().chain([&first]).all(|app| app.noticed() > 0 && app.dirty() == ["sessions", "users"])
    });
    let noticed: usize = others.iter().chain([&first]).map(App::noticed).sum();
    // Of those that notice at once one takes over the other's mark, and may take that for another loss.
    assert!(noticed <= 6 * emptied, "{noticed} times after {emptied}");
    looked_at(&**store, 3);
    assert_eq!(others.iter().chain([&first]).map(App::noticed).sum::<usize>(), noticed);
    Ok(())
}

#[test]
fn a_store_that_went_back_to_an_earlier_state_is_noticed() -> Tested {
    let server = server(&[])?;
    let app = App::new(redis(&server.url()), |builder| builder);
    let mut admin = redis::Client::open(server.url())?.get_connection()?;
    until("there is a mark", || mark(&**app.kv.store()).is_some());
    let key = "kvsync:!incarnation";
    let earlier: Vec<u8> = redis::cmd("GET").arg(key).query(&mut admin)?;
    looked_at(&**app.kv.store(), 1);
    // A look that is under way may write its mark over the earlier one before it is read.
    until("it is noticed", || {
        redis::cmd("SET").arg(key).arg(&earlier).exec(&mut admin).unwrap();
        looked_at(&**app.kv.store(), 1);
        app.noticed() > 0
    });
    assert_eq!(app.noticed(), 1);
    Ok(())
}

#[test]
fn a_server_that_keeps_what_it_acknowledges_may_be_restarted() -> Tested {
    let server = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
    let mut app = App::new(redis(&server.url()), |builder| builder);
    app.put(&user(1, "a", 1));
    app.flush();
    looked_at(&**app.kv.store(), 1);
    server.kill()?;
    server.restart()?;
    looked_at(&**app.kv.store(), 1);
    assert_eq!((app.noticed(), app.dirty()), (0, vec![]));
    assert_eq!(User::fetch_by_email(&app.kv, "a")?, Some(user(1, "a", 1)));
    Ok(())
}

#[test]
fn a_restart_that_no_process_saw_is_noticed_by_the_next_one() -> Tested {
    let server = server(&[("appendonly", "yes"), ("appendfsync", "everysec")])?;
    let app = App::new(redis(&server.url()), |builder| builder);
    looked_at(&**app.kv.store(), 1);
    let dir = std::sync::Arc::clone(&app.dir);
    app.kv.shutdown(LONG);
    server.restart()?;
    let next = App::of(&dir, redis(&server.url()), |builder| builder);
    until("it is noticed", || next.noticed() > 0);
    assert_eq!(next.dirty(), ["sessions", "users"]);
    let reports = next.reports.lock().clone();
    let text = reports.iter().find(|report| matches!(report, Report::Forgot { .. })).unwrap().to_string();
    assert!(text.contains("while no process was there"), "{text}");
    looked_at(&**next.kv.store(), 1);
    assert_eq!(next.noticed(), 1);
    Ok(())
}

#[test]
fn the_epoch_outlives_a_store_that_has_forgotten_it() -> Tested {
    let server = server(&[])?;
    let app = App::new(redis(&server.url()), |builder| builder);
    assert_eq!(app.kv.raise_epoch()?, 1);
    assert_eq!(server.cli(&["FLUSHALL"])?, "OK");
    until("a process that knows it raises it again", || app.kv.store().epoch().is_ok_and(|epoch| epoch == 1));
    looked_at(&**app.kv.store(), 1);
    // Nobody knows it but the mark.
    let dir = std::sync::Arc::clone(&app.dir);
    app.kv.shutdown(LONG);
    assert_eq!(server.cli(&["DEL", "kvsync:!epoch"])?, "1");
    let mut next = App::of(&dir, redis(&server.url()), |builder| builder);
    next.put(&user(1, "a", 1));
    next.flush();
    let stands = next.kv.store().get_many(&[Key::new("user:id:1")])?.remove(0).unwrap();
    assert_eq!(Envelope::parse(&stands)?.head.version.epoch(), 1);
    until("it is raised again", || next.kv.store().epoch().is_ok_and(|epoch| epoch == 1));
    Ok(())
}

#[test]
fn a_user_who_may_not_ask_the_server_notices_by_the_mark() -> Tested {
    let server = server(&[])?;
    let rights = "ACL SETUSER app on >pw ~kvsync:* +@read +@write +@scripting +@connection";
    assert_eq!(server.cli(&rights.split(' ').collect::<Vec<_>>())?, "OK");
    let url = server.url().replace("redis://", "redis://app:pw@");
    let app = App::new(redis(&url), |builder| builder);
    looked_at(&**app.kv.store(), 1);
    server.restart()?;
    // The rights were forgotten too.
    assert_eq!(server.cli(&rights.split(' ').collect::<Vec<_>>())?, "OK");
    until("it is noticed", || app.noticed() > 0);
    looked_at(&**app.kv.store(), 1);
    assert_eq!(app.noticed(), 1);
    Ok(())
}

#[test]
fn a_store_that_cannot_forget_is_left_alone() {
    let store = MemoryStore::new();
    let mut app = App::new(store.clone(), |builder| builder);
    app.put(&user(1, "a", 1));
    app.flush();
    app.kv.shutdown(LONG);
    assert_eq!(store.len(), 3, "an entry for each key, and no mark");
}
