//! Stores that keep both contracts, and where the one sees what the other wrote, are rejected by the suite.
//!
//! They are the store in memory, and a hole in the wall between rows and data.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kvsync::clock::millis;
use kvsync::record::Terms;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use kvsync::store::data::{self, Command, DataCapabilities, DataCommands, DataStore, Operation, Reads, Reply};
use kvsync::store::{Capabilities, Cursor, Health, MemoryStore, Outcome, Page, Step, Store, SyncStore};
use kvsync::{Key, Result};
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leak {
    None,
    RowsReadAsStrings,
    StringsReadAsRows,
    ScansShowKeysOfData,
    DeletesTakeRows,
    EpochIsACounter,
}

const CASE: &str = "neither_contract_sees_what_the_other_wrote";

pub(crate) fn trials() -> Vec<Trial> {
    use Leak::{DeletesTakeRows, EpochIsACounter, RowsReadAsStrings, ScansShowKeysOfData, StringsReadAsRows};
    let leaks = [RowsReadAsStrings, StringsReadAsRows, ScansShowKeysOfData, DeletesTakeRows, EpochIsACounter];
    let rejected = |leak: Leak| {
        Trial::test(format!("broken_both::{leak:?}_is_rejected"), move || match verdict(leak) {
            Verdict::Failed(_) => Ok(()),
            other => Err(Failed::from(format!("{CASE} says {other:?}"))),
        })
    };
    let passes = || match verdict(Leak::None) {
        Verdict::Passed => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    };
    let passes = Trial::test("broken_both::without_a_leak_it_passes", passes);
    leaks.into_iter().map(rejected).chain([passes]).collect()
}

fn verdict(leak: Leak) -> Verdict {
    conformance::cases().find(|case| case.name == CASE).unwrap().run(&leak)
}

impl Harness for Leak {
    fn fresh(&self) -> Stores {
        let (right, keys) = (MemoryStore::new(), Mutex::default());
        Stores::both(Arc::new(Leaking { leak: *self, right, keys }))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}

#[derive(Debug)]
struct Leaking {
    leak: Leak,
    right: MemoryStore,
    /// The keys of data that were written.
    keys: Mutex<BTreeSet<Key>>,
}

impl Leaking {
    fn row(&self, key: &[u8]) -> Option<Bytes> {
        let key = Key::new(String::from_utf8_lossy(key));
        SyncStore::get_many(&self.right, &[key]).unwrap().remove(0)
    }

    fn one(&self, command: &Command, reads: Reads) -> Result<Reply> {
        let reply = self.right.run(std::slice::from_ref(command), reads).remove(0)?;
        match (self.leak, command, &reply) {
            (Leak::RowsReadAsStrings, Command::Get { key }, Reply::Value(None)) => Ok(Reply::Value(self.row(key))),
            (Leak::DeletesTakeRows, Command::Del { key, .. }, _) => {
                if let Some(stands) = self.row(key) {
                    let now = millis(SystemTime::now());
                    let remove = Step::Remove { key: Key::new(String::from_utf8_lossy(key)), stands };
                    self.right.execute(&[remove], &Terms { now, left: 0, dead: 0 }).remove(0)?;
                }
                Ok(reply)
            }
            (Leak::EpochIsACounter, Command::Set { key, .. }, _) if key == "!epoch" => {
                self.right.raise_epoch(u32::MAX)?;
                Ok(reply)
            }
            (_, Command::Set { key, .. }, _) => {
                self.keys.lock().insert(Key::new(format!("={}", String::from_utf8_lossy(key))));
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }
}

impl Store for Leaking {
    fn name(&self) -> &'static str {
        "leaking"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.right.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.right.close()
    }
}

impl SyncStore for Leaking {
    fn capabilities(&self) -> Capabilities {
        self.right.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.right.execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        let mut found = SyncStore::get_many(&self.right, keys)?;
        if self.leak == Leak::StringsReadAsRows {
            for (found, key) in found.iter_mut().zip(keys).filter(|(found, _)| found.is_none()) {
                *found = DataCommands::get(&self.right, key.as_str())?;
            }
        }
        Ok(found)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        let mut page = self.right.scan(prefix, cursor, limit)?;
        if self.leak == Leak::ScansShowKeysOfData {
            page.keys.extend(self.keys.lock().iter().filter(|key| key.as_str().starts_with(prefix)).cloned());
        }
        Ok(page)
    }

    fn epoch(&self) -> Result<u32> {
        self.right.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.right.raise_epoch(epoch)
    }
}

impl DataStore for Leaking {
    fn data_capabilities(&self) -> DataCapabilities {
        self.right.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        commands.iter().map(|command| self.one(command, reads)).collect()
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.right.run_atomic(operations)
    }
}
