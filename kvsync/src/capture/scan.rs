//! Reads a table page by page, in the order of its primary key.

use diesel::QueryResult;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;

use super::backend::{Inner, SyncBackend};
use super::reread::unreadable;
use super::table::{ModelEntry, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Position, RowsPage, Scanned, Schema};

/// A page that is asked for.
pub struct Asked<'a> {
    pub(super) schema: &'static Schema,
    pub(super) scope: &'a Scope,
    /// The image of each column of the primary key behind which the page begins.
    pub(super) after: Option<&'a [String]>,
    pub(super) most: usize,
}

/// The images of the columns of the primary key in a position.
pub(super) fn parts(position: &Position, schema: &Schema) -> Result<Vec<String>> {
    position.parts(schema.table, schema.primary_key.len()).ok_or_else(|| strange(position.as_str(), schema))
}

/// A position that cannot be gone on from.
pub(super) fn strange(position: &str, schema: &Schema) -> Error {
    let message = format!("`{position}` is no position in the table `{}`; begin from its first row", schema.table);
    Error::new(ErrorKind::Config, message)
}

/// The reading of one page.
pub(super) struct Scan<'a, DB: SyncBackend> {
    model: &'a ModelEntry<DB>,
    /// Columns, table, and that the primary key is there.
    head: String,
    /// The columns of the primary key.
    columns: Vec<String>,
    /// What they are above of; empty for the first page.
    after: Vec<Box<dyn QueryFragment<DB>>>,
    tail: String,
    most: usize,
}

impl<'a, DB: SyncBackend> Scan<'a, DB> {
    /// Of a table that stands in SQL as `table`. `image` is the SQL of a column's image, `ascending` what
    /// follows a column to order by.
    pub(super) fn new(
        entry: (&Table<DB>, &'a ModelEntry<DB>),
        table: &str,
        most: usize,
        image: impl Fn(&str) -> String,
        ascending: &str,
    ) -> Self {
        let (named, model) = entry;
        let reference = DB::quote(&named.name);
        let live = model.schema.live_if.map(|condition| format!(", ({condition})")).unwrap_or_default();
        let columns: Vec<String> =
            model.schema.primary_key.iter().map(|column| format!("{reference}.{}", DB::quote(column))).collect();
        let images: Vec<String> = columns.iter().map(|column| image(column)).collect();
        let there: Vec<String> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
        let order: Vec<String> = columns.iter().map(|column| format!("{column}{ascending}")).collect();
        Self {
            model,
            head: format!(
                "SELECT {}{live}, {} FROM {table} WHERE {}{}",
                model.columns(&reference),
                images.join(", "),
                DB::only(table),
                there.join(" AND ")
            ),
            columns,
            after: Vec::new(),
            tail: format!(" ORDER BY {} LIMIT {most}", order.join(", ")),
            most,
        }
    }

    /// Begins behind the row of this primary key: a value for each of its columns.
    pub(super) fn after(&mut self, values: Vec<Box<dyn QueryFragment<DB>>>) {
        self.after = values;
    }

    pub(super) fn run<C: Inner<Backend = DB>>(&self, conn: &mut C) -> QueryResult<RowsPage> {
        let model = self.model;
        let images_at = model.width + usize::from(model.schema.live_if.is_some());
        let (mut page, mut read, mut last) = (RowsPage::default(), 0, None);
        for row in LoadConnection::<DefaultLoadingMode>::load(conn, self)? {
            let row = row?;
            read += 1;
            last = (0..self.columns.len()).map(|at| DB::text(&row, images_at + at)).collect::<Option<Vec<String>>>();
            let live = model.schema.live_if.is_none() || DB::flag(&row, model.width) == Some(true);
            match model.read(&row, 0) {
                Ok((read, primary_key)) => page.rows.push(Scanned { primary_key, row: Ok(live.then_some(read)) }),
                Err(error) => {
                    let error = unreadable(model, error);
                    match model.identify(&row, 0) {
                        Some(known) => page.rows.push(Scanned {
                            primary_key: known.primary_key,
                            row: if live { Err(error) } else { Ok(None) },
                        }),
                        None => page.nameless.push(error),
                    }
                }
            }
        }
        if read >= self.most {
            let reason = "the image of a primary key cannot be read".into();
            let last = last.ok_or(diesel::result::Error::DeserializationError(reason))?;
            page.next = Some(Position::new(model.schema.table, last.iter().map(String::as_str)));
        }
        Ok(page)
    }
}

impl<DB: SyncBackend> QueryId for Scan<'_, DB> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: SyncBackend> Query for Scan<'_, DB> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for Scan<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        // The table may be altered between two pages.
        out.unsafe_to_cache_prepared();
        out.push_sql(&self.head);
        if !self.after.is_empty() {
            out.push_sql(" AND (");
            out.push_sql(&self.columns.join(", "));
            out.push_sql(") > (");
            for (index, value) in self.after.iter().enumerate() {
                if index > 0 {
                    out.push_sql(", ");
                }
                value.walk_ast(out.reborrow())?;
            }
            out.push_sql(")");
        }
        out.push_sql(&self.tail);
        Ok(())
    }
}
