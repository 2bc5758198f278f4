//! A row that tells how many bytes were read of it.

use std::cell::Cell;
use std::ops::Range;

use diesel::backend::Backend;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};

use super::backend::Inside;

/// A row that adds up the bytes of the text and binary values that are read of it: so that a model is
/// read and weighed in one pass.
pub(super) struct WeighedRow<'row, R> {
    row: &'row R,
    bytes: Cell<usize>,
}

impl<'row, R> WeighedRow<'row, R> {
    pub(super) fn new(row: &'row R) -> Self {
        Self { row, bytes: Cell::new(0) }
    }

    /// The bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl<R> RowSealed for WeighedRow<'_, R> {}

impl<'conn, DB, R> Row<'conn, DB> for WeighedRow<'_, R>
where
    DB: Inside,
    R: Row<'conn, DB>,
{
    type Field<'field>
        = WeighedField<'field, R::Field<'field>>
    where
        'conn: 'field,
        Self: 'field;
    type InnerPartialRow = Self;

    #[inline]
    fn field_count(&self) -> usize {
        self.row.field_count()
    }

    #[inline]
    fn get<'field, I>(&'field self, index: I) -> Option<Self::Field<'field>>
    where
        'conn: 'field,
        Self: RowIndex<I>,
    {
        let field = self.row.get(self.idx(index)?)?;
        Some(WeighedField { field, bytes: &self.bytes })
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl<I, R: RowIndex<I>> RowIndex<I> for WeighedRow<'_, R> {
    #[inline]
    fn idx(&self, index: I) -> Option<usize> {
        self.row.idx(index)
    }
}

/// A field of a [`WeighedRow`].
pub(super) struct WeighedField<'row, F> {
    field: F,
    bytes: &'row Cell<usize>,
}

impl<'field, DB, F> Field<'field, DB> for WeighedField<'field, F>
where
    DB: Inside,
    F: Field<'field, DB>,
{
    #[inline]
    fn field_name(&self) -> Option<&str> {
        self.field.field_name()
    }

    #[inline]
    fn value(&self) -> Option<<DB as Backend>::RawValue<'_>> {
        let mut value = self.field.value()?;
        self.bytes.set(self.bytes.get() + DB::weigh(&mut value));
        Some(value)
    }

    #[inline]
    fn is_null(&self) -> bool {
        self.field.is_null()
    }
}
