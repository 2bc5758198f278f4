//! The command line.

use std::fmt::Write as _;

use crate::Result;
use crate::rows::Row;

/// What was asked for.
pub(crate) enum Request {
    /// Print how to ask.
    Help,
    /// Measure rows and print the table.
    Run(Options),
    /// Be the process whose memory a row measures.
    Child(String),
}

/// Which rows to measure, and how long.
#[derive(Debug, Default)]
pub(crate) struct Options {
    filters: Vec<String>,
    quick: bool,
}

impl Request {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "-h" | "--help" => return Ok(Self::Help),
                "--quick" => options.quick = true,
                "--child" => return arguments.next().map(Self::Child).ok_or_else(|| "`--child` takes a name".into()),
                flag if flag.starts_with('-') => return Err(format!("unknown option `{flag}`; see --help").into()),
                name => options.filters.push(name.to_owned()),
            }
        }
        Ok(Self::Run(options))
    }
}

impl Options {
    /// Whether a row of this name was asked for: no filter, or one that is part of the name.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// This many rounds, or with `--quick` a fifth of them.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        if self.quick { rounds.div_ceil(5) } else { rounds }
    }
}

/// The text of `--help`.
pub(crate) fn help(rows: &[Row]) -> String {
    let mut text = String::from(
        "Measures kvsync against what it stands on and prints one table.\n\n\
         usage: cargo xtask bench [-- [--quick] [<part of a row's name>]..]\n\n\
         --quick   a fifth of the rounds\n\n\
         A round alternates the two sides in slices of a few milliseconds and gives one ratio; the table shows\n\
         the median of the rounds and the range from the 10th to the 90th percentile. A goal is `met` when the\n\
         median meets it, `near` when some of the range does, `missed` when none of it does.\n\nrows:\n",
    );
    for row in rows {
        // Writing to a string never fails.
        writeln!(text, "  {:<18} {}", row.name, row.about).unwrap_or_default();
    }
    text
}
