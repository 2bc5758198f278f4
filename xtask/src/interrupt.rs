//! Ctrl-C and its like: noted once, so that servers are stopped in order; a second one ends the process at once, and
//! then the watchdogs stop the servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use xtask::{Error, Result};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Listens from now on.
pub(crate) fn listen() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the flag is looked at before this signal sets it.
        register_conditional_shutdown(signal, 130, Arc::clone(&REQUESTED))
            .and_then(|_| register(signal, Arc::clone(&REQUESTED)))
            .map_err(|error| Error::new(format!("cannot listen for signal {signal}: {error}")))?;
    }
    Ok(())
}

/// Whether the user wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error if the user wants to stop.
pub(crate) fn check() -> Result<()> {
    if requested() { Err(Error::new("interrupted")) } else { Ok(()) }
}
