//! What the caller sees of the rows of a statement.

use std::ops::Range;
use std::vec;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};

/// The rows of a statement: as they come, or, of a captured one, those that came.
pub struct SyncCursor<I, O> {
    inner: Kind<I, O>,
    /// Dropped behind the rows: then the statement has ended.
    _wake: Option<Wake>,
}

/// Something to do when it is dropped.
pub(super) struct Wake(Option<Box<dyn FnOnce() + Send>>);

impl Wake {
    pub(super) fn new(work: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(work)))
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

enum Kind<I, O> {
    Passed(I),
    Captured(vec::IntoIter<O>, usize),
}

impl<I, O> SyncCursor<I, O> {
    pub(super) fn passed(rows: I, wake: Option<Wake>) -> Self {
        Self { inner: Kind::Passed(rows), _wake: wake }
    }

    /// The fields of each row from `visible` on are not the caller's.
    pub(super) fn captured(rows: Vec<O>, visible: usize) -> Self {
        Self { inner: Kind::Captured(rows.into_iter(), visible), _wake: None }
    }
}

impl<I, R, O> Iterator for SyncCursor<I, O>
where
    I: Iterator<Item = QueryResult<R>>,
{
    type Item = QueryResult<SyncRow<R, O>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.inner {
            Kind::Passed(rows) => rows.next().map(|row| row.map(SyncRow::Passed)),
            Kind::Captured(rows, visible) => {
                let row = rows.next()?;
                Some(Ok(SyncRow::Captured { row, visible: *visible }))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.inner {
            Kind::Passed(rows) => rows.size_hint(),
            Kind::Captured(rows, _) => rows.size_hint(),
        }
    }

    fn count(self) -> usize {
        match self.inner {
            Kind::Passed(rows) => rows.count(),
            Kind::Captured(rows, _) => rows.count(),
        }
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        match &mut self.inner {
            Kind::Passed(rows) => rows.nth(n).map(|row| row.map(SyncRow::Passed)),
            Kind::Captured(rows, visible) => {
                let row = rows.nth(n)?;
                Some(Ok(SyncRow::Captured { row, visible: *visible }))
            }
        }
    }
}

impl<I, R, O> ExactSizeIterator for SyncCursor<I, O> where I: ExactSizeIterator<Item = QueryResult<R>> {}

/// A row without the fields that were added to it.
pub enum SyncRow<R, O> {
    /// A row of a statement that was not captured.
    Passed(R),
    /// A row of a captured statement.
    Captured {
        /// The whole row.
        row: O,
        /// How many of its fields the caller asked for.
        visible: usize,
    },
}

impl<R, O> RowSealed for SyncRow<R, O> {}

impl<'conn, DB, R, O> Row<'conn, DB> for SyncRow<R, O>
where
    DB: Backend,
    R: Row<'conn, DB>,
    O: Row<'conn, DB>,
{
    type Field<'field>
        = SyncField<R::Field<'field>, O::Field<'field>>
    where
        'conn: 'field,
        Self: 'field;
    type InnerPartialRow = Self;

    #[inline]
    fn field_count(&self) -> usize {
        match self {
            Self::Passed(row) => row.field_count(),
            Self::Captured { visible, .. } => *visible,
        }
    }

    #[inline]
    fn get<'field, I>(&'field self, index: I) -> Option<Self::Field<'field>>
    where
        'conn: 'field,
        Self: RowIndex<I>,
    {
        let index = self.idx(index)?;
        match self {
            Self::Passed(row) => row.get(index).map(SyncField::Passed),
            Self::Captured { row, .. } => row.get(index).map(SyncField::Captured),
        }
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl<I, R: RowIndex<I>, O: RowIndex<I>> RowIndex<I> for SyncRow<R, O> {
    #[inline]
    fn idx(&self, index: I) -> Option<usize> {
        match self {
            Self::Passed(row) => row.idx(index),
            // The caller's fields come first, so a name that it did not ask for is found behind them.
            Self::Captured { row, visible } => row.idx(index).filter(|index| index < visible),
        }
    }
}

/// A field of a [`SyncRow`].
pub enum SyncField<F, O> {
    /// Of a statement that was not captured.
    Passed(F),
    /// Of a captured one.
    Captured(O),
}

impl<'field, DB, F, O> Field<'field, DB> for SyncField<F, O>
where
    DB: Backend,
    F: Field<'field, DB>,
    O: Field<'field, DB>,
{
    #[inline]
    fn field_name(&self) -> Option<&str> {
        match self {
            Self::Passed(field) => field.field_name(),
            Self::Captured(field) => field.field_name(),
        }
    }

    #[inline]
    fn value(&self) -> Option<DB::RawValue<'_>> {
        match self {
            Self::Passed(field) => field.value(),
            Self::Captured(field) => field.value(),
        }
    }

    #[inline]
    fn is_null(&self) -> bool {
        match self {
            Self::Passed(field) => field.is_null(),
            Self::Captured(field) => field.is_null(),
        }
    }
}
