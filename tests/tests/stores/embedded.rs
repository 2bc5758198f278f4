//! The embedded store: what it keeps when its process or its disk fails, and what it says of it.

use std::error::Error as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::embedded::EmbeddedStore;
use kvsync::store::{Outcome, Status, Step, Store, SyncStore};
use kvsync::{ErrorKind, Key, Version};
use kvsync_tests::wait::{LONG, until};
use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

/// Set in a process that this test started: what it is to do, and in which directory.
const CHILD: &str = "KVSYNC_TEST_CHILD";
const DIR: &str = "KVSYNC_TEST_DIR";

const TERMS: Terms = Terms { now: 1_000_000, left: 600_000, dead: 604_800_000 };

/// Makes stores in directories of their own.
pub(crate) struct Fresh {
    sync: bool,
    base: TempDir,
    made: AtomicUsize,
}

impl Fresh {
    pub(crate) fn new(sync: bool) -> Self {
        Self { sync, base: TempDir::new().unwrap(), made: AtomicUsize::new(0) }
    }
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let dir = self.base.path().join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        Stores::both(Arc::new(EmbeddedStore::builder(dir).sync(self.sync).open().unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    type Test = fn() -> Result<(), Failed>;
    let trials: [(&str, Test); 10] = [
        ("what_was_acknowledged_survives_kill_9", || survives_kill(false)),
        ("what_was_acknowledged_survives_kill_9_with_sync", || survives_kill(true)),
        ("what_was_closed_is_there_when_opened_again", reopened),
        ("a_second_process_is_told_that_the_store_is_open", second_process),
        ("a_directory_that_cannot_be_written_is_a_clear_error", not_writable),
        ("a_directory_of_something_else_is_a_clear_error", something_else),
        ("damage_is_a_clear_error_and_no_panic", damaged),
        ("a_closed_store_says_so", closed),
        ("a_full_disk_is_a_clear_error_and_the_store_stays_readable", full_disk),
        ("a_full_disk_that_has_room_again_is_written_again", full_disk_with_room_again),
    ];
    trials.into_iter().map(|(name, test)| Trial::test(format!("embedded::{name}"), test)).collect()
}

/// Does what a child process was started for, if this is one.
pub(crate) fn child() -> bool {
    let Some(task) = std::env::var_os(CHILD) else { return false };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match task.to_str().unwrap() {
        "write" => write(&dir, false, u64::MAX),
        "write with sync" => write(&dir, true, u64::MAX),
        "write 30 and wait" => write(&dir, false, 30),
        "write 30 with sync and wait" => write(&dir, true, 30),
        "fill" => fill(&dir),
        "fill and make room" => fill_and_make_room(&dir),
        other => panic!("{other}: no such task"),
    }
    true
}

fn start(task: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, task).env(DIR, dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A child that is killed with the test, also when it panics.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The change of row `number`: it stands under its home and one more key, with some bytes.
fn change(number: u64) -> Delta {
    let keys = vec![Listed { key: Key::new(format!("slot:{number}")), pointer: false }];
    let bytes = vec![u8::try_from(number % 251).unwrap(); usize::try_from(number * 37 % 5_000).unwrap()];
    Delta {
        home: Key::new(format!("home:{number}")),
        version: Version::new(0, 1, number + 1),
        content: Content::Put { value: Value::model(1, &[], &bytes), expires_at: 0, keys },
        gone: Vec::new(),
    }
}

fn applied(store: &EmbeddedStore, changes: impl IntoIterator<Item = Delta>) -> Result<(), kvsync::Error> {
    let steps: Vec<Step> = changes.into_iter().map(|change| Step::Apply(Arc::new(change))).collect();
    store.execute(&steps, &TERMS).into_iter().try_for_each(|answer| {
        assert_eq!(answer?, Outcome::Applied { superseded: false });
        Ok(())
    })
}

/// Whether row `number` stands whole under all of its keys.
fn stands(store: &EmbeddedStore, number: u64) -> bool {
    let change = change(number);
    let Content::Put { value, .. } = change.content else { unreachable!() };
    let keys = [change.home, Key::new(format!("slot:{number}"))];
    let found = store.get_many(&keys).unwrap();
    found.into_iter().all(|bytes| {
        bytes.is_some_and(|bytes| {
            let envelope = Envelope::parse(&bytes).unwrap();
            envelope.head.version == change.version && envelope.value == value
        })
    })
}

/// Batches of ten rows, each acknowledged on standard output by its number; then waits to be killed.
fn write(dir: &Path, sync: bool, batches: u64) {
    let store = EmbeddedStore::builder(dir).sync(sync).open().unwrap();
    let mut out = std::io::stdout().lock();
    for batch in 0..batches {
        applied(&store, (batch * 10..batch * 10 + 10).map(change)).unwrap();
        writeln!(out, "{batch}").unwrap();
    }
    loop {
        std::thread::park();
    }
}

/// Kills a child while it writes, after few batches and after so many that tables are on disk, and
/// while it waits: then nothing that it wrote later can have carried along what it acknowledged.
fn survives_kill(sync: bool) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let (write, wait) =
        if sync { ("write with sync", "write 30 with sync and wait") } else { ("write", "write 30 and wait") };
    let many = if sync { 40 } else { 800 };
    for (round, (task, batches)) in [(write, 1), (write, 30), (write, many), (wait, 30)].into_iter().enumerate() {
        let dir = dir.path().join(round.to_string());
        let mut child = Killed(start(task, &dir).spawn()?);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < batches {
            acknowledged.push(lines.next().ok_or("the child ended")??);
        }
        child.0.kill()?;
        child.0.wait()?;
        // What it had still acknowledged before the signal came.
        acknowledged.extend(lines.map_while(Result::ok).filter(|line| !line.is_empty()));
        let last: u64 = acknowledged.iter().filter_map(|line| line.parse().ok()).max().unwrap();
        let store = EmbeddedStore::open(&dir)?;
        for number in 0..last * 10 + 10 {
            assert!(stands(&store, number), "{task}: row {number} of {last} batches is lost");
        }
        // The batch that was under way is there as a whole or not at all.
        let next = (last * 10 + 10..last * 10 + 20).filter(|number| stands(&store, *number)).count();
        assert!(next == 0 || next == 10, "{next} of 10 rows of one batch");
        assert!(!stands(&store, last * 10 + 20));
        applied(&store, [change(1_000_000)])?;
    }
    Ok(())
}

fn reopened() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    for sync in [false, true] {
        let dir = dir.path().join(sync.to_string());
        let store = EmbeddedStore::builder(&dir).sync(sync).open()?;
        applied(&store, (0..100).map(change))?;
        store.raise_epoch(7)?;
        store.close()?;
        let store = EmbeddedStore::open(&dir)?;
        assert!((0..100).all(|number| stands(&store, number)));
        assert_eq!(store.epoch()?, 7);
        let tombstone = Head { version: Version::new(0, 2, 0), state: State::Tombstone, expires_at: 0 };
        let write = Write { key: Key::new("slot:5"), head: tombstone, value: Value::none(), order: Order::Slot };
        assert_eq!(store.execute(&[Step::Write(write)], &TERMS).remove(0)?, Outcome::Written);
        // Dropped without a close.
        drop(store);
        let store = EmbeddedStore::open(&dir)?;
        assert!(!stands(&store, 5) && stands(&store, 6));
    }
    Ok(())
}

fn second_process() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let mut child = Killed(start("write", dir.path()).spawn()?);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    lines.next().ok_or("the child ended")??;
    let error = EmbeddedStore::open(dir.path()).expect_err("it is open in the child");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("open elsewhere") && mentions(&error, dir.path()), "{error}");
    drop(child);
    let store = EmbeddedStore::open(dir.path())?;
    // Within one process it is no different.
    let error = EmbeddedStore::open(dir.path()).expect_err("it is open in this process");
    assert!(error.to_string().contains("open elsewhere"), "{error}");
    assert!(stands(&store, 0));
    Ok(())
}

fn mentions(error: &kvsync::Error, dir: &Path) -> bool {
    error.to_string().contains(&dir.display().to_string())
}

fn not_writable() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "x")?;
    // A file, something below a file, and a file system that takes no directories from anyone.
    for dir in [file.clone(), file.join("below"), PathBuf::from("/proc/kvsync"), PathBuf::from("/sys/kvsync")] {
        let error = EmbeddedStore::open(&dir).expect_err("it cannot be written");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("may write") && mentions(&error, &dir), "{error}");
        assert!(error.source().is_some(), "{error} has no cause");
    }
    Ok(())
}

fn something_else() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    std::fs::write(dir.path().join("version"), "this is no database")?;
    std::fs::write(dir.path().join("lock"), "")?;
    let error = EmbeddedStore::open(dir.path()).expect_err("it holds something else");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(mentions(&error, dir.path()), "{error}");
    Ok(())
}

fn damaged() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let store = EmbeddedStore::open(dir.path())?;
    applied(&store, (0..100).map(change))?;
    store.close()?;
    // Both make fjall panic, the first while it holds a lock that its destructor needs.
    for stray in [dir.path().join("keyspaces/stray"), dir.path().join("9.jnl")] {
        std::fs::create_dir(&stray)?;
        let error = EmbeddedStore::open(dir.path()).expect_err("it holds something else");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(mentions(&error, &stray), "{error}");
        std::fs::remove_dir(stray)?;
    }
    // A flipped bit in a value in the journal is seen by its checksum.
    let journal = std::fs::read_dir(dir.path())?
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "jnl"))
        .unwrap();
    let mut bytes = std::fs::read(&journal)?;
    let value = bytes.windows(100).position(|bytes| bytes == [7; 100]).unwrap();
    bytes[value + 50] ^= 1;
    std::fs::write(&journal, &bytes)?;
    let error = EmbeddedStore::open(dir.path()).expect_err("its journal is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("backfill"), "{error}");
    Ok(())
}

fn closed() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let store = EmbeddedStore::open(dir.path())?;
    store.close()?;
    let kinds = [
        store.get_many(&[Key::new("a")]).expect_err("closed").kind(),
        store.scan("", None, 1).expect_err("closed").kind(),
        store.epoch().expect_err("closed").kind(),
        store.raise_epoch(1).expect_err("closed").kind(),
        applied(&store, [change(1)]).expect_err("closed").kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Closed; 5]);
    assert_eq!(store.health(LONG).status, Status::Down);
    Ok(())
}

/// Runs a child in a mount namespace of its own, with `dir` on a small file system.
fn on_a_disk_of(size: &str, task: &str) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let exe = std::env::current_exe()?;
    let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", size]).arg(dir.path()).arg(exe);
    let output = command.env(CHILD, task).env(DIR, dir.path()).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("on a small disk (needs root or user namespaces): {}: {said}", output.status).into());
    }
    Ok(())
}

// A disk of 6 MiB fills while the journal is written, one of 40 MiB while a table is.
const SIZES: [&str; 2] = ["6m", "40m"];

fn full_disk() -> Result<(), Failed> {
    SIZES.into_iter().try_for_each(|size| on_a_disk_of(size, "fill"))
}

fn full_disk_with_room_again() -> Result<(), Failed> {
    SIZES.into_iter().try_for_each(|size| on_a_disk_of(size, "fill and make room"))
}

/// Writes until the disk is full; returns how many batches of ten were acknowledged.
fn write_until_full(store: &EmbeddedStore) -> (u64, kvsync::Error) {
    for batch in 0..100_000 {
        if let Err(error) = applied(store, (batch * 10..batch * 10 + 10).map(change)) {
            return (batch, error);
        }
    }
    panic!("the disk never filled");
}

fn fill(dir: &Path) {
    let store = EmbeddedStore::open(dir).unwrap();
    let (batches, error) = write_until_full(&store);
    assert!(batches > 10, "{batches}: {error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable() && error.to_string().contains("full") && mentions(&error, dir), "{error}");
    for _ in 0..3 {
        let error = applied(&store, [change(batches * 10)]).expect_err("the disk is still full");
        assert!(error.to_string().contains("full"), "{error}");
        assert!((0..batches * 10).all(|number| stands(&store, number)), "the store is not readable");
        assert!(store.scan("home:", None, 10_000).unwrap().keys.len() >= 100);
    }
    let health = store.health(LONG);
    assert_eq!(health.status, Status::Down);
    assert!(health.details[0].contains("full"), "{health:?}");
}

fn fill_and_make_room(dir: &Path) {
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let store = EmbeddedStore::open(dir.join("store")).unwrap();
    let (batches, _) = write_until_full(&store);
    applied(&store, [change(batches * 10)]).expect_err("the disk is still full");
    std::fs::remove_file(&ballast).unwrap();
    for number in batches * 10..batches * 10 + 20 {
        // A thread of fjall's may have met the full disk too, and tells so at the next write.
        until("the disk has room, and the store takes writes", || applied(&store, [change(number)]).is_ok());
    }
    assert_eq!(store.health(LONG).status, Status::Up);
    assert!((0..batches * 10 + 20).all(|number| stands(&store, number)));
    store.close().unwrap();
    let store = EmbeddedStore::open(dir.join("store")).unwrap();
    assert!((0..batches * 10 + 20).all(|number| stands(&store, number)));
}
