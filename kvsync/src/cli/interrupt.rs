//! Ctrl-C, for what can stop in good order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// While it is held, a first SIGINT or SIGTERM is remembered; a second one ends the program as without this.
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(super) fn listen() -> Self {
        static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
        let asked = ASKED.get_or_init(|| {
            let asked = Arc::new(AtomicBool::new(true));
            for signal in [SIGINT, SIGTERM] {
                // In this order: the first time, the flag is not set yet when it is asked for.
                let heard = flag::register_conditional_default(signal, Arc::clone(&asked))
                    .and_then(|_| flag::register(signal, Arc::clone(&asked)));
                if let Err(error) = heard {
                    tracing::warn!(%error, signal, "a signal cannot be listened to");
                }
            }
            asked
        });
        asked.store(false, Ordering::Release);
        Self(Arc::clone(asked))
    }

    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
