//! What the command line asks for by name.

use std::sync::Arc;
use std::time::Duration;

use super::KvSync;
use crate::capture::AnyDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
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
}
