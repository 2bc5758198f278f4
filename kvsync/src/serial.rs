//! How times, errors and names are serialised where serde has no form for them, or not the one that programs expect:
//! for `#[serde(serialize_with)]`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::clock::{millis, whole_millis};
use crate::error::{Error, failure_text, without_passwords};

/// What is serialised as whole milliseconds, in a field whose name ends with `_ms`.
pub(crate) trait Millis {
    /// How many; `None` where there is no time.
    fn millis(&self) -> Option<u64>;
}

impl Millis for Duration {
    fn millis(&self) -> Option<u64> {
        Some(whole_millis(*self))
    }
}

impl Millis for SystemTime {
    fn millis(&self) -> Option<u64> {
        Some(millis(*self))
    }
}

impl<T: Millis> Millis for Option<T> {
    fn millis(&self) -> Option<u64> {
        self.as_ref().and_then(Millis::millis)
    }
}

/// A time, in whole milliseconds.
pub(crate) fn in_millis<S: Serializer>(time: &impl Millis, serializer: S) -> Result<S::Ok, S::Error> {
    time.millis().serialize(serializer)
}

/// An error: its text and those of its causes, without passwords.
#[expect(clippy::ref_option, reason = "it is called with a reference to the field")]
pub(crate) fn in_words<S: Serializer>(error: &Option<Arc<Error>>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(|error| without_passwords(&failure_text(&**error))).serialize(serializer)
}

/// A name that is shared.
pub(crate) fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
