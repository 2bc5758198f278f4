//! What a connection knows beside the connection that it wraps.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::SystemTime;

use diesel::connection::CacheSize;
use diesel::row::Row as _;

use super::backend::{Inside, Stamp, SyncBackend};
use super::hub::Hub;
use super::lend::Shared;
use super::look::Plans;
use super::pending::{Beside, Pending};
use super::plan::{At, Plan};
use super::primary::{loses_keys, whole};
use super::table::ModelEntry;
use crate::change::{Action, Change, ChangeSet, CommitToken, Row, Unknown};
use crate::key::Scope;
use crate::model::Model;

/// What a connection knows beside the connection that it wraps.
pub(super) struct State<DB: SyncBackend> {
    pub(super) hub: Arc<Hub<DB>>,
    pub(super) scope: Scope,
    pub(super) pending: Pending,
    pub(super) plans: Plans<DB>,
    pub(super) session: DB::Session,
    /// Of the changes of the running statement: where they stand in `pending`, and of which relation
    /// they are.
    pub(super) relations: Vec<(usize, u32)>,
    pub(super) last_commit: Option<CommitToken>,
    pub(super) portable_tokens: bool,
    pub(super) cache_size: CacheSize,
    /// What the user set.
    pub(super) instrumentation: Option<Shared>,
}

impl<DB: SyncBackend> State<DB> {
    pub(super) fn new(hub: Arc<Hub<DB>>) -> Self {
        Self {
            hub,
            scope: Scope::NONE,
            pending: Pending::default(),
            plans: Plans::default(),
            session: DB::Session::default(),
            relations: Vec::new(),
            last_commit: None,
            portable_tokens: false,
            cache_size: CacheSize::Unbounded,
            instrumentation: None,
        }
    }

    /// Takes one returned row into the changes of the transaction. The row is written already, so
    /// nothing that goes wrong here may fail the caller's statement.
    pub(super) fn capture(&mut self, plan: &Plan<DB>, row: &<DB as Inside>::Row<'_, '_>, now: SystemTime, epoch: u32) {
        let fields = row.field_count();
        let own = fields.saturating_sub(plan.hidden);
        let stamp = match DB::stamp(&mut self.session, row, fields.saturating_sub(DB::SUFFIX), now, epoch) {
            Ok(stamp) => stamp,
            Err(error) => {
                let reason = format!("the version of a written row cannot be read: {error}");
                return self.hub.missed(Some(&plan.table.name), reason, &plan.sql);
            }
        };
        let beside = plan.image.map(|at| Beside { image: DB::text(row, own + at).map(Into::into), schema: None });
        for (model, place) in plan.table.models.iter().zip(&plan.places) {
            let at = match place.columns {
                At::Asked(at) => at,
                At::Own(at) => own + at,
            };
            if place.keys {
                if let Some((changed, size)) = self.by_key(plan, model, row, at) {
                    self.push(plan, model, stamp, now, (changed, size), beside.as_ref());
                }
                continue;
            }
            let changed = match model.decode(row, at) {
                Ok((decoded, size)) => {
                    let live = place.live.is_none_or(|at| DB::flag(row, own + at) == Some(true));
                    (changed(plan.action, decoded, live), size)
                }
                Err(error) => match self.masked(plan, model, row, at, &*error) {
                    Some(masked) => masked,
                    None => continue,
                },
            };
            self.push(plan, model, stamp, now, changed, beside.as_ref());
        }
    }

    fn push(
        &mut self,
        plan: &Plan<DB>,
        model: &ModelEntry<DB>,
        stamp: Stamp,
        now: SystemTime,
        (row, size): (Row, usize),
        beside: Option<&Beside>,
    ) {
        let change = Change {
            schema: model.schema,
            database: Arc::clone(&self.hub.name),
            scope: self.scope.clone(),
            action: plan.action,
            version: stamp.version,
            captured_at: now,
            row,
            size,
        };
        let (at, room) = (self.pending.len(), self.hub.room());
        let kept = match beside {
            Some(beside) => self.pending.push_beside(change, beside.clone(), room),
            None => self.pending.push(change, room),
        };
        if kept && stamp.relation != 0 {
            self.relations.push((at, stamp.relation));
        }
    }

    /// A row of which only the primary key was asked for: its readers are sent to the database until it
    /// is read again, or it is deleted.
    fn by_key(
        &self,
        plan: &Plan<DB>,
        model: &ModelEntry<DB>,
        row: &<DB as Inside>::Row<'_, '_>,
        at: usize,
    ) -> Option<(Row, usize)> {
        let missed = |reason: String| self.hub.missed(Some(&plan.table.name), reason, &plan.sql);
        let name = model.schema.model;
        match model.identify_alone(row, at) {
            Ok(unknown) => {
                if loses_keys(model.schema) {
                    missed(format!(
                        "of the keys of a written row of `{name}` only the one made of the primary key was masked"
                    ));
                }
                Some(nameless(plan.action, unknown))
            }
            Err(error) => {
                missed(format!("the primary key of a written row of `{name}` cannot be read: {}", whole(&*error)));
                None
            }
        }
    }

    /// A row that cannot be read as its model: its primary key is enough to send its readers to the
    /// database, or to delete it. Reports what it is not enough for.
    fn masked(
        &self,
        plan: &Plan<DB>,
        model: &ModelEntry<DB>,
        row: &<DB as Inside>::Row<'_, '_>,
        at: usize,
        error: &dyn StdError,
    ) -> Option<(Row, usize)> {
        let reason = format!("a written row cannot be read as `{}`: {}", model.schema.model, whole(error));
        let known = model.identify(row, at);
        let Some(unknown) = &known else {
            self.hub.missed(Some(&plan.table.name), reason, &plan.sql);
            return None;
        };
        if loses_keys(model.schema) {
            let reason = format!("{reason}; of its keys only the one made of the primary key was masked");
            self.hub.missed(Some(&plan.table.name), reason, &plan.sql);
        } else {
            let (database, table, row) = (&*self.hub.name, &plan.table.name, unknown.primary_key.home());
            tracing::warn!(database, table, %row, "{reason}; its readers are sent to the database");
        }
        known.map(|unknown| nameless(plan.action, unknown))
    }

    /// Hands on the changes of a committed transaction.
    pub(super) fn publish(&mut self) {
        let outboxed = self.pending.take_outboxed();
        let set = self.pending.take();
        self.hand_on(set, outboxed);
    }

    /// Hands on what may have been committed, as unknown. The outbox tells by itself.
    pub(super) fn publish_in_doubt(&mut self) {
        let outboxed = self.pending.take_outboxed();
        let set = self.pending.take_in_doubt();
        self.hand_on(set, outboxed);
    }

    fn hand_on(&mut self, set: ChangeSet, outboxed: Option<(i64, i64)>) {
        let outboxed = outboxed.map(|(first, last)| self.hub.outboxed(first, last));
        if set.changes.is_empty() && set.lost.is_empty() {
            return self.last_commit = outboxed.or(self.last_commit.take());
        }
        let rows = if self.portable_tokens { rows_of(&set) } else { Vec::new() };
        let token = self.hub.publish.publish(set);
        self.last_commit = Some(CommitToken { rows, outbox: outboxed.and_then(|token| token.outbox), ..token });
    }
}

fn rows_of(set: &ChangeSet) -> Vec<(String, [u8; crate::version::Version::LEN])> {
    set.changes.iter().map(|change| (change.home().as_str().to_owned(), *change.version.as_bytes())).collect()
}

/// What is known of a row of which only the primary key is, and the size of its change.
fn nameless(action: Action, unknown: Unknown) -> (Row, usize) {
    let size = size_of::<Change>() + unknown.size();
    match action {
        Action::Delete => (Row::Absent(unknown), size),
        _ => (Row::Unknown(unknown), size),
    }
}

fn changed(action: Action, row: Box<dyn Model>, live: bool) -> Row {
    match action {
        Action::Delete => Row::Deleted { row, live },
        _ if live => Row::Live(row),
        _ => Row::Hidden(row),
    }
}
