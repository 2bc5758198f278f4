//! What the command line asks for by name.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::KvSync;
use crate::capture::AnyDatabase;
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::transport::{self, OutboxDepth};
use crate::upkeep::{Backfill, Target};

impl KvSync {
    /// The databases, or the one of this name.
    pub(crate) fn databases_named(&self, name: Option<&str>) -> Result<Vec<Arc<dyn AnyDatabase>>> {
        if let Some(name) = name {
            return Ok(vec![Arc::clone(self.database(name)?)]);
        }
        let mut all: Vec<_> = self.inner.databases.values().map(Arc::clone).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        if all.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no database was given to the builder"));
        }
        Ok(all)
    }

    /// A backfill of each of these models, of all where none is named; without a scope, in every scope that
    /// the database gives its rows.
    pub(crate) fn backfills(&self, models: &[String], deadline: Duration) -> Result<Vec<(String, Scope, Backfill)>> {
        for model in models {
            self.schema_named(model)?;
        }
        let mut all = Vec::new();
        for database in self.databases_named(None)? {
            let source = database.source();
            for schema in source.schemas() {
                if !models.is_empty() && !models.iter().any(|model| model == schema.model) {
                    continue;
                }
                let own = if self.scope.is_none() { source.scopes(schema, deadline)? } else { Vec::new() };
                for scope in if own.is_empty() { vec![self.scope.clone()] } else { own } {
                    let target = Target { database: database.name().into(), schema, scope: scope.clone() };
                    let backfill = Backfill::new(self.inner.pipeline.filler(), Ok(target));
                    all.push((schema.model.to_owned(), scope, backfill));
                }
            }
        }
        Ok(all)
    }

    /// Asks every outbox what it holds, each on a thread of its own: a database may not answer.
    pub(crate) fn ask_outboxes(&self) -> Asked {
        let mut all: Vec<_> = self.inner.databases.values().filter_map(|database| database.outbox()).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        let ask = |outbox: Arc<dyn transport::Outbox>| {
            let (answer, answered) = bounded(1);
            let name = outbox.name().to_owned();
            let asked = self.inner.pipeline.spawn("kvsync-health", move || drop(answer.try_send(outbox.depth())));
            (name, asked.map(|()| answered))
        };
        Asked(all.into_iter().map(ask).collect())
    }
}

/// Outboxes that were asked what they hold.
pub(crate) struct Asked(Vec<(String, Result<Receiver<Result<OutboxDepth>>>)>);

impl Asked {
    /// Their answers, as far as they come in time.
    pub(crate) fn answers(self, deadline: Duration) -> Vec<(String, Result<OutboxDepth>)> {
        let until = from_now(deadline);
        let late = || Error::new(ErrorKind::Deadline, format!("it did not answer within {deadline:.1?}"));
        let answer = |(name, asked): (String, Result<Receiver<_>>)| {
            let answer = asked.and_then(|asked| asked.recv_deadline(until).unwrap_or_else(|_| Err(late())));
            (name, answer)
        };
        self.0.into_iter().map(answer).collect()
    }
}
