//! What SQLite says of a table.

use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::super::check::{Catalog, Column, Unique};
use super::super::finding::{FindingKind, Notice};
use super::super::statement::Dialect;
use super::super::table::Table;

#[derive(QueryableByName)]
struct Definition {
    #[diesel(sql_type = Nullable<Text>)]
    sql: Option<String>,
}

#[derive(QueryableByName)]
struct TableColumn {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    pk: i64,
}

#[derive(QueryableByName)]
struct Index {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    partial: bool,
}

#[derive(QueryableByName)]
struct IndexColumn {
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
}

pub(super) fn catalog<C: Inner<Backend = Sqlite>>(conn: &mut C, table: &Table<Sqlite>) -> QueryResult<Option<Catalog>> {
    let schema = table.schema.as_deref().unwrap_or("main");
    let master = format!("\"{}\".sqlite_master", schema.replace('"', "\"\""));
    let definition = sql_query(format!("SELECT sql FROM {master} WHERE type = 'table' AND lower(name) = ?"))
        .bind::<Text, _>(&table.name)
        .get_result::<Definition>(conn)
        .optional()?;
    let Some(definition) = definition.and_then(|definition| definition.sql) else { return Ok(None) };
    let mut catalog = Catalog::default();
    if definition.trim_start().get(..14).is_some_and(|start| start.eq_ignore_ascii_case("create virtual")) {
        catalog.unfit = Some(Notice::error(
            FindingKind::Table,
            "it is a virtual table, whose writes return nothing; it cannot be synced",
            "sync a model of a table behind it",
        ));
    }
    let columns: Vec<TableColumn> = sql_query("SELECT name, pk FROM pragma_table_xinfo(?, ?)")
        .bind::<Text, _>(&table.name)
        .bind::<Text, _>(schema)
        .get_results(conn)?;
    let primary: Vec<String> = columns.iter().filter(|column| column.pk > 0).map(|column| fold(&column.name)).collect();
    catalog.columns = columns.iter().map(|column| Column { name: fold(&column.name), readable: true }).collect();
    catalog.uniques.extend((!primary.is_empty()).then(|| Unique {
        name: "PRIMARY KEY".to_owned(),
        columns: primary,
        predicate: None,
        deferrable: false,
    }));
    let indexes: Vec<Index> =
        sql_query("SELECT name, partial FROM pragma_index_list(?, ?) WHERE \"unique\" AND origin <> 'pk'")
            .bind::<Text, _>(&table.name)
            .bind::<Text, _>(schema)
            .get_results(conn)?;
    for index in indexes {
        let columns: Vec<IndexColumn> = sql_query("SELECT name FROM pragma_index_info(?, ?) ORDER BY seqno")
            .bind::<Text, _>(&index.name)
            .bind::<Text, _>(schema)
            .get_results(conn)?;
        // A column without a name is an expression: it says nothing of the column in it.
        let columns: Option<Vec<String>> =
            columns.into_iter().map(|column| column.name.map(|name| fold(&name))).collect();
        let Some(columns) = columns else { continue };
        let predicate = if index.partial { Some(predicate(conn, &master, &index.name)?) } else { None };
        catalog.uniques.push(Unique { name: index.name, columns, predicate, deferrable: false });
    }
    Ok(Some(catalog))
}

/// What stands behind WHERE in the definition of a partial index.
fn predicate<C: Inner<Backend = Sqlite>>(conn: &mut C, master: &str, index: &str) -> QueryResult<String> {
    let definition: Definition = sql_query(format!("SELECT sql FROM {master} WHERE type = 'index' AND name = ?"))
        .bind::<Text, _>(index)
        .get_result(conn)?;
    let sql = definition.sql.unwrap_or_default();
    let at = sql.to_ascii_lowercase().find("where").map_or(sql.len(), |at| at + "where".len());
    Ok(sql.get(at..).unwrap_or_default().trim().to_owned())
}

fn fold(name: &str) -> String {
    Dialect::Sqlite.fold(name.into()).into_owned()
}
