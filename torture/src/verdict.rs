//! What was found wrong, counted.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

/// A way in which the store was not the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// A key answers with an older content of its row.
    Stale,
    /// What was rolled back can be seen.
    Ghost,
    /// A row answers under a key that it has left, or that never was its own.
    Orphan,
    /// A row that was deleted answers.
    Resurrected,
    /// A reader saw a key step back.
    Backwards,
    /// A key of a row does not answer. With a process that was killed: whatever it took with it.
    Lost,
}

/// How often each was found. A finding counts once, however often it is seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    found: HashSet<(Wrong, String)>,
    counts: [usize; 6],
    /// What a kill explains; it counts as lost, and has to be gone after the repair.
    excused: usize,
}

/// How many findings are told in full.
const TOLD: usize = 40;

impl Verdict {
    /// Counts what a kill explains, without a word.
    pub(crate) fn excuse(&mut self, about: String) {
        self.excused += usize::from(self.found.insert((Wrong::Lost, about)));
    }

    /// Counts a finding. `about` says what it is about, the same words for the same finding.
    pub(crate) fn find(&mut self, wrong: Wrong, about: String, detail: impl FnOnce() -> String) {
        if self.found.contains(&(wrong, about.clone())) {
            return;
        }
        if self.found.len() < TOLD {
            println!("  {wrong:?}: {about}: {}", detail());
        }
        if let Some(count) = self.counts.get_mut(wrong as usize) {
            *count += 1;
        }
        self.found.insert((wrong, about));
    }

    /// How often this was found.
    fn count(&self, wrong: Wrong) -> usize {
        let excused = if wrong == Wrong::Lost { self.excused } else { 0 };
        self.counts.get(wrong as usize).copied().unwrap_or(0) + excused
    }

    /// Adds what another found.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.excused += other.excused;
    }

    /// What the findings are about.
    pub(crate) fn abouts(&self) -> BTreeSet<String> {
        self.found.iter().map(|(_, about)| about.clone()).collect()
    }

    /// Whether nothing was found.
    pub(crate) fn is_clean(&self) -> bool {
        self.excused == 0 && self.counts == [0; 6]
    }

    /// What no kill explains.
    pub(crate) fn unexcused(&self) -> Self {
        Self { excused: 0, ..self.clone() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [Wrong::Stale, Wrong::Ghost, Wrong::Orphan, Wrong::Resurrected, Wrong::Backwards, Wrong::Lost];
        for (place, wrong) in all.into_iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{}={}", format!("{wrong:?}").to_lowercase(), self.count(wrong))?;
        }
        Ok(())
    }
}
