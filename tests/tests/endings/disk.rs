//! The disk of an embedded store is full, here the share of it that this process may take: the application
//! writes on, the store says what it lacks, and nothing is lost that it acknowledged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::SyncConnection;
use kvsync::envelope::Envelope;
use kvsync::report::Outcome;
use kvsync::store::{EmbeddedStore, SyncStore};
use kvsync::{Key, KvSync, Report, Version};
use kvsync_tests::Tested;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{LONG, Note, house, insert, notes, threads, until};

/// How long a file may become: the database stays below it, the journal of the store does not.
const SHARE: u64 = 192 << 10;
const ROWS: i32 = 40;

pub(super) fn with_room_again() -> Tested {
    // With much room the values wait; with little, rows are read again; with less, the table is filled in again.
    for queue_bytes in [8 << 20, 256 << 10, 64 << 10] {
        let dir = tempfile::tempdir()?;
        let (_home, builder) = house(EmbeddedStore::open(dir.path())?)?;
        let kv = builder.queue_bytes(queue_bytes).overflow_block(Duration::ZERO).build()?;
        let mut conn = kv.connect::<Sqlite>("main")?;
        fill(&kv, &mut conn)?;
        let error = kv.flush(Duration::from_millis(20)).unwrap_err();
        assert!(whole(&error).contains("is full"), "{}", whole(&error));
        limit(None)?;
        mend(&kv)?;
        let ended = kv.shutdown(LONG);
        assert!(ended.is_clean(), "{ended}");
        let rows: Vec<(i32, String)> = notes::table.load(&mut conn)?;
        drop((conn, kv));
        let store = EmbeddedStore::open(dir.path())?;
        assert_eq!(rows.len(), ROWS as usize - 1, "one was deleted");
        for (id, text) in rows {
            let bytes = store.get_many(&[Key::new(format!("note:{id}"))])?.remove(0).expect("the row is there");
            assert!(bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{id} is not {text:.8}");
        }
    }
    Ok(())
}

pub(super) fn at_the_end() -> Tested {
    let dir = tempfile::tempdir()?;
    let written: Arc<Mutex<HashMap<Key, Version>>> = Arc::default();
    let told = Arc::clone(&written);
    let (home, builder) = house(EmbeddedStore::open(dir.path())?)?;
    let builder = builder.queue_bytes(256 << 10).overflow_block(Duration::ZERO).on_report(move |report| {
        if let Report::Key(report) = report
            && report.outcome == Outcome::Written
        {
            let mut told = told.lock();
            let newest = told.entry(report.key.clone()).or_insert(report.version);
            *newest = report.version.max(*newest);
        }
    });
    let kv = builder.build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    fill(&kv, &mut conn)?;
    let ended = kv.shutdown(Duration::from_secs(1));
    assert!(!ended.is_clean(), "{ended}");
    assert!(ended.errors.iter().any(|error| whole(error).contains("is full")), "{ended}");
    drop((conn, kv));
    // A thread that was let go of, because it was in the middle of a write, ends by itself.
    until("no thread is left", || threads().is_empty());
    // With its disk still full it cannot even be opened, or it can: then what was acknowledged is there.
    if let Ok(store) = EmbeddedStore::open(dir.path()) {
        stands(&store, &written.lock())?;
    }
    limit(None)?;
    let store = EmbeddedStore::open(dir.path())?;
    assert!(!written.lock().is_empty());
    stands(&store, &written.lock())?;
    let kv = super::builder(&home, store).build()?;
    kv.repair_all().in_flight(Duration::from_millis(1)).run()?;
    assert!(kv.verify_all().in_flight(Duration::from_millis(1)).run()?.is_clean());
    assert_eq!(Note::fetch_by_id(&kv, 0)?, None);
    Ok(())
}

/// Writes until the disk of the store is full, and for a while longer. Every statement succeeds.
fn fill(kv: &KvSync, conn: &mut SyncConnection<SqliteConnection>) -> Tested {
    (0..ROWS).try_for_each(|id| insert(conn, id, "first").map(drop))?;
    kv.flush(LONG)?;
    limit(Some(SHARE))?;
    let deadline = Instant::now() + LONG;
    let (mut round, mut full) = (0, None);
    while full.is_none_or(|full| round < full + 5) {
        assert!(Instant::now() < deadline, "the disk never filled: {:?}", kv.health(LONG));
        round += 1;
        let text = format!("{round:<1000}");
        for id in 0..ROWS {
            diesel::update(notes::table.find(id)).set(notes::text.eq(&text)).execute(conn)?;
        }
        diesel::delete(notes::table.find(1)).execute(conn)?;
        insert(conn, 1, &text)?;
        if full.is_none() && kv.health(LONG).details.iter().any(|detail| detail.contains("is full")) {
            full = Some(round);
        }
    }
    diesel::delete(notes::table.find(0)).execute(conn)?;
    Ok(())
}

/// Waits until all is delivered, or repaired by itself.
fn mend(kv: &KvSync) -> Tested {
    kv.flush(LONG)?;
    until("no table is dirty", || kv.health(LONG).pipeline.dirty.is_empty());
    let verified = kv.verify_all().in_flight(Duration::from_millis(1)).run()?;
    assert!(verified.is_clean(), "{verified} {:?}", verified.differences);
    Ok(())
}

/// Whether the store holds what it acknowledged, or something newer.
fn stands(store: &EmbeddedStore, written: &HashMap<Key, Version>) -> Tested {
    for (key, version) in written {
        let bytes = store.get_many(std::slice::from_ref(key))?.remove(0).ok_or_else(|| format!("{key} is lost"))?;
        let stands = Envelope::parse(&bytes)?.head.version;
        assert!(stands >= *version, "{key} is of {stands}, and {version} was acknowledged");
    }
    Ok(())
}

/// Limits how long the files of this process may become, or does so no longer.
fn limit(bytes: Option<u64>) -> Tested {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum })?;
    Ok(())
}

/// An error and its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
