//! How much memory a backlog takes.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::Key;
use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::record::Terms;
use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};

use crate::Result;
use crate::models::{CREATE_SQLITE, User, new_user};
use crate::options::Options;
use crate::statements::sqlite;
use crate::table::{Figure, Goal, Spread, Unit};

const CHANGES: u32 = 1_000_000;
const COMMIT: u32 = 1000;
const BOUND: usize = 64 << 20;

/// Runs a process of its own, whose peak is that of nothing else.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let peaks = (0..options.rounds(3)).map(|_| child_peak()).collect::<Result<Vec<f64>>>()?;
    Ok(vec![Figure {
        what: "peak memory above idle, 1,000,000 changes behind a store that hangs, bound 64 MiB".into(),
        spread: Spread::of(peaks),
        unit: Unit::Mebibytes,
        goal: Goal::AtMost(128.0),
        sides: String::new(),
    }])
}

/// The process: writes rows while the store hangs, and prints by how many KiB its memory peaked above idle.
pub(crate) fn child() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let mut conn = SqliteConnection::establish(&path)?;
    conn.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")?;
    conn.batch_execute(CREATE_SQLITE)?;
    let kv = KvSync::builder()
        .store(HangingStore)
        .database(Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path)).model::<User>())
        .queue_bytes(BOUND)
        .build()?;
    let mut conn = kv.wrap(conn)?;
    sqlite::insert(&mut conn, 0, &new_user(0))?;
    let idle = status("VmRSS")?;
    // Forgets the peak so far.
    fs::write("/proc/self/clear_refs", "5")?;
    for commit in 0..CHANGES / COMMIT {
        conn.transaction(|conn| {
            (1..=COMMIT).try_for_each(|row| sqlite::insert(conn, 0, &new_user(commit * COMMIT + row)))
        })?;
    }
    println!("{}", status("VmHWM")?.saturating_sub(idle));
    // The store never lets go of its workers.
    std::process::exit(0)
}

/// By how many MiB the memory of the process peaked above idle.
#[allow(clippy::cast_precision_loss, reason = "KiB of a process are far below 2^52")]
fn child_peak() -> Result<f64> {
    let output = Command::new(std::env::current_exe()?).args(["--child", "memory"]).output()?;
    if !output.status.success() {
        return Err(format!("the child failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let kib: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(kib as f64 / 1024.0)
}

/// A line of this process's status, in KiB.
fn status(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("/proc/self/status has no such line")?;
    Ok(kib.parse()?)
}

/// A store that takes steps and never answers.
#[derive(Debug)]
struct HangingStore;

impl Store for HangingStore {
    fn name(&self) -> &'static str {
        "hanging"
    }

    fn health(&self, _: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> kvsync::Result<()> {
        Ok(())
    }
}

impl SyncStore for HangingStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1024, 1 << 20, 256)
    }

    fn execute(&self, _: &[Step], _: &Terms) -> Vec<kvsync::Result<Outcome>> {
        loop {
            thread::park();
        }
    }

    fn get_many(&self, keys: &[Key]) -> kvsync::Result<Vec<Option<Bytes>>> {
        Ok(vec![None; keys.len()])
    }

    fn scan(&self, _: &str, _: Option<Cursor>, _: usize) -> kvsync::Result<Page> {
        Ok(Page::default())
    }

    fn epoch(&self) -> kvsync::Result<u32> {
        Ok(0)
    }

    fn raise_epoch(&self, epoch: u32) -> kvsync::Result<u32> {
        Ok(epoch)
    }
}
