//! To which table, and in which scope, a returned row belongs: its `tableoid` decides.
//!
//! The same text means other tables under another `search_path`, or beside a temporary table of the
//! same name. Whatever is not the registered table is reported and never handed on.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::pg::Pg;
use diesel::sql_types::{Array, Oid, Text};
use diesel::{OptionalExtension, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::pending::Pending;
use super::super::plan::Plan;
use super::super::table::Table;
use crate::key::Scope;

/// The relations that one connection has seen.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: HashMap<(u32, usize), Place>,
}

/// Where the rows of a relation belong.
#[derive(Debug, Clone)]
enum Place {
    /// To the registered table, in the scope of its schema, or else of the connection.
    Ours(Option<(Scope, Arc<str>)>),
    /// Elsewhere, for this reason.
    Elsewhere(Arc<str>),
}

impl Places {
    /// Gives the changes of a statement their scope; drops and reports those of other tables.
    pub(super) fn settle<C: Inner<Backend = Pg>>(
        &mut self,
        conn: &mut C,
        hub: &Hub<Pg>,
        plan: &Plan<Pg>,
        pending: &mut Pending,
        relations: &[(usize, u32)],
    ) {
        let Some(&(from, first)) = relations.first() else { return };
        // Almost always all rows are of one relation, and it is the connection's scope that counts.
        if relations.iter().all(|(_, relation)| *relation == first)
            && matches!(self.place(conn, hub, &plan.table, first), Place::Ours(None))
        {
            return;
        }
        let mut relations = relations.iter();
        let mut reported: Option<Arc<str>> = None;
        pending.retain_from(from, |change, beside| {
            let Some((_, relation)) = relations.next() else { return true };
            match self.place(conn, hub, &plan.table, *relation) {
                Place::Ours(None) => true,
                Place::Ours(Some((scope, schema))) => {
                    change.scope = scope;
                    beside.schema = Some(schema);
                    true
                }
                Place::Elsewhere(reason) => {
                    if reported.as_ref() != Some(&reason) {
                        hub.missed(Some(&plan.table.name), reason.to_string(), &plan.sql);
                        reported = Some(reason);
                    }
                    false
                }
            }
        });
    }

    /// Forgets what was seen: tables may have been renamed or moved.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    fn place<C: Inner<Backend = Pg>>(
        &mut self,
        conn: &mut C,
        hub: &Hub<Pg>,
        table: &Arc<Table<Pg>>,
        relation: u32,
    ) -> Place {
        let key = (relation, Arc::as_ptr(table) as usize);
        if let Some(place) = self.known.get(&key) {
            return place.clone();
        }
        match find(conn, hub, table, relation) {
            Ok(place) => {
                self.known.insert(key, place.clone());
                place
            }
            Err(error) => Place::Elsewhere(format!("the table of a written row cannot be looked up: {error}").into()),
        }
    }
}

#[derive(QueryableByName)]
struct Relation {
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    persistence: String,
}

fn find<C: Inner<Backend = Pg>>(conn: &mut C, hub: &Hub<Pg>, table: &Table<Pg>, relation: u32) -> QueryResult<Place> {
    let elsewhere = |reason: String| Ok(Place::Elsewhere(reason.into()));
    let found = sql_query(
        "SELECT n.nspname::text AS schema, c.relname::text AS name, c.relpersistence::text AS persistence \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = coalesce(pg_catalog.pg_partition_root($1::pg_catalog.regclass)::pg_catalog.oid, $1)",
    )
    .bind::<Oid, _>(relation)
    .get_result::<Relation>(conn)
    .optional()?;
    let Some(found) = found else { return elsewhere("the table of a written row is gone".to_owned()) };
    if found.persistence == "t" {
        return elsewhere(format!("a statement wrote the temporary table `{}`, which is not synced", found.name));
    }
    let home = match (&table.schema, &hub.scopes) {
        (None, Some(_)) => found.schema.clone(),
        (Some(schema), _) => schema.clone(),
        (None, None) => match home(conn, table)? {
            Some(home) => home,
            None => return elsewhere(unknown_home(table, &found.schema).join("; ")),
        },
    };
    if found.name != table.name || found.schema != home {
        return elsewhere(format!(
            "a statement wrote `{}.{}`, and the synced table is `{home}.{}`; give each schema a scope (`Database::scopes`)",
            found.schema, found.name, table.name
        ));
    }
    match &hub.scopes {
        None => Ok(Place::Ours(None)),
        Some(scopes) => match scopes(&found.schema) {
            Some(scope) => Ok(Place::Ours(Some((scope, found.schema.into())))),
            None => elsewhere(format!("a statement wrote the schema `{}`, which was given no scope", found.schema)),
        },
    }
}

pub(super) fn unknown_home(table: &Table<Pg>, schema: &str) -> [String; 2] {
    let name = &table.name;
    [
        format!("`{name}` is in none of the schemas of the default search path"),
        format!("name its schema in `table!` (`{schema}.{name}`), or give schemas scopes (`Database::scopes`)"),
    ]
}

#[derive(QueryableByName)]
struct Path {
    #[diesel(sql_type = Text)]
    path: String,
    #[diesel(sql_type = Text)]
    me: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    schema: String,
}

/// The schema in which a table is found that is named without one: not by the search path of now, which
/// may be a tenant's, but by the one that sessions begin with.
pub(super) fn home<C: Inner<Backend = Pg>>(conn: &mut C, table: &Table<Pg>) -> QueryResult<Option<String>> {
    if let Some(home) = table.home.get() {
        return Ok(Some(home.clone()));
    }
    let Some(found) = schema_of(conn, &table.name)? else { return Ok(None) };
    Ok(Some(table.home.get_or_init(|| found).clone()))
}

/// The schema of the search path that sessions begin with in which a relation of this name is found.
pub(super) fn schema_of<C: Inner<Backend = Pg>>(conn: &mut C, name: &str) -> QueryResult<Option<String>> {
    let Path { path, me } = sql_query(
        "SELECT reset_val AS path, session_user::text AS me FROM pg_catalog.pg_settings WHERE name = 'search_path'",
    )
    .get_result(conn)?;
    let schemas: Vec<String> =
        names(&path).into_iter().map(|name| if name == "$user" { me.clone() } else { name }).collect();
    let found: Option<Found> = sql_query(
        "SELECT p.schema AS schema \
         FROM pg_catalog.unnest($1) WITH ORDINALITY AS p (schema, place) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = p.schema \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $2 ORDER BY p.place LIMIT 1",
    )
    .bind::<Array<Text>, _>(schemas)
    .bind::<Text, _>(name)
    .get_result(conn)
    .optional()?;
    Ok(found.map(|found| found.schema))
}

/// The names of a list such as `"$user", public`.
fn names(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .map(|name| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => name.to_lowercase(),
        })
        .collect()
}
