//! Entries that do not say whose they are: a table is read once more, and each that stands under a key of a
//! row is struck out.

use std::collections::HashMap;

use super::Side;
use super::compare::{Finding, places};
use super::flight::{EntrySuspect, digest};
use super::run::Run;
use crate::error::Result;
use crate::key::Key;

/// How many are kept. Of more than that it is only known that there are more.
const MOST: usize = 65_536;

/// Entries whose row cannot be told from them.
#[derive(Default)]
pub(crate) struct Strays {
    found: HashMap<(usize, Key), Stray>,
    full: bool,
}

pub(crate) struct Stray {
    pub(crate) unit: usize,
    pub(crate) finding: Finding,
    pub(crate) digest: u64,
}

impl Run {
    /// Keeps an entry that does not say whose it is.
    pub(crate) fn stray(&mut self, store: usize, stray: Stray) {
        let key = (store, stray.finding.key.clone());
        if self.strays.found.len() < MOST || self.strays.found.contains_key(&key) {
            self.strays.found.insert(key, stray);
            return;
        }
        if !std::mem::replace(&mut self.strays.full, true) {
            tracing::warn!("more than {MOST} entries do not say whose they are; repair, then verify again");
        }
        self.report.unjudged += 1;
    }

    /// Finds out which of them stand under a key of a row. Those were compared from the database's side.
    pub(crate) fn strays(&mut self) -> Result<()> {
        let deadline = self.settings.deadline;
        for at in 0..self.units.len() {
            if !self.strays.found.values().any(|stray| stray.unit == at) {
                continue;
            }
            let Some(unit) = self.units.get(at).cloned() else { continue };
            let schema = unit.kind.schema;
            let bound = unit.source.barrier(deadline)?;
            // Where entries end, what seems to be absent was not compared from the database's side.
            let ends = self.access.ttl(schema).is_some();
            let kept = |stray: &Stray| ends && stray.digest == digest(&[]);
            let (mut after, mut done) = (None, 0);
            loop {
                let page = unit.source.page(schema, &unit.scope, after.as_ref(), self.settings.page, deadline)?;
                let count = page.rows.len() + page.nameless.len();
                for scanned in &page.rows {
                    let home = scanned.primary_key.home().clone().within(&unit.scope);
                    let keys = match &scanned.row {
                        Ok(Some(row)) => places(schema, &**row, &unit.scope, usize::MAX),
                        Ok(None) => continue,
                        Err(_) => Vec::new(),
                    };
                    for store in 0..self.stores {
                        for key in keys.iter().map(|place| &place.key).chain([&home]) {
                            let at = (store, key.clone());
                            if !self.strays.found.get(&at).is_some_and(kept) {
                                self.strays.found.remove(&at);
                            }
                        }
                    }
                }
                done += count as u64;
                after = page.next;
                self.paged(Side::Strays, Some(schema.model), (done, None), count)?;
                if after.is_none() {
                    break;
                }
            }
            let left = self.strays.found.extract_if(|_, stray| stray.unit == at);
            let left: Vec<((usize, Key), Stray)> = left.collect();
            for ((store, _), Stray { unit, finding, digest }) in left {
                if finding.stored.is_some_and(|version| version > bound) {
                    continue;
                }
                let due = self.due();
                self.flight.entries.push_back(EntrySuspect {
                    due,
                    store,
                    unit,
                    bound,
                    primary_key: None,
                    finding,
                    digest,
                });
            }
        }
        Ok(())
    }
}
