//! Runs each shape on a plain and on a wrapped connection to equal databases, and compares.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use diesel::QueryResult;
use diesel::result::Error as DbError;
use kvsync::change::{Action, Change, Row};
use kvsync_tests::recorder::Recorder;

/// A statement, or several, on a plain connection and on a wrapped one.
pub(crate) struct Shape<P, W> {
    pub name: &'static str,
    /// How many writes of rows are captured, where that is not the number of rows that differ.
    pub captured: Option<usize>,
    /// What is reported, in part; nothing for almost all.
    pub reported: Option<&'static str>,
    pub plain: fn(&mut P) -> String,
    pub wrapped: fn(&mut W) -> String,
}

/// Makes both forms of each shape from one text.
macro_rules! shapes {
    ($plain:ty, $wrapped:ty; $($name:literal $(, $captured:literal)? $(; $reported:literal)? => |$conn:ident| $body:block)*) => {
        vec![$(Shape {
            name: $name,
            captured: None::<usize>$(.or(Some($captured)))?,
            reported: None::<&str>$(.or(Some($reported)))?,
            plain: |$conn: &mut $plain| $crate::run::outcome(|| $body),
            wrapped: |$conn: &mut $wrapped| $crate::run::outcome(|| $body),
        }),*]
    };
}
pub(crate) use shapes;

/// What a statement gave, as far as its caller can see.
pub(crate) fn outcome<T: Debug>(run: impl FnOnce() -> QueryResult<T>) -> String {
    match run() {
        Ok(value) => format!("{value:?}"),
        Err(DbError::DatabaseError(kind, info)) => format!(
            "{kind:?}: {} / {:?} / {:?} / {:?} / {:?} / {:?} / {:?}",
            info.message(),
            info.details(),
            info.hint(),
            info.table_name(),
            info.column_name(),
            info.constraint_name(),
            info.statement_position(),
        ),
        Err(error) => format!("{error:?}: {error}"),
    }
}

/// The rows of a database: by model and home key, their content.
pub(crate) type Rows = BTreeMap<(&'static str, String), String>;

/// Rows by table and primary key.
pub(crate) type Images = BTreeMap<(String, String), String>;

/// How what is written is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In memory.
    Queue,
    /// Into the outbox.
    Outbox,
    /// By triggers.
    Triggers,
}

/// A database in two copies, one of them behind a wrapped connection.
pub(crate) trait Pair {
    type Plain;
    type Wrapped;

    /// Fills both with the same rows, and opens a connection to each.
    fn fresh(&mut self) -> (Self::Plain, Self::Wrapped);
    /// The models' rows in the first copy.
    fn plain_rows(plain: &mut Self::Plain) -> Rows;
    /// The models' rows in the second.
    fn wrapped_rows(wrapped: &mut Self::Wrapped) -> Rows;
    /// A row of a change, as it stands in [`Rows`].
    fn content(row: &dyn kvsync::model::Model) -> String;
    /// Runs raw SQL on the first copy, for its rows or for its count.
    fn plain_raw(plain: &mut Self::Plain, sql: &str, rows: bool) -> String;
    /// Runs raw SQL on the second.
    fn wrapped_raw(wrapped: &mut Self::Wrapped, sql: &str, rows: bool) -> String;
    /// What is captured.
    fn recorder(&self) -> &Arc<Recorder>;
    /// How it is captured.
    fn mode(&self) -> Mode;
    /// The rows of the second copy as its outbox names them: by table and primary key, their content.
    fn images(wrapped: &mut Self::Wrapped) -> Images;
    /// The rows of its outbox: table, action, primary key.
    fn outbox(wrapped: &mut Self::Wrapped) -> Vec<(String, String, String)>;
}

/// Runs all shapes; says of each what differs.
pub(crate) fn run<D: Pair>(mut pair: D, shapes: Vec<Shape<D::Plain, D::Wrapped>>) {
    let mut wrong = String::new();
    let count = shapes.len();
    assert!(count >= 70, "only {count} shapes");
    for shape in shapes {
        let differences = differences(&mut pair, &shape);
        if !differences.is_empty() {
            writeln!(wrong, "\n{}:\n{differences}", shape.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "of {count} shapes, these differ:\n{wrong}");
}

fn differences<D: Pair>(pair: &mut D, shape: &Shape<D::Plain, D::Wrapped>) -> String {
    let mut text = String::new();
    let (mut plain, mut wrapped) = pair.fresh();
    let mode = pair.mode();
    let before = D::wrapped_rows(&mut wrapped);
    let images = if mode == Mode::Queue { Images::new() } else { D::images(&mut wrapped) };
    assert_eq!(before, D::plain_rows(&mut plain), "the two databases are not equal to begin with");
    drop((pair.recorder().take(), pair.recorder().missed()));

    let expected = (shape.plain)(&mut plain);
    let got = (shape.wrapped)(&mut wrapped);
    if got != expected {
        writeln!(text, "  plain:   {expected}\n  wrapped: {got}").unwrap();
    }
    let after = D::wrapped_rows(&mut wrapped);
    if after != D::plain_rows(&mut plain) {
        writeln!(text, "  the tables differ afterwards").unwrap();
    }
    let (sets, missed) = (pair.recorder().take(), pair.recorder().missed());
    // Nothing is missed by triggers.
    let reported = shape.reported.filter(|_| mode != Mode::Triggers);
    let told = missed.iter().any(|missed| reported.is_some_and(|reason| missed.reason.contains(reason)));
    if missed.is_empty() == told || told != reported.is_some() {
        writeln!(text, "  missed: {missed:?}").unwrap();
    }
    if mode != Mode::Queue {
        if !sets.is_empty() {
            writeln!(text, "  handed on: {sets:?}").unwrap();
        }
        if !told {
            compare_outbox(&mut text, &images, &D::images(&mut wrapped), &D::outbox(&mut wrapped));
        }
        return text;
    }
    let changes: Vec<Change> = sets.into_iter().flat_map(|set| set.changes).collect();
    compare::<D>(&mut text, &before, &after, &changes);
    compare_counts(&mut text, &before, &after, &changes, shape.captured);
    text
}

/// Every row that differs stands in the outbox, and the last that is said of a row there is true.
pub(crate) fn compare_outbox(text: &mut String, before: &Images, after: &Images, outbox: &[(String, String, String)]) {
    let mut last = BTreeMap::new();
    for (table, action, key) in outbox {
        last.insert((table.clone(), key.clone()), action.as_str());
    }
    for key in before.keys().chain(after.keys()) {
        if before.get(key) != after.get(key) && !last.contains_key(key) {
            writeln!(text, "  {key:?}: not in the outbox: {outbox:?}").unwrap();
        }
    }
    for (key, action) in last {
        if after.contains_key(&key) == (action == "delete") {
            writeln!(text, "  {key:?}: the outbox ends with {action}: {outbox:?}").unwrap();
        }
    }
}

/// Every row that differs is captured, with its last content and the right action.
pub(crate) fn compare<D: Pair>(text: &mut String, before: &Rows, after: &Rows, changes: &[Change]) {
    let mut last = BTreeMap::new();
    let mut state = before.clone();
    for change in changes {
        let key = (change.schema.model, change.row.home().as_str().to_owned());
        if let Some((_, version)) = last.insert(key.clone(), (change.action, change.version))
            && version >= change.version
        {
            writeln!(text, "  {key:?}: version {} follows {version}", change.version).unwrap();
        }
        let stood = state.contains_key(&key);
        let fits = match (&change.row, change.action) {
            (Row::Live(row), Action::Insert) => (!stood, state.insert(key.clone(), D::content(&**row))).0,
            (Row::Live(row), Action::Update) => (stood, state.insert(key.clone(), D::content(&**row))).0,
            (Row::Live(row), Action::Upsert) => (true, state.insert(key.clone(), D::content(&**row))).0,
            (Row::Deleted { row, live: true }, Action::Delete) => state.remove(&key) == Some(D::content(&**row)),
            _ => false,
        };
        if !fits {
            writeln!(text, "  {key:?}: {} does not fit what stood there: {:?}", change.action, change.row).unwrap();
        }
    }
    for key in after.keys().chain(state.keys()).collect::<std::collections::BTreeSet<_>>() {
        if after.get(key) != state.get(key) {
            writeln!(text, "  {key:?}: in the table {:?}, captured {:?}", after.get(key), state.get(key)).unwrap();
        }
    }
}

/// No more is captured than was written.
fn compare_counts(text: &mut String, before: &Rows, after: &Rows, changes: &[Change], captured: Option<usize>) {
    if captured.is_some() && changes.is_empty() {
        writeln!(text, "  nothing captured").unwrap();
    }
    for (model, counted) in count(changes.iter().map(|change| change.schema.model)) {
        let differ = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
        // The narrow model does not differ where its table does.
        let model_of_table = if model == "Slim" { "User" } else { model };
        let differ =
            differ.into_iter().filter(|key| key.0 == model_of_table && before.get(*key) != after.get(*key)).count();
        let expected = captured.unwrap_or(differ);
        if counted != expected {
            writeln!(text, "  {model}: {counted} changes captured, {expected} expected").unwrap();
        }
    }
}

fn count(models: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, usize> {
    models.fold(BTreeMap::new(), |mut counts, model| {
        *counts.entry(model).or_default() += 1;
        counts
    })
}
