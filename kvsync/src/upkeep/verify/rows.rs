//! From the database: every row, and what stands under its keys.

use std::sync::Arc;

use bytes::Bytes;

use super::Side;
use super::compare::{Place, Standing, places};
use super::flight::{RowSuspect, read};
use super::run::Run;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::model::{Model, PrimaryKey, Scanned};
use crate::version::Version;

impl Run {
    /// Compares every row of a model with the stores.
    pub(crate) fn rows(&mut self, at: usize) -> Result<()> {
        let Some(unit) = self.units.get(at).cloned() else { return Ok(()) };
        let (schema, deadline) = (unit.kind.schema, self.settings.deadline);
        let bound = unit.source.barrier(deadline)?;
        let of = unit.source.estimate(schema, &unit.scope, deadline)?;
        let (mut after, mut done) = (None, 0);
        loop {
            let page = unit.source.page(schema, &unit.scope, after.as_ref(), self.settings.page, deadline)?;
            let count = page.rows.len() + page.nameless.len();
            for error in page.nameless {
                self.unreadable(&error);
            }
            self.page(at, bound, page.rows)?;
            done += count as u64;
            after = page.next;
            self.paged(Side::Database, Some(schema.model), (done, of), count)?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes a first look at some rows. What differs is looked at again.
    pub(crate) fn page(&mut self, at: usize, bound: Version, rows: Vec<Scanned>) -> Result<()> {
        let Some(unit) = self.units.get(at).cloned() else { return Ok(()) };
        let mut standing: Vec<(PrimaryKey, Arc<dyn Model>)> = Vec::with_capacity(rows.len());
        for Scanned { primary_key, row } in rows {
            match row {
                Ok(Some(row)) => standing.push((primary_key, row.into())),
                // What it should not stand under is found from the store's side.
                Ok(None) => {}
                Err(error) => self.unreadable(&error),
            }
        }
        for at_store in 0..self.stores {
            let Some((_, store)) = self.access.store(at_store) else { continue };
            let max_key = self.access.max_key(at_store);
            let of_row = |(_, row): &(_, Arc<dyn Model>)| places(unit.kind.schema, &**row, &unit.scope, max_key);
            let all: Vec<Vec<Place>> = standing.iter().map(of_row).collect();
            let keys: Vec<Key> = all.iter().flatten().map(|place| place.key.clone()).collect();
            let mut stands = read(&**store, &keys)?.into_iter();
            let measure = self.measure(at, bound);
            self.report.rows += standing.len() as u64;
            self.report.keys += keys.len() as u64;
            for ((primary_key, row), places) in standing.iter().zip(all) {
                let own: Vec<Option<Bytes>> = stands.by_ref().take(places.len()).collect();
                let compared =
                    Standing { kind: &unit.kind, scope: &unit.scope, row: &**row }.compare(&places, &own, &measure);
                if !compared.findings.is_empty() {
                    self.flight.rows.push_back(RowSuspect {
                        due: self.due(),
                        store: at_store,
                        unit: at,
                        bound,
                        primary_key: primary_key.clone(),
                        row: Arc::clone(row),
                        places,
                    });
                    continue;
                }
                self.report.expired += compared.expired;
                if let Some((key, version)) = compared.moving {
                    self.report.moving += 1;
                    self.too_new(at, at_store, key, version);
                }
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, error: &Error) {
        if self.report.unreadable == 0 {
            tracing::warn!(%error, "a row cannot be compared");
        }
        self.report.unreadable += 1;
    }
}
