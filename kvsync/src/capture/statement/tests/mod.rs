mod corpus;
mod properties;

use std::fmt::Write as _;

use super::{Conflict, Scanned, TableName, Verb, Write};

/// A statement's shape in one line: what the corpus compares.
fn describe(sql: &str, scanned: &Scanned<'_>) -> String {
    match scanned {
        Scanned::Read => "read".to_owned(),
        Scanned::Transaction => "transaction".to_owned(),
        Scanned::Schema { tables } => format!("schema{}", names(tables)),
        Scanned::Truncate { tables, cascade } => {
            format!("truncate{}{}", names(tables), if *cascade { " cascade" } else { "" })
        }
        Scanned::Uncapturable { reason, tables } => format!("uncapturable: {reason}:{}", names(tables)),
        Scanned::Write(write) => describe_write(sql, write),
    }
}

fn describe_write(sql: &str, write: &Write<'_>) -> String {
    let mut text = match write.verb {
        Verb::Insert => "insert",
        Verb::Update => "update",
        Verb::Delete => "delete",
        Verb::Replace => "replace",
    }
    .to_owned();
    if let Some(or) = write.or {
        write!(text, " or {or:?}").unwrap();
    }
    text += &names(std::slice::from_ref(&write.table));
    if let Some(alias) = write.alias {
        write!(text, " as {alias}").unwrap();
    }
    if let Some(rows) = write.rows {
        write!(text, " rows {rows}").unwrap();
    }
    match write.conflict {
        Some(Conflict::Nothing) => text += " do nothing",
        Some(Conflict::Update) => text += " do update",
        None => {}
    }
    let set = write.columns_set();
    if !set.is_empty() {
        write!(text, " set {}", set.join(",")).unwrap();
    }
    text += if write.joined { " joined" } else { "" };
    text += if write.with { " with" } else { "" };
    if let Some(list) = write.returning.clone() {
        write!(text, " returning {}", &sql[list]).unwrap();
    }
    text
}

fn names(tables: &[TableName<'_>]) -> String {
    tables.iter().fold(String::new(), |mut text, table| {
        match &table.schema {
            Some(schema) => write!(text, " {schema}.{}", table.name).unwrap(),
            None => write!(text, " {}", table.name).unwrap(),
        }
        text
    })
}
