//! What kvsync did not write is named, and taken away only where that is asked for.

use kvsync::Lookup;
use kvsync::upkeep::DifferenceKind::{Foreign, Missing, Undecodable};
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

#[test]
fn a_key_of_another_type_is_left_and_named() -> Tested {
    let rig = Rig::filled(On::PostgresRedis);
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let key = format!("{}user:email:ann@x", rig.prefix);
    let _: () = redis.del(&key)?;
    let _: () = redis.rpush(&key, "element")?;
    let found = rig.verify();
    // Asked for many keys, Redis says nothing of it but that no text stands there.
    assert_eq!((found.found(), found.count(Missing) + found.count(Foreign)), (1, 1), "{:#?}", found.differences);
    let repaired = rig.kv.repair_all().in_flight(std::time::Duration::from_millis(1)).remove_foreign(true).run()?;
    assert_eq!(repaired.left, 1, "{:?}", repaired.reasons);
    assert_eq!(redis.llen::<_, u32>(&key)?, 1);
    Ok(())
}
