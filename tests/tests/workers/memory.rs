//! A backlog takes the memory that it was given, and no more.

use std::process::Command;
use std::time::Duration;

use crate::rig::*;

const MIB: u64 = 1 << 20;

/// What the process holds of the machine's memory, at its highest.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_million_changes_stay_within_twice_the_bound() {
    // A process of its own, so that no other test is measured.
    let own = std::env::current_exe().unwrap();
    let child = Command::new(own).args(["--exact", "memory::backlog", "--ignored", "--nocapture"]).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn backlog() {
    let rig = Rig::with(TestStore::new(true), |config| {
        config.overflow_block = Duration::ZERO;
        config.on_report = None;
    });
    rig.store.down();
    let before = peak();
    for id in 0..1_000_000 {
        let row = user(id, &format!("someone.with.a.name.{id}@example.org"), "A name of common length");
        rig.publish([kvsync::change::Change { size: 304, ..put(1, row) }]);
    }
    let above = (peak() - before) / MIB;
    let health = rig.pipeline.health();
    println!("{above} MiB above idle: {health:?}");
    assert!(above <= 128, "{above} MiB");
}
