//! The queue inside the process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Delivery, Depth, Origin, Part, Transport};
use crate::sync::{self, AtomicBool, Condvar, Mutex, thread};

/// A queue in memory, bounded in bytes. What it holds is lost with the process.
///
/// A part that is larger than the bound is taken when the queue is empty.
pub struct Queue {
    shared: Arc<Shared>,
    parts: Receiver<(Part, u32)>,
    closed: Receiver<()>,
    /// Held by the receiver that watches the channel. All others wait for it, and not in the channel,
    /// where each publisher would have to wake one of them.
    watch: Mutex<()>,
}

/// How long the watching receiver looks away when the queue is empty, and how often it does so before
/// it lets itself be woken. While commits follow each other closely, no publisher pays for waking it.
const NAP: Duration = Duration::from_micros(100);
const NAPS: u32 = 20;

/// Bytes of parts that were dealt with, kept to be dropped by the next publishers.
const SPENT: usize = 256 << 10;
/// How many of them a publisher drops.
const DROPS: usize = 1;

struct Shared {
    state: Mutex<State>,
    /// As in the state, for receivers to look at without its lock.
    is_closed: AtomicBool,
    room: Condvar,
    limit: usize,
    parts: Sender<(Part, u32)>,
}

struct State {
    depth: Depth,
    /// Parts that were dealt with. To free what another thread has allocated takes a lock of the
    /// allocator, which both then wait for; so it is done where it was allocated.
    spent: VecDeque<Part>,
    spent_bytes: usize,
    /// Dropped when the queue is closed, so that every receiver wakes.
    open: Option<Sender<()>>,
}

impl Queue {
    /// A queue that holds at most this many bytes of changes, as [`Part::size`] counts them.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let (sender, parts) = unbounded();
        let (open, closed) = crossbeam_channel::bounded(0);
        let (depth, spent) = (Depth::default(), VecDeque::new());
        let state = Mutex::new(State { depth, spent, spent_bytes: 0, open: Some(open) });
        let shared = Arc::new(Shared {
            state,
            is_closed: AtomicBool::new(false),
            room: Condvar::new(),
            limit: bytes,
            parts: sender,
        });
        Self { shared, parts, closed, watch: Mutex::new(()) }
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
        let _spent: [Option<Part>; DROPS] = std::array::from_fn(|_| state.spent());
        drop(state);
        // The channel has no bound, so this does not wait; and its receiver lives as long as the queue.
        self.shared.parts.send((part, 0)).map_err(|refused| refused.0.0)
    }

    fn receive(&self, wait: Duration) -> Option<Delivery> {
        let until = Instant::now().checked_add(wait);
        let _watch = match until {
            _ if wait.is_zero() => return self.take(),
            Some(until) => self.watch.try_lock_until(until)?,
            None => self.watch.lock(),
        };
        for _ in 0..NAPS {
            if let Some(delivery) = self.take() {
                return Some(delivery);
            }
            let left = until.map_or(NAP, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.is_closed() {
                return None;
            }
            thread::sleep(left.min(NAP));
        }
        sync::receive(&self.closed, &self.parts, until).map(|got| self.deliver(got))
    }

    fn depth(&self) -> Depth {
        self.shared.state.lock().depth
    }

    fn close(&self) {
        let mut state = self.shared.state.lock();
        state.open = None;
        self.shared.is_closed.store(true, Ordering::Release);
        let _spent = std::mem::take(&mut state.spent);
        drop(state);
        self.shared.room.notify_all();
    }
}

impl Queue {
    /// What is there now.
    fn take(&self) -> Option<Delivery> {
        if self.is_closed() {
            return None;
        }
        self.parts.try_recv().ok().map(|got| self.deliver(got))
    }

    fn deliver(&self, (part, redelivered): (Part, u32)) -> Delivery {
        Delivery::new(part, redelivered, Arc::clone(&self.shared) as Arc<dyn Origin>)
    }

    fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire)
    }
}

impl State {
    /// The oldest part to be dropped.
    fn spent(&mut self) -> Option<Part> {
        let part = self.spent.pop_front()?;
        self.spent_bytes = self.spent_bytes.saturating_sub(part.size());
        Some(part)
    }
}

impl Origin for Shared {
    fn done(&self, parts: Vec<Part>) {
        let mut state = self.state.lock();
        for part in parts {
            let size = part.size();
            state.depth.bytes = state.depth.bytes.saturating_sub(size);
            state.depth.changes = state.depth.changes.saturating_sub(part.changes.len());
            if state.spent_bytes + size <= SPENT && state.open.is_some() {
                state.spent_bytes += size;
                state.spent.push_back(part);
            }
        }
        drop(state);
        self.room.notify_all();
    }

    fn again(&self, part: Part, redelivered: u32) {
        // It fails only when the queue itself is gone, and what it held with it.
        let _ = self.parts.send((part, redelivered));
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    pub(super) fn part(commit: u64) -> Part {
        Part { commit, published: Instant::now(), changes: Arc::new([]) }
    }

    /// A queue with room for this many parts.
    pub(super) fn queue(parts: usize) -> Queue {
        Queue::new(parts * part(0).size())
    }

    fn publish(queue: &Queue, commit: u64) -> Result<(), u64> {
        queue.publish(part(commit), Instant::now()).map_err(|part| part.commit)
    }

    fn receive(queue: &Queue) -> Option<(u64, u32)> {
        let delivery = queue.receive(Duration::ZERO)?;
        let got = (delivery.part().commit, delivery.redelivered());
        delivery.ack();
        Some(got)
    }

    #[test]
    fn a_part_that_is_dropped_or_refused_is_delivered_again() {
        let queue = queue(9);
        publish(&queue, 1).unwrap();
        drop(queue.receive(Duration::ZERO));
        queue.receive(Duration::ZERO).unwrap().nack();
        let panicked = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _delivery = queue.receive(Duration::ZERO).unwrap();
                    panic!("the worker panics");
                })
                .join()
        });
        assert!(panicked.is_err());
        assert_eq!(receive(&queue), Some((1, 3)));
        assert_eq!((receive(&queue), queue.depth()), (None, Depth::default()));
    }

    #[test]
    fn what_is_delivered_takes_room_until_it_is_acknowledged() {
        let queue = queue(2);
        publish(&queue, 1).unwrap();
        publish(&queue, 2).unwrap();
        assert_eq!(publish(&queue, 3), Err(3));
        let delivery = queue.receive(Duration::ZERO).unwrap();
        assert_eq!(publish(&queue, 3), Err(3));
        delivery.ack();
        publish(&queue, 3).unwrap();
    }

    #[test]
    fn a_publisher_waits_for_room() {
        let queue = queue(1);
        publish(&queue, 1).unwrap();
        thread::scope(|scope| {
            let later = scope.spawn(|| queue.publish(part(2), Instant::now() + Duration::from_mins(1)));
            assert_eq!(receive(&queue), Some((1, 0)));
            later.join().unwrap().unwrap();
        });
        assert_eq!(receive(&queue), Some((2, 0)));
    }

    #[test]
    fn a_part_larger_than_the_bound_is_taken_alone() {
        let queue = Queue::new(1);
        publish(&queue, 1).unwrap();
        assert_eq!(publish(&queue, 2), Err(2));
        assert_eq!(receive(&queue), Some((1, 0)));
    }

    #[test]
    fn closing_wakes_everyone() {
        let queue = queue(1);
        publish(&queue, 1).unwrap();
        let held = queue.receive(Duration::ZERO);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| queue.receive(Duration::MAX).is_none());
            let publishing = scope.spawn(|| queue.publish(part(2), Instant::now() + Duration::from_hours(1)).is_err());
            queue.close();
            assert!(receiving.join().unwrap() && publishing.join().unwrap());
        });
        drop(held);
        assert!(queue.receive(Duration::ZERO).is_none() && publish(&queue, 3).is_err());
    }
}

#[cfg(all(test, kvsync_shuttle))]
mod models {
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::thread::{spawn, yield_now};

    use super::tests::{part, queue};
    use super::*;
    use crate::sync::model::{explore, never};

    #[test]
    fn every_part_is_delivered_until_it_is_acknowledged_and_its_bytes_come_back() {
        explore(|| {
            let queue = Arc::new(queue(2));
            let publishers = [[1, 2], [3, 4]].map(|commits| {
                let queue = Arc::clone(&queue);
                spawn(move || commits.map(|commit| queue.publish(part(commit), never()).unwrap()))
            });
            let acked = Arc::new(shuttle::sync::Mutex::new(Vec::new()));
            let workers = [(); 2].map(|()| {
                let (queue, acked) = (Arc::clone(&queue), Arc::clone(&acked));
                spawn(move || {
                    while acked.lock().unwrap().len() < 4 {
                        // The last one may wait for a part that another has acknowledged.
                        let wait = if thread_rng().gen_bool(0.5) { Duration::ZERO } else { Duration::from_secs(1) };
                        let Some(delivery) = queue.receive(wait) else {
                            yield_now();
                            continue;
                        };
                        assert!(queue.depth().bytes <= 2 * part(0).size() && queue.depth().bytes > 0);
                        match thread_rng().gen_range(0..4) {
                            0 => drop(delivery),
                            1 => delivery.nack(),
                            _ => {
                                let commit = delivery.part().commit;
                                delivery.ack();
                                acked.lock().unwrap().push(commit);
                            }
                        }
                    }
                })
            });
            for publisher in publishers {
                publisher.join().unwrap();
            }
            for worker in workers {
                worker.join().unwrap();
            }
            let mut acked = std::mem::take(&mut *acked.lock().unwrap());
            acked.sort_unstable();
            assert_eq!(acked, [1, 2, 3, 4]);
            assert_eq!(queue.depth(), Depth::default());
            assert!(queue.receive(Duration::ZERO).is_none());
        });
    }

    #[test]
    fn closing_wakes_the_publishers_that_wait_for_room() {
        explore(|| {
            let queue = Arc::new(queue(1));
            queue.publish(part(1), never()).unwrap();
            let publishers = [2, 3].map(|commit| {
                let queue = Arc::clone(&queue);
                spawn(move || queue.publish(part(commit), never()).is_err())
            });
            queue.close();
            assert!(publishers.into_iter().all(|publisher| publisher.join().unwrap()));
            assert!(queue.receive(Duration::ZERO).is_none() && queue.publish(part(4), never()).is_err());
        });
    }

    #[test]
    fn closing_wakes_the_receivers_that_wait_for_parts() {
        explore(|| {
            let queue = Arc::new(queue(2));
            let received = Arc::new(shuttle::sync::atomic::AtomicUsize::new(0));
            let workers = [(); 3].map(|()| {
                let (queue, received) = (Arc::clone(&queue), Arc::clone(&received));
                spawn(move || {
                    while let Some(delivery) = queue.receive(Duration::MAX) {
                        delivery.ack();
                        received.fetch_add(1, Ordering::SeqCst);
                    }
                })
            });
            for commit in 0..3 {
                queue.publish(part(commit), never()).unwrap();
            }
            while received.load(Ordering::SeqCst) < 3 {
                yield_now();
            }
            queue.close();
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}
