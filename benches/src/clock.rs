//! The clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whose time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The processor time of the calling thread: what other threads and other programs do does not count.
    Thread,
    /// The processor time of all threads of this process, the bridge to asynchronous clients among them.
    Process,
    /// The time on the wall: waiting counts.
    Wall,
}

impl Clock {
    /// The time since some fixed moment.
    pub(crate) fn now(self) -> Duration {
        let time = clock_gettime(match self {
            Self::Thread => ClockId::ThreadCPUTime,
            Self::Process => ClockId::ProcessCPUTime,
            Self::Wall => ClockId::Monotonic,
        });
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    /// How the table names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thread | Self::Process => "cpu",
            Self::Wall => "wall",
        }
    }
}
