//! Whether a store has forgotten what it acknowledged.
//!
//! Two things tell. The lives that the store names in its health: a server that was restarted or replaced
//! may lack what it had not written down or handed on. And a mark that every process renews in the store,
//! an entry under `!incarnation`: once it is gone, older than it was, or of another birth, the store was
//! emptied, or went back to an earlier state.
//!
//! The mark gets a new birth from whoever notices first, and the others take it over: so each process
//! notices, and none goes on noticing. Of two that notice at once one may notice twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::codec::{Codec, MessagePack};
use crate::envelope::{Body, Envelope, Head, State, Value};
use crate::error::Result;
use crate::key::Key;
use crate::record::{Order, Terms, Write};
use crate::store::{Outcome, Step, SyncStore};
use crate::version::Version;

/// Where the mark stands.
const MARK: &str = "!incarnation";
/// How long a store may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(2);

/// Watches one store.
pub(crate) struct Watch {
    store: Arc<dyn SyncStore>,
    seen: Option<Mark>,
}

/// What stands in the store, or stood there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    version: Version,
    birth: u64,
    lives: Vec<String>,
}

impl Watch {
    pub(crate) fn new(store: &Arc<dyn SyncStore>) -> Self {
        Self { store: Arc::clone(store), seen: None }
    }

    pub(crate) fn store(&self) -> &dyn SyncStore {
        &*self.store
    }

    /// Looks at the store. How it was noticed, when it may have forgotten since the last look. A store that
    /// does not answer is looked at the next time.
    pub(crate) fn look(&mut self, epoch: &AtomicU32, terms: &dyn Fn() -> Terms) -> Option<String> {
        let lives = self.store.health(DEADLINE).lives?;
        let found = match self.read() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(store = self.store.name(), %error, "it cannot be told whether the store has forgotten");
                return None;
            }
        };
        if let Some(found) = &found {
            // The record of the epoch is one entry like others, and may have been forgotten; here is another.
            epoch.fetch_max(found.version.epoch(), Ordering::AcqRel);
        }
        let (why, is_news) = self.compare(found.as_ref(), &lives);
        let known = found.as_ref().or(self.seen.as_ref());
        let birth = match &found {
            Some(found) if !is_news => found.birth,
            _ => rand::random(),
        };
        let last = known.map_or(0, |mark| mark.version.sequence());
        let now = terms().now.saturating_mul(1000).max(last.saturating_add(1));
        let mark = Mark { version: Version::new(epoch.load(Ordering::Acquire), 0, now), birth, lives };
        match self.write(&mark, &terms()) {
            Ok(Outcome::Written) => self.seen = Some(mark),
            // Another process was faster; its mark is what is compared with the next time.
            Ok(_) => self.seen = self.read().ok().flatten().map(|found| Mark { lives: mark.lives.clone(), ..found }),
            Err(error) => {
                tracing::warn!(store = self.store.name(), %error, "the mark of the store could not be renewed");
                // What was noticed is not noticed again.
                self.seen = found.or(self.seen.take()).map(|found| Mark { lives: mark.lives, ..found });
            }
        }
        why
    }

    /// Why the store may have forgotten, and whether the mark in it does not say so yet.
    fn compare(&self, found: Option<&Mark>, lives: &[String]) -> (Option<String>, bool) {
        let gone = |known: &Mark| known.lives.iter().find(|life| !lives.contains(life)).cloned();
        let Some(found) = found else {
            // A store that has none and was never seen to have one is a new one.
            let why = self.seen.as_ref().map(|seen| match gone(seen) {
                Some(life) => format!("a server was restarted or replaced ({life} has ended), and the mark is gone"),
                None => "its mark is gone: it was emptied, or has evicted it".to_owned(),
            });
            return (why, true);
        };
        if let Some(life) = gone(found) {
            let was = if self.seen.is_some() { "" } else { ", while no process was there to see it" };
            return (Some(format!("a server was restarted or replaced ({life} has ended{was})")), true);
        }
        let Some(seen) = &self.seen else { return (None, false) };
        if found.birth == seen.birth && found.version < seen.version {
            return (Some("it went back to an earlier state".to_owned()), true);
        }
        if let Some(life) = gone(seen) {
            return (Some(format!("a server was restarted or replaced ({life} has ended)")), false);
        }
        let why = (found.birth != seen.birth).then(|| "another process saw that it had forgotten".to_owned());
        (why, false)
    }

    fn read(&self) -> Result<Option<Mark>> {
        let Some(bytes) = self.store.get_many(&[Key::new(MARK)])?.pop().flatten() else { return Ok(None) };
        let envelope = Envelope::parse(&bytes)?;
        match envelope.body()? {
            Body::Model { bytes, .. } => {
                let (birth, lives) = MessagePack::decode(bytes)?;
                Ok(Some(Mark { version: envelope.head.version, birth, lives }))
            }
            Body::None | Body::Pointer(_) => Ok(None),
        }
    }

    fn write(&self, mark: &Mark, terms: &Terms) -> Result<Outcome> {
        let head = Head { version: mark.version, state: State::Value, expires_at: 0 };
        let value = Value::model(MessagePack::ID, &[], &MessagePack::encode(&(mark.birth, &mark.lives))?);
        let write = Write { key: Key::new(MARK), head, value, order: Order::Slot };
        self.store.execute(&[Step::Write(write)], terms).pop().unwrap_or(Ok(Outcome::Superseded))
    }
}
