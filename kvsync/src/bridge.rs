//! The bridge to clients that are asynchronous: a named thread that drives one runtime for its whole life.
//!
//! Stores and transports are synchronous, their callers block. A client that is asynchronous needs a runtime
//! that lives as long as its connections do, whoever calls it, also from a thread of another runtime. This
//! thread has it. All such clients of a process share one: what they do is to wait for a network.

use std::future::Future;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// How long the end of the bridge waits for what cannot be cancelled, such as a lookup of a name.
const LINGER: Duration = Duration::from_secs(1);

/// The bridge of this process, as long as somebody holds it.
static SHARED: Mutex<Weak<Bridge>> = Mutex::new(Weak::new());

/// A thread with a runtime. When the last one who holds it lets go, what still runs on it is cancelled, and
/// the thread is joined.
#[derive(Debug)]
pub(crate) struct Bridge {
    runtime: Handle,
    driver: ThreadId,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a future has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It was cancelled at its deadline. A write may have been done.
    Deadline,
    /// It panicked. A write may have been done.
    Panic,
    /// It was never begun: it was asked for on the bridge's own thread, which it would have blocked.
    OwnThread,
}

impl Bridge {
    /// The bridge of this process, started if there is none.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock();
        if let Some(bridge) = shared.upgrade() {
            return Ok(bridge);
        }
        let bridge = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&bridge);
        Ok(bridge)
    }

    fn start() -> Result<Self> {
        let no_thread = |error: std::io::Error| {
            let message = "the system gave no thread for the clients that are asynchronous; raise its limits";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let drive = move || drive(runtime, stopped);
        let thread = thread::Builder::new().name("kvsync-bridge".to_owned()).spawn(drive).map_err(no_thread)?;
        Ok(Self { runtime: handle, driver: thread.thread().id(), stop: Some(stop), thread: Some(thread) })
    }

    /// Runs a future on the bridge and blocks until it has ended, or was cancelled at its deadline.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Cut> {
        if thread::current().id() == self.driver {
            return Err(Cut::OwnThread);
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let task = self.runtime.spawn(async move {
            // Nobody listens any more once the deadline has passed.
            let _ = answer.send(work.await);
        });
        answered.recv_timeout(deadline).map_err(|missing| match missing {
            RecvTimeoutError::Timeout => {
                task.abort();
                Cut::Deadline
            }
            RecvTimeoutError::Disconnected => Cut::Panic,
        })
    }

    /// Runs a future on the bridge, and waits for nothing: for what goes on beside the calls.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        let own = thread::current().id() == self.driver;
        if let Some(thread) = self.thread.take().filter(|_| !own)
            && thread.join().is_err()
        {
            tracing::error!("the thread kvsync-bridge panicked");
        }
    }
}

fn drive(runtime: Runtime, stopped: oneshot::Receiver<()>) {
    // Ends by the word, and also when the bridge is gone without one.
    let _ = runtime.block_on(stopped);
    runtime.shutdown_timeout(LINGER);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_mins(2);

    #[test]
    fn an_answer_comes_back_also_to_a_thread_of_another_runtime() {
        let bridge = Bridge::shared().unwrap();
        assert_eq!(bridge.run(LONG, async { 7 }), Ok(7));
        let other = Builder::new_current_thread().build().unwrap();
        assert_eq!(other.block_on(async { bridge.run(LONG, async { 8 }) }), Ok(8));
    }

    #[test]
    fn what_is_cut_off_is_told_and_stops() {
        let bridge = Bridge::start().unwrap();
        let dropped = Arc::new(AtomicBool::new(false));
        let told = OnDrop(Arc::clone(&dropped));
        let never = async move {
            let _told = told;
            std::future::pending::<()>().await;
        };
        assert_eq!(bridge.run(Duration::from_millis(1), never), Err(Cut::Deadline));
        assert_eq!(bridge.run(LONG, panics()), Err(Cut::Panic));
        assert_eq!(bridge.run(LONG, async { "it goes on" }), Ok("it goes on"));
        drop(bridge);
        assert!(dropped.load(Ordering::SeqCst));
    }

    #[test]
    fn its_own_thread_is_not_blocked() {
        let bridge = Arc::new(Bridge::start().unwrap());
        let inner = Arc::clone(&bridge);
        let asked = bridge.run(LONG, async move { inner.run(LONG, async {}) });
        assert_eq!(asked, Ok(Err(Cut::OwnThread)));
    }

    #[test]
    fn the_last_one_who_lets_go_ends_it_wherever_that_is() {
        let bridge = Arc::new(Bridge::start().unwrap());
        let (held, (told, ended)) = (Arc::clone(&bridge), mpsc::channel());
        let (go, gone) = oneshot::channel::<()>();
        bridge.spawn(async move {
            let _ = gone.await;
            drop(held);
            told.send(()).unwrap();
        });
        drop(bridge);
        go.send(()).unwrap();
        ended.recv_timeout(LONG).unwrap();
    }

    async fn panics() {
        std::future::ready(()).await;
        panic!("on purpose");
    }

    struct OnDrop(Arc<AtomicBool>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}
