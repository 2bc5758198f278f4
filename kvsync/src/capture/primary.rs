//! Reads the primary key of a row that cannot be read as its model.

use std::error::Error as StdError;
use std::ops::Range;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSqlRow};
use diesel::expression::Expression;
use diesel::row::{PartialRow, Row, RowIndex, RowSealed};

use super::backend::SyncBackend;
use crate::change::Unknown;
use crate::key::KeyWriter;
use crate::model::{PrimaryKey, Schema, Syncable};

/// What a table's primary key is in SQL.
pub(super) type KeyTypeOf<T> = <<T as diesel::Table>::PrimaryKey as Expression>::SqlType;

/// Where the columns of the primary key stand among those of the model, whose SQL is `list`; nothing
/// when they cannot be told.
pub(super) fn places<DB: SyncBackend>(schema: &Schema, table: &str, list: &str, width: usize) -> Option<Box<[usize]>> {
    let items = items(list);
    if items.len() != width {
        return None;
    }
    let place = |column: &&str| {
        let name = DB::quote(column);
        let is = |item: &&str| {
            **item == name || item.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) == Some(&name)
        };
        items.iter().position(is)
    };
    schema.primary_key.iter().map(place).collect()
}

/// The parts of a list of columns.
fn items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut from, mut depth, mut quote) = (0_usize, 0_u32, None);
    for (at, char) in list.char_indices() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (None, '"' | '`' | '\'') => quote = Some(char),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                items.extend(list.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    items.extend(list.get(from..));
    items.into_iter().map(str::trim).collect()
}

/// The names in a list of columns that Diesel wrote, without their quotes.
pub(super) fn names(list: &str) -> Vec<String> {
    let unquoted = |item: &str| {
        let inner = item.get(1..item.len().saturating_sub(1)).unwrap_or_default();
        let quote = item.get(..1).unwrap_or_default();
        inner.replace(&quote.repeat(2), quote)
    };
    items(list).into_iter().map(unquoted).collect()
}

/// Reads the primary key from its columns alone. Of keys without a ledger the one that is made of the
/// primary key is known with it.
pub(super) fn identify<'conn, M, ST, DB>(row: &impl Row<'conn, DB>) -> deserialize::Result<Unknown>
where
    DB: Backend,
    M: Syncable<PrimaryKey: FromSqlRow<ST, DB>>,
{
    let values = M::PrimaryKey::build_from_row(row)?;
    let mut kept = Vec::new();
    if !M::SCHEMA.has_mutable_key() && M::SCHEMA.primary.is_some() {
        let mut key = KeyWriter::default();
        M::write_primary(&values, &mut key);
        kept.extend(key.finish());
    }
    Ok(Unknown { primary_key: PrimaryKey::of::<M>(values), kept, certain: true })
}

/// An error with its causes: Diesel's own names the field only.
pub(super) fn whole(error: &dyn StdError) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Whether [`identify`] leaves a key of the row unknown, that no ledger lists either.
pub(super) fn loses_keys(schema: &Schema) -> bool {
    !schema.has_mutable_key() && (0..schema.keys.len()).any(|index| schema.primary != Some(index))
}

/// Some columns of a row, in an order of their own.
pub(super) struct Picked<'a, R> {
    pub(super) row: &'a R,
    pub(super) columns: Box<[usize]>,
}

impl<R> RowSealed for Picked<'_, R> {}

impl<'conn, DB, R> Row<'conn, DB> for Picked<'_, R>
where
    DB: Backend,
    R: Row<'conn, DB>,
{
    type Field<'field>
        = R::Field<'field>
    where
        'conn: 'field,
        R: 'field,
        Self: 'field;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        self.columns.len()
    }

    fn get<'field, I>(&'field self, index: I) -> Option<Self::Field<'field>>
    where
        'conn: 'field,
        Self: RowIndex<I>,
    {
        self.row.get(*self.columns.get(self.idx(index)?)?)
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl<R> RowIndex<usize> for Picked<'_, R> {
    fn idx(&self, index: usize) -> Option<usize> {
        (index < self.columns.len()).then_some(index)
    }
}

impl<'name, R: RowIndex<&'name str>> RowIndex<&'name str> for Picked<'_, R> {
    fn idx(&self, name: &'name str) -> Option<usize> {
        let index = self.row.idx(name)?;
        self.columns.iter().position(|column| *column == index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_between_its_columns_only() {
        assert_eq!(items("`no`, `a,b`"), ["`no`", "`a,b`"]);
        assert_eq!(names("`no`, `a``b`, `a,b`"), ["no", "a`b", "a,b"]);
        assert_eq!(items("\"t\".\"no\", lower(x, ',)'), 'a, b'"), ["\"t\".\"no\"", "lower(x, ',)')", "'a, b'"]);
    }
}
