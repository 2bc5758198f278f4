//! However it ends, it ends: within its deadline, by a name, with every thread joined.
//!
//! Each ending has a process of its own, in which this test starts itself again: the threads that are left are
//! counted, and one that hangs is stopped.

mod disk;
mod panics;

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::{MemoryStore, SyncStore};
use kvsync::{Builder, KvSync, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::wait::{LONG, until};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::{Deserialize, Serialize, Serializer};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Deserialize, Serialize, Syncable)]
#[diesel(table_name = notes)]
#[sync_key(name = "id", fmt = "note:<id>")]
struct Note {
    id: i32,
    #[serde(serialize_with = "touchy")]
    text: String,
}

fn touchy<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    assert!(text != "panic", "the model would rather not");
    serializer.serialize_str(text)
}

type Ending = fn() -> Tested;

const ENDINGS: [(&str, Ending); 11] = [
    ("a_shutdown_under_load", a_shutdown_under_load),
    ("handles_that_are_dropped_without_a_shutdown", dropped),
    ("a_shutdown_by_the_callback_for_reports", a_shutdown_by_the_callback),
    ("the_last_handle_is_dropped_by_the_callback", dropped_by_the_callback),
    ("panics_of_the_model_and_of_the_callback", of_the_callback),
    ("a_full_disk_with_room_again", disk::with_room_again),
    ("a_full_disk_at_the_end", disk::at_the_end),
    ("panics_of_what_is_written", panics::of_what_is_written),
    ("panics_of_what_is_read_again", panics::of_what_is_read_again),
    ("panics_of_what_is_in_an_outbox", panics::of_what_is_in_an_outbox),
    ("panics_of_what_is_compared", panics::of_what_is_compared),
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var("KVSYNC_TEST_ENDING") {
        let ending = ENDINGS.iter().find(|(known, _)| *known == name).unwrap().1;
        ending().unwrap();
        // A thread that was let go of ends by itself.
        until("no thread is left", || threads().is_empty());
        return ExitCode::SUCCESS;
    }
    let trial = |(name, _): &(&'static str, Ending)| {
        let name = *name;
        Trial::test(name, move || run(name).map_err(|error| Failed::from(error.to_string())))
    };
    libtest_mimic::run(&Arguments::from_args(), ENDINGS.iter().map(trial).collect()).exit_code()
}

/// The threads of kvsync in this process, by name.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().map_while(Result::ok);
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("kvsync-")).map(|name| name.trim_end().to_owned()).collect()
}

/// Runs an ending in a process of its own.
fn run(name: &str) -> Tested {
    let told = tempfile::NamedTempFile::new()?;
    // A write beyond the limit of a file's length is then an error, and not the end.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\""]).arg(std::env::current_exe()?);
    command.env("KVSYNC_TEST_ENDING", name).stdin(Stdio::null()).stderr(told.reopen()?);
    let mut child = command.spawn()?;
    let until = Instant::now() + 2 * LONG;
    let end = loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            break format!("it ended with {status}");
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            break "it hung".to_owned();
        }
        thread::sleep(Duration::from_millis(5));
    };
    Err(format!("{end}\n{}", std::fs::read_to_string(told.path())?).into())
}

/// A database in a file, and a builder for a handle on it.
fn house(store: impl SyncStore + 'static) -> Tested<(tempfile::TempDir, Builder)> {
    let dir = tempfile::tempdir()?;
    open(&path(&dir))?.batch_execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
    let builder = builder(&dir, store);
    Ok((dir, builder))
}

/// The same where there is a database already.
fn builder(dir: &tempfile::TempDir, store: impl SyncStore + 'static) -> Builder {
    let path = path(dir);
    KvSync::builder().store(store).database(Database::<Sqlite>::new("main", move || open(&path)).model::<Note>())
}

fn path(dir: &tempfile::TempDir) -> String {
    dir.path().join("app.db").to_string_lossy().into_owned()
}

fn open(path: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 3000000; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn insert(conn: &mut SyncConnection<SqliteConnection>, id: i32, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values((notes::id.eq(id), notes::text.eq(text))).execute(conn)
}

fn a_shutdown_under_load() -> Tested {
    let (_dir, builder) = house(MemoryStore::new())?;
    let kv = builder.build()?;
    let (stop, wrote) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Tested {
        for writer in 0..3 {
            let mut conn = kv.connect::<Sqlite>("main")?;
            let (stop, wrote) = (&stop, &wrote);
            scope.spawn(move || {
                for id in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    insert(&mut conn, writer * 1_000_000 + id, "x").unwrap();
                    wrote.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reached = |count| {
            while wrote.load(Ordering::Relaxed) < count {
                thread::yield_now();
            }
        };
        reached(50);
        let ended = kv.shutdown(LONG);
        // Writers go on: their rows are committed, and nobody syncs them any more.
        reached(wrote.load(Ordering::Relaxed) + 20);
        stop.store(true, Ordering::Relaxed);
        assert!(ended.written > 0 && ended.threads == 0, "{ended:?}");
        // A thread that was joined may still be listed for a moment.
        until("no thread is left", || threads().is_empty());
        // What is committed meanwhile may come too late; then it is said of which table.
        let told = kv.health(LONG).pipeline.dirty.iter().any(|dirty| dirty.table.as_deref() == Some("notes"));
        assert!(ended.errors.is_empty() && told, "{ended:?}");
        Ok(())
    })
}

fn dropped() -> Tested {
    let (_dir, builder) = house(MemoryStore::new())?;
    let kv = builder.build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    for id in 0..100 {
        insert(&mut conn, id, "x")?;
    }
    // A thread has its name once it has run.
    kv.flush(LONG)?;
    insert(&mut conn, 100, "x")?;
    let other = kv.clone();
    drop(kv);
    assert!(!threads().is_empty(), "another handle is left");
    drop(other);
    drop(conn);
    Ok(())
}

fn a_shutdown_by_the_callback() -> Tested {
    let (_dir, builder) = house(MemoryStore::new())?;
    let handle: Arc<OnceLock<KvSync>> = Arc::default();
    let (tell, told) = mpsc::channel();
    let inside = Arc::clone(&handle);
    let kv = builder
        .on_report(move |_| {
            if let Some(kv) = inside.get() {
                tell.send(kv.shutdown(Duration::from_secs(10))).unwrap_or_default();
            }
        })
        .build()?;
    handle.set(kv.clone()).unwrap();
    let mut conn = kv.connect::<Sqlite>("main")?;
    insert(&mut conn, 1, "x")?;
    let ended = told.recv_timeout(LONG)?;
    assert_eq!(ended.left, 0, "{ended:?}");
    assert_eq!(Note::fetch_by_id(&kv, 1)?.map(|note| note.id), Some(1));
    Ok(())
}

fn dropped_by_the_callback() -> Tested {
    let (_dir, builder) = house(MemoryStore::new())?;
    let (give, given) = mpsc::channel::<KvSync>();
    let given = std::sync::Mutex::new(given);
    let (tell, told) = mpsc::channel();
    let kv = builder
        .on_report(move |_| {
            if let Ok(kv) = given.lock().unwrap().recv_timeout(LONG) {
                drop(kv);
                tell.send(()).unwrap_or_default();
            }
        })
        .build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    insert(&mut conn, 1, "x")?;
    drop(conn);
    give.send(kv)?;
    told.recv_timeout(LONG)?;
    Ok(())
}

fn of_the_callback() -> Tested {
    let (_dir, builder) = house(MemoryStore::new())?;
    let kv = builder.on_report(|_| panic!("the callback panics")).build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    for id in 0..40 {
        insert(&mut conn, id, if id % 4 == 0 { "panic" } else { "x" })?;
    }
    until("rows whose model does not panic are written", || {
        (0..40).all(|id| id % 4 == 0 || Note::fetch_by_id(&kv, id).unwrap().is_some())
    });
    assert!((0..40).step_by(4).all(|id| Note::fetch_by_id(&kv, id).unwrap().is_none()));
    let ended = kv.shutdown(LONG);
    assert_eq!(ended.threads, 0, "{ended:?}");
    Ok(())
}
