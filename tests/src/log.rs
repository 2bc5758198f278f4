//! What is logged by `tracing`, to look into.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Level, span};

/// Every event and span, one a line: its level and its fields.
#[derive(Clone, Default)]
pub struct Log {
    text: Arc<Mutex<String>>,
    /// Whether what operators read is all that is kept: the warnings and lines of kvsync.
    brief: bool,
}

/// What kvsync logs for operators in this process, of all its tests, from the first call on.
pub fn of_operators() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log { brief: true, ..Log::default() };
        // Where there is another log, this one stays empty, and the tests that read it fail.
        let _ = tracing::subscriber::set_global_default(log.clone());
        log
    })
}

impl Log {
    /// The lines with all of these words in them.
    #[must_use]
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = self.text();
        text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    }

    /// What was logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.lock().clone()
    }

    fn line(&self, level: Level, record: impl FnOnce(&mut Fields<'_>)) {
        let mut text = self.text.lock();
        text.push_str(level.as_str());
        record(&mut Fields(&mut text));
        text.push('\n');
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, of: &tracing::Metadata<'_>) -> bool {
        !self.brief || (of.target().starts_with("kvsync") && of.level() <= &Level::INFO && of.is_event())
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        self.line(*attributes.metadata().level(), |fields| attributes.record(fields));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        self.line(Level::TRACE, |fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.line(*event.metadata().level(), |fields| event.record(fields));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes whatever is written.
        let _ = write!(self.0, " {field}={value:?}");
    }
}
