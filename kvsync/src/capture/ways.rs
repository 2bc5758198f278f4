//! The other names under which registered tables are written: views, partitions, tables whose triggers
//! write them, and those that their foreign keys refer to.
//!
//! A statement that names one of these does not name the registered table, and what it returns are not
//! the table's rows; so it follows the policy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use diesel::query_builder::{QueryFragment, QueryId};
use diesel::sql_types::Text;
use diesel::{QueryResult, QueryableByName};

use super::backend::{Inner, SyncBackend};
use super::connection::SyncConnection;
use super::database::Policy;
use super::hub::Hub;
use super::plan::{Alteration, Missing, Plan, Planned};
use super::statement::{Scanned, TableName, Verb, Write, tables_written};
use crate::change::Action;

/// A relation by which a registered table is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub(super) schema: String,
    pub(super) name: String,
    /// The registered table.
    pub(super) table: String,
    /// How a write of the one is a write of the other.
    pub(super) reason: String,
    /// Whether a write that leads there counts its rows.
    pub(super) counts: bool,
    /// Which writes lead there.
    pub(super) by: By,
}

/// Which writes of a relation lead to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// All.
    Any,
    /// Those that delete rows.
    Delete,
    /// Those that set one of these columns.
    Set(Vec<String>),
    /// Those of a registered table whose trigger writes another. What is captured does not heed it: `audit` does.
    Trigger,
}

impl By {
    /// Whether it is a foreign key that carries the write on.
    fn is_cascade(&self) -> bool {
        matches!(self, Self::Delete | Self::Set(_))
    }

    fn meets(&self, deletes: bool, sets: &[String]) -> bool {
        match self {
            Self::Any | Self::Trigger => true,
            Self::Delete => deletes,
            Self::Set(columns) => columns.iter().any(|column| sets.contains(column)),
        }
    }
}

/// A trigger of a relation.
#[derive(QueryableByName)]
pub(super) struct Trigger {
    #[diesel(sql_type = Text)]
    pub(super) schema: String,
    /// The relation.
    #[diesel(sql_type = Text)]
    pub(super) name: String,
    /// What it runs.
    #[diesel(sql_type = Text)]
    source: String,
}

impl Trigger {
    /// Where a write of its relation, named `own`, leads, as far as its text shows.
    pub(super) fn ways<DB: SyncBackend>(&self, hub: &Hub<DB>, own: &TableName<'_>, counts: bool) -> Vec<Way> {
        let registered = hub.table(own);
        let by = if registered.is_some() { By::Trigger } else { By::Any };
        let shown = own.schema.as_ref().map_or_else(|| own.name.to_string(), |schema| format!("{schema}.{}", own.name));
        let written = tables_written(&self.source, DB::DIALECT);
        let tables = written.iter().filter_map(|written| hub.table(written));
        // What it does to rows of its own table shows in these.
        let tables = tables.filter(|table| registered.is_none_or(|registered| !Arc::ptr_eq(registered, table)));
        tables
            .map(|table| Way {
                schema: self.schema.clone(),
                name: own.name.to_string(),
                table: table.name.clone(),
                reason: format!("a trigger of `{shown}` writes `{}`, unseen", table.name),
                counts,
                by: by.clone(),
            })
            .collect()
    }
}

/// What a statement writes under names that no table is registered under.
pub(super) struct Strangers {
    names: Vec<(Option<String>, String)>,
    /// Whether it is one INSERT, UPDATE or DELETE: then its count says whether it wrote anything.
    counts: bool,
    truncates: bool,
    deletes: bool,
    sets: Vec<String>,
}

impl Strangers {
    /// Nothing for a statement that writes no table.
    pub(super) fn of(scanned: &Scanned<'_>) -> Option<Self> {
        let owned = |name: &TableName<'_>| (name.schema.as_deref().map(str::to_owned), name.name.to_string());
        let (names, counts, truncates) = match scanned {
            Scanned::Read | Scanned::Transaction => return None,
            Scanned::Schema { tables } if tables.is_empty() => return None,
            Scanned::Write(write) => (vec![owned(&write.table)], true, false),
            Scanned::Truncate { tables, .. } => (tables.iter().map(owned).collect(), false, true),
            Scanned::Schema { tables } | Scanned::Uncapturable { tables, .. } => {
                (tables.iter().map(owned).collect(), false, false)
            }
        };
        let (deletes, sets) = match scanned {
            Scanned::Write(write) => (write.verb == Verb::Delete, sets(write)),
            // What it does is not known.
            _ => (false, Vec::new()),
        };
        Some(Self { names, counts, truncates, deletes, sets })
    }

    /// The ways among the names.
    pub(super) fn met<'a>(&self, ways: &'a [Way]) -> Vec<&'a Way> {
        let met =
            |way: &&Way| way.by.meets(self.deletes, &self.sets) && self.names.iter().any(|name| way.is_named(name));
        ways.iter().filter(met).collect()
    }
}

/// The columns that a statement sets in rows that were there.
pub(super) fn sets(write: &Write<'_>) -> Vec<String> {
    write.columns_set().into_iter().map(std::borrow::Cow::into_owned).collect()
}

impl Way {
    fn is_named(&self, (schema, name): &(Option<String>, String)) -> bool {
        self.name == *name && schema.as_ref().is_none_or(|schema| *schema == self.schema)
    }
}

impl<C: Inner> SyncConnection<C> {
    /// What is done with a statement.
    pub(super) fn look<T>(&mut self, source: &T) -> QueryResult<Planned<C::Backend>>
    where
        T: QueryFragment<C::Backend> + QueryId,
    {
        match self.state.plans.look(&self.state.hub, source)? {
            Planned::Strange(strangers) => Ok(self.look_at(&strangers)),
            Planned::Altered(alteration) if alteration.missing.is_none() => {
                let looked = alteration.names.as_ref().map(|names| self.look_at(names));
                Ok(match looked {
                    Some(Planned::Report(missing)) => Planned::Altered(Arc::new(Alteration {
                        tables: alteration.tables.clone(),
                        missing: Some(missing),
                        names: None,
                    })),
                    Some(refused @ Planned::Refuse(_)) => refused,
                    _ => Planned::Altered(alteration),
                })
            }
            planned => Ok(planned),
        }
    }

    /// Reports what a captured statement did to other tables by way of their foreign keys.
    pub(super) fn report_cascades(&mut self, hub: &Hub<C::Backend>, plan: &Plan<C::Backend>) {
        let deletes = plan.action == Action::Delete;
        let none = hub.no_cascades.load(Ordering::Relaxed) || hub.policy == Policy::Allow;
        if none || (!deletes && plan.sets.is_empty()) {
            return;
        }
        for way in &*hub.ways(&mut self.inner) {
            if way.by.is_cascade() && way.name == plan.table.name && way.by.meets(deletes, &plan.sets) {
                hub.missed(Some(&way.table), way.reason.clone(), &plan.sql);
            }
        }
    }

    pub(super) fn look_at(&mut self, strangers: &Strangers) -> Planned<C::Backend> {
        let hub = Arc::clone(&self.state.hub);
        let ways = hub.ways(&mut self.inner);
        let mut met = strangers.met(&ways);
        met.retain(|way| way.by != By::Trigger);
        let Some(first) = met.first() else { return Planned::Pass };
        let mut tables: Vec<String> = met.iter().map(|way| way.table.clone()).collect();
        tables.dedup();
        let missing = Missing { tables, reason: first.reason.clone().into(), counts: strangers.counts && first.counts };
        let policy = if strangers.truncates { hub.truncate } else { hub.policy };
        policy.planned(Arc::new(missing)).unwrap_or(Planned::Pass)
    }
}

impl<DB: SyncBackend> Hub<DB> {
    /// The other names of the registered tables. Read once, and again when a connection of ours has
    /// changed the schema.
    pub(super) fn ways<C: Inner<Backend = DB>>(&self, conn: &mut C) -> Arc<[Way]> {
        if let Some(ways) = &*self.ways.read() {
            return Arc::clone(ways);
        }
        // Where it cannot be read, as in a transaction that has failed, the statement cannot be run either.
        let Ok(ways) = DB::ways(conn, self) else { return Arc::new([]) };
        // What writes a table that has triggers is caught by them.
        let caught = |way: &Way| self.tables.iter().any(|table| table.triggers && table.name == way.table);
        let ways: Arc<[Way]> = ways.into_iter().filter(|way| !caught(way)).collect();
        let mut known = self.ways.write();
        *known = Some(Arc::clone(&ways));
        self.no_cascades.store(!ways.iter().any(|way| way.by.is_cascade()), Ordering::Relaxed);
        ways
    }

    /// The schema was changed.
    pub(super) fn forget_ways(&self) {
        let mut known = self.ways.write();
        *known = None;
        self.no_cascades.store(false, Ordering::Relaxed);
    }
}

/// Why a write of `parent` concerns `table`.
pub(super) fn cascade(table: &str, key: &str, parent: &str) -> String {
    format!(
        "the foreign key `{key}` on `{parent}` may have deleted or changed rows of `{table}` unseen; verify it, or let \
         triggers capture it"
    )
}
