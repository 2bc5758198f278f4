//! The bridge to clients that are asynchronous: one runtime for the whole life of their connections.
//!
//! Stores and transports are synchronous, their callers block. A client that is asynchronous needs a runtime
//! that lives as long as its connections do, whoever calls it, also from a thread of another runtime. All such
//! clients of a process share one.
//!
//! Whoever calls drives the runtime meanwhile: to hand each call to another thread and back costs as much as a
//! server nearby takes to answer. When nobody has called for a moment, a named thread drives what goes on beside,
//! until the next one calls. Where several call at once, one of them drives for all. Who calls on a thread of another
//! runtime must not drive this one: the thread does it for them.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// How long the end of the bridge waits for what cannot be cancelled, such as a lookup of a name.
const LINGER: Duration = Duration::from_secs(1);

/// How long nobody has called when the thread drives again.
const QUIET: Duration = Duration::from_millis(5);

/// The bridge of this process, as long as somebody holds it.
static SHARED: Mutex<Weak<Bridge>> = Mutex::new(Weak::new());

thread_local! {
    /// Whether this thread drives a bridge, and would wait for itself if it called one.
    static DRIVES: Cell<bool> = const { Cell::new(false) };
}

/// A runtime and the thread that drives it between calls. When the last one who holds it lets go, what still runs on
/// it is cancelled, and the thread is joined.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Nothing only at its end: the thread shuts it down, which has to hold it alone then.
    runtime: Option<Arc<Runtime>>,
    handle: Handle,
    turns: Arc<Turns>,
    thread: Option<JoinHandle<()>>,
}

/// Why a future has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It was cancelled at its deadline. A write may have been done.
    Deadline,
    /// It panicked. A write may have been done.
    Panic,
    /// It was never begun: it was asked for by what runs on the bridge itself, which it would have blocked.
    OwnThread,
}

/// What callers and the thread tell each other, so that one of them drives.
#[derive(Debug, Default)]
struct Turns {
    /// How many calls have begun and ended.
    calls: AtomicU64,
    /// Whether the thread drives, or waits to.
    thread_drives: AtomicBool,
    /// A caller is there, or the end: the thread lets go.
    let_go: Notify,
    /// How many wait for what the thread drives for them. It lets go for nobody until they have their answers.
    handed: AtomicUsize,
    /// Something was begun that no caller waits for.
    needed: AtomicBool,
    stop: AtomicBool,
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
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build().map_err(no_thread)?);
        let handle = runtime.handle().clone();
        let turns = Arc::new(Turns::default());
        let drive = {
            let (runtime, turns) = (Arc::clone(&runtime), Arc::clone(&turns));
            move || turns.drive(runtime)
        };
        let thread = thread::Builder::new().name("kvsync-bridge".to_owned()).spawn(drive).map_err(no_thread)?;
        Ok(Self { runtime: Some(runtime), handle, turns, thread: Some(thread) })
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
        if DRIVES.get() {
            return Err(Cut::OwnThread);
        }
        match &self.runtime {
            // A thread of another runtime must not drive this one.
            Some(runtime) if Handle::try_current().is_err() => self.turns.call(runtime, deadline, work),
            _ => self.hand_over(deadline, work),
        }
    }

    /// Runs a future on the bridge, and waits for nothing: for what goes on beside the calls.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
        self.turns.needed.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the thread run a future, and waits for its answer.
    fn hand_over<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Cut> {
        let (answer, answered) = mpsc::sync_channel(1);
        let task = self.handle.spawn(async move {
            // Nobody listens any more once the deadline has passed.
            let _ = answer.send(work.await);
        });
        self.turns.handed.fetch_add(1, Ordering::SeqCst);
        self.wake();
        let answer = answered.recv_timeout(deadline);
        self.turns.handed.fetch_sub(1, Ordering::SeqCst);
        answer.map_err(|missing| match missing {
            RecvTimeoutError::Timeout => {
                task.abort();
                Cut::Deadline
            }
            RecvTimeoutError::Disconnected => Cut::Panic,
        })
    }

    /// Has the thread look at once whether it has to drive.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Turns {
    /// Drives the runtime until a future has ended.
    fn call<T>(&self, runtime: &Runtime, deadline: Duration, work: impl Future<Output = T>) -> Result<T, Cut> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // The thread may begin to drive just now: then it does until the next call, which is slower and no more.
        if self.thread_drives.load(Ordering::Relaxed) && self.handed.load(Ordering::SeqCst) == 0 {
            self.let_go.notify_one();
        }
        DRIVES.set(true);
        let ended =
            catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { tokio::time::timeout(deadline, work).await })));
        DRIVES.set(false);
        self.calls.fetch_add(1, Ordering::Relaxed);
        match ended {
            Ok(answer) => answer.map_err(|_| Cut::Deadline),
            Err(_) => Err(Cut::Panic),
        }
    }

    /// Drives whenever nobody calls, until the end.
    fn drive(&self, runtime: Arc<Runtime>) {
        DRIVES.set(true);
        while !self.stop.load(Ordering::Acquire) {
            self.thread_drives.store(true, Ordering::Relaxed);
            runtime.block_on(self.let_go.notified());
            self.thread_drives.store(false, Ordering::Relaxed);
            self.wait_for_quiet();
        }
        // Whoever told it to stop has let go of the runtime before.
        if let Some(runtime) = Arc::into_inner(runtime) {
            runtime.shutdown_timeout(LINGER);
        }
    }

    /// Waits until no call has begun or ended for a moment, or somebody waits for the thread.
    fn wait_for_quiet(&self) {
        loop {
            let before = self.calls.load(Ordering::Relaxed);
            thread::park_timeout(QUIET);
            let quiet = self.calls.load(Ordering::Relaxed) == before;
            let waited_for = self.handed.load(Ordering::SeqCst) > 0 || self.needed.swap(false, Ordering::Acquire);
            if waited_for || quiet || self.stop.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.runtime = None;
        self.turns.stop.store(true, Ordering::Release);
        self.turns.let_go.notify_one();
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let own = thread.thread().id() == thread::current().id();
        if !own && thread.join().is_err() {
            tracing::error!("the thread kvsync-bridge panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

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
    fn many_call_at_once_also_from_another_runtime() {
        let bridge = Bridge::start().unwrap();
        let bridge = &bridge;
        thread::scope(|scope| {
            for caller in 0..8 {
                let calls = move || {
                    for call in 0..200 {
                        let (ask, asked) = oneshot::channel();
                        bridge.spawn(async move { ask.send(caller * 1000 + call).unwrap() });
                        let answer = bridge.run(LONG, async { asked.await.unwrap() });
                        assert_eq!(answer, Ok(caller * 1000 + call));
                    }
                };
                scope.spawn(move || match caller % 2 {
                    0 => calls(),
                    _ => Builder::new_current_thread().build().unwrap().block_on(async { calls() }),
                });
            }
        });
    }

    #[test]
    fn a_call_goes_on_while_others_come_and_go() {
        let bridge = Bridge::start().unwrap();
        let bridge = &bridge;
        thread::scope(|scope| {
            scope.spawn(|| (0..20_000).for_each(|_| assert_eq!(bridge.run(LONG, async {}), Ok(()))));
            let sleeps = || bridge.run(LONG, async { tokio::time::sleep(Duration::from_millis(1)).await });
            let other = Builder::new_current_thread().build().unwrap();
            for _ in 0..50 {
                assert_eq!(sleeps(), Ok(()));
                assert_eq!(other.block_on(async { sleeps() }), Ok(()));
            }
        });
    }

    #[test]
    fn what_goes_on_beside_goes_on_when_the_callers_have_left() {
        let bridge = Bridge::start().unwrap();
        let (told, heard) = mpsc::channel();
        let beside = async move {
            for beat in 0..3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                told.send(beat).unwrap();
            }
        };
        // It begins on a caller's thread.
        bridge.run(LONG, async { drop(tokio::spawn(beside)) }).unwrap();
        for beat in 0..3 {
            assert_eq!(heard.recv_timeout(LONG), Ok(beat));
        }
    }

    #[test]
    fn what_runs_on_it_is_not_blocked_by_it() {
        let bridge = Arc::new(Bridge::start().unwrap());
        let inner = Arc::clone(&bridge);
        let asked = Arc::clone(&inner);
        let asked = bridge.run(LONG, async move { asked.run(LONG, async {}) });
        assert_eq!(asked, Ok(Err(Cut::OwnThread)));
        let (told, heard) = mpsc::channel();
        bridge.spawn(async move { told.send(inner.run(LONG, async {})).unwrap() });
        assert_eq!(heard.recv_timeout(LONG), Ok(Err(Cut::OwnThread)));
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
