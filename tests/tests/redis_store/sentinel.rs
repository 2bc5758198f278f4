//! The master of some sentinels: found, followed, and told of when it cannot be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::store::data::{Command, DataStore, Reads};
use kvsync::store::redis::{Builder, RedisStore};
use kvsync::store::{Status, Store, SyncStore};
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Redis, RedisSentinel, SentinelOptions, SentinelTls};
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, env};

use super::checks::refused;
use super::{done, stands, terms, write};

const NAME: &str = RedisSentinel::NAME;

fn builder(servers: &RedisSentinel) -> Builder {
    patient(servers.urls()).retry_for(LONG)
}

fn address(server: &Redis) -> String {
    format!("127.0.0.1:{}", server.port().unwrap())
}

#[test]
fn who_cannot_be_asked_or_does_not_know_is_told() -> Tested {
    let servers = RedisSentinel::start(&SentinelOptions {
        password: Some("secret".into()),
        sentinel_password: Some("watch".into()),
        ..SentinelOptions::default()
    })?;
    let first = address(&servers.sentinels()[0]);
    refused(builder(&servers).sentinel("other"), ErrorKind::Config, &["know no master `other`", &first]);
    refused(builder(&servers).sentinel(NAME), ErrorKind::Rejected, &["the master that", "builder", "wants a password"]);
    refused(RedisStore::connect(servers.urls()[0].clone()), ErrorKind::Config, &["is a sentinel", ".sentinel(master)"]);
    let login = |word: &str| builder(&servers).password("secret").sentinel_login(None, word);
    refused(
        login("guess").sentinel(NAME),
        ErrorKind::Rejected,
        &["no sentinel of `mymaster`", "`sentinel_login`", "user name and password"],
    );
    refused(
        RedisStore::builder([env::redis_url()?]).sentinel(NAME),
        ErrorKind::Config,
        &["is no sentinel", "RedisStore::connect"],
    );
    // The first that is gone is passed over.
    servers.sentinels()[0].kill()?;
    let store = login("watch").sentinel(NAME)?;
    done(&store, &[write("a", 1)]);
    let health = store.health(LONG);
    assert_eq!(health.status, Status::Up, "{health:?}");
    assert!(health.details.iter().any(|what| what.contains("is not there") && what.contains(&first)), "{health:?}");
    assert!(health.details.iter().any(|what| what.contains("is forgotten then")), "{health:?}");
    // The store goes on without any, and says that it would not follow.
    servers.sentinels().iter().try_for_each(|sentinel| sentinel.kill())?;
    done(&store, &[write("a", 2)]);
    assert_eq!(stands(&store, "a"), Some(2));
    let health = store.health(LONG);
    assert_eq!(health.status, Status::Degraded);
    assert!(health.details.iter().any(|what| what.contains("would not be followed")), "{health:?}");
    refused(login("watch").sentinel(NAME), ErrorKind::Unavailable, &["no sentinel of `mymaster` answers"]);
    for shown in [store.name().to_owned(), format!("{store:?}")] {
        assert!(!shown.contains("secret") && !shown.contains("watch"), "{shown}");
    }
    Ok(())
}

/// Writes version after version under some keys, from the last one on, and reads them, while something happens to the
/// master; then all of it again in another order: what stands in the end is the newest.
fn written_throughout(store: &RedisStore, written: &AtomicU64, happens: impl FnOnce() -> Tested) -> Tested {
    const KEYS: u64 = 8;
    let key = |number: u64| format!("key{}", number % KEYS);
    let over = AtomicBool::new(false);
    let begin = written.load(Ordering::Relaxed) + 1;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in begin.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // A write in doubt is done again by the store: harmless. One that failed would end the test.
                done(store, &[write(&key(at), at)]);
                written.store(at, Ordering::Relaxed);
            }
        });
        let reader = scope.spawn(|| {
            let mut answers = 0_u64;
            while !over.load(Ordering::Relaxed) {
                // Each answer belongs to the key that was asked. While nobody is the master there is none.
                let keys: Vec<_> = (0..KEYS).map(|number| kvsync::Key::new(key(number))).collect();
                let Ok(found) = store.get_many(&keys) else { continue };
                for (key, stands) in keys.iter().zip(&found) {
                    super::belongs(key.as_str(), stands.as_ref());
                }
                answers += 1;
            }
            answers
        });
        let more = || {
            let from = written.load(Ordering::Relaxed);
            until("it is written", || writer.is_finished() || written.load(Ordering::Relaxed) >= from + 100);
        };
        more();
        let happened = happens();
        more();
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(reader.join().unwrap() > 0);
        happened
    })?;
    let last = written.load(Ordering::Relaxed);
    let begin = begin.max(last.saturating_sub(2000));
    let all: Vec<_> =
        (begin..=last).rev().chain(last.saturating_sub(20)..=last).map(|at| write(&key(at), at)).collect();
    for answer in store.execute(&all, &terms()) {
        answer?;
    }
    for newest in last.saturating_sub(KEYS - 1).max(begin)..=last {
        assert_eq!(stands(store, &key(newest)), Some(newest));
    }
    Ok(())
}

#[test]
fn a_failover_is_followed_while_it_is_written() -> Tested {
    let servers = RedisSentinel::start(&SentinelOptions::default())?;
    let (store, written) = (builder(&servers).sentinel(NAME)?, AtomicU64::new(0));
    let lives = || store.health(LONG).lives;
    let told = |server: &Redis| {
        let at = address(server);
        until("the other is the master", || store.health(LONG).details.iter().any(|what| what.contains(&at)));
    };
    servers.wait_until_ready()?;
    let (first, before) = (servers.master().ok_or("no master")?, lives().ok_or("no life")?);
    // On request, while the old master lives: it is a replica then, and would answer readings.
    written_throughout(&store, &written, || {
        servers.fail_over()?;
        // Until the store asks the sentinels again it writes to the old one, in vain.
        told(servers.master().ok_or("no master")?);
        Ok(())
    })?;
    let second = servers.master().ok_or("no master")?;
    assert_ne!(address(first), address(second));
    until("another life", || lives().is_some_and(|lives| lives != before));
    // What is not done twice is done once, whatever the connections went through.
    let add = || store.run(&[Command::IncrBy { key: "n".into(), by: 1 }], Reads::Latest).remove(0);
    add()?;
    // By death.
    servers.wait_until_ready()?;
    let between = lives();
    written_throughout(&store, &written, || {
        servers.take_for_dead_after(Duration::from_secs(3))?;
        second.kill()?;
        told(first);
        Ok(servers.take_for_dead_after(LONG)?)
    })?;
    until("another life again", || lives().is_some_and(|lives| Some(lives) != between));
    assert_eq!(store.health(LONG).status, Status::Up);
    add()?;
    Ok(())
}

#[test]
fn a_failover_over_tls_is_followed_as_users_of_both() -> Tested {
    for tls in [SentinelTls::Servers, SentinelTls::Everywhere] {
        let options = SentinelOptions {
            password: Some("secret".into()),
            sentinel_password: Some("watch".into()),
            tls,
            ..SentinelOptions::default()
        };
        let servers = RedisSentinel::start(&options)?;
        for (all, user) in [(servers.servers().as_slice(), "app"), (servers.sentinels(), "watcher")] {
            for server in all {
                assert_eq!(server.cli(&["ACL", "SETUSER", user, "on", ">word", "~*", "&*", "+@all"])?, "OK");
            }
        }
        let login =
            || builder(&servers).username("app").password("word").sentinel_login(Some("watcher".into()), "word");
        let trusting = || login().master_tls(true).ca_file(servers.ca().unwrap());
        refused(login().master_tls(true).sentinel(NAME), ErrorKind::Unavailable, &["certificate", "`ca_file`"]);
        refused(trusting().password("guess").sentinel(NAME), ErrorKind::Rejected, &["the master that"]);
        refused(
            trusting().sentinel_login(Some("watcher".into()), "guess").sentinel(NAME),
            ErrorKind::Rejected,
            &["no sentinel of `mymaster`"],
        );
        let store = trusting().sentinel(NAME)?;
        done(&store, &[write("a", 1)]);
        let first = address(servers.master().ok_or("no master")?);
        servers.fail_over()?;
        let second = address(servers.master().ok_or("no master")?);
        assert_ne!(first, second);
        until("the other is the master", || store.health(LONG).details.iter().any(|what| what.contains(&second)));
        done(&store, &[write("a", 2)]);
        assert_eq!(stands(&store, "a"), Some(2), "{tls:?}");
    }
    Ok(())
}

#[test]
fn a_replica_is_not_taken_for_the_master_that_it_was() -> Tested {
    let servers = RedisSentinel::start(&SentinelOptions::default())?;
    servers.wait_until_ready()?;
    let [master, replica] = servers.servers();
    let store = patient(servers.urls()).retry_for(Duration::ZERO).sentinel(NAME)?;
    done(&store, &[write("a", 1)]);
    // Behind the sentinels' back, which go on naming it.
    let port = replica.port().unwrap().to_string();
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"])?, "OK");
    assert_eq!(master.cli(&["REPLICAOF", "127.0.0.1", &port])?, "OK");
    let error = store.execute(&[write("a", 2)], &terms()).remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("read-only replica"), "{error}");
    // It would answer readings with what it had; it is not asked.
    let error = store.get_many(&[kvsync::Key::new("a")]).unwrap_err();
    assert!(error.to_string().contains("read-only replica"), "{error}");
    Ok(())
}
