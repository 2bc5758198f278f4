//! Ctrl-C, for what can stop in good order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How long after the first signal a second one ends the program. Those that stop others, such as `timeout`, send
/// one to the process and one to its group.
const TWICE: Duration = Duration::from_millis(500);

/// While it is held, a SIGINT or SIGTERM is remembered; another one, a moment later, ends the program at once.
pub(super) struct Interrupt {
    held: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Flags {
    asked: Arc<AtomicBool>,
    /// Whether a signal ends the program, as it does without this.
    ends: Arc<AtomicBool>,
}

static FLAGS: LazyLock<Flags> = LazyLock::new(|| {
    let flags = Flags { asked: Arc::default(), ends: Arc::default() };
    for signal in [SIGINT, SIGTERM] {
        let heard = flag::register_conditional_default(signal, Arc::clone(&flags.ends))
            .and_then(|_| flag::register(signal, Arc::clone(&flags.asked)));
        if let Err(error) = heard {
            tracing::warn!(%error, signal, "a signal cannot be listened to");
        }
    }
    flags
});

impl Interrupt {
    pub(super) fn listen() -> Self {
        FLAGS.asked.store(false, Ordering::Release);
        FLAGS.ends.store(false, Ordering::Release);
        let (held, dropped) = bounded::<()>(0);
        let watch = move || {
            while dropped.recv_timeout(TWICE / 5) == Err(RecvTimeoutError::Timeout) {
                if FLAGS.asked.load(Ordering::Acquire) {
                    let _ = dropped.recv_timeout(TWICE);
                    FLAGS.ends.store(true, Ordering::Release);
                }
            }
        };
        // Without the thread a second signal does no more than the first.
        let thread = thread::Builder::new().name("kvsync-interrupt".to_owned()).spawn(watch).ok();
        Self { held: Some(held), thread }
    }

    pub(super) fn came() -> bool {
        FLAGS.asked.load(Ordering::Acquire)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.held = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        FLAGS.ends.store(true, Ordering::Release);
    }
}
