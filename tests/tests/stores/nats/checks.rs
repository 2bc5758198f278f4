//! What a bucket and a server have to be, and what is said when they are not.

use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::store::data::{DataCommands, DataStore, Reads};
use kvsync::store::nats::{Builder, NatsStore};
use kvsync::store::{Status, Store, SyncStore};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::{LONG, until};

use super::raw;

pub(super) fn builder(server: &Nats) -> Builder {
    NatsStore::builder([server.url()]).connect_timeout(LONG).command_timeout(LONG).retry_for(LONG)
}

/// The connection fails with this kind, and the message says this.
pub(super) fn refused(made: kvsync::Result<NatsStore>, kind: ErrorKind, says: &str) {
    let error = made.expect_err("the store was made");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "`{says}` is not in: {error}");
}

pub(super) fn a_bucket_that_cannot_be_trusted_is_refused() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let of = |name: &str| builder(&server).bucket(name).create(false).connect();
    refused(of("missing"), ErrorKind::Unavailable, "is not there");
    raw::bucket(&server, "history", r#","max_msgs_per_subject":5"#)?;
    refused(of("history"), ErrorKind::Config, "history");
    raw::bucket(&server, "queue", r#","max_msgs_per_subject":1,"retention":"workqueue""#)?;
    refused(of("queue"), ErrorKind::Config, "drops what was read");
    raw::bucket(&server, "silent", r#","max_msgs_per_subject":1,"no_ack":true"#)?;
    refused(of("silent"), ErrorKind::Config, "no_ack");
    refused(builder(&server).bucket("a.b").connect(), ErrorKind::Config, "no name of a bucket");
    refused(builder(&server).bucket("three").replicas(3).connect(), ErrorKind::Rejected, "does not allow it");
    Ok(())
}

pub(super) fn a_bucket_that_forgets_degrades_health() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let health = |name: &str| builder(&server).bucket(name).connect().map(|store| store.health(LONG));
    let plain = health("plain")?;
    assert_eq!(plain.status, Status::Up, "{:?}", plain.details);
    assert!(plain.details[0].contains("0 entries") && plain.details[0].contains("version"), "{:?}", plain.details);
    assert_eq!(plain.lives.as_ref().map(Vec::len), Some(1));
    assert_eq!(health("plain")?.lives, plain.lives, "the same bucket");
    raw::bucket(&server, "aging", r#","max_msgs_per_subject":1,"max_age":60000000000"#)?;
    raw::bucket(&server, "rolling", r#","max_msgs_per_subject":1,"max_bytes":100000,"discard":"old""#)?;
    for (name, says) in [("aging", "max_age"), ("rolling", "discard old")] {
        let health = health(name)?;
        assert_eq!(health.status, Status::Degraded, "{:?}", health.details);
        assert!(health.details.iter().any(|detail| detail.contains(says)), "{:?}", health.details);
    }
    let memory = builder(&server).bucket("memory").in_memory().connect()?.health(LONG);
    assert!(memory.details.iter().any(|detail| detail.contains("in memory")), "{:?}", memory.details);
    Ok(())
}

pub(super) fn a_bucket_that_is_gone_is_made_again_and_is_another() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = builder(&server).in_memory().connect()?;
    store.set("key", "value")?;
    let before = store.health(LONG).lives;
    // What is in the memory of a server goes with it.
    server.restart()?;
    until("the bucket is made again", || store.get("key").is_ok_and(|found| found.is_none()));
    store.set("key", "again")?;
    let after = store.health(LONG).lives;
    assert!(before.is_some() && after.is_some() && before != after, "{before:?} {after:?}");
    Ok(())
}

pub(super) fn a_full_bucket_says_so_and_reads_on() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = builder(&server).max_bytes(50_000).retry_for(Duration::from_millis(50)).connect()?;
    store.set("first", "value")?;
    let error = (0..100).find_map(|number| store.set(format!("key:{number}"), vec![b'x'; 5_000]).err());
    let error = error.ok_or("the bucket is never full")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("room"), "{error}");
    assert_eq!(store.get("first")?.as_deref(), Some(b"value".as_slice()));
    assert!(store.delete("key:0")?, "what is removed makes room");
    Ok(())
}

pub(super) fn a_server_that_cannot_store_or_will_not_let_us_is_told() -> Tested {
    let without = Nats::start(&NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
    refused(builder(&without).connect(), ErrorKind::Config, "nats-server -js");
    without.kill()?;
    refused(builder(&without).connect(), ErrorKind::Unavailable, "is it running");
    refused(NatsStore::connect("http://user:hunter2@localhost"), ErrorKind::Config, "no nats URL");

    let settings = r#"authorization { users = [
        { user: app, password: secret }
        { user: reader, password: secret, permissions: {
            publish: { deny: ["$KV.>"] }
        } }
        { user: deaf, password: secret, permissions: { subscribe: ["answers.>"] } }
        { user: nobody, password: secret, permissions: { publish: { deny: ["$JS.>"] } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { settings: settings.into(), ..NatsOptions::default() })?;
    refused(builder(&server).connect(), ErrorKind::Rejected, "does not take this user");
    refused(builder(&server).user_and_password("app", "wrong").connect(), ErrorKind::Rejected, "does not take this");
    let store = builder(&server).user_and_password("app", "secret").connect()?;
    store.set("key", "value")?;
    for user in ["reader", "nobody"] {
        let refusal = builder(&server).user_and_password(user, "secret").connect();
        refused(refusal, ErrorKind::Rejected, "Permissions Violation for Publish");
    }
    let deaf = builder(&server).user_and_password("deaf", "secret");
    refused(deaf.clone().connect(), ErrorKind::Rejected, "`inbox_prefix`");
    assert_eq!(deaf.inbox_prefix("answers").connect()?.get("key")?.as_deref(), Some(b"value".as_slice()));
    Ok(())
}

pub(super) fn tls_with_an_authority_of_ones_own() -> Tested {
    let server = Nats::start(&NatsOptions { tls: true, ..NatsOptions::default() })?;
    let store = builder(&server).ca_file(server.ca().ok_or("no authority")?).connect()?;
    store.set("key", "value")?;
    assert_eq!(store.get("key")?.as_deref(), Some(b"value".as_slice()));
    refused(builder(&server).connect(), ErrorKind::Config, "certificate");
    Ok(())
}

pub(super) fn the_largest_entry_is_the_servers() -> Tested {
    let settings = "max_payload: 65536".to_owned();
    let server = Nats::start(&NatsOptions { settings, ..NatsOptions::default() })?;
    let store = builder(&server).connect()?;
    let most = store.data_capabilities().max_value;
    assert!(most < 65_536 && store.capabilities().max_value < 65_536);
    store.set("key", vec![b'x'; most])?;
    assert_eq!(store.set("key", vec![b'x'; most + 1]).unwrap_err().kind(), ErrorKind::Rejected);
    // Each member is small, and together they are one entry.
    let error = (0..100_u8).find_map(|number| store.sadd("set", [vec![number; 1_000]]).err());
    let error = error.ok_or("a set of 100 KB in an entry of 64 KB")?;
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(store.smembers("set")?.len() > 50, "what fits stays");
    assert_eq!(store.srem("set", [vec![0; 1_000]])?, 1);
    Ok(())
}

pub(super) fn what_is_removed_leaves_nothing() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    let store = builder(&server).connect()?;
    store.set("string", "value")?;
    store.sadd("set", ["member"])?;
    store.set_for("short", "value", Duration::from_millis(1))?;
    assert_eq!(raw::entries(&server, "kvsync")?, 3);
    assert!(store.delete("string")?);
    assert_eq!(store.srem("set", ["member"])?, 1);
    until("it expires", || store.get("short").is_ok_and(|found| found.is_none()));
    assert_eq!(raw::entries(&server, "kvsync")?, 1, "nothing expires by itself");
    assert_eq!(store.sweep_data()?, 1);
    assert_eq!(raw::entries(&server, "kvsync")?, 0);
    assert_eq!(store.sweep_data()?, 0);
    Ok(())
}

pub(super) fn readings_that_may_lag_are_answered_with_and_without_direct_reads() -> Tested {
    use kvsync::store::data::{Command, Reply};
    let server = Nats::start(&NatsOptions::default())?;
    raw::bucket(&server, "plain", r#","max_msgs_per_subject":1"#)?;
    for bucket in ["ours", "plain"] {
        let store = builder(&server).bucket(bucket).connect()?;
        store.set("a key", "value")?;
        let read = |key: &'static str| store.run(&[Command::Get { key: key.into() }], Reads::Eventual).remove(0);
        assert_eq!(read("a key")?, Reply::Value(Some("value".into())), "{bucket}");
        assert_eq!(read("none")?, Reply::Value(None), "{bucket}");
        store.delete("a key")?;
        assert_eq!(read("a key")?, Reply::Value(None), "{bucket}");
    }
    Ok(())
}
