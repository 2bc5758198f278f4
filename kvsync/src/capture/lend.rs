//! Lends the wrapped connection to code that insists on its type.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use diesel::Connection;
use diesel::connection::{Instrumentation, InstrumentationEvent, TransactionManager as _, get_default_instrumentation};
use parking_lot::Mutex;

use super::backend::{Inner, Inside, SyncBackend};
use super::connection::{SyncConnection, depth_of};
use super::database::Policy;
use super::hub::Hub;
use super::statement::{Scanned, scan_all};
use super::ways::{Strangers, Way};

impl<C: Inner> SyncConnection<C> {
    /// Lends the wrapped connection. What is written through it is not captured, but watched: a write
    /// of a registered table is reported, and the table is dirty until it is verified. Tables whose
    /// triggers fill the outbox are caught as ever.
    ///
    /// The watch is an instrumentation of Diesel's. One that was set on the wrapped connection before it
    /// was wrapped is lost; one that was set on this connection still sees all events.
    pub fn lend<R>(&mut self, work: impl FnOnce(&mut C) -> R) -> R {
        self.watched(None, work)
    }

    /// Lends it for a bulk, and catches its panic. Also returns the registered tables that were written, or may have
    /// been: nothing is reported of them.
    pub(crate) fn lend_for_bulk<T, E>(
        &mut self,
        work: impl FnOnce(&mut C) -> Result<T, E>,
    ) -> (thread::Result<Result<T, E>>, BTreeSet<String>) {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let result = self.watched(Some(Arc::clone(&seen)), |conn| {
            // What a panic leaves half done on the connection is its transaction, and that is rolled back.
            let result = catch_unwind(AssertUnwindSafe(|| work(conn)));
            if !matches!(result, Ok(Ok(_))) {
                roll_back(conn);
            }
            result
        });
        let tables = std::mem::take(&mut *seen.lock());
        (result, tables)
    }

    fn watched<R>(&mut self, seen: Option<Seen>, work: impl FnOnce(&mut C) -> R) -> R {
        let before = depth_of(&mut self.inner);
        let user = self.state.instrumentation.clone().or_else(Shared::by_default);
        let hub = Arc::clone(&self.state.hub);
        // What is looked up for the watch is not for the user's eyes.
        self.inner.set_instrumentation(None::<Shared>);
        let ways = hub.ways(&mut self.inner);
        let altered = Arc::new(AtomicBool::new(false));
        let watch = Watch { hub: Arc::clone(&hub), ways, altered: Arc::clone(&altered), seen, user: user.clone() };
        self.inner.set_instrumentation(watch);
        let result = work(&mut self.inner);
        // No instrumentation cannot be set, one that does nothing can.
        self.inner.set_instrumentation(user);
        if altered.load(Ordering::Relaxed) {
            self.altered(&hub.tables);
        }
        self.reconcile_with(before);
        result
    }

    /// Notices that a transaction was ended on the lent connection.
    fn reconcile_with(&mut self, before: Option<u32>) {
        let (Some(before), Some(after)) = (before, depth_of(&mut self.inner)) else { return };
        if after < before {
            self.state.pending.doubt();
            for _ in after..before {
                self.state.pending.release();
            }
            C::Backend::ended(&mut self.state.session, after == 0, true);
            if after == 0 {
                self.state.publish_in_doubt();
            }
        }
    }
}

/// Ends the transaction that failed work left open. Nobody else does, and what fills in would wait for it. One that
/// cannot be ended leaves the connection broken, and ends with it.
fn roll_back<C: Connection>(conn: &mut C) {
    while depth_of(conn).is_some_and(|depth| depth > 0) {
        if C::TransactionManager::rollback_transaction(conn).is_err() {
            return;
        }
    }
}

/// An instrumentation that can be set again after it was replaced.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<dyn Instrumentation>>);

impl Shared {
    pub(super) fn new(instrumentation: impl Instrumentation) -> Self {
        Self(Arc::new(Mutex::new(instrumentation)))
    }

    fn by_default() -> Option<Self> {
        get_default_instrumentation().map(Self::new)
    }
}

impl Instrumentation for Shared {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.0.lock().on_connection_event(event);
    }
}

/// The tables that were written.
type Seen = Arc<Mutex<BTreeSet<String>>>;

/// Reports the statements that write registered tables.
struct Watch<DB: SyncBackend> {
    hub: Arc<Hub<DB>>,
    ways: Arc<[Way]>,
    /// Whether the schema was changed.
    altered: Arc<AtomicBool>,
    /// Takes the tables' names, where they are not to be reported.
    seen: Option<Seen>,
    user: Option<Shared>,
}

impl<DB: SyncBackend> Instrumentation for Watch<DB> {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        // Not all loads tell that they have ended: a statement that fails is reported, too.
        if let InstrumentationEvent::StartQuery { query, .. } = &event {
            // Diesel appends the binds as a comment. A statement that it cannot build is not sent.
            let mut text = String::new();
            if write!(text, "{query}").is_ok() {
                self.watch(&text);
            }
        }
        if let Some(user) = &mut self.user {
            user.on_connection_event(event);
        }
    }
}

impl<DB: SyncBackend> Watch<DB> {
    fn watch(&self, text: &str) {
        if self.hub.policy == Policy::Allow {
            return;
        }
        for (statement, scanned) in scan_all(text, DB::DIALECT) {
            let tables = match &scanned {
                Scanned::Write(write) => self.hub.table(&write.table).into_iter().collect(),
                Scanned::Uncapturable { tables, .. } | Scanned::Truncate { tables, .. } => {
                    self.hub.tables_among(tables)
                }
                Scanned::Schema { .. } => {
                    self.altered.store(true, Ordering::Relaxed);
                    Vec::new()
                }
                Scanned::Read | Scanned::Transaction => Vec::new(),
            };
            let strangers = Strangers::of(&scanned);
            let led = strangers.iter().flat_map(|strangers| strangers.met(&self.ways)).map(|way| &way.table);
            let tables = tables.into_iter().filter(|table| !table.triggers);
            for table in tables.map(|table| &table.name).chain(led) {
                if let Some(seen) = &self.seen {
                    seen.lock().insert(self.hub.declared(table).to_owned());
                } else {
                    let reason = "the table was written on the connection that `lend` handed out";
                    self.hub.missed(Some(table), reason, statement);
                }
            }
        }
    }
}
