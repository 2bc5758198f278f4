//! The Redis store on a plain server, over a unix socket with a password, as a user that has no rights but those
//! that the documentation names, over TLS, in a cluster, and in the master of some sentinels.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::data::{AtomicWrite, DataCommands};
use kvsync::store::redis::{Builder, RedisStore};
use kvsync::store::{Status, Store, SyncStore};
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{AclUser, Redis, RedisOptions, RedisSentinel, SentinelOptions};
use kvsync_tests::{Tested, env};
use libtest_mimic::Trial;

/// Makes stores with a prefix of their own.
struct Fresh {
    builder: Builder,
    prefix: &'static str,
    connect: fn(Builder) -> kvsync::Result<RedisStore>,
    made: AtomicUsize,
}

/// The ways to reach Redis, by name.
pub(crate) fn stores() -> Vec<crate::Store> {
    let one = |prefix, builder: Result<Builder, env::NoServer>| fresh(prefix, builder, Builder::connect);
    vec![
        ("redis", one("", env::redis_url().map(|url| patient([url])))),
        ("redis_socket", one("app:", env::redis_socket_url().map(|url| patient([url])))),
        ("redis_tls", one("", tls())),
        ("redis_acl", fresh("", limited(), Builder::connect)),
        ("redis_cluster", fresh("", env::redis_cluster_urls().map(patient), Builder::cluster)),
        ("redis_sentinel", fresh("", watched(), |builder| builder.sentinel(RedisSentinel::NAME))),
    ]
}

/// What the suite cannot ask of the store.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("redis_store::data_and_rows_that_would_meet_are_refused", || Ok(apart()?)),
        Trial::test("redis_store::no_time_is_too_long", || Ok(long()?)),
    ]
}

fn apart() -> Tested {
    let url = env::redis_url()?;
    let prefix = format!("stores-apart-{}:", std::process::id());
    let builder = |data: &str| patient([url.clone()]).prefix(prefix.clone()).data_prefix(data);
    for data in [prefix.clone(), format!("{prefix}x"), format!("{prefix}!"), format!("{prefix}@=")] {
        let refused = builder(&data).connect().map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
        assert!(refused.to_string().contains(&format!("{prefix}=")), "it names another: {refused}");
    }
    // Those that stand elsewhere, and those of which only some keys would meet the rows.
    builder(&format!("{prefix}=more:")).connect()?;
    let store = builder("stores-").connect()?;
    let within = prefix.strip_prefix("stores-").unwrap();
    let others = format!("{}{within}", "elsewhere-");
    store.zh_add(&*others, "a", "b", 1.0)?;
    assert_eq!(store.zh_get(&*others, "a")?.as_deref(), Some(b"b".as_slice()));
    assert!(store.delete(&*others)?);
    for key in [format!("{within}user:1"), format!("{within}!epoch"), within.to_owned()] {
        let refused = store.set(&*key, "x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
        let mut write = AtomicWrite::new();
        write.delete(&*key);
        assert_eq!(store.atomic_write(&write).unwrap_err().kind(), ErrorKind::Rejected, "{key}");
        assert_eq!(store.get(&*key).unwrap_err().kind(), ErrorKind::Rejected, "{key}");
    }
    Ok(())
}

/// Every way to connect, with times that no clock can add to the time now.
fn long() -> Tested {
    let forever = |builder: Builder| {
        builder.connect_timeout(Duration::MAX).command_timeout(Duration::MAX).retry_for(Duration::MAX)
    };
    let stores = [
        forever(patient([env::redis_url()?])).prefix("long:").connect()?,
        forever(patient(env::redis_cluster_urls()?)).prefix("long:").cluster()?,
        forever(watched()?).prefix("long:").sentinel(RedisSentinel::NAME)?,
    ];
    for store in stores {
        store.set("key", "value")?;
        assert!(store.get("key")?.is_some());
        store.scan("nothing", None, 10)?;
        assert!(store.health(Duration::MAX).status != Status::Down, "{store:?}");
        store.delete("key")?;
    }
    Ok(())
}

fn tls() -> Result<Builder, env::NoServer> {
    Ok(patient([env::redis_tls_url()?]).ca_file(env::redis_tls_ca()?))
}

/// As a user with the rights that the documentation names.
fn limited() -> Result<Builder, xtask::Error> {
    static SERVER: OnceLock<Redis> = OnceLock::new();
    let (name, password, keys) = ("app".into(), "pw".into(), "*".into());
    let user = Some(AclUser { name, password, keys });
    let server = Redis::start(RedisOptions { user, ..RedisOptions::default() })?;
    let rights = "ACL SETUSER app reset on >pw ~stores-* +@read +@write +@scripting +@connection +info";
    assert_eq!(server.cli(&rights.split(' ').collect::<Vec<_>>())?, "OK");
    Ok(patient([SERVER.get_or_init(|| server).url()]))
}

/// The master of sentinels that have a password, other than its own.
fn watched() -> Result<Builder, xtask::Error> {
    static SERVERS: OnceLock<RedisSentinel> = OnceLock::new();
    if let Some(servers) = SERVERS.get() {
        return Ok(patient(servers.urls()).password("secret"));
    }
    let (password, sentinel_password) = (Some("secret".into()), Some("watch".into()));
    let servers = RedisSentinel::start(&SentinelOptions { password, sentinel_password, ..SentinelOptions::default() })?;
    Ok(patient(SERVERS.get_or_init(|| servers).urls()).password("secret"))
}

fn fresh(
    prefix: &'static str,
    builder: Result<Builder, impl std::fmt::Display>,
    connect: fn(Builder) -> kvsync::Result<RedisStore>,
) -> Result<Arc<dyn Harness>, String> {
    let builder = builder.map_err(|missing| missing.to_string())?;
    Ok(Arc::new(Fresh { builder, prefix, connect, made: AtomicUsize::new(0) }))
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}stores-{}-{number}:", self.prefix, std::process::id());
        Stores::both(Arc::new((self.connect)(self.builder.clone().prefix(prefix)).unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        let server = Redis::start(RedisOptions::default()).unwrap();
        let builder = patient([server.url()]).retry_for(Duration::from_millis(50));
        let store = builder.connect().unwrap();
        server.kill().unwrap();
        Some(Stores::both(Arc::new(store)))
    }
}
