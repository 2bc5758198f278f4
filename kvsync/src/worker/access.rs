use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Pipeline;
use super::apply::{self, Job};
use super::lane::{Lane, Shared};
use super::post::Patience;
use crate::change::{Action, Change, Row};
use crate::clock::{from_now, millis};
use crate::error::{Result, failure_text};
use crate::key::Scope;
use crate::model::{Schema, Source, Ttl};
use crate::record::{Delta, Form, Terms};
use crate::report::DirtyTable;
use crate::store::SyncStore;
use crate::version::Version;

/// What upkeep needs of a pipeline. It keeps no thread alive: one that holds it ends when the pipeline says so.
#[derive(Clone)]
pub(crate) struct Access {
    /// Those of stores; upkeep has nothing to do with brokers.
    lanes: Vec<Arc<Lane>>,
    all: Vec<Arc<Lane>>,
    shared: Arc<Shared>,
}

impl Pipeline {
    /// For those who compare and mend beside the workers.
    pub(crate) fn access(&self) -> Access {
        let lanes = self.store_lanes().map(|(lane, _)| Arc::clone(lane)).collect();
        Access { lanes, all: self.lanes().to_vec(), shared: Arc::clone(&self.shared) }
    }
}

impl Access {
    /// The stores, in the order given to the builder.
    pub(crate) fn stores(&self) -> impl Iterator<Item = &Arc<dyn SyncStore>> {
        self.lanes.iter().filter_map(|lane| lane.target.store())
    }

    /// The store of this place.
    pub(crate) fn store(&self, at: usize) -> Option<(&Arc<str>, &Arc<dyn SyncStore>)> {
        self.lanes.get(at).and_then(|lane| Some((&lane.name, lane.target.store()?)))
    }

    /// The sources, one for each database.
    pub(crate) fn sources(&self) -> &[Arc<dyn Source>] {
        self.shared.sources.get().map_or(&[], Vec::as_slice)
    }

    /// The source of this database.
    pub(crate) fn source(&self, database: &str) -> Option<Arc<dyn Source>> {
        let sources = self.shared.sources.get()?;
        sources.iter().find(|source| source.name() == database).map(Arc::clone)
    }

    /// The lowest epoch whose entries count.
    pub(crate) fn epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// What time it is, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        millis(self.shared.clock.now())
    }

    /// The terms of a step that is executed now.
    pub(crate) fn terms(&self) -> Terms {
        apply::terms(&*self.shared.clock, &self.shared.retention)
    }

    /// How long entries of a model live.
    pub(crate) fn ttl(&self, schema: &Schema) -> Option<Ttl> {
        schema.ttl.or(self.shared.default_ttl)
    }

    /// Waits until everything that was committed in this process before the call, and all that waits in an
    /// outbox, is in every store. Whether it is.
    pub(crate) fn drain(&self, deadline: Duration) -> bool {
        let last = self.shared.commits.last();
        let deadline = from_now(deadline);
        if let Err(error) = self.shared.drain_outboxes(Patience { deadline, outages: true, lanes: &self.all }) {
            tracing::warn!(error = failure_text(&error), "an outbox was not drained");
            return false;
        }
        let held_up = || self.all.iter().any(|lane| lane.unsettled.holds_up_any(last));
        self.shared.commits.flush(last, deadline, held_up)
    }

    /// Writes changes at once into one store, and returns when they are there.
    ///
    /// # Errors
    ///
    /// The first failure: of the codec, or of the store. What was written stays.
    pub(crate) fn apply(&self, store: usize, changes: &[Change]) -> Result<()> {
        self.lanes.get(store).map_or(Ok(()), |lane| lane.apply_now(changes))
    }

    /// Writes a delta at once into one store, as [`apply`](Self::apply) does.
    ///
    /// # Errors
    ///
    /// The store's failure.
    pub(crate) fn apply_delta(&self, store: usize, delta: Delta) -> Result<()> {
        self.lanes.get(store).map_or(Ok(()), |lane| lane.write_now(vec![Job::new(Form::Row(delta))]))
    }

    /// A change of a row that was read again.
    pub(crate) fn reread(&self, of: (&'static Schema, &Arc<str>, &Scope), version: Version, row: Row) -> Change {
        let (schema, database, scope) = of;
        Change {
            schema,
            database: Arc::clone(database),
            scope: scope.clone(),
            action: Action::Reread,
            version,
            captured_at: self.shared.clock.now(),
            row,
            size: 0,
        }
    }

    /// Waits this long, or until the pipeline is shut down; then `true`.
    pub(crate) fn pause(&self, long: Duration) -> bool {
        self.shared.stop.wait(long)
    }

    /// The tables whose rows in a store can no longer be trusted.
    pub(crate) fn dirty(&self) -> Vec<DirtyTable> {
        self.shared.dirty.list()
    }

    /// Takes the mark from a table, unless it was marked again since.
    pub(crate) fn clean(&self, table: &DirtyTable) {
        self.shared.dirty.clear_as(table);
    }

    /// The longest key that a store takes.
    pub(crate) fn max_key(&self, store: usize) -> usize {
        self.lanes.get(store).map_or(usize::MAX, |lane| lane.target.capabilities().max_key)
    }
}
