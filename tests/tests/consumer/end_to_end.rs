//! From outboxes and queues, through real brokers, to stores: what is lost, and what is not.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use diesel::prelude::*;
use kvsync::Scope;
use kvsync::store::MemoryStore;
use kvsync_tests::servers::{Fault, Side};

use crate::fan_out::until_has;
use crate::places::{Place, over_each_broker};
use crate::rig::{App, LONG, SHORT, User, reader, until, user, users};

over_each_broker!(
    two_databases_and_two_tenants_share_a_queue,
    without_an_outbox_what_was_not_confirmed_is_lost_with_the_process,
);

/// The connection is cut when the broker has the message and before its confirm is there.
#[test]
fn a_row_of_the_outbox_goes_when_the_broker_has_confirmed() {
    let place = Place::nats();
    let store = MemoryStore::new();
    let consumer = place.consuming("all", &[]).store(store.clone()).build().unwrap();
    let (behind, proxy) = place.behind_a_proxy();
    let mut app = App::with(behind.publishing(), true);
    let pending = |app: &App| app.kv.outbox("main").unwrap().depth().unwrap().pending;
    let kv = reader(store.clone());
    let (mut id, began) = (0, Instant::now());
    loop {
        assert!(began.elapsed() < LONG, "no connection was cut at the right moment");
        app.insert(&user(id, &format!("e{id}"), "ann"));
        app.flush();
        assert_eq!(pending(&app), 0);
        proxy.set(Fault::CutAfter(Side::FromServer, 0));
        id += 1;
        app.insert(&user(id, &format!("e{id}"), "bob"));
        // Another answer may be the one that is cut, before anything is published: then once more.
        let arrived = (0..100).any(|_| {
            std::thread::sleep(SHORT);
            User::fetch_by_id(&kv, id).unwrap().is_some()
        });
        assert_eq!(pending(&app), 1, "the row is gone, and nobody has confirmed it");
        proxy.heal();
        id += 1;
        if arrived {
            break;
        }
    }
    app.rename(0, "renamed");
    app.flush();
    assert_eq!(pending(&app), 0);
    until_has(store, &app.rows(), 0..id);
    let health = consumer.health(LONG);
    assert_eq!((health.dead, health.unknown), (0, 0), "{health}");
}

fn two_databases_and_two_tenants_share_a_queue(place: &Place) {
    let store = MemoryStore::new();
    let consumer = place.consuming("all", &[]).store(store.clone()).build().unwrap();
    let scopes = ["eu", "us"].map(Scope::named);
    let mut apps = [(); 2].map(|()| App::with(place.publishing(), true));
    for (app, scope) in apps.iter_mut().zip(&scopes) {
        app.conn.set_scope(scope.clone());
    }
    for id in 0..10 {
        for (app, name) in apps.iter_mut().zip(["ann", "bob"]) {
            // The same keys in both.
            app.insert(&user(id, &format!("e{id}"), name));
        }
        let [first, second] = &mut apps;
        first.rename(id, &format!("f{id}"));
        if id % 2 == 0 {
            second.delete(id);
        }
    }
    apps.iter().for_each(App::flush);
    let kv = reader(store);
    for (app, scope) in apps.iter_mut().zip(scopes) {
        let (rows, kv) = (app.rows(), kv.scoped(scope));
        let by_id: Vec<_> = (0..10).map(|id| rows.iter().find(|row| row.id == id).cloned()).collect();
        let addresses: Vec<_> = (0..10).flat_map(|id| [format!("e{id}"), format!("f{id}")]).collect();
        let of = |email: &String| rows.iter().find(|row| row.email.as_ref() == Some(email)).cloned();
        let by_email: Vec<_> = addresses.iter().map(of).collect();
        until("the tenant has its own", || {
            User::fetch_many_by_id(&kv, 0..10).unwrap() == by_id
                && User::fetch_many_by_email(&kv, &addresses).unwrap() == by_email
        });
    }
    assert_eq!(consumer.health(LONG).dead, 0);
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap(), None, "a tenant's row is nobody else's");
}

fn without_an_outbox_what_was_not_confirmed_is_lost_with_the_process(place: &Place) {
    let store = MemoryStore::new();
    let consumer = place.consuming("all", &[]).store(store.clone()).build().unwrap();
    let (behind, proxy) = place.behind_a_proxy();
    let mut app = App::with(behind.publishing(), false);
    app.insert(&user(0, "e0", "ann"));
    app.flush();
    proxy.set(Fault::Refuse);
    let mut command = Command::new(env!("CARGO_BIN_EXE_publisher"));
    command.env("PUBLISHER_URL", &behind.url).env("PUBLISHER_EXCHANGE", &behind.name).stdout(Stdio::piped());
    let mut child = command.env("PUBLISHER_DATABASE", app.file()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let committed = said.by_ref().take(5).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(committed, 5);
    proxy.heal();
    app.insert(&user(100, "e100", "eve"));
    app.flush();
    let kv = reader(store.clone());
    until("what came later is there", || User::fetch_by_id(&kv, 100).unwrap().is_some());
    assert_eq!([0, 1, 5].map(|id| User::fetch_by_id(&kv, id).unwrap().is_some()), [true, false, false]);

    // The rows are there, and so is what cures it.
    assert!(users::table.count().get_result::<i64>(&mut app.conn).unwrap() >= 7);
    app.kv.backfill::<User>().run().unwrap();
    until_has(store, &app.rows(), 0..101);
    assert_eq!(consumer.health(LONG).dead, 0);
}
