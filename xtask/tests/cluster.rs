//! The Redis Cluster that the library starts moves slots and survives the loss of a master.

use std::time::{Duration, Instant};

use xtask::servers::RedisCluster;

type Tested = Result<(), Box<dyn std::error::Error>>;

#[test]
fn a_slot_moves_with_its_keys_and_clients_are_redirected() -> Tested {
    let cluster = RedisCluster::start(3, 0)?;
    let slot = cluster.slot_of("{user}:1")?;
    let from = cluster.master_of(slot)?;
    let to = (from + 1) % 3;
    let (old, new) = (cluster.node(from)?, cluster.node(to)?);
    assert_eq!(old.cli(&["SET", "{user}:1", "x"])?, "OK");

    cluster.begin_migration(slot, from, to)?;
    assert_eq!(old.cli(&["GET", "{user}:1"])?, "x");
    assert!(old.cli(&["GET", "{user}:2"])?.starts_with("ASK "));
    assert!(new.cli(&["GET", "{user}:1"])?.starts_with("MOVED "));
    cluster.move_keys(slot, from, to)?;
    assert!(old.cli(&["GET", "{user}:1"])?.starts_with("ASK "));
    cluster.finish_migration(slot, to)?;
    assert!(old.cli(&["GET", "{user}:1"])?.starts_with("MOVED "));
    assert_eq!(new.cli(&["GET", "{user}:1"])?, "x");
    assert_eq!(cluster.master_of(slot)?, to);

    cluster.migrate_slot(slot, to, from)?;
    assert_eq!(old.cli(&["GET", "{user}:1"])?, "x");
    Ok(())
}

#[test]
fn a_replica_takes_over_and_the_old_master_comes_back() -> Tested {
    let cluster = RedisCluster::start(3, 1)?;
    assert_eq!(cluster.urls().len(), 6);
    let info = |index: usize| cluster.node(index).and_then(|node| node.cli(&["INFO", "replication"]));
    assert!(info(2)?.contains("role:master") && info(3)?.contains("role:slave"));
    cluster.take_for_dead_after(Duration::from_secs(2))?;
    cluster.node(0)?.kill()?;
    let deadline = Instant::now() + Duration::from_mins(5);
    while !(3..6).any(|index| info(index).is_ok_and(|info| info.contains("role:master"))) {
        assert!(Instant::now() < deadline, "no replica took over");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.node(0)?.restart()?;
    cluster.wait_until_ready()?;
    Ok(())
}
