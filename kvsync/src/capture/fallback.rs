//! Runs captured statements so that they do not fail for being captured.
//!
//! A statement that returns more than it was asked for can fail where it would not have: a column was
//! dropped, a right is missing, a rule or row security forbids it. Then it is run so that it returns
//! less, or nothing of ours.

use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection, TransactionManager};
use diesel::query_builder::QueryFragment;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::backend::{Inner, Inside};
use super::check::ensure;
use super::connection::{SyncConnection, depth_of};
use super::database::Policy;
use super::fit::Level;
use super::fragment::Rewritten;
use super::look::text;
use super::plan::{Plan, refused, replan};
use crate::error::{Error, ErrorKind};

impl<C: Inner> SyncConnection<C> {
    /// Runs a captured statement to its end. Returns the number of rows.
    pub(super) fn run<F>(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        mut keep: F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        self.reconcile();
        let hub = Arc::clone(&self.state.hub);
        let alone = depth_of(&mut self.inner) == Some(0);
        ensure(&mut self.inner, &hub, &plan.table)?;
        let table = &plan.table;
        let level = table.fit.level(plan.action);
        if level > plan.level {
            return self.run_at(source, plan, level, alone, &mut keep);
        }
        if !alone && table.fit.is_guarded(plan.action) {
            return self.run_guarded(source, plan, &mut keep);
        }
        let mut kept = false;
        let ran = self.run_once(&hub, source, plan, alone, &mut |row, hidden| {
            kept = true;
            keep(row, hidden);
        });
        let error = match ran {
            Err(error) if !kept && may_be_ours(&error) => error,
            ran => return ran,
        };
        // Without RETURNING the statement might not have failed. The catalog says whether.
        table.set_checked(false);
        if C::Backend::ABORTS && !alone {
            table.fit.guard();
            return Err(error);
        }
        ensure(&mut self.inner, &hub, table)?;
        let level = if table.fit.is_secured(plan.action) { Level::Blind } else { table.fit.level(plan.action) };
        if level > plan.level { self.run_at(source, plan, level, alone, &mut keep) } else { Err(error) }
    }

    /// Runs a captured statement at another level than it was planned for.
    fn run_at<F>(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        level: Level,
        alone: bool,
        keep: &mut F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        let Some(plan) = replan(&self.state.hub, &text(&source)?, plan, level) else {
            let error =
                Error::new(ErrorKind::Capture, "a statement cannot be planned anew; this is a defect of kvsync");
            return Err(refused(error));
        };
        match level {
            Level::Blind => self.run_blind(source, &plan, keep),
            Level::Rows | Level::Keys => {
                let hub = Arc::clone(&self.state.hub);
                self.run_once(&hub, source, &plan, alone, keep)
            }
        }
    }

    /// Runs a statement as it is and reports it.
    fn run_blind<F>(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        keep: &mut F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        let mut count = 0;
        let as_it_is = Rewritten::new(source, plan);
        if plan.asks {
            for row in LoadConnection::<DefaultLoadingMode>::load(&mut self.inner, as_it_is)? {
                keep(row?, 0);
                count += 1;
            }
        } else {
            count = self.inner.execute_returning_count(&as_it_is)?;
        }
        let hub = &self.state.hub;
        if hub.misfit != Policy::Allow {
            let reason = "the table's rules, rights or row security forbid to return what a statement writes; verify the \
                          table, or write it by a role that may read it";
            hub.missed(Some(&plan.table.name), reason, &plan.sql);
        }
        Ok(count)
    }

    /// Runs a statement in a savepoint, because it may fail for being captured.
    fn run_guarded<F>(
        &mut self,
        source: &dyn QueryFragment<C::Backend>,
        plan: &Plan<C::Backend>,
        keep: &mut F,
    ) -> QueryResult<usize>
    where
        F: for<'conn, 'query> FnMut(<C::Backend as Inside>::Row<'conn, 'query>, usize),
    {
        C::TransactionManager::begin_transaction(&mut self.inner)?;
        let hub = Arc::clone(&self.state.hub);
        match self.run_once(&hub, source, plan, false, keep) {
            Ok(count) => C::TransactionManager::commit_transaction(&mut self.inner).map(|()| count),
            Err(error) => {
                if C::TransactionManager::rollback_transaction(&mut self.inner).is_err() {
                    return Err(error);
                }
                // What fails for another reason fails again, and takes the transaction with it as it would have.
                self.run_at(source, plan, Level::Blind, false, keep)
            }
        }
    }
}

/// Whether a statement may have failed for what was added to it. A violated constraint or a lost
/// connection has a kind of its own.
fn may_be_ours(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::Unknown, _))
}
