//! Progress on the standard error: a bar with rate and time left on a terminal, a line now and then elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINES: Duration = Duration::from_secs(10);

/// A bar that is gone when it is dropped.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Bar {
    /// One that shows nothing unless `shown`.
    pub(super) fn new(shown: bool) -> Self {
        Self { bar: shown.then(ProgressBar::no_length), said: Instant::now() }
    }

    /// So many of so many are done; and what else is to be said.
    pub(super) fn at(&mut self, what: &str, done: u64, of: Option<u64>, message: String) {
        let Some(bar) = &self.bar else { return };
        if bar.is_hidden() {
            if self.said.elapsed() >= LINES {
                self.said = Instant::now();
                let of = of.map_or_else(String::new, |of| format!(" of about {of}"));
                // Nobody may be listening any more.
                let _ = writeln!(std::io::stderr(), "{what}: {done}{of} {message}");
            }
            return;
        }
        if let Some(of) = of {
            bar.set_length(of.max(done));
        }
        if bar.prefix() != what {
            let template = if of.is_some() {
                "{prefix} [{bar:20}] {pos} of {len}, {rate}/s, {eta} {wide_msg}"
            } else {
                "{prefix} {pos}, {rate}/s {wide_msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.with_key("rate", rate));
            }
            bar.reset();
            bar.set_prefix(what.to_owned());
        }
        bar.set_message(message);
        bar.set_position(done);
    }
}

fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A driver of terminals has nowhere to tell of it.
    let _ = write!(out, "{:.0}", state.per_sec());
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
