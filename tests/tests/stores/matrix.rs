//! Every store × every case: what became of each, printed when all has run.
//!
//! Without arguments it is a line for each store and the reasons why some cases do not apply; with
//! `--matrix` behind the `--` it is every cell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use kvsync::store::conformance::Verdict;
use parking_lot::Mutex;

/// What a trial of the matrix runs.
pub(crate) type Case = Box<dyn FnOnce() -> Verdict + Send>;

/// What is known so far of each cell. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Matrix(Arc<Mutex<Cells>>);

#[derive(Default)]
struct Cells {
    /// In the order in which they were declared.
    stores: Vec<String>,
    cases: Vec<String>,
    verdicts: BTreeMap<(String, String), Option<Verdict>>,
}

impl Matrix {
    /// A cell that has yet to run.
    pub(crate) fn declare(&self, store: &str, case: &str) {
        let mut cells = self.0.lock();
        let Cells { stores, cases, verdicts } = &mut *cells;
        for (names, name) in [(stores, store), (cases, case)] {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        verdicts.insert((store.to_owned(), case.to_owned()), None);
    }

    /// Notes what became of a cell.
    pub(crate) fn note(&self, store: &str, case: &str, verdict: &Verdict) {
        self.0.lock().verdicts.insert((store.to_owned(), case.to_owned()), Some(verdict.clone()));
    }

    /// A line for each store, and why cases did not apply. Begins and ends with a line by which `cargo xtask
    /// test` finds it.
    pub(crate) fn summary(&self) -> String {
        let cells = self.0.lock();
        let mut text = format!("-- stores × {} cases\n", cells.cases.len());
        let _ = writeln!(text, "  {:>6} {:>6} {:>6} {:>6}", "pass", "n/a", "FAIL", "unrun");
        let mut reasons: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
        for store in &cells.stores {
            let mut counts = [0; 4];
            for ((_, case), verdict) in cells.of(store) {
                let column = match verdict {
                    Some(Verdict::Passed) => 0,
                    Some(Verdict::NotApplicable(why)) => {
                        let (of_cases, of_stores) = reasons.entry(why).or_default();
                        of_cases.insert(case);
                        of_stores.insert(store);
                        1
                    }
                    Some(Verdict::Failed(_)) => 2,
                    None => 3,
                };
                counts[column] += 1;
            }
            let [pass, not_applicable, fail, unrun] = counts;
            let _ = writeln!(text, "  {pass:>6} {not_applicable:>6} {fail:>6} {unrun:>6}  {store}");
        }
        for (why, (cases, stores)) in reasons {
            let stores: Vec<&str> = stores.into_iter().collect();
            let _ = writeln!(text, "  n/a, {} cases, {why}: {}", cases.len(), stores.join(", "));
        }
        text + "-- end of stores × cases\n"
    }

    /// Every cell: a line for each case, a column for each store, and a footnote for each reason.
    pub(crate) fn full(&self) -> String {
        let cells = self.0.lock();
        let mut reasons: Vec<&str> = Vec::new();
        let mut text = String::new();
        for (number, store) in cells.stores.iter().enumerate() {
            let _ = writeln!(text, "{}{store}", "│ ".repeat(number));
        }
        for case in &cells.cases {
            for store in &cells.stores {
                let cell = match cells.verdicts.get(&(store.clone(), case.clone())) {
                    Some(Some(Verdict::Passed)) => "✓".to_owned(),
                    Some(Some(Verdict::Failed(_))) => "✗".to_owned(),
                    Some(Some(Verdict::NotApplicable(why))) => {
                        let known = reasons.iter().position(|known| known == why);
                        let place = known.unwrap_or_else(|| {
                            reasons.push(why);
                            reasons.len() - 1
                        });
                        char::from(b'a' + u8::try_from(place).unwrap_or(25).min(25)).to_string()
                    }
                    Some(None) => "?".to_owned(),
                    None => " ".to_owned(),
                };
                text += &cell;
                text += " ";
            }
            let _ = writeln!(text, " {case}");
        }
        text += "✓ pass, ✗ fail, ? not run; not applicable, because\n";
        for (letter, why) in ('a'..='z').zip(&reasons) {
            let _ = writeln!(text, "{letter} {why}");
        }
        text
    }
}

impl Cells {
    fn of<'a>(&'a self, store: &'a str) -> impl Iterator<Item = (&'a (String, String), &'a Option<Verdict>)> {
        self.verdicts.iter().filter(move |((of, _), _)| of == store)
    }
}
