//! Keys that a store refuses for good: something that is not kvsync's stands there.

use std::time::Duration;

use kvsync::store::redis::RedisStore;
use kvsync::worker::Backoff;
use kvsync::{KvSync, Lookup};
use kvsync_tests::redis::patient;
use kvsync_tests::{Tested, env};
use redis::Commands;

use super::setup::*;

const QUICK: Backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };

fn handle(base: &Base, store: RedisStore) -> KvSync {
    let builder = KvSync::builder().store(store).outbox_poll(Duration::from_millis(20));
    builder.outbox_attempts(3, QUICK).database(base.database()).build().unwrap()
}

fn prefix() -> String {
    format!("refused:{:x}:", rand::random::<u64>())
}

/// Something that is not kvsync's under a key: text, or another type.
fn spoil(redis: &mut impl Commands, key: &str, text: bool) {
    let _: () = redis.del(key).unwrap();
    let _: () = if text { redis.set(key, "hello") } else { redis.rpush(key, "hello") }.unwrap();
}

/// Of a row that stands there already, this key is spoilt; what is written then is a dead letter until somebody has
/// cleaned up.
fn ends_as_a_dead_letter(base: &Base, store: RedisStore, redis: &mut impl Commands, prefix: &str) {
    let kv = handle(base, store);
    base.insert(&[user(1, "a", "Ann"), user(2, "b", "Bob"), user(3, "c", "Cyd"), user(4, "d", "Dan")]);
    kv.flush(LONG).unwrap();
    let spoilt = ["user:id:1", "user:id:2", "user:email:c", "user:email:d", "session:e"];
    for (at, key) in spoilt.iter().enumerate() {
        spoil(redis, &format!("{prefix}{key}"), at % 2 == 0);
    }
    let changed = [user(1, "a", "Ann 2"), user(2, "b", "Bob 2"), user(3, "c", "Cyd 2"), user(4, "d", "Dan 2")];
    for user in &changed {
        base.run(&format!(
            "BEGIN; UPDATE users SET name = '{}' WHERE id = {}; {}; COMMIT",
            user.name.0,
            user.id,
            base.captured_row_sql("update", user, None)
        ));
    }
    base.run("INSERT INTO sessions VALUES ('eu', 5, 'e')");
    let session = if let Base::Sqlite(_) = base { "'eu', 5" } else { r#"{"region": "eu", "id": 5}"# };
    base.trigger_row("sessions", "insert", session, None);
    base.insert(&[user(6, "f", "Fay")]);

    let outbox = kv.outbox("main").unwrap();
    until("dead letters", || outbox.depth().unwrap().dead == 5);
    let dead = outbox.dead_letters(0, 10).unwrap();
    for (dead, key) in dead.iter().zip(spoilt) {
        assert!(dead.error.contains(key) && dead.error.contains("did another program write it"), "{dead:?}");
        assert_eq!(dead.attempts, 3);
    }
    // The others are well, and nothing old shows. The last row may come after the dead letters.
    until("the others are well", || User::fetch_by_id(&kv, 6).unwrap() == Some(user(6, "f", "Fay")));
    for masked in &changed[..2] {
        assert!(User::fetch_by_id(&kv, masked.id).is_err());
        let seen = User::lookup_by_email(&kv, masked.email.as_deref().unwrap()).unwrap();
        assert!(matches!(seen, Lookup::Unknown(_)), "{seen:?}");
    }
    for well in &changed[2..] {
        assert_eq!(User::fetch_by_id(&kv, well.id).unwrap().as_ref(), Some(well));
        assert!(User::fetch_by_email(&kv, well.email.as_deref().unwrap()).is_err());
    }
    let mut dirty: Vec<_> = kv.health(LONG).pipeline.dirty.into_iter().filter_map(|dirty| dirty.table).collect();
    dirty.sort();
    assert_eq!(dirty, ["sessions", "users"]);

    // Who cleans up and tries again has all of it; what was dropped stays as it is.
    for key in &spoilt[..4] {
        let _: () = redis.del(format!("{prefix}{key}")).unwrap();
    }
    let ids: Vec<i64> = dead.iter().map(|dead| dead.id).collect();
    assert_eq!(outbox.retry(&ids[..4]).unwrap(), 4);
    kv.flush(LONG).unwrap();
    assert_eq!((outbox.depth().unwrap().dead, outbox.discard(&ids).unwrap()), (1, 1));
    for user in &changed {
        assert_eq!(User::fetch_by_id(&kv, user.id).unwrap().as_ref(), Some(user));
        assert_eq!(User::fetch_by_email(&kv, user.email.as_deref().unwrap()).unwrap().as_ref(), Some(user));
    }
    assert_eq!((base.pending(), outbox.depth().unwrap().dead), (0, 0));
}

#[test]
fn on_one_server() -> Tested {
    for base in [Base::sqlite(), Base::postgres()] {
        let prefix = prefix();
        let store = patient([env::redis_url()?]).prefix(&prefix).connect()?;
        let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
        ends_as_a_dead_letter(&base, store, &mut redis, &prefix);
    }
    Ok(())
}

#[test]
fn in_a_cluster() -> Tested {
    let prefix = prefix();
    let store = patient(env::redis_cluster_urls()?).prefix(&prefix).cluster()?;
    let mut redis = redis::cluster::ClusterClient::new(env::redis_cluster_urls()?)?.get_connection()?;
    ends_as_a_dead_letter(&Base::postgres(), store, &mut redis, &prefix);
    Ok(())
}
