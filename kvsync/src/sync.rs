//! The locks, flags, threads and waits of what runs concurrently: those of `parking_lot`, crossbeam and the standard
//! library, or, with `--cfg kvsync_shuttle`, shuttle's with the same methods, so that models of it run under
//! chosen schedules.

#[cfg(not(kvsync_shuttle))]
pub(crate) use self::real::{is_dropped, receive};
#[cfg(not(kvsync_shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(kvsync_shuttle))]
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(kvsync_shuttle))]
pub(crate) use std::thread;

#[cfg(kvsync_shuttle)]
pub(crate) use self::model::{Condvar, Mutex, MutexGuard, is_dropped, receive};
#[cfg(kvsync_shuttle)]
pub(crate) use shuttle::sync::atomic::AtomicBool;
#[cfg(kvsync_shuttle)]
pub(crate) use shuttle::thread;

#[cfg(not(kvsync_shuttle))]
mod real {
    use std::convert::Infallible;
    use std::time::{Duration, Instant};

    use crossbeam_channel::{Receiver, RecvTimeoutError, at, never, select_biased};

    /// Waits this long for the other side of a channel to be dropped. Whether it was.
    pub(crate) fn is_dropped(channel: &Receiver<Infallible>, within: Duration) -> bool {
        matches!(channel.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
    }

    /// Waits for a message until the other side of `open` is dropped, or the deadline has passed.
    pub(crate) fn receive<T>(open: &Receiver<()>, messages: &Receiver<T>, until: Option<Instant>) -> Option<T> {
        let timeout = until.map_or_else(never, at);
        select_biased! {
            recv(open) -> _ => None,
            recv(messages) -> got => got.ok(),
            recv(timeout) -> _ => None,
        }
    }
}

#[cfg(kvsync_shuttle)]
pub(crate) mod model {
    use std::convert::Infallible;
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::{Duration, Instant};

    use crossbeam_channel::{Receiver, TryRecvError};
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::thread::yield_now;
    use shuttle::{Config, MaxSteps, Runner, sync};

    /// A deadline as far away as this never passes in a model; a nearer one passes whenever the schedule likes.
    pub(crate) const NEVER: Duration = Duration::from_secs(10);

    /// A deadline that never passes: who waits for it waits for a notification, and hangs without one.
    pub(crate) fn never() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    /// A deadline that may pass at any moment.
    pub(crate) fn soon() -> Instant {
        Instant::now()
    }

    /// Runs a model under schedules of two kinds: random ones, and those that find bugs of few preemptions.
    pub(crate) fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
        explore_some(2000, model);
    }

    /// The same under fewer schedules.
    pub(crate) fn explore_some(schedules: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
        let config = || {
            let mut config = Config::new();
            // Whoever waits in vain does not end.
            config.max_steps = MaxSteps::FailAfter(200_000);
            config.stack_size = 1 << 20;
            config
        };
        Runner::new(RandomScheduler::new(schedules), config()).run(model.clone());
        Runner::new(PctScheduler::new(3, schedules), config()).run(model);
    }

    /// As outside of models: waits until the other side is dropped.
    pub(crate) fn is_dropped(channel: &Receiver<Infallible>, within: Duration) -> bool {
        loop {
            if channel.try_recv() == Err(TryRecvError::Disconnected) {
                return true;
            }
            if within < NEVER && thread_rng().gen_bool(0.5) {
                return false;
            }
            yield_now();
        }
    }

    /// As outside of models: waits for a message. Channels are not modelled: it looks again and again.
    pub(crate) fn receive<T>(open: &Receiver<()>, messages: &Receiver<T>, until: Option<Instant>) -> Option<T> {
        loop {
            if open.try_recv() == Err(TryRecvError::Disconnected) {
                return None;
            }
            if let Ok(message) = messages.try_recv() {
                return Some(message);
            }
            if until.is_some_and(is_near) && thread_rng().gen_bool(0.5) {
                return None;
            }
            yield_now();
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// A lock that is held; without its guard only while a condition is waited for.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        lock: &'a sync::Mutex<T>,
        held: Option<sync::MutexGuard<'a, T>>,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(sync::Condvar);

    pub(crate) struct WaitTimeoutResult(bool);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { lock: &self.0, held: Some(lock(&self.0)) }
        }

        pub(crate) fn try_lock_until(&self, deadline: Instant) -> Option<MutexGuard<'_, T>> {
            if is_near(deadline) && thread_rng().gen_bool(0.5) {
                let held = self.0.try_lock().ok()?;
                return Some(MutexGuard { lock: &self.0, held: Some(held) });
            }
            Some(self.lock())
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.held = guard.held.take().map(|held| self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
            if !is_near(deadline) {
                self.wait(guard);
                return WaitTimeoutResult(false);
            }
            // Others run before it is over: by the deadline, or woken for a reason or for none.
            guard.held = None;
            yield_now();
            guard.held = Some(lock(guard.lock));
            WaitTimeoutResult(thread_rng().gen_bool(0.5))
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(&self) -> bool {
            self.0
        }
    }

    #[expect(clippy::expect_used, reason = "it is absent only inside of a wait, which holds the guard alone")]
    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.held.as_ref().expect("a guard that is held")
        }
    }

    #[expect(clippy::expect_used, reason = "as above")]
    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_mut().expect("a guard that is held")
        }
    }

    fn lock<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_near(deadline: Instant) -> bool {
        deadline < Instant::now() + NEVER
    }
}
