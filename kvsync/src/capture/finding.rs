//! What is found out about a database's tables, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// Something about a table, or about a whole database, that hinders sync, weakens a promise, or is worth
/// knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub kind: FindingKind,
    /// The database's name.
    pub database: Arc<str>,
    /// The table; `None` when it is about the whole database or this connection.
    pub table: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub advice: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong.
    Note,
    /// A promise is weakened.
    Warning,
    /// The table cannot be synced as it was declared. Its writes fail until it is mended; where rows cannot
    /// be read back, they follow [`Database::misfit`](super::Database::misfit).
    Error,
}

/// What a [`Finding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A view or virtual table, or one that the search path does not find.
    Table,
    /// Columns of a model are missing, or the role may not read them.
    Unreadable,
    /// A rule or the rights keep a write from returning anything.
    Blind,
    /// A key, or the primary key, that no unique constraint covers.
    NotUnique,
    /// A key whose unique constraint is partial, and not by the model's `live_if`.
    Partial,
    /// A key whose unique constraint is deferrable.
    Deferrable,
    /// A table whose rows a crash takes away.
    Unlogged,
    /// Row security.
    RowSecurity,
    /// There is no outbox to write changes into.
    Outbox,
    /// A trigger, of the table or of another that writes it.
    Trigger,
    /// A foreign key that deletes or changes rows.
    ForeignKey,
    /// A rule.
    Rule,
    /// A view through which rows can be written.
    View,
    /// A function whose text writes the table. A guess.
    Function,
    /// A partition.
    Partition,
    /// A table that inherits.
    Child,
    /// Another table of the same name, in another schema or temporary.
    Namesake,
    /// A table of SQLite without a rowid.
    WithoutRowid,
    /// Versions that are ordered within one process only.
    Versions,
    /// A setting by which the database may forget what it committed, or rows are deleted unseen.
    Setting,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "table `{table}` of ")?;
        }
        write!(f, "`{}`: ", self.database)?;
        tell(f, &self.message, &self.advice)
    }
}

fn tell(f: &mut fmt::Formatter<'_>, message: &str, advice: &str) -> fmt::Result {
    f.write_str(message)?;
    if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
}

/// A finding before it is known of which table it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    severity: Severity,
    pub(super) kind: FindingKind,
    message: String,
    advice: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tell(f, &self.message, &self.advice)
    }
}

impl Notice {
    pub(super) fn note(kind: FindingKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Note, kind, message: message.into(), advice: advice.into() }
    }

    pub(super) fn warning(kind: FindingKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::note(kind, message, advice) }
    }

    pub(super) fn error(kind: FindingKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::note(kind, message, advice) }
    }

    /// The same, as bad as this.
    pub(super) fn at(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub(super) fn of(self, database: &Arc<str>, table: Option<&str>) -> Finding {
        let Self { severity, kind, message, advice } = self;
        Finding { severity, kind, database: Arc::clone(database), table: table.map(str::to_owned), message, advice }
    }
}
