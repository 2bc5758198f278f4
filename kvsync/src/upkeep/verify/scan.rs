//! From a store: every entry whose key could be a model's, and whether its row stands there.

use std::sync::Arc;

use super::Side;
use super::call::{Call, Claim, stands_under};
use super::compare::{Finding, could_be};
use super::difference::DifferenceKind;
use super::flight::{EntrySuspect, Unit, digest, read, read_closely};
use super::run::Run;
use super::strays::Stray;
use crate::envelope::{Body, Envelope, State};
use crate::error::Result;
use crate::key::{Key, Scope};
use crate::model::{PrimaryKey, Schema};
use crate::store::SyncStore;
use crate::version::Version;

impl Run {
    /// Looks at the entries of a store, in every scope.
    pub(crate) fn entries(&mut self, at: usize) -> Result<()> {
        let mut bounds = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            let same = |other: &(Arc<str>, Version)| other.0 == unit.database;
            if !bounds.iter().any(same) {
                bounds.push((Arc::clone(&unit.database), unit.source.barrier(self.settings.deadline)?));
            }
        }
        let mut scopes: Vec<Scope> = Vec::new();
        for unit in &self.units {
            if !scopes.contains(&unit.scope) {
                scopes.push(unit.scope.clone());
            }
        }
        let mut done = 0;
        for scope in scopes {
            for prefix in self.prefixes(&scope) {
                let mut cursor = None;
                loop {
                    let Some((_, store)) = self.access.store(at) else { return Ok(()) };
                    let store = Arc::clone(store);
                    let page = store.scan(&prefix, cursor, self.settings.page)?;
                    let count = page.keys.len();
                    self.some(at, &*store, &scope, page.keys, &bounds)?;
                    done += count as u64;
                    self.report.entries += count as u64;
                    cursor = page.next;
                    self.paged(Side::Store, None, (done, None), count)?;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the keys of a scope begin with; none begins with another.
    fn prefixes(&self, scope: &Scope) -> Vec<String> {
        let mut all = Vec::new();
        for unit in self.units.iter().filter(|unit| unit.scope == *scope) {
            let schema = unit.kind.schema;
            all.extend(schema.keys.iter().filter_map(|key| key.literals.first()).map(|first| (*first).to_owned()));
            if schema.has_mutable_key() && schema.home().is_none() {
                all.push(hidden(schema));
            }
        }
        all.sort();
        all.dedup();
        let mut least: Vec<String> = Vec::new();
        for prefix in all {
            if !least.iter().any(|shorter| prefix.starts_with(shorter.as_str())) {
                least.push(prefix);
            }
        }
        least.iter().map(|prefix| format!("{}{prefix}", scope.prefix())).collect()
    }

    /// Looks at some entries.
    fn some(
        &mut self,
        at: usize,
        store: &dyn SyncStore,
        scope: &Scope,
        keys: Vec<Key>,
        bounds: &[(Arc<str>, Version)],
    ) -> Result<()> {
        let claimed: Vec<(Key, Vec<Claim>)> = keys
            .into_iter()
            .map(|key| (self.claims(&key, scope), key))
            .filter(|(claims, _)| !claims.is_empty())
            .map(|(claims, key)| (key, claims))
            .collect();
        let keys: Vec<Key> = claimed.iter().map(|(key, _)| key.clone()).collect();
        let mut calls = Vec::new();
        for ((key, claims), bytes) in claimed.into_iter().zip(read_closely(store, &keys, &self.access.terms())?) {
            let Some(bytes) = bytes else { continue };
            let call = self.call(&key, scope, &claims, &bytes, bounds);
            if !matches!(call, Call::None) {
                calls.push((key, digest(&bytes), call));
            }
        }
        self.delegate(store, &mut calls)?;
        self.look(at, calls, bounds)
    }

    /// The models whose key this could be.
    fn claims(&self, key: &Key, scope: &Scope) -> Vec<Claim> {
        let Some(text) = key.as_str().strip_prefix(scope.prefix()) else { return Vec::new() };
        let of = |(unit, of): (usize, &super::flight::Unit)| {
            let schema = of.kind.schema;
            if text.starts_with('~') {
                let own = schema.has_mutable_key() && schema.home().is_none() && text.starts_with(&hidden(schema));
                return own.then_some(Claim { unit, index: None }).into_iter().collect();
            }
            // Other scopes, and what is the store's own.
            if text.starts_with(['@', '!']) {
                return Vec::new();
            }
            let could = |(index, spec): (usize, &crate::model::KeySpec)| {
                could_be(spec.literals, text).then_some(Claim { unit, index: Some(index) })
            };
            schema.keys.iter().enumerate().filter_map(could).collect::<Vec<_>>()
        };
        self.units.iter().enumerate().filter(|(_, unit)| unit.scope == *scope).flat_map(of).collect()
    }

    /// Passes over copies and pointers that a record lists: the record is looked at by itself.
    fn delegate(&self, store: &dyn SyncStore, calls: &mut Vec<(Key, u64, Call)>) -> Result<()> {
        let homes: Vec<Key> = calls
            .iter()
            .filter_map(|(.., call)| if let Call::Listed { home, .. } = call { Some(home.clone()) } else { None })
            .collect();
        let mut records = read(store, &homes)?.into_iter();
        for (key, _, call) in calls.iter_mut() {
            if !matches!(call, Call::Listed { .. }) {
                continue;
            }
            let stands = records.next().flatten();
            let Call::Listed { home, otherwise } = std::mem::replace(call, Call::None) else { continue };
            *call = self.listed(stands.as_ref(), key, &home).unwrap_or(*otherwise);
        }
        calls.retain(|(.., call)| !matches!(call, Call::None));
        Ok(())
    }

    /// Asks the database for the rows in question.
    fn look(&mut self, at: usize, calls: Vec<(Key, u64, Call)>, bounds: &[(Arc<str>, Version)]) -> Result<()> {
        let mut looked = Vec::new();
        for unit in 0..self.units.len() {
            let Some(of) = self.units.get(unit) else { continue };
            let wanted = |call: &Call| match call {
                Call::Look { unit: own, primary_key, .. } if *own == unit => Some(primary_key.clone()),
                _ => None,
            };
            let rows: Vec<PrimaryKey> = calls.iter().filter_map(|(.., call)| wanted(call)).collect();
            if !rows.is_empty() {
                let found = of.source.look(of.kind.schema, &of.scope, &rows, self.settings.deadline)?;
                looked.push((unit, found.into_iter()));
            }
        }
        let mut copies = Vec::new();
        for (key, digest, call) in calls {
            let (unit, index, kind, stored, detail, primary_key) = match call {
                Call::None | Call::Listed { .. } => continue,
                Call::TooNew { unit, version } => {
                    self.too_new(unit, at, key, version);
                    continue;
                }
                Call::Stray { unit, index, kind, stored, detail } => {
                    self.stray(at, Stray { unit, finding: Finding { kind, index, key, stored, detail }, digest });
                    continue;
                }
                Call::Look { unit, index, stored, primary_key, lists } => {
                    let row = looked.iter_mut().find(|(of, _)| *of == unit).and_then(|(_, rows)| rows.next());
                    let Some(Ok(row)) = row else { continue };
                    let Some(of) = self.units.get(unit) else { continue };
                    let row = row.as_deref();
                    let stands = |index, key: &Key| row.is_some_and(|row| stands_under(row, index, key, &of.scope));
                    let own = |key: &Key| (0..of.kind.schema.keys.len()).any(|index| stands(Some(index), key));
                    let left = lists.into_iter().filter(|key| !own(key));
                    copies.extend(left.map(|key| (unit, key, primary_key.clone())));
                    if stands(index, &key) {
                        continue;
                    }
                    let detail = if row.is_some() { NOT_HERE } else { NO_ROW };
                    (unit, index, DifferenceKind::Orphan, stored, detail.to_owned(), Some(primary_key))
                }
            };
            self.suspect(at, (unit, index), kind, (key, digest), stored, detail, primary_key, bounds);
        }
        self.copies(at, copies, bounds)
    }

    /// Takes copies that a record lists, and that do not stand under keys of its row, for what they are. Another
    /// row may have such a key by now: its entry is none of this row's, and is looked at by itself.
    fn copies(
        &mut self,
        at: usize,
        copies: Vec<(usize, Key, PrimaryKey)>,
        bounds: &[(Arc<str>, Version)],
    ) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let Some((_, store)) = self.access.store(at) else { return Ok(()) };
        let keys: Vec<Key> = copies.iter().map(|(_, key, _)| key.clone()).collect();
        for ((unit, key, primary_key), bytes) in copies.into_iter().zip(read(&**store, &keys)?) {
            let Some(envelope) = bytes.as_ref().and_then(|bytes| Envelope::parse(bytes).ok()) else { continue };
            let head = envelope.head;
            if head.state != State::Value || head.version > self.bound(unit, bounds) {
                continue;
            }
            let Some(of) = self.units.get(unit) else { continue };
            if !is_copy_of(of, &envelope, &primary_key) {
                continue;
            }
            let digest = bytes.as_deref().map(digest).unwrap_or_default();
            let index = self.units.get(unit).and_then(|unit| {
                let text = key.as_str().strip_prefix(unit.scope.prefix())?;
                unit.kind.schema.keys.iter().position(|spec| could_be(spec.literals, text))
            });
            let (kind, detail) = (DifferenceKind::Orphan, NOT_HERE.to_owned());
            self.suspect(at, (unit, index), kind, (key, digest), head.version, detail, Some(primary_key), bounds);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "they are what a suspect is made of")]
    fn suspect(
        &mut self,
        store: usize,
        (unit, index): (usize, Option<usize>),
        kind: DifferenceKind,
        (key, digest): (Key, u64),
        stored: Version,
        detail: String,
        primary_key: Option<PrimaryKey>,
        bounds: &[(Arc<str>, Version)],
    ) {
        let (due, bound) = (self.due(), self.bound(unit, bounds));
        let finding = Finding { kind, index, key, stored: Some(stored), detail };
        self.flight.entries.push_back(EntrySuspect { due, store, unit, bound, primary_key, finding, digest });
    }

    pub(super) fn bound(&self, unit: usize, bounds: &[(Arc<str>, Version)]) -> Version {
        let database = self.units.get(unit).map(|unit| &unit.database);
        bounds.iter().find(|(name, _)| Some(name) == database).map_or(Version::ZERO, |(_, bound)| *bound)
    }
}

/// Whether an entry holds this row, or points to it.
fn is_copy_of(unit: &Unit, envelope: &Envelope, primary_key: &PrimaryKey) -> bool {
    match envelope.body() {
        Ok(Body::Pointer(home)) => primary_key.home().clone().within(&unit.scope).as_str() == home,
        Ok(Body::Model { codec, bytes, .. }) if codec == unit.kind.codec => {
            unit.kind.decode(bytes).is_ok_and(|row| row.home() == *primary_key.home())
        }
        _ => false,
    }
}

const NO_ROW: &str = "there is no such row";
const NOT_HERE: &str = "its row does not stand under this key";

/// What the hidden records of a model begin with.
fn hidden(schema: &Schema) -> String {
    format!("~{}:{}:{}:", schema.table, schema.model, schema.generation)
}
