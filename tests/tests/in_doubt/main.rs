//! When nobody knows whether a transaction was committed, readers are sent to the database until its rows
//! were read again; then the store is equal to it.

mod cluster;
mod crash;
mod factory;
mod postgres;
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use kvsync::capture::{Database, SyncBackend, SyncConnection, SyncModel};
use kvsync::store::memory::MemoryStore;
use kvsync::{KvSync, Lookup, Miss};
use kvsync_tests::users::{TABLE, User, user, users};
use kvsync_tests::wait::{LONG, until};

/// All keys that a test uses.
const IDS: std::ops::Range<i32> = 0..6;
const EMAILS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A factory that can be made to fail.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn off(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn on(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn pass(&self) -> Result<(), ConnectionError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(ConnectionError::BadConnection("the database cannot be reached".to_owned()));
        }
        Ok(())
    }
}

fn handle<DB: SyncBackend>(database: Database<DB>) -> KvSync
where
    User: SyncModel<DB>,
{
    KvSync::builder().store(MemoryStore::new()).database(database.model::<User>()).build().unwrap()
}

/// The store says of every key what the database says, and nothing else.
fn assert_equal(kv: &KvSync, rows: &[User]) {
    kv.flush(LONG).unwrap();
    for id in IDS {
        let row = rows.iter().find(|row| row.id == id);
        assert_eq!(User::fetch_by_id(kv, id).unwrap().as_ref(), row, "id {id}");
    }
    for email in EMAILS {
        let row = rows.iter().find(|row| row.email.as_deref() == Some(email));
        assert_eq!(User::fetch_by_email(kv, email).unwrap().as_ref(), row, "email {email}");
    }
}

/// Reads one row by both keys over and over, and keeps each name that it finds that is not the last one.
struct Watch {
    stop: Arc<AtomicBool>,
    reading: JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(kv: &KvSync, id: i32, email: &'static str) -> Self {
        let (kv, stop) = (kv.clone(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&stop);
        let reading = thread::spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                let found = [User::fetch_by_id(&kv, id).unwrap(), User::fetch_by_email(&kv, email).unwrap()];
                for user in found.into_iter().flatten() {
                    if seen.last() != Some(&user.name) {
                        seen.push(user.name);
                    }
                }
                thread::yield_now();
            }
            seen
        });
        Self { stop, reading }
    }

    /// Nothing was seen but these, in this order.
    fn saw_only(self, names: &[&str]) {
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.reading.join().unwrap();
        let mut left = names.iter();
        assert!(seen.iter().all(|name| left.any(|left| left == name)), "{seen:?} and not {names:?}");
    }
}
