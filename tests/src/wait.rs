//! Waiting for what another thread, process or server does.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that should happen, on a slow and busy machine that stands still for a while.
pub const LONG: Duration = Duration::from_mins(5);

/// Waits until something is so.
///
/// # Panics
/// When it is not so after [`LONG`].
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {LONG:?}, and never: {what}");
        // Whoever is waited for needs the processor too.
        thread::sleep(Duration::from_millis(1));
    }
}
