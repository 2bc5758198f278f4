use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::store::{Capabilities, SyncStore};
use crate::transport::{Broker, MessageFormat};

/// Where the changes of a lane go.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// They are written into it.
    Store(Arc<dyn SyncStore>),
    /// Each is published, and is dealt with once the broker has confirmed it.
    Broker(Arc<dyn Broker>, MessageFormat),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Store(store) => store.name(),
            Self::Broker(broker, _) => broker.name(),
        }
    }

    /// What a change has to fit. How large a message becomes is seen when there is one.
    pub(crate) fn capabilities(&self) -> Capabilities {
        match self {
            Self::Store(store) => store.capabilities(),
            Self::Broker(..) => Capabilities::new(usize::MAX, usize::MAX, usize::MAX),
        }
    }

    /// Whether an answer says nothing about the change that it was given for, which is then told again for as long as it
    /// takes. A broker refuses one message for what it is; whatever else it says, it says to all of them.
    pub(crate) fn is_outage(&self, error: &Error) -> bool {
        match self {
            Self::Store(_) => error.is_retryable(),
            Self::Broker(..) => error.kind() != ErrorKind::Rejected,
        }
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn SyncStore>> {
        if let Self::Store(store) = self { Some(store) } else { None }
    }

    pub(crate) fn broker(&self) -> Option<(&Arc<dyn Broker>, MessageFormat)> {
        if let Self::Broker(broker, format) = self { Some((broker, *format)) } else { None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(store) => write!(f, "the store `{}`", store.name()),
            Self::Broker(broker, _) => write!(f, "the broker `{}`", broker.name()),
        }
    }
}
