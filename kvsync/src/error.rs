//! The one error of the crate: what failed, where, and whether a retry helps.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What kind of failure an [`Error`] is; it decides whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store or the database did not answer, or answered that it cannot serve now. A retry helps.
    Unavailable,
    /// A write was cut off before its answer: it may or may not have happened. Repeat it only where doing it twice is
    /// as doing it once: `set`, `delete`, `sadd`, `hset`, `zadd`, and all that kvsync itself writes for rows. `incr_by`,
    /// `zincr_by` and atomic writes may have been done already: read first what stands there. A repeated
    /// `set_if_absent` may find what the first one wrote.
    UnknownOutcome,
    /// The server understood and said no: wrong password, no right, value too large. A retry does not help.
    Rejected,
    /// Others wrote the same at the same time, and nothing was done. A retry helps.
    Contention,
    /// What stands under the key is of another kind than the command is for. A retry does not help.
    WrongType,
    /// Stored bytes are not what kvsync writes, or are damaged.
    Corrupt,
    /// The stored bytes have a layout that this version of kvsync does not know.
    UnknownLayout,
    /// A codec could not encode a model, or decode its stored bytes.
    Codec,
    /// The configuration cannot work as it stands.
    Config,
    /// The database refused, or its schema does not fit a model.
    Database,
    /// A statement cannot be captured and the policy says that this is an error.
    Capture,
    /// A deadline passed first.
    Deadline,
    /// The part that was asked has been shut down.
    Closed,
}

impl ErrorKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown outcome",
            Self::Rejected => "rejected",
            Self::Contention => "contention",
            Self::WrongType => "wrong type",
            Self::Corrupt => "corrupt entry",
            Self::UnknownLayout => "unknown layout",
            Self::Codec => "codec",
            Self::Config => "configuration",
            Self::Database => "database",
            Self::Capture => "not captured",
            Self::Deadline => "deadline passed",
            Self::Closed => "closed",
        }
    }
}

/// A failure of kvsync: its kind, one line for a person, and the cause it came from.
///
/// The text says what failed, where, and what to do. The cause is kept as
/// [`source`](StdError::source) and is not repeated in the text. Clones share the cause: one failure
/// may answer many steps.
#[derive(Clone)]
pub struct Error {
    // Shared, so that a clone is cheap and a `Result` stays one word wide on the paths that succeed.
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind. The message is lower case, one line, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Arc::new(Inner { kind, message: message.into(), source: None }) }
    }

    /// The same error with the failure that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(source.into().into());
        self
    }

    /// The same failure, which is of another kind where it was met.
    #[cfg(feature = "nats")]
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        Arc::make_mut(&mut self.inner).kind = kind;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call may succeed later without anyone changing anything. That it may be repeated is not said:
    /// after [`ErrorKind::UnknownOutcome`] it may have been done already, and an `incr_by` or an atomic write would be done
    /// twice. The layer `Retry` repeats what may be repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable | ErrorKind::UnknownOutcome | ErrorKind::Contention | ErrorKind::Deadline
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.kind.as_str(), self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error and its causes, on one line. What a cause only repeats is told once.
#[must_use]
pub fn failure_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let (mut last, mut cause) = (error, error.source());
    while let Some(error) = cause {
        let own = error.downcast_ref::<Error>();
        let same = own.filter(|own| last.downcast_ref::<Error>().is_some_and(|last| last.kind() == own.kind()));
        let told = one_line(&same.map_or_else(|| error.to_string(), |own| own.inner.message.to_string()));
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        (last, cause) = (error, error.source());
    }
    text
}

/// A text in which nothing stands between `://` and `@`. A factory of the application's may fail with its URL.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|character: char| character.is_whitespace() || "\"'`<>".contains(character));
        let (url, behind) = after.split_at(end.unwrap_or(after.len()));
        // A password may hold what stands behind it in a URL, an `@` not last of all.
        let (secret, shown) = url.rsplit_once('@').map_or(("", url), |(secret, shown)| (secret, shown));
        if !secret.is_empty() {
            out.push_str("***@");
        }
        out.push_str(shown);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// A text of another's, such as a driver's, without its line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_chained_and_not_pasted() {
        let error = Error::new(ErrorKind::Unavailable, "redis at 127.0.0.1:1 did not answer; is it running?")
            .with_source(std::io::Error::other("connection refused"));
        assert_eq!(error.to_string(), "unavailable: redis at 127.0.0.1:1 did not answer; is it running?");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("connection refused"));
        assert!(error.is_retryable());
    }

    #[test]
    fn a_text_with_causes_tells_each_once_and_on_one_line() {
        let io = std::io::Error::other("connection refused\n\tis it running?\n");
        let told = Error::new(ErrorKind::Unavailable, "redis did not answer").with_source(io);
        assert_eq!(failure_text(&told), "unavailable: redis did not answer: connection refused is it running?");
        let again = Error::new(ErrorKind::Unavailable, "the backfill stopped").with_source(told.clone());
        let wanted = "unavailable: the backfill stopped: redis did not answer: connection refused is it running?";
        assert_eq!(failure_text(&again), wanted, "the kind is told twice");
        let late = Error::new(ErrorKind::Deadline, "it took too long").with_source(told);
        let wanted =
            "deadline passed: it took too long: unavailable: redis did not answer: connection refused is it running?";
        assert_eq!(failure_text(&late), wanted, "another kind is not told");
        let twice = Error::new(ErrorKind::Codec, "no name").with_source(std::io::Error::other("no name"));
        assert_eq!(failure_text(&twice), "codec: no name");
    }

    #[test]
    fn no_password_is_told() {
        for (text, told) in [
            ("no redis at redis://user:pass@host:1/0; is it up?", "no redis at redis://***@host:1/0; is it up?"),
            ("`postgres://u:p@ss/w@h/db` and http://plain/x", "`postgres://***@h/db` and http://plain/x"),
            ("nothing here: a@b", "nothing here: a@b"),
        ] {
            assert_eq!(without_passwords(text), told);
        }
    }
}
