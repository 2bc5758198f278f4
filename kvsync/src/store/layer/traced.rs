//! A span around each call of a store.

use tracing::field::Empty;
use tracing::span::EnteredSpan;
use tracing::{Level, span};

use super::observe::{Call, Observed, Observer};
use super::size::Size;
use crate::error::Result;
use crate::store::Store;

/// A store with a [`tracing`] span `kvsync.store` around each call, at the level `DEBUG`.
///
/// Its fields: `store` (its name), `command` (as [`Metered`](super::Metered) names it), `commands` (how many),
/// and once it is answered, where some failed, `errors` (how many) and `error` (the kind of the first). Keys,
/// values and the texts of errors, which may hold them, are never told.
///
/// ```
/// use kvsync::store::MemoryStore;
/// use kvsync::store::layer::Traced;
///
/// let store = Traced::new(MemoryStore::new());
/// # drop(store);
/// ```
pub type Traced<S> = Observed<S, Tracer>;

/// What makes the spans of a [`Traced`] store.
#[derive(Debug, Clone, Copy)]
pub struct Tracer(());

impl<S: Store> Traced<S> {
    /// This store, with spans.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::around(store, Tracer(()))
    }
}

impl Observer for Tracer {
    type Running = EnteredSpan;

    fn begin(&self, call: &Call<'_>) -> EnteredSpan {
        span!(
            Level::DEBUG,
            "kvsync.store",
            store = call.store,
            command = call.name(),
            commands = call.len(),
            errors = Empty,
            error = Empty
        )
        .entered()
    }

    fn end<T: Size>(&self, span: EnteredSpan, _call: &Call<'_>, answers: &[Result<T>]) {
        let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        if let Some(first) = errors.next() {
            span.record("error", first.kind().as_str());
            span.record("errors", 1 + errors.count());
        }
    }
}
