//! What kvsync did not write is named, and taken away only where that is asked for.

use kvsync::Lookup;
use kvsync::upkeep::DifferenceKind::{Foreign, Undecodable};
use kvsync_tests::{Tested, env};
use redis::Commands;

use crate::models::*;
use crate::rig::{On, Rig};

fn spoil(redis: &mut impl Commands, rig: &Rig) {
    let key = |name: &str| format!("{}{name}", rig.prefix);
    let _: () = redis.set(key("user:id:1"), "hello").unwrap();
    let _: () = redis.set(key("user:email:nobody@x"), "hello").unwrap();
    let _: () = redis.set(key("session:id:2"), [&[0x98, 0x02][..], &[0; 80]].concat()).unwrap();
    // A ledger that is cut short.
    let mut bytes: Vec<u8> = redis.get(key("user:id:2")).unwrap();
    bytes[34] -= 5;
    bytes.truncate(bytes.len() - 5);
    let _: () = redis.set(key("user:id:2"), bytes).unwrap();
}

fn is_named_and_kept(rig: &Rig, redis: &mut impl Commands) {
    spoil(redis, rig);
    let found = rig.verify();
    let mut named: Vec<_> = found.differences.iter().map(|found| (found.kind, found.key.as_str())).collect();
    named.sort_unstable();
    let wanted = [
        (Undecodable, "session:id:2"),
        (Undecodable, "user:id:2"),
        (Foreign, "user:email:nobody@x"),
        (Foreign, "user:id:1"),
    ];
    assert_eq!(named, wanted, "{:#?}", found.differences);

    let repaired = rig.repair();
    assert_eq!((repaired.mended, repaired.left), (1, 3), "{:?}", repaired.reasons);
    assert!(!repaired.is_clean());
    let kept: String = redis.get(format!("{}user:id:1", rig.prefix)).unwrap();
    assert_eq!(kept, "hello", "what is foreign was touched");
    assert!(User::fetch_strict_by_email(&rig.kv, "bob@x").unwrap().is_some(), "the damaged record was mended");

    let repair = rig.kv.repair_all().in_flight(std::time::Duration::from_millis(1)).remove_foreign(true);
    let repaired = repair.run().unwrap();
    assert_eq!((repaired.mended, repaired.left), (3, 0), "{:?}", repaired.reasons);
    rig.is_clean();
    assert_eq!(User::fetch_by_id(&rig.kv, 1).unwrap().unwrap().name, "Ann");
    assert!(matches!(User::lookup_by_email(&rig.kv, "nobody@x").unwrap(), Lookup::Unknown(_)));
    assert_eq!(Session::fetch_by_id(&rig.kv, 2).unwrap().unwrap().note, "b");
}

#[test]
fn on_one_server() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    is_named_and_kept(&rig, &mut redis::Client::open(env::redis_url()?)?.get_connection()?);
    Ok(())
}

#[test]
fn in_a_cluster() -> Tested {
    let rig = Rig::filled(On::PostgresCluster);
    is_named_and_kept(&rig, &mut redis::cluster::ClusterClient::new(env::redis_cluster_urls()?)?.get_connection()?);
    Ok(())
}

/// A record and a copy of rows, and a key of no row; each of a type that `MGET` is silent on.
fn of_other_types(rig: &Rig, redis: &mut impl Commands) {
    let key = |name: &str| format!("{}{name}", rig.prefix);
    let keys = ["user:email:ann@x", "user:id:2", "user:id:77", "session:id:3"].map(key);
    for (key, number) in keys.iter().zip(0..) {
        let _: () = redis.del(key).unwrap();
        if number % 2 == 0 {
            let _: () = redis.rpush(key, "element").unwrap();
        } else {
            let _: () = redis.hset(key, "field", "value").unwrap();
        }
    }
    let is =
        [(Foreign, "session:id:3"), (Foreign, "user:email:ann@x"), (Foreign, "user:id:2"), (Foreign, "user:id:77")];
    let named = |found: &kvsync::upkeep::Verified| {
        let mut named: Vec<_> = found.differences.iter().map(|one| (one.kind, one.key.as_str().to_owned())).collect();
        named.sort_unstable();
        named
    };
    let found = rig.verify();
    assert_eq!(named(&found), is.map(|(kind, key)| (kind, key.to_owned())), "{:#?}", found.differences);
    assert!(found.differences.iter().all(|one| one.detail.contains("another type")), "{:#?}", found.differences);

    let repaired = rig.repair();
    assert_eq!((repaired.mended, repaired.left), (0, 4), "{:?}", repaired.reasons);
    assert!(repaired.reasons.iter().all(|(_, reason)| reason.contains("--remove-foreign")), "{:?}", repaired.reasons);
    for key in &keys {
        assert_eq!(redis.exists::<_, u32>(key).unwrap(), 1, "{key} was touched");
    }
    let repair = rig.kv.repair_all().in_flight(std::time::Duration::from_millis(1)).remove_foreign(true);
    let repaired = repair.run().unwrap();
    assert_eq!((repaired.mended, repaired.left), (4, 0), "{:?}", repaired.reasons);
    rig.is_clean();
    assert_eq!(User::fetch_by_email(&rig.kv, "ann@x").unwrap().unwrap().name, "Ann");
    assert_eq!(User::fetch_strict_by_id(&rig.kv, 2).unwrap().unwrap().name, "Bob");
    assert_eq!(redis.exists::<_, u32>(&keys[2]).unwrap(), 0);
}

#[test]
fn keys_of_another_type_on_one_server() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    of_other_types(&rig, &mut redis::Client::open(env::redis_url()?)?.get_connection()?);
    Ok(())
}

#[test]
fn keys_of_another_type_in_a_cluster() -> Tested {
    let rig = Rig::filled(On::PostgresCluster);
    of_other_types(&rig, &mut redis::cluster::ClusterClient::new(env::redis_cluster_urls()?)?.get_connection()?);
    Ok(())
}

#[test]
fn keys_of_another_type_where_entries_end() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let keys = ["user:email:ann@x", "user:id:2"].map(|key| format!("{}{key}", rig.prefix));
    for key in &keys {
        let _: () = redis.del(key)?;
        let _: () = redis.rpush(key, "element")?;
    }
    let kv = rig.ending();
    let quick = std::time::Duration::from_millis(1);
    let found = kv.verify_all().in_flight(quick).run()?;
    assert_eq!((found.found(), found.count(Foreign)), (2, 2), "{:#?}", found.differences);
    let repaired = kv.repair_all().in_flight(quick).remove_foreign(true).run()?;
    assert_eq!((repaired.mended, repaired.left), (2, 0), "{:?}", repaired.reasons);
    assert!(kv.verify_all().in_flight(quick).run()?.is_clean());
    // The record of a row is read closely by the store's side only: its row waits for the next write.
    assert_eq!(User::fetch_by_email(&kv, "ann@x")?.unwrap().name, "Ann");
    assert_eq!(User::fetch_by_id(&kv, 2)?, None);
    Ok(())
}
