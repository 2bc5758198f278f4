//! A store that cannot work says so when it is made: what is wrong, where, and what to do.

use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::store::redis::RedisStore;
use kvsync::store::{Status, Store, SyncStore};
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{AclUser, Redis, RedisCluster, RedisOptions};
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, env};

use super::{done, prefix, stands, write};

/// The connection fails with this kind, and the message says this.
pub(crate) fn refused(made: kvsync::Result<RedisStore>, kind: ErrorKind, says: &[&str]) {
    let error = made.expect_err("the store was made");
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains('\n'), "{text}");
}

fn plain(url: &str) -> kvsync::store::redis::Builder {
    patient([url]).retry_for(Duration::from_millis(100))
}

#[test]
fn nobody_there() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let port = server.port().unwrap().to_string();
    server.kill()?;
    refused(plain(&server.url()).connect(), ErrorKind::Unavailable, &["cannot be reached", "is it running", &port]);
    refused(plain(&server.url()).cluster(), ErrorKind::Unavailable, &["cannot be reached", &port]);
    refused(
        plain("redis+unix:///nowhere/redis.sock").connect(),
        ErrorKind::Unavailable,
        &["/nowhere/redis.sock", "is the address right"],
    );
    Ok(())
}

#[test]
fn no_url() {
    refused(RedisStore::connect("localhost:6379"), ErrorKind::Config, &["no redis URL", "redis://host:port"]);
    refused(RedisStore::connect("http://user:hunter2@localhost"), ErrorKind::Config, &["no redis URL"]);
    refused(RedisStore::builder(["redis://a", "redis://b"]).connect(), ErrorKind::Config, &["is it a cluster"]);
    refused(RedisStore::cluster(Vec::<String>::new()), ErrorKind::Config, &["the URL of one node"]);
    refused(RedisStore::builder(Vec::<String>::new()).sentinel("x"), ErrorKind::Config, &["the URL of one sentinel"]);
    let two = ["redis://127.0.0.1/3", "redis://127.0.0.1/4"];
    refused(RedisStore::builder(two).sentinel("x"), ErrorKind::Config, &["differ"]);
    refused(RedisStore::cluster(["redis://127.0.0.1/3"]), ErrorKind::Config, &["database 0"]);
    refused(
        plain("redis://127.0.0.1").command_timeout(Duration::ZERO).connect(),
        ErrorKind::Config,
        &["command_timeout", "zero"],
    );
}

#[test]
fn passwords() -> Tested {
    let server = Redis::start(RedisOptions { password: Some("admin".into()), ..RedisOptions::default() })?;
    let port = server.port().unwrap();
    let bare = format!("redis://127.0.0.1:{port}/");
    refused(plain(&bare).connect(), ErrorKind::Rejected, &["wants a password"]);
    refused(plain(&bare).password("guess").connect(), ErrorKind::Rejected, &["user name and password"]);
    refused(plain(&bare).username("me").password("admin").connect(), ErrorKind::Rejected, &["user name and password"]);
    let store = plain(&bare).password("admin").connect()?;
    done(&store, &[write("a", 1)]);
    assert_eq!(stands(&store, "a"), Some(1));
    for shown in [store.name().to_owned(), format!("{store:?}"), format!("{:?}", plain(&bare).password("admin"))] {
        assert!(!shown.contains("admin"), "{shown}");
    }
    // A password where none is wanted.
    let open = Redis::start(RedisOptions::default())?;
    refused(plain(&open.url()).password("x").connect(), ErrorKind::Rejected, &["without any password"]);
    Ok(())
}

#[test]
fn rights() -> Tested {
    let user = |keys: &str| AclUser { name: "app".into(), password: "pw".into(), keys: keys.into() };
    let server = Redis::start(RedisOptions { user: Some(user("app:*")), ..RedisOptions::default() })?;
    let advice = ["the user `app` lacks rights", "ACL SETUSER app ~kvsync:*", "+@scripting"];
    refused(plain(&server.url()).connect(), ErrorKind::Rejected, &advice);
    let store = plain(&server.url()).prefix("app:").connect()?;
    done(&store, &[write("a", 1)]);
    assert_eq!(stands(&store, "a"), Some(1));
    // What the advice gives is enough, and nothing else is needed.
    let advised = "ACL SETUSER app reset on >pw ~kvsync:* +@read +@write +@scripting +@connection +info";
    assert_eq!(server.cli(&advised.split(' ').collect::<Vec<_>>())?, "OK");
    let store = plain(&server.url()).connect()?;
    done(&store, &[write("a", 1), write("b", 1)]);
    assert_eq!(store.raise_epoch(4)?, 4);
    assert_eq!(store.scan("", None, 10)?.keys.len(), 2);
    let health = store.health(LONG);
    assert_eq!(health.status, Status::Up);
    let secret = "does not tell its settings (`CONFIG GET`: NOPERM";
    assert!(health.details.iter().any(|detail| detail.contains(secret)), "{:?}", health.details);
    for (without, says) in
        [("-set", "it may not run SET "), ("-@scripting", "lacks rights"), ("-mset -get", "it may not run GET, MSET ")]
    {
        let less = format!("{advised} {without}");
        assert_eq!(server.cli(&less.split(' ').collect::<Vec<_>>())?, "OK");
        refused(plain(&server.url()).connect(), ErrorKind::Rejected, &[says, "ACL SETUSER app"]);
    }
    // A right that was taken since is told, too.
    let health = |without: &str| -> Tested<_> {
        let less = format!("{advised} {without}");
        assert_eq!(server.cli(&less.split(' ').collect::<Vec<_>>())?, "OK");
        Ok(store.health(LONG))
    };
    for (without, says) in [("-@write", "it may not run"), ("-@scripting", "lacks rights")] {
        let health = health(without)?;
        assert_eq!(health.status, Status::Degraded, "{health:?}");
        assert!(
            health.details.iter().any(|told| told.contains(says) && told.contains("ACL SETUSER app")),
            "{health:?}"
        );
    }
    // Without `INFO` the store works, and its health says what it cannot know.
    let less = format!("{advised} -info");
    assert_eq!(server.cli(&less.split(' ').collect::<Vec<_>>())?, "OK");
    let store = plain(&server.url()).connect()?;
    assert!(store.health(LONG).details.iter().any(|detail| detail.contains("NOPERM")));
    Ok(())
}

#[test]
fn a_right_taken_later_fails_the_step_alone() -> Tested {
    let user = AclUser { name: "app".into(), password: "pw".into(), keys: "kvsync:*".into() };
    let server = Redis::start(RedisOptions { user: Some(user), ..RedisOptions::default() })?;
    let store = plain(&server.url()).connect()?;
    assert_eq!(server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~kvsync:a*", "~kvsync:c*"])?, "OK");
    let answers = store.execute(&[write("a", 1), write("b", 1), write("c", 1)], &super::terms());
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!((stands(&store, "a"), stands(&store, "c")), (Some(1), Some(1)));
    Ok(())
}

#[test]
fn one_server_or_a_cluster() -> Tested {
    let node = &env::redis_cluster_urls()?[0];
    refused(plain(node).connect(), ErrorKind::Config, &["node of a cluster", "RedisStore::cluster"]);
    refused(plain(&env::redis_url()?).cluster(), ErrorKind::Config, &["no node of a cluster", "RedisStore::connect"]);
    Ok(())
}

#[test]
fn tls() -> Tested {
    let (url, ca) = (env::redis_tls_url()?, env::redis_tls_ca()?);
    let without = url.replace("rediss:", "redis:");
    refused(plain(&without).connect(), ErrorKind::Unavailable, &["rediss://"]);
    let with = env::redis_url()?.replace("redis:", "rediss:");
    // It waits for the rest of what it takes for a command.
    let silent = plain(&with).connect_timeout(Duration::from_secs(2));
    refused(silent.connect(), ErrorKind::Unavailable, &["if it has no TLS, use `redis://`"]);
    refused(plain(&url).connect(), ErrorKind::Unavailable, &["`ca_file`"]);
    refused(plain(&url).ca_file("/nowhere/ca.pem").connect(), ErrorKind::Config, &["/nowhere/ca.pem"]);
    let store = plain(&url).ca_file(ca).prefix(prefix("tls")).connect()?;
    done(&store, &[write("a", 1)]);
    assert_eq!(stands(&store, "a"), Some(1));
    Ok(())
}

#[test]
fn replicas() -> Tested {
    let (primary, replica) = (Redis::start(RedisOptions::default())?, Redis::start(RedisOptions::default())?);
    let store = plain(&replica.url()).connect()?;
    let port = primary.port().unwrap().to_string();
    assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &port])?, "OK");
    refused(plain(&replica.url()).connect(), ErrorKind::Config, &["read-only replica", &format!("127.0.0.1:{port}")]);
    let error = store.execute(&[write("a", 1)], &super::terms()).remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("read-only replica"), "{error}");
    assert_eq!(store.health(LONG).status, Status::Down);
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"])?, "OK");
    done(&store, &[write("a", 1)]);
    Ok(())
}

#[test]
fn health_warns_of_eviction() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = plain(&server.url()).connect()?;
    assert_eq!(store.health(LONG).status, Status::Up);
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"])?, "OK");
    let health = store.health(LONG);
    assert_eq!(health.status, Status::Degraded);
    assert!(health.details.iter().any(|detail| detail.contains("`noeviction`")), "{:?}", health.details);
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])?, "OK");
    assert_eq!(store.health(LONG).status, Status::Up);
    Ok(())
}

#[test]
fn health_tells_what_the_settings_lose() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    let store = plain(&server.url()).connect()?;
    let says = |part: &str| {
        let health = store.health(LONG);
        assert!(health.details.iter().any(|detail| detail.contains(part)), "`{part}`: {:?}", health.details);
        health.status
    };
    let set = |settings: &[&str]| server.cli(&[&["CONFIG", "SET"], settings].concat());
    assert_eq!(says("no append-only file and no snapshots"), Status::Up);
    set(&["save", "3600 1"])?;
    assert_eq!(says("what came after its last snapshot"), Status::Up);
    for (policy, what) in [("allkeys-random", "forgets any entry"), ("volatile-ttl", "those first that guard")] {
        set(&["maxmemory", "100mb", "maxmemory-policy", policy])?;
        assert_eq!(says(what), Status::Degraded);
    }
    set(&["maxmemory", "1", "maxmemory-policy", "noeviction"])?;
    assert_eq!(says("is out of memory"), Status::Degraded);
    set(&["maxmemory", "0", "appendonly", "yes", "appendfsync", "everysec"])?;
    assert_eq!(says("writes to disk every second"), Status::Up);
    set(&["appendfsync", "no"])?;
    assert_eq!(says("when its system does"), Status::Up);
    set(&["appendfsync", "always"])?;
    assert_eq!(store.health(LONG).details, Vec::<String>::new());
    Ok(())
}

#[test]
fn health_counts_what_was_evicted_since_it_was_asked() -> Tested {
    let limit = Some((3 << 20, "allkeys-random".to_owned()));
    let server = Redis::start(RedisOptions { maxmemory: limit, ..RedisOptions::default() })?;
    let store = plain(&server.url()).connect()?;
    let evicted = || -> Option<String> {
        let details = store.health(LONG).details;
        details.into_iter().find(|detail| detail.contains("has evicted keys"))
    };
    assert_eq!(evicted(), None);
    let mut at = 0;
    while evicted().is_none_or(|said| !said.contains("of them since it was last asked")) {
        at += 1;
        assert!(at < 1000, "nothing is evicted");
        done(&store, &(0..100).map(|number| write(&format!("{at}:{number}:{:0>200}", ""), 1)).collect::<Vec<_>>());
    }
    assert!(evicted().is_some_and(|said| !said.contains("since it was last asked")), "nothing was written since");
    Ok(())
}

#[test]
fn health_tells_of_replicas_that_lag_and_of_one_that_took_over() -> Tested {
    let (primary, replica) = (Redis::start(RedisOptions::default())?, Redis::start(RedisOptions::default())?);
    let (store, other) = (plain(&primary.url()).connect()?, plain(&replica.url()).connect()?);
    let port = primary.port().unwrap().to_string();
    assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &port])?, "OK");
    let says = |store: &RedisStore, part: &str| {
        let details = store.health(LONG).details;
        details.iter().any(|detail| detail.contains(part))
    };
    until("the primary has a replica", || says(&store, "`min-replicas-to-write 0`"));
    until("the replica is in step", || {
        replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:up")
    });
    let life = other.health(LONG).lives;
    assert_eq!(life, None, "a replica is not the store");
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"])?, "OK");
    assert!(says(&other, "took over from another primary"));
    Ok(())
}

#[test]
fn a_cluster_without_all_its_nodes() -> Tested {
    let cluster = RedisCluster::start(3, 0)?;
    let urls = cluster.urls();
    cluster.node(0)?.kill()?;
    // The first URL is of the node that is gone.
    let store = RedisStore::builder(urls).retry_for(Duration::from_millis(300)).cluster();
    if let Err(error) = store {
        assert!(error.is_retryable(), "{error}");
    }
    Ok(())
}
