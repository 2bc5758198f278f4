//! Progress bars, with rate and time left; on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is gone when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// One that shows nothing unless `shown`.
    pub(super) fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self(ProgressBar::with_draw_target(None, target))
    }

    /// So many of so many are done.
    pub(super) fn at(&self, what: &str, done: u64, of: Option<u64>) {
        if self.0.prefix() != what {
            self.0.reset();
            self.0.set_prefix(what.to_owned());
        }
        let template = if of.is_some() {
            "{prefix} [{bar:30}] {pos} of {len}, {per_sec}, {eta} left {msg}"
        } else {
            "{prefix} {pos}, {per_sec} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        if let Some(of) = of {
            self.0.set_length(of.max(done));
        }
        self.0.set_position(done);
    }

    /// What else is to be said beside it.
    pub(super) fn say(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
