//! What `cargo test` prints, counted.

use std::fmt;

/// The counts of every test binary that ran, and the stores × cases of the suite for stores.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    binaries: Vec<Binary>,
    ignored: Vec<String>,
    matrix: Vec<String>,
    in_matrix: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Binary {
    name: String,
    counts: Counts,
    /// A binary that crashes prints no result.
    finished: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Outcome {
    /// Takes in one line of the output.
    pub(crate) fn see(&mut self, line: &str) {
        let line = without_colours(line);
        self.in_matrix |= line.starts_with("-- stores ×");
        self.in_matrix &= line != "-- end of stores × cases";
        if self.in_matrix {
            self.matrix.push(line);
        } else if let Some(name) = started(&line) {
            self.binaries.push(Binary { name, ..Binary::default() });
        } else if let Some(name) = line.strip_prefix("test ").and_then(ignored) {
            self.ignored.push(name.to_owned());
        } else if let (Some(counts), Some(binary)) = (result(&line), self.binaries.last_mut()) {
            // Documentation tests of one crate may come in two groups, each with its result.
            binary.counts = binary.counts.plus(counts);
            binary.finished = true;
        }
    }

    /// What is wrong with this outcome, whatever cargo's exit status says.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let total = self.total();
        let mut complaints = Vec::new();
        if total.failed > 0 {
            complaints.push(format!("failed tests: {}", total.failed));
        }
        for binary in self.binaries.iter().filter(|binary| !binary.finished) {
            complaints.push(format!("{} ended without a result", binary.name));
        }
        if total.ignored > 0 {
            let names = self.ignored.join(", ");
            complaints.push(format!("ignored tests, where every test must run: {} ({names})", total.ignored));
        }
        if total.passed == 0 {
            complaints.push("no test passed".to_owned());
        }
        complaints
    }

    fn total(&self) -> Counts {
        self.binaries.iter().fold(Counts::default(), |total, binary| total.plus(binary.counts))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = Binary { name: "total".to_owned(), counts: self.total(), finished: true };
        writeln!(f, "  {:>7} {:>7} {:>7}", "passed", "failed", "ignored")?;
        for Binary { name, counts, finished } in self.binaries.iter().chain([&total]) {
            let Counts { passed, failed, ignored } = counts;
            let note = if *finished { "" } else { " (ended without a result)" };
            writeln!(f, "  {passed:>7} {failed:>7} {ignored:>7}  {name}{note}")?;
        }
        self.matrix.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

/// `     Running tests/stores.rs (target/debug/deps/stores-0123456789abcdef)` and `   Doc-tests kvsync` announce a binary.
/// Cargo sets these words flush right, in twelve columns.
fn started(line: &str) -> Option<String> {
    if let Some(krate) = line.strip_prefix("   Doc-tests ") {
        return Some(format!("{krate} (documentation)"));
    }
    let (source, path) = line.strip_prefix("     Running ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    Some(format!("{name} ({source})"))
}

/// `stores::put ... ignored` and `stores::put ... ignored, why`.
fn ignored(line: &str) -> Option<&str> {
    let (name, verdict) = line.split_once(" ... ")?;
    verdict.starts_with("ignored").then_some(name)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn result(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| -> Option<usize> {
        counts.split("; ").find_map(|count| count.strip_suffix(what)?.trim_end().parse().ok())
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

/// The line without escape sequences such as `ESC [ 1 m`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut pieces = line.split("\u{1b}[");
    plain.extend(pieces.next());
    for piece in pieces {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).map_or(piece.len(), |at| at + 1);
        plain.extend(piece.get(end..));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Counts, Outcome};

    fn seen(output: &str) -> Outcome {
        let mut outcome = Outcome::default();
        output.lines().for_each(|line| outcome.see(line));
        outcome
    }

    #[test]
    fn counts_are_summed_over_binaries_and_named() {
        let outcome = seen(
            "   Compiling kvsync v0.1.0\n\
             \u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/kvsync_derive-0123abc)\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n     \
             Running tests/stores.rs (/elsewhere/debug/deps/stores-0123)\n\
             test result: \u{1b}[32mok\u{1b}[0m. 10 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out\n   \
             Doc-tests kvsync\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(outcome.total(), Counts { passed: 16, failed: 0, ignored: 0 });
        assert!(outcome.complaints().is_empty());
        let names: Vec<&str> = outcome.binaries.iter().map(|binary| binary.name.as_str()).collect();
        assert_eq!(
            names,
            ["kvsync_derive (unittests src/lib.rs)", "stores (tests/stores.rs)", "kvsync (documentation)"]
        );
        assert!(outcome.to_string().ends_with("       16       0       0  total\n"), "{outcome}");
    }

    #[test]
    fn failures_ignored_tests_and_crashes_are_complaints() {
        let outcome = seen(
            "     Running tests/a.rs (target/debug/deps/a-1)\n\
             test slow::one ... ignored, too slow\n\
             test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n     \
             Running tests/b.rs (target/debug/deps/b-2)\n\
             thread 'main' has overflowed its stack\n",
        );
        assert_eq!(
            outcome.complaints(),
            [
                "failed tests: 2",
                "b (tests/b.rs) ended without a result",
                "ignored tests, where every test must run: 1 (slow::one)",
            ]
        );
    }

    #[test]
    fn the_matrix_of_stores_is_shown_again() {
        let printed = "-- stores × 2 cases\n       1      1      0      0  memory\n";
        let outcome = seen(&format!("before\n{printed}-- end of stores × cases\nafter\n"));
        assert!(outcome.to_string().ends_with(printed), "{outcome}");
    }

    #[test]
    fn a_filter_that_matches_nothing_is_a_complaint() {
        assert_eq!(seen("").complaints(), ["no test passed"]);
    }
}
