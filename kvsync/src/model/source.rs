//! The port through which rows are read from their database.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Kind, Model, PrimaryKey, Schema};
use crate::error::Result;
use crate::key::Scope;
use crate::version::Version;

/// The port through which workers and upkeep read rows from their database: implemented beside capture,
/// for each database.
pub trait Source: Send + Sync {
    /// The database's name, as given to the builder.
    fn name(&self) -> &str;

    /// The models that are registered in the database.
    fn schemas(&self) -> Vec<&'static Schema>;

    /// The same models, with what reads their stored bytes.
    fn kinds(&self) -> Vec<Kind>;

    /// The scopes that the database itself gives to rows of this model: those of its schemas. Empty where
    /// connections choose the scope: then a scope that is asked for holds all rows of the table.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when no connection can be had.
    fn scopes(&self, schema: &'static Schema, deadline: Duration) -> Result<Vec<Scope>>;

    /// Whether it is known which rows a scope has: schemas have scopes, or the database was said to be a single
    /// tenant's. Where connections choose the scope of rows in one table, the database cannot tell them apart.
    fn tells_scopes(&self) -> bool;

    /// Reads these rows again, each under a lock, so that its version is exact.
    ///
    /// Blocks until every transaction that holds one of the rows has ended, or the deadline passed.
    /// The answers stand in the order of the questions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when no connection can be had,
    /// [`ErrorKind::Deadline`](crate::ErrorKind::Deadline) when a transaction held on for too long.
    fn reread(&self, wanted: &[Wanted], deadline: Duration) -> Result<Vec<Reread>>;

    /// Looks these rows up as they are committed now, in the order asked, each as often as it is: `None` for a row that is not
    /// there or not live, an error for one that cannot be read as its model. Takes no locks, so that
    /// nothing follows for the version of what was read but what a [`barrier`](Self::barrier) before it says.
    ///
    /// # Errors
    ///
    /// As [`page`](Self::page).
    fn look(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        rows: &[PrimaryKey],
        deadline: Duration,
    ) -> Result<Vec<Looked>>;

    /// A version for everything that is read by [`page`](Self::page) after this call returned.
    ///
    /// No change that such a reading does not see has a version as low as this one: those of lower
    /// versions have ended. So what was read may be applied at this version, beside live traffic and in
    /// any order with it. What was read may be *newer* than the version says; the change that made it so
    /// comes by itself, at its own version. The version survives a crash of the database.
    ///
    /// Blocks until every transaction has ended that was open and may have written this database, or the
    /// deadline passed. On PostgreSQL a wait of 5 seconds is a `tracing` warning that says for whom; those
    /// of other databases of the cluster are not waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when no connection can be had,
    /// [`ErrorKind::Deadline`](crate::ErrorKind::Deadline) when a transaction stayed open for too long.
    fn barrier(&self, deadline: Duration) -> Result<Version>;

    /// Reads the rows behind a position, in the order of the primary key, at most `most`; from the first
    /// one on where there is no position. Takes no locks, and has a connection of its own, so that it holds
    /// up nobody. Each call sees what is committed when it is made. Rows without a primary key (NULL) are
    /// passed over.
    ///
    /// # Errors
    ///
    /// As [`barrier`](Self::barrier), and [`ErrorKind::Config`](crate::ErrorKind::Config) for a position
    /// of another table, or a scope that the database does not have.
    fn page(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        after: Option<&Position>,
        most: usize,
        deadline: Duration,
    ) -> Result<RowsPage>;

    /// About how many rows the table has; nothing when that cannot be told cheaply.
    ///
    /// # Errors
    ///
    /// As [`page`](Self::page).
    fn estimate(&self, schema: &'static Schema, scope: &Scope, deadline: Duration) -> Result<Option<u64>>;
}

/// What became of the lookup of a row.
pub type Looked = Result<Option<Box<dyn Model>>>;

/// A row that is to be read again.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its model.
    pub schema: &'static Schema,
    /// Its scope.
    pub scope: Scope,
    /// Its primary key.
    pub primary_key: PrimaryKey,
    /// The version that the answer must reach, because a mark of that version stands in its record.
    pub floor: Version,
}

/// A row as it was read again, with a version that is right for it.
#[derive(Debug)]
pub struct Reread {
    /// The row; `None` when there is no such row, or when it is not live. An error when it is there and
    /// cannot be read as its model.
    pub row: Result<Option<Box<dyn Model>>>,
    /// No change of the row that this reading has not seen has a version as low as this.
    pub version: Version,
}

/// Some rows of a table, in the order of the primary key.
#[derive(Debug, Default)]
pub struct RowsPage {
    /// The rows.
    pub rows: Vec<Scanned>,
    /// Rows of which not even the primary key can be read as the model's; why.
    pub nameless: Vec<crate::Error>,
    /// Where the next page begins; nothing when this is the last one.
    pub next: Option<Position>,
}

/// A row that a page found.
#[derive(Debug)]
pub struct Scanned {
    /// Its primary key.
    pub primary_key: PrimaryKey,
    /// The row; `None` when it is not live. An error when it cannot be read as its model.
    pub row: Result<Option<Box<dyn Model>>>,
}

/// A place in a table, behind the row of one primary key. It is text that another process can go on
/// from; what it says is the database's business.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(String);

impl Position {
    /// Behind the row of this table whose primary key has these parts, in whatever form the
    /// [`Source`] gives them.
    #[must_use]
    pub fn new<'a>(table: &str, parts: impl IntoIterator<Item = &'a str>) -> Self {
        let escaped = |part: &str| part.replace('%', "%25").replace('/', "%2F");
        let mut text = escaped(table);
        for part in parts {
            text.push('/');
            text.push_str(&escaped(part));
        }
        Self(text)
    }

    /// The parts, if it is a position in this table with so many of them.
    #[must_use]
    pub fn parts(&self, table: &str, count: usize) -> Option<Vec<String>> {
        let mut parts = self.0.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%"));
        let own = parts.next()? == table;
        let parts: Vec<String> = parts.collect();
        (own && parts.len() == count).then_some(parts)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Any text may be given; one that is no position of a table is refused by the [`Source`] that is asked.
impl From<String> for Position {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn the_parts_of_a_position_come_back() {
        for parts in [vec![], vec!["1"], vec!["a/b", "%2F", "%"], vec!["", ""]] {
            let position = Position::new("us/ers", parts.iter().copied());
            assert_eq!(position.parts("us/ers", parts.len()).unwrap(), parts);
            assert_eq!(position.parts("us", parts.len()), None);
            assert_eq!(position.parts("us/ers", parts.len() + 1), None);
        }
    }
}
