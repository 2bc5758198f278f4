//! The table: figures, their goals, and whether they were met.

use std::error::Error;
use std::fmt;

use crate::ratio::Rounds;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Figure {
    /// What was measured, and against what.
    pub(crate) what: String,
    /// What came out.
    pub(crate) spread: Spread,
    /// What the figure is in.
    pub(crate) unit: Unit,
    /// What should come out.
    pub(crate) goal: Goal,
    /// The two sides in absolute numbers, which say something about this machine only.
    pub(crate) sides: String,
}

/// The median of many rounds, and the range from the 10th to the 90th percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    low: f64,
    median: f64,
    high: f64,
    p99: f64,
}

/// What should come out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Nobody set one.
    Reported,
}

/// What a figure is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Ratio,
    Nanoseconds,
    Milliseconds,
    Mebibytes,
}

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<[String; 7]>,
    failures: Vec<String>,
}

impl Spread {
    /// Of these values; all zero when there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            low: percentile(&values, 10),
            median: percentile(&values, 50),
            high: percentile(&values, 90),
            p99: percentile(&values, 99),
        }
    }

    /// The 99th percentile.
    pub(crate) fn p99(self) -> f64 {
        self.p99
    }

    pub(crate) fn median(self) -> f64 {
        self.median
    }
}

impl Goal {
    /// `met` when the median meets it, `near` when only some of the range does, `missed` when nothing does.
    fn verdict(self, spread: Spread) -> &'static str {
        let meets = |value: f64| match self {
            Self::AtMost(goal) => value <= goal,
            Self::AtLeast(goal) => value >= goal,
            Self::Reported => true,
        };
        match self {
            Self::Reported => "reported",
            _ if meets(spread.median) => "met",
            _ if meets(spread.low) || meets(spread.high) => "near",
            _ => "missed",
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio if value >= 10.0 => format!("{value:.1}"),
            Self::Ratio => format!("{value:.3}"),
            Self::Nanoseconds => format!("{value:.0} ns"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Mebibytes => format!("{value:.1} MiB"),
        }
    }
}

impl Table {
    /// Adds the figures of a row.
    pub(crate) fn figures(&mut self, row: &str, figures: Vec<Figure>) {
        for Figure { what, spread, unit, goal, sides } in figures {
            let target = match goal {
                Goal::AtMost(goal) => format!("≤ {}", unit.show(goal)),
                Goal::AtLeast(goal) => format!("≥ {}", unit.show(goal)),
                Goal::Reported => String::new(),
            };
            let range = if spread.low < spread.high {
                format!("{} .. {}", unit.show(spread.low), unit.show(spread.high))
            } else {
                String::new()
            };
            let verdict = goal.verdict(spread).to_owned();
            self.lines.push([row.to_owned(), what, unit.show(spread.median), range, target, verdict, sides]);
        }
    }

    /// Says that a row could not be measured.
    pub(crate) fn failure(&mut self, row: &str, error: &(dyn Error + 'static)) {
        self.failures.push(format!("{row}: {}", chain(error)));
    }

    /// Whether every row could be measured.
    pub(crate) fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["row", "measured", "median", "p10 .. p90", "goal", "verdict", "sides"].map(str::to_owned);
        let lines = || std::iter::once(&head).chain(&self.lines);
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for line in lines() {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        for failure in &self.failures {
            writeln!(f, "not measured: {failure}")?;
        }
        Ok(())
    }
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Rounds {
    /// The first side's time divided by the second's: below 1 when the first is faster.
    pub(crate) fn times(&self, what: impl Into<String>, goal: Goal) -> Figure {
        self.figure(what, self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs), goal)
    }

    /// The first side's speed divided by the second's: above 1 when the first is faster.
    pub(crate) fn speeds(&self, what: impl Into<String>, goal: Goal) -> Figure {
        self.figure(what, self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| theirs / ours), goal)
    }

    /// What an operation of the first side costs beyond one of the second's.
    pub(crate) fn costs(&self, what: impl Into<String>) -> Figure {
        let costs = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| (ours - theirs) * 1e9);
        Figure { unit: Unit::Nanoseconds, ..self.figure(what, costs, Goal::Reported) }
    }

    fn figure(&self, what: impl Into<String>, ratios: impl Iterator<Item = f64>, goal: Goal) -> Figure {
        let (spread, sides) = (Spread::of(ratios.collect()), sides(self));
        Figure { what: what.into(), spread, unit: Unit::Ratio, goal, sides }
    }
}

/// What an operation of each side took at the median.
fn sides(rounds: &Rounds) -> String {
    let show = |seconds: &[f64]| {
        let micros = Spread::of(seconds.to_vec()).median * 1e6;
        if micros < 1000.0 { format!("{micros:.2} µs") } else { format!("{:.2} ms", micros / 1e3) }
    };
    format!("{} : {}", show(&rounds.ours), show(&rounds.theirs))
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent + 50) / 100).copied().unwrap_or_default()
}
