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

/// Set in the process that the test starts, so that no other test is measured.
const ALONE: &str = "KVSYNC_TEST_BACKLOG";

#[test]
fn a_backlog_stays_within_twice_the_bound() {
    if std::env::var_os(ALONE).is_some() {
        return backlog();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(ALONE, "1").args(["--exact", "memory::a_backlog_stays_within_twice_the_bound", "--nocapture"]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran another test");
}

fn backlog() {
    let rig = Rig::with(TestStore::new(true), |config| {
        config.overflow_block = Duration::ZERO;
        config.on_report = None;
    });
    rig.store.down();
    let before = peak();
    for id in 0..400_000 {
        let row = user(id, &format!("someone.with.a.name.{id}@example.org"), "A name of common length");
        rig.publish([kvsync::change::Change { size: 304, ..put(1, row) }]);
    }
    let above = (peak() - before) / MIB;
    let health = rig.pipeline.health();
    println!("{above} MiB above idle: {health:?}");
    assert!(above <= 128, "{above} MiB");
}
