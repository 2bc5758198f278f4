//! A bucket that three servers keep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::store::data::DataCommands;
use kvsync::store::nats::NatsStore;
use kvsync::store::{Status, Store};
use kvsync_tests::Tested;
use kvsync_tests::nats::ask;
use kvsync_tests::servers::{Nats, NatsCluster};
use kvsync_tests::wait::{LONG, until};
use serde_json::Value;

/// A store whose bucket is made once the servers have found each other.
fn of_three(cluster: &NatsCluster) -> Tested<NatsStore> {
    let connect = || {
        let builder = NatsStore::builder(cluster.urls()).replicas(3).retry_for(LONG);
        builder.connect_timeout(Duration::from_secs(10)).command_timeout(Duration::from_secs(5)).connect()
    };
    let mut store = connect();
    until("the servers elect a leader", || {
        if store.is_err() {
            store = connect();
        }
        store.is_ok()
    });
    Ok(store?)
}

/// The server that leads the bucket, as one that runs has it.
fn leader<'a>(cluster: &'a NatsCluster, asked: &Nats) -> Option<&'a Nats> {
    let told = ask(asked.port(), "$JS.API.STREAM.INFO.KV_kvsync", "").ok()?;
    let told: Value = serde_json::from_str(&told).ok()?;
    cluster.called(told["cluster"]["leader"].as_str()?)
}

pub(super) fn what_three_servers_acknowledge_outlives_the_one_that_leads() -> Tested {
    let cluster = NatsCluster::start()?;
    let store = of_three(&cluster)?;
    let up = || store.health(LONG).status == Status::Up;
    until("all three are in step", up);
    let health = store.health(LONG);
    assert!(health.details[0].contains("on the disks of 3"), "{:?}", health.details);

    let (over, sum) = (AtomicBool::new(false), AtomicU64::new(0));
    let (set, doubtful) = std::thread::scope(|scope| -> Tested<(u64, u64)> {
        let setter = scope.spawn(|| {
            let mut last = 0;
            while !over.load(Ordering::Relaxed) {
                // Harmless to repeat, so the store does until there is a leader again.
                store.set("last", (last + 1).to_string()).unwrap();
                last += 1;
            }
            last
        });
        let counter = scope.spawn(|| {
            let mut doubtful = 0;
            while !over.load(Ordering::Relaxed) {
                match store.incr_by("counter", 1) {
                    Ok(_) => drop(sum.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.kind() == ErrorKind::UnknownOutcome => doubtful += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            doubtful
        });
        let more = || {
            let from = sum.load(Ordering::Relaxed);
            until("it is counted", || counter.is_finished() || sum.load(Ordering::Relaxed) >= from + 20);
        };
        let happens = || -> Tested {
            more();
            let [first, second, _] = cluster.nodes();
            let lost = leader(&cluster, first).ok_or("nobody leads")?;
            lost.kill()?;
            more();
            let left = if lost.port() == first.port() { second } else { first };
            until("another leads", || leader(&cluster, left).is_some_and(|other| other.port() != lost.port()));
            until("one that is missing is told", || store.health(LONG).status == Status::Degraded);
            lost.restart()?;
            until("all three are in step again", up);
            more();
            Ok(())
        };
        let happened = happens();
        over.store(true, Ordering::Relaxed);
        let told = (setter.join().unwrap(), counter.join().unwrap());
        happened.map(|()| told)
    })?;
    assert_eq!(store.get("last")?, Some(set.to_string().into()));
    let (stands, sum) = (u64::try_from(store.incr_by("counter", 0)?)?, sum.into_inner());
    assert!(stands >= sum && stands <= sum + doubtful, "{stands} stand, {sum} counted, {doubtful} in doubt");
    Ok(())
}
