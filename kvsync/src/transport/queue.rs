//! The queue inside the process.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select_biased, unbounded};
use parking_lot::{Condvar, Mutex};

use super::{Delivery, Depth, Origin, Part, Transport};

/// A queue in memory, bounded in bytes. What it holds is lost with the process.
///
/// A part that is larger than the bound is taken when the queue is empty.
pub struct Queue {
    shared: Arc<Shared>,
    parts: Receiver<(Part, u32)>,
    closed: Receiver<()>,
}

struct Shared {
    state: Mutex<State>,
    room: Condvar,
    limit: usize,
    parts: Sender<(Part, u32)>,
}

struct State {
    depth: Depth,
    /// Dropped when the queue is closed, so that every receiver wakes.
    open: Option<Sender<()>>,
}

impl Queue {
    /// A queue that holds at most this many bytes of changes, as [`Part::size`] counts them.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let (sender, parts) = unbounded();
        let (open, closed) = crossbeam_channel::bounded(0);
        let state = Mutex::new(State { depth: Depth::default(), open: Some(open) });
        let shared = Arc::new(Shared { state, room: Condvar::new(), limit: bytes, parts: sender });
        Self { shared, parts, closed }
    }
}

impl Transport for Queue {
    fn publish(&self, part: Part, deadline: Instant) -> Result<(), Part> {
        let size = part.size();
        let mut state = self.shared.state.lock();
        loop {
            if state.open.is_none() {
                return Err(part);
            }
            if state.depth.bytes == 0 || state.depth.bytes.saturating_add(size) <= self.shared.limit {
                break;
            }
            if Instant::now() >= deadline {
                return Err(part);
            }
            self.shared.room.wait_until(&mut state, deadline);
        }
        state.depth.bytes += size;
        state.depth.changes += part.changes.len();
        // The channel has no bound, so this does not wait; and its receiver lives as long as the queue.
        self.shared.parts.send((part, 0)).map_err(|refused| refused.0.0)
    }

    fn receive(&self, wait: Duration) -> Option<Delivery> {
        let origin = || Arc::clone(&self.shared) as Arc<dyn Origin>;
        if wait.is_zero() {
            self.shared.state.lock().open.as_ref()?;
            return self.parts.try_recv().ok().map(|(part, redelivered)| Delivery::new(part, redelivered, origin()));
        }
        let timeout = if wait == Duration::MAX { never() } else { crossbeam_channel::after(wait) };
        select_biased! {
            recv(self.closed) -> _ => None,
            recv(self.parts) -> got => got.ok().map(|(part, redelivered)| Delivery::new(part, redelivered, origin())),
            recv(timeout) -> _ => None,
        }
    }

    fn depth(&self) -> Depth {
        self.shared.state.lock().depth
    }

    fn close(&self) {
        self.shared.state.lock().open = None;
        self.shared.room.notify_all();
    }
}

impl Origin for Shared {
    fn done(&self, part: &Part) {
        let mut state = self.state.lock();
        state.depth.bytes = state.depth.bytes.saturating_sub(part.size());
        state.depth.changes = state.depth.changes.saturating_sub(part.changes.len());
        self.room.notify_all();
    }

    fn again(&self, part: &Part, redelivered: u32) {
        // It fails only when the queue itself is gone, and what it held with it.
        let _ = self.parts.send((part.clone(), redelivered));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("limit", &self.shared.limit).field("depth", &self.depth()).finish_non_exhaustive()
    }
}
