//! A cluster fails over while it is written, and so does the master of some sentinels.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvsync::{KvSync, Report};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Redis, RedisCluster, RedisSentinel, SentinelOptions};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::rig::*;

const ROWS: i32 = 30;
const VALUES: i32 = 45;

/// Writes one row after the other, as long as it is wanted, and notes every state before it is committed.
fn write(app: &mut App, seed: u64, states: &Mutex<HashSet<(i32, i32)>>, count: &AtomicUsize, over: &AtomicBool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows: Vec<User> = app.users();
    while !over.load(Ordering::Relaxed) {
        let index = random.random_range(0..rows.len());
        let value = random.random_range(0..VALUES);
        let email = (value % 5 != 0).then(|| format!("e{value}"));
        let taken = rows.iter().any(|row| email.is_some() && row.email == email);
        let row = &mut rows[index];
        row.n += 1;
        if !taken {
            row.email = email;
        }
        states.lock().insert((row.id, row.n));
        let row = row.clone();
        app.put(&row);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whatever a strict fetch answers was committed once, and stands under the key that was asked.
fn read(kv: &KvSync, states: &Mutex<HashSet<(i32, i32)>>, over: &AtomicBool) {
    for number in (0..VALUES).cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let email = format!("e{number}");
        // While a part of the cluster is down it does not answer.
        if let Ok(Some(user)) = User::fetch_strict_by_email(kv, &email) {
            assert!(states.lock().contains(&(user.id, user.n)), "{user:?} was never committed");
            assert_eq!(user.email, Some(email));
        }
    }
}

/// The keys under which fetches do not answer what the database holds, once all of the cluster answers.
fn wrong(app: &App) -> Vec<String> {
    let mut wrong = None;
    until("all of the cluster answers", || {
        wrong = compare(app).ok();
        wrong.is_some()
    });
    wrong.unwrap()
}

fn compare(app: &App) -> kvsync::Result<Vec<String>> {
    let rows = app.users();
    let mut wrong = Vec::new();
    for number in 0..VALUES {
        let email = format!("e{number}");
        let truth = rows.iter().find(|row| row.email.as_ref() == Some(&email));
        let strict = User::fetch_strict_by_email(&app.kv, &email)?;
        let plain = User::fetch_by_email(&app.kv, &email)?;
        if strict.as_ref() != truth || plain.as_ref() != truth {
            wrong.push(format!("{email}: {truth:?}, strict {strict:?}, plain {plain:?}"));
        }
    }
    for row in &rows {
        let found = [User::fetch_by_id(&app.kv, row.id), User::fetch_by_handle(&app.kv, &row.handle)];
        for found in found {
            let found = found?;
            if found.as_ref() != Some(row) {
                wrong.push(format!("{row:?}: {found:?}"));
            }
        }
    }
    Ok(wrong)
}

/// The node that answers for the first slots, and the others of its shard.
fn shard(cluster: &RedisCluster) -> Tested<(&Redis, &Redis)> {
    let role = |node: &Redis| node.cli(&["INFO", "replication"]);
    for replica in cluster.nodes() {
        let said = role(replica)?;
        let Some(port) = said.lines().find_map(|line| line.trim_end().strip_prefix("master_port:")) else { continue };
        let primary = cluster.nodes().iter().find(|node| node.port().is_some_and(|own| own.to_string() == port));
        return Ok((primary.ok_or("no primary")?, replica));
    }
    Err("no replica".into())
}

fn is_primary(node: &Redis) -> bool {
    node.cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))
}

/// Lets a replica take over in good order. A server gives up after five seconds, where it is held up.
fn take_over(replica: &Redis) {
    let mut asked = None::<Instant>;
    until("the replica takes over", || {
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(8)) {
            asked = replica.cli(&["CLUSTER", "FAILOVER"]).is_ok().then(Instant::now);
        }
        is_primary(replica)
    });
}

/// Ends the threads, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `fail` while the store is written and read, and lets the writer go on for a while after it.
fn while_written(app: &mut App, reader: &KvSync, seed: u64, fail: impl FnOnce() -> Tested) -> Tested {
    let states = Mutex::new(app.users().into_iter().map(|row| (row.id, row.n)).collect());
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let end = End(&over);
        let threads =
            [scope.spawn(|| write(app, seed, &states, &count, &over)), scope.spawn(|| read(reader, &states, &over))];
        let more = |writes: usize| {
            let from = count.load(Ordering::Relaxed);
            until("it is written", || count.load(Ordering::Relaxed) >= from + writes);
        };
        more(50);
        let failed = fail();
        more(50);
        drop(end);
        for thread in threads {
            thread.join().unwrap();
        }
        failed
    })?;
    app.flush();
    Ok(())
}

#[test]
fn a_failover_in_mid_write_shows_nothing_wrong_and_is_mended() -> Tested {
    let cluster = RedisCluster::start(3, 1)?;
    let store = || redis_builder(cluster.urls()).cluster();
    let mut app = App::new(store()?, |builder| builder);
    let reader = KvSync::builder().store(store()?).build()?;
    for id in 0..ROWS {
        app.put(&user(id, "", 0));
    }
    app.flush();
    assert_eq!(wrong(&app), Vec::<String>::new());

    // In good order: the replica has everything before it takes over.
    let (_, replica) = shard(&cluster)?;
    while_written(&mut app, &reader, 1, || {
        take_over(replica);
        Ok(())
    })?;
    assert_eq!(wrong(&app), Vec::<String>::new());
    until("it is noticed all the same", || app.noticed() > 0);

    // By death: what the replica had not received is lost.
    cluster.wait_until_ready()?;
    let (primary, replica) = shard(&cluster)?;
    let noticed = app.noticed();
    while_written(&mut app, &reader, 2, || {
        cluster.take_for_dead_after(Duration::from_secs(2))?;
        primary.kill()?;
        until("the replica of the dead takes over", || is_primary(replica));
        Ok(cluster.take_for_dead_after(LONG)?)
    })?;
    until("it is noticed", || app.noticed() > noticed && app.dirty().len() == 2);
    let reports = app.reports.lock().clone();
    assert!(
        reports.iter().any(|report| matches!(report, Report::Forgot { reason, .. } if reason.contains("replaced")))
    );
    println!("before it is mended: {:?}", wrong(&app));
    until("all of it is compared", || app.kv.repair_all().run().is_ok());
    assert_eq!(wrong(&app), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_master_that_dies_in_mid_write_is_replaced_by_its_sentinels_and_is_mended() -> Tested {
    let servers = RedisSentinel::start(&SentinelOptions::default())?;
    servers.wait_until_ready()?;
    let store = || redis_builder(servers.urls()).sentinel(RedisSentinel::NAME);
    let mut app = App::new(store()?, |builder| builder);
    let reader = KvSync::builder().store(store()?).build()?;
    for id in 0..ROWS {
        app.put(&user(id, "", 0));
    }
    app.flush();
    assert_eq!(wrong(&app), Vec::<String>::new());

    let dead = servers.master().ok_or("no master")?;
    while_written(&mut app, &reader, 3, || {
        servers.take_for_dead_after(Duration::from_secs(2))?;
        dead.kill()?;
        until("the replica takes over", || servers.master().is_some_and(|master| master.port() != dead.port()));
        Ok(servers.take_for_dead_after(LONG)?)
    })?;
    until("it is noticed", || app.noticed() > 0 && app.dirty().len() == 2);
    until("all of it is compared", || app.kv.repair_all().run().is_ok());
    assert_eq!(wrong(&app), Vec::<String>::new());
    Ok(())
}
