//! Readers who look all the time: what they see must never step back, be foreign, or be poison.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kvsync::Version;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::models::Id;
use crate::verdict::{Verdict, Wrong};
use crate::view::{Seen, View};

/// What readers share with the conductor.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    stop: AtomicBool,
    /// How often the store has forgotten: what was seen before counts no longer.
    forgot: AtomicU64,
    reads: AtomicU64,
    verdict: Mutex<Verdict>,
}

impl Watch {
    /// The store has forgotten what it had acknowledged, and everybody knows: it may step back once.
    pub(crate) fn forgot(&self) {
        self.forgot.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the readers.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// How many entries were read.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// What the readers found.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.lock().clone()
    }

    /// Reads until it is stopped.
    pub(crate) fn read(&self, view: &Arc<dyn View>, mut dice: Dice) {
        let mut memory = Memory::default();
        while !self.stop.load(Ordering::SeqCst) {
            let forgot = self.forgot.load(Ordering::SeqCst);
            if memory.forgot != forgot {
                memory = Memory { forgot, ..Memory::default() };
            }
            let keys: Vec<String> = (0..64).map(|_| dice.key()).collect();
            // A store that is down is a fault of the script.
            let Ok(entries) = view.get(&keys) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            if self.forgot.load(Ordering::SeqCst) != forgot {
                continue;
            }
            self.reads.fetch_add(keys.len() as u64, Ordering::Relaxed);
            for (key, bytes) in keys.iter().zip(&entries) {
                match Seen::read(key, bytes.as_ref()) {
                    Ok(seen) => memory.judge(key, &seen, &self.verdict),
                    Err(error) => {
                        self.verdict
                            .lock()
                            .find(Wrong::Orphan, format!("`{key}` cannot be read"), || error.to_string());
                    }
                }
            }
            thread::sleep(Duration::from_millis(4));
        }
    }
}

/// What one reader has seen. Readers share nothing: the one who is slower would seem to step back.
#[derive(Default)]
struct Memory {
    forgot: u64,
    versions: HashMap<String, Version>,
    /// The life in which a row was seen last under a key, its age then, and the lives before.
    lives: HashMap<(String, Id), (i64, i32, Vec<i64>)>,
}

impl Memory {
    fn judge(&mut self, key: &str, seen: &Seen, verdict: &Mutex<Verdict>) {
        let Some(version) = seen.version() else { return };
        let before = self.versions.entry(key.to_owned()).or_default();
        if version < *before {
            let (was, about) = (*before, format!("`{key}` at {version}"));
            verdict.lock().find(Wrong::Backwards, about, || format!("it stood at {was} before: {seen:?}"));
        }
        *before = version.max(*before);
        let Seen::Row(_, row) = seen else { return };
        if row.is_poison() {
            verdict.lock().find(Wrong::Ghost, format!("`{key}` at {version}"), || format!("{row:?}"));
        }
        if !row.keys().iter().any(|own| own == key) {
            verdict.lock().find(Wrong::Orphan, format!("`{key}` at {version}"), || format!("a foreign row {row:?}"));
        }
        let (life, age) = row.age();
        let (last, oldest, before) =
            self.lives.entry((key.to_owned(), row.id())).or_insert_with(|| (life, age, Vec::new()));
        if before.contains(&life) || (*last == life && age < *oldest) {
            let (about, was) = (format!("`{key}` in life {life}, age {age}"), (*last, *oldest));
            verdict.lock().find(Wrong::Backwards, about, || format!("it was in {was:?} before: {row:?}"));
        } else if *last != life {
            before.push(*last);
        }
        (*last, *oldest) = (life, age);
    }
}
