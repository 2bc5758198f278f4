//! What fails for some messages while others go well: a hook, or a table whose changes the store refuses. It is logged once
//! when it begins and once when it is over, however many messages it concerns; health tells of it meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::reason;
use crate::clock::from_now;
use crate::error::{Error, without_passwords};
use crate::key::Key;
use crate::sync::{AtomicBool, Mutex};
use crate::transport::message::About;
use crate::version::Version;

/// The most messages that are remembered of one trouble.
const MOST: usize = 10_000;
/// How much later than its pause a message may come again. One that comes later still has gone to another process.
const LATE: Duration = Duration::from_mins(1);
/// How often those are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What fails.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A hook of this model.
    Hook(&'static str),
    /// The store, for changes of this table.
    Store(Arc<str>),
}

/// All that fails now.
#[derive(Default)]
pub(super) struct Troubles {
    queue: Arc<str>,
    /// Whether there are any: each message asks.
    any: AtomicBool,
    all: Mutex<BTreeMap<What, Trouble>>,
}

struct Trouble {
    /// The last cause.
    why: String,
    /// The messages that wait to be delivered again, and until when.
    waiting: HashMap<(Key, Version), Instant>,
    /// How many became dead letters.
    dead: u64,
    looked: Instant,
}

impl Troubles {
    pub(super) fn new(queue: Arc<str>) -> Self {
        Self { queue, ..Self::default() }
    }

    /// It failed for a message, which is delivered again after `pause`, or without one is a dead letter.
    pub(super) fn failed(&self, what: What, about: &About, why: &Error, pause: Option<Duration>) {
        let why = without_passwords(&reason(why));
        let mut all = self.all.lock();
        let trouble = all.entry(what).or_insert_with_key(|what| {
            tracing::warn!(queue = &*self.queue, error = why, "{what}");
            Trouble { why: String::new(), waiting: HashMap::new(), dead: 0, looked: Instant::now() }
        });
        trouble.why = why;
        let message = (about.home.clone(), about.version);
        match pause {
            Some(pause) if trouble.waiting.len() < MOST => {
                trouble.waiting.insert(message, from_now(pause.saturating_add(LATE)));
            }
            Some(_) => {}
            None => {
                trouble.waiting.remove(&message);
                trouble.dead += 1;
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// It went well for a message. It is over when none is left that it failed for.
    pub(super) fn well(&self, what: impl FnOnce() -> What, about: &About) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let (what, mut all) = (what(), self.all.lock());
        let Some(trouble) = all.get_mut(&what) else { return };
        trouble.waiting.remove(&(about.home.clone(), about.version));
        trouble.look();
        if trouble.waiting.is_empty() {
            self.end(&mut all, &what);
        }
    }

    /// A sentence about each.
    pub(super) fn details(&self) -> Vec<String> {
        let mut all = self.all.lock();
        // What went to other processes, and was not given up here, is over without a word from them.
        let gone = |trouble: &mut Trouble| {
            trouble.look();
            trouble.waiting.is_empty() && trouble.dead == 0
        };
        let over: Vec<What> = all.iter_mut().filter_map(|(what, one)| gone(one).then(|| what.clone())).collect();
        for what in &over {
            self.end(&mut all, what);
        }
        all.iter().map(|(what, trouble)| format!("{what}: {trouble}")).collect()
    }

    fn end(&self, all: &mut BTreeMap<What, Trouble>, what: &What) {
        all.remove(what);
        self.any.store(!all.is_empty(), Ordering::Release);
        tracing::info!(queue = &*self.queue, "it is over that {what}");
    }
}

impl Trouble {
    /// Forgets, now and then, the messages that went to other processes.
    fn look(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.looked) >= LOOK {
            self.looked = now;
            self.waiting.retain(|_, until| *until > now);
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(model) => write!(f, "a hook of `{model}` fails"),
            Self::Store(table) => write!(f, "the store refuses changes of `{table}`"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} messages wait for it", self.why, self.waiting.len())?;
        if self.dead > 0 { write!(f, ", {} are dead letters", self.dead) } else { Ok(()) }
    }
}
