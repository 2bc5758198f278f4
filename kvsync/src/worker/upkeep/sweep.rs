use std::sync::Arc;

use crate::envelope::Envelope;
use crate::error::Result;
use crate::record::Terms;
use crate::store::{Cursor, Step, SyncStore};

/// Keys on a page: few, so that a store is never busy for long with what nobody waits for.
const PAGE: usize = 128;
/// Pages at a time. The next time goes on from there.
const PAGES: usize = 64;

/// Removes expired entries from a store that does not do it by itself.
pub(crate) struct Sweep {
    store: Arc<dyn SyncStore>,
    cursor: Option<Cursor>,
}

impl Sweep {
    pub(crate) fn new(store: &Arc<dyn SyncStore>) -> Self {
        Self { store: Arc::clone(store), cursor: None }
    }

    /// Looks at some pages. An error ends it: the next time begins anew.
    pub(crate) fn go_on(&mut self, terms: &dyn Fn() -> Terms, stop: impl Fn() -> bool) {
        for _ in 0..PAGES {
            match self.page(&terms()) {
                Ok(true) if !stop() => {}
                Ok(_) => return,
                Err(error) => {
                    self.cursor = None;
                    tracing::warn!(store = self.store.name(), %error, "expired entries could not be removed");
                    return;
                }
            }
        }
    }

    /// Looks at one page. Whether there is another.
    fn page(&mut self, terms: &Terms) -> Result<bool> {
        let page = self.store.scan("", self.cursor.take(), PAGE)?;
        let stored = self.store.get_many(&page.keys)?;
        let ended = |bytes: &_| Envelope::parse(bytes).is_ok_and(|envelope| envelope.head.is_expired(terms.now));
        let expired = page.keys.into_iter().zip(stored).filter(|(_, bytes)| bytes.as_ref().is_some_and(ended));
        let steps: Vec<Step> = expired.map(|(key, _)| Step::Sweep(key)).collect();
        // The store looks again: what was written meanwhile stays, and so does what is still needed.
        for answer in self.store.execute(&steps, terms) {
            answer?;
        }
        self.cursor = page.next;
        Ok(self.cursor.is_some())
    }
}
