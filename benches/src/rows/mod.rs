//! The rows of the table, one file for each group.

mod size;

use crate::Result;
use crate::options::Options;
use crate::table::Figure;

/// A row: one measurement, which may give several figures.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Options) -> Result<Vec<Figure>>,
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Row] = &[Row { name: "size", about: "stored bytes ÷ BSON", run: size::run }];

/// Does what the process that a row measures from outside has to do.
pub(crate) fn run_child(name: &str) -> Result {
    Err(format!("no row has a child called `{name}`").into())
}

/// Their names, for a message.
pub(crate) fn names() -> String {
    ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}
