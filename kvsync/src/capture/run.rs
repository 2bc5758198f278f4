//! Runs statements as planned.

use std::sync::Arc;
use std::time::SystemTime;

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManager};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::row::Row as _;

use super::backend::{Inner, Inside, Ready};
use super::check::ensure;
use super::connection::{SyncConnection, clear_statements, depth_of};
use super::fragment::{Rewritten, Text};
use super::hub::Hub;
use super::look::text;
use super::plan::{Caching, Caught, Missing, Plan, Planned, plan, uncaptured};
use super::row::{SyncCursor, SyncRow, Wake};
use super::statement::{Scanned, scan_all};
use super::ways::Strangers;
use crate::change::OutboxRange;

impl<C: Inner> LoadConnection<DefaultLoadingMode> for SyncConnection<C> {
    type Cursor<'conn, 'query> =
        SyncCursor<<C as LoadConnection>::Cursor<'conn, 'query>, <C::Backend as Inside>::Owned>;
    type Row<'conn, 'query> = SyncRow<<C as LoadConnection>::Row<'conn, 'query>, <C::Backend as Inside>::Owned>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
        Self::Backend: QueryMetadata<T::SqlType>,
    {
        match self.look(&source)? {
            Planned::Capture(plan) => {
                let (rows, visible) = self.run_loading(&source, &plan)?;
                Ok(SyncCursor::captured(rows, visible))
            }
            planned => {
                let wake = self.before_passing(&source, planned)?;
                Ok(SyncCursor::passed(self.inner.load(source)?, wake))
            }
        }
    }
}

impl<C: Inner> SyncConnection<C> {
    pub(super) fn execute_planned<T>(&mut self, source: &T, planned: Planned<C::Backend>) -> QueryResult<usize>
    where
        T: QueryFragment<C::Backend> + QueryId,
    {
        match planned {
            Planned::Pass | Planned::Strange(_) => self.inner.execute_returning_count(source),
            Planned::Capture(plan) => self.run(source, &plan, |_, _| {}),
            Planned::Report(missing) => {
                let ran = self.inner.execute_returning_count(source);
                // SQLite may keep a part of what a statement that failed has written.
                let wrote = match &ran {
                    Ok(count) => *count > 0 || !missing.counts,
                    Err(_) => C::Backend::LOSES_TRANSACTIONS,
                };
                if wrote {
                    self.report(&missing, &text::<C::Backend, _>(source)?);
                }
                ran
            }
            Planned::Altered(alteration) => {
                let count = self.inner.execute_returning_count(source)?;
                self.altered(&alteration.tables);
                if let Some(missing) = &alteration.missing {
                    self.report(missing, &text::<C::Backend, _>(source)?);
                }
                Ok(count)
            }
            Planned::Caught(caught) => {
                self.before_caught(&caught)?;
                let ran = self.inner.execute_returning_count(source);
                if ran.is_ok() || C::Backend::LOSES_TRANSACTIONS {
                    self.report_uncaught(&caught, source)?;
                }
                self.after_caught();
                ran
            }
            Planned::Refuse(missing) => Err(missing.error()),
        }
    }

    /// What is done before a statement whose rows triggers write into the outbox: it must not be the
    /// first that nobody catches.
    fn before_caught(&mut self, caught: &Caught<C::Backend>) -> QueryResult<()> {
        self.reconcile();
        let hub = Arc::clone(&self.state.hub);
        for table in &caught.tables {
            ensure(&mut self.inner, &hub, table)?;
        }
        // To ask for the ids would cost a round trip: whoever waits for them asks.
        self.state.pending.outboxed(OutboxRange::OPEN.0, OutboxRange::OPEN.1);
        Ok(())
    }

    /// Reports what the triggers do not see of a statement.
    fn report_uncaught<T>(&mut self, caught: &Caught<C::Backend>, source: &T) -> QueryResult<()>
    where
        T: QueryFragment<C::Backend>,
    {
        if let Some(missing) = &caught.missing {
            self.report(missing, &text::<C::Backend, _>(source)?);
        }
        for table in caught.tables.iter().filter(|table| caught.replaces && table.displaces()) {
            if !C::Backend::sees_displaced(&mut self.inner)? {
                let reason = "a row that was in the way by a second unique key may have been replaced without a trigger; \
                              use an upsert, or set `PRAGMA recursive_triggers = ON`";
                self.state.hub.missed(Some(&table.name), reason, &text::<C::Backend, _>(source)?);
            }
        }
        Ok(())
    }

    /// Of a statement that was its own transaction, the rows may be claimed now.
    fn after_caught(&mut self) {
        if depth_of(&mut self.inner) == Some(0) {
            self.state.publish();
        }
    }

    /// What is done before a statement that is not captured hands out its rows: there is no moment
    /// after the last of them. Returns what is to be done when they were handed out.
    pub(super) fn before_passing<T>(&mut self, source: &T, planned: Planned<C::Backend>) -> QueryResult<Option<Wake>>
    where
        T: QueryFragment<C::Backend>,
    {
        match planned {
            Planned::Pass | Planned::Capture(_) | Planned::Strange(_) => Ok(None),
            Planned::Report(missing) => {
                self.report(&missing, &text::<C::Backend, _>(source)?);
                Ok(None)
            }
            Planned::Caught(caught) => {
                self.before_caught(&caught)?;
                self.report_uncaught(&caught, source)?;
                // The token is there before the rows are read, the wake comes when they are.
                let alone = depth_of(&mut self.inner) == Some(0);
                self.after_caught();
                let hub = Arc::clone(&self.state.hub);
                Ok(alone.then(|| Wake::new(move || drop(hub.outboxed(OutboxRange::OPEN.0, OutboxRange::OPEN.1)))))
            }
            Planned::Altered(alteration) => {
                self.altered(&alteration.tables);
                if let Some(missing) = &alteration.missing {
                    self.report(missing, &text::<C::Backend, _>(source)?);
                }
                Ok(None)
            }
            Planned::Refuse(missing) => Err(missing.error()),
        }
    }

    /// Runs a captured statement to its end and keeps its rows, with the number of the caller's fields.
    pub(super) fn run_loading(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
    ) -> QueryResult<(Vec<<C::Backend as Inside>::Owned>, usize)> {
        let mut rows = Vec::new();
        let mut visible = 0;
        let mut owning = plan.owning.lock().clone();
        self.run(source, plan, |row, hidden| {
            visible = row.field_count().saturating_sub(hidden);
            rows.push(<C::Backend as Inside>::own(row, &mut owning));
        })?;
        *plan.owning.lock() = owning;
        Ok((rows, visible))
    }

    /// Runs a captured statement as it is planned.
    pub(super) fn run_once<F>(
        &mut self,
        hub: &Hub<C::Backend>,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        alone: bool,
        keep: &mut F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        let Ready { locks, elsewhere } = C::Backend::prepare(&mut self.inner, &mut self.state.session, plan)?;
        let outbox = self.outbox()?;
        let begins = alone && (locks || hub.wraps || outbox.is_some() || plan.moves.is_some());
        if begins {
            C::TransactionManager::begin_transaction(&mut self.inner)?;
        }
        let from = self.state.pending.len();
        self.state.relations.clear();
        let ran = self.rows(source, plan, locks, keep).or_else(|error| {
            self.state.pending.truncate(from);
            if !C::Backend::is_stale_plan(&error) {
                return Err(error);
            }
            // Without RETURNING the statement would not have noticed.
            self.forget_statements();
            if begins {
                C::TransactionManager::rollback_transaction(&mut self.inner)?;
                C::TransactionManager::begin_transaction(&mut self.inner)?;
            }
            if alone { self.rows(source, plan, locks, keep) } else { Err(error) }
        });
        let count = match ran {
            Ok(count) => count,
            Err(error) => {
                self.failed(plan, from, alone, begins);
                return Err(error);
            }
        };
        if let Some(reason) = elsewhere {
            self.state.pending.truncate(from);
            self.state.relations.clear();
            hub.missed(Some(&plan.table.name), reason, &plan.sql);
        }
        let state = &mut self.state;
        C::Backend::settle(&mut self.inner, &mut state.session, hub, plan, &mut state.pending, &state.relations);
        if let Some(outbox) = outbox
            && let Err(error) = self.write_outbox(plan, &outbox, from)
        {
            self.failed(plan, from, alone, begins);
            return Err(error);
        }
        if begins {
            self.commit_alone()?;
        }
        self.report_concerns(plan, count);
        if count > 0 {
            self.report_cascades(hub, plan);
        }
        if alone {
            self.state.publish();
        }
        Ok(count)
    }

    fn rows<F>(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        locks: bool,
        keep: &mut F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        if locks {
            C::Backend::lock(&mut self.inner, &mut self.state.session)?;
        }
        let from = self.state.pending.len();
        let found = match &plan.moves {
            Some(find) => Some(self.find_moved(source, find)?),
            None => None,
        };
        let epoch = self.state.hub.publish.epoch();
        let mut count = 0;
        let mut now = None;
        for row in LoadConnection::<DefaultLoadingMode>::load(&mut self.inner, Rewritten::new(source, plan))? {
            let row = row?;
            // Not before the first row: only then is the lock held.
            let now = *now.get_or_insert_with(SystemTime::now);
            self.state.capture(plan, &row, now, epoch);
            keep(row, plan.hidden);
            count += 1;
        }
        if let (Some(found), Some(now)) = (found, now) {
            self.state.moved(plan, found, from, now);
        }
        Ok(count)
    }

    /// A captured statement failed.
    fn failed(&mut self, plan: &Plan<C::Backend>, from: usize, alone: bool, begun: bool) {
        self.state.pending.truncate(from);
        if begun {
            // The statement's own error is the one to tell.
            let _ = C::TransactionManager::rollback_transaction(&mut self.inner);
            C::Backend::ended(&mut self.state.session, true, true);
        }
        // In a transaction of its own it was not committed: nobody asked for that.
        if alone && !begun && depth_of(&mut self.inner).is_none() {
            let reason = "the connection was lost before the answer: whether the statement was committed is not known; \
                          in a transaction, or with `wrap_single_writes`, its rows would be";
            self.state.hub.missed(Some(&plan.table.name), reason, &plan.sql);
        }
    }

    /// Ends the transaction that was begun for one statement.
    fn commit_alone(&mut self) -> QueryResult<()> {
        let committed = C::TransactionManager::commit_transaction(&mut self.inner);
        C::Backend::ended(&mut self.state.session, true, committed.is_err());
        if let Err(error) = committed {
            let status = C::TransactionManager::transaction_manager_status_mut(&mut self.inner);
            if C::Backend::in_doubt(status, true) {
                self.state.publish_in_doubt();
            } else {
                self.state.pending.clear();
            }
            return Err(error);
        }
        Ok(())
    }

    pub(super) fn run_batch(&mut self, query: &str) -> QueryResult<()> {
        let hub = Arc::clone(&self.state.hub);
        let mut alone = None;
        let mut planned = Vec::new();
        for (text, scanned) in scan_all(query, C::Backend::DIALECT) {
            alone = if alone.is_none() && planned.is_empty() { Some(text) } else { None };
            planned.push(scanned);
        }
        if let (Some(text), [Scanned::Write(_)]) = (alone, planned.as_slice()) {
            match plan(&hub, text, Caching::Never) {
                Planned::Capture(plan) => return self.run(&Text(text), &plan, |_, _| {}).map(drop),
                Planned::Refuse(missing) => return Err(missing.error()),
                Planned::Pass | Planned::Report(_) | Planned::Altered(_) | Planned::Caught(_) | Planned::Strange(_) => {
                }
            }
        }
        let mut reports = Vec::new();
        for scanned in &planned {
            let report = uncaptured(&hub, scanned).or_else(|| Some(self.look_at(&Strangers::of(scanned)?)));
            reports.extend(report);
        }
        for planned in &reports {
            if let Planned::Refuse(missing) = planned {
                return Err(missing.error());
            }
        }
        for planned in &reports {
            if let Planned::Caught(caught) = planned {
                self.before_caught(caught)?;
            }
        }
        let ran = self.inner.batch_execute(query);
        for planned in &reports {
            let missing = match planned {
                Planned::Report(missing) => Some(missing),
                Planned::Caught(caught) => caught.missing.as_ref(),
                _ => None,
            };
            // On SQLite, those before one that failed stand.
            if let Some(missing) = missing
                && (ran.is_ok() || C::Backend::LOSES_TRANSACTIONS)
            {
                self.report(missing, query);
            }
        }
        self.after_caught();
        for scanned in &planned {
            if let Scanned::Schema { tables } = scanned {
                let tables: Vec<_> = hub.tables_among(tables).into_iter().cloned().collect();
                self.altered(&tables);
            }
        }
        ran
    }

    pub(super) fn altered(&mut self, tables: &[Arc<super::table::Table<C::Backend>>]) {
        C::Backend::altered(&mut self.state.session);
        self.state.hub.forget_ways();
        for table in tables {
            table.set_checked(false);
            table.fit.set(0);
        }
    }

    fn report(&self, missing: &Missing, sql: &str) {
        for table in &missing.tables {
            self.state.hub.missed(Some(table), missing.reason.clone(), sql);
        }
    }

    fn report_concerns(&self, plan: &Plan<C::Backend>, count: usize) {
        if let Some(missing) = &plan.concern
            && count > 0
        {
            self.report(missing, &plan.sql);
        }
        if plan.rows.is_some_and(|rows| count < rows) {
            let reason = "an insert returned fewer rows than it was given: a trigger or a rule sent them elsewhere";
            self.state.hub.missed(Some(&plan.table.name), reason, &plan.sql);
        }
        if plan.replaces && count > 0 && plan.table.displaces() {
            let reason =
                "a row that was in the way by a second unique key may have been replaced unseen; use an upsert";
            self.state.hub.missed(Some(&plan.table.name), reason, &plan.sql);
        }
    }

    fn forget_statements(&mut self) {
        clear_statements(&mut self.inner);
        self.inner.set_prepared_statement_cache_size(self.state.cache_size);
    }
}
