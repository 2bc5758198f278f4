//! The rows of an outbox that are on their way, and what became of them in each store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{Lane, Shared};
use crate::change::Change;
use crate::error::Error;
use crate::transport::{Part, Transport as _};

/// How many rows are on their way to one store at most.
const ROWS: usize = 4096;
/// How long a store may take nothing while others do, before these no longer wait for it.
const STUCK: Duration = Duration::from_secs(2);

/// The rows of an outbox that are on their way.
pub(crate) struct Flights {
    shared: Arc<Shared>,
    lanes: Vec<Window>,
    /// By the ids of the rows.
    rows: BTreeMap<i64, Flight>,
}

/// What is on its way to one store.
struct Window {
    lane: Arc<Lane>,
    rows: usize,
    bytes: usize,
    /// When something last arrived, or nothing was on its way.
    moved: Instant,
}

/// A row on its way.
struct Flight {
    attempts: u32,
    table: String,
    size: usize,
    /// One for each store.
    legs: Vec<Leg>,
}

#[derive(Debug)]
enum Leg {
    /// The commit that its changes count as.
    Flying(u64),
    Landed,
    Failed(Arc<Error>),
    /// The store had no room.
    Refused,
}

/// A row that has ended.
pub(crate) struct Ended {
    pub(crate) id: i64,
    pub(crate) attempts: u32,
    pub(crate) table: String,
    pub(crate) how: How,
}

pub(crate) enum How {
    /// It is in every store.
    Delivered,
    /// It has failed in one.
    Failed(Arc<Error>),
    /// A store had no room for it.
    Refused,
}

impl Flights {
    pub(crate) fn new(shared: Arc<Shared>, lanes: Vec<Arc<Lane>>) -> Self {
        let window = |lane| Window { lane, rows: 0, bytes: 0, moved: Instant::now() };
        Self { shared, lanes: lanes.into_iter().map(window).collect(), rows: BTreeMap::new() }
    }

    /// How many rows, and how many bytes, may be sent now. A store that has taken nothing for a while holds
    /// up no others.
    pub(crate) fn room(&self) -> (usize, usize) {
        let going: Vec<&Window> = self.lanes.iter().filter(|window| !window.is_stuck()).collect();
        let counted = if going.is_empty() { self.lanes.iter().collect() } else { going };
        let rooms = counted.iter().map(|window| window.room());
        rooms.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1))).unwrap_or_default()
    }

    /// Sends the changes of a row to every store that has room.
    pub(crate) fn send(&mut self, id: i64, attempts: u32, table: String, changes: Vec<Change>) {
        // A row that was let go of and claimed anew: its older flight says nothing any more.
        self.forget(id);
        let published = Instant::now();
        let part = Part { commit: 0, published, changes: changes.into() };
        let size = part.size();
        let commits = &self.shared.commits;
        let leg = |window: &mut Window| {
            let (rows, bytes) = window.room();
            // One that is larger than the room goes alone.
            if rows == 0 || (bytes < size && window.rows > 0) {
                return Leg::Refused;
            }
            let commit = commits.open_kept(part.changes.len(), published);
            let part = Part { commit, ..part.clone() };
            if let Err(part) = window.lane.queue.publish(part, published) {
                commits.finish(commit, part.changes.len(), None);
                commits.take_kept(commit);
                return Leg::Refused;
            }
            if window.rows == 0 {
                window.moved = published;
            }
            window.rows += 1;
            window.bytes += size;
            Leg::Flying(commit)
        };
        let legs = self.lanes.iter_mut().map(leg).collect();
        self.rows.insert(id, Flight { attempts, table, size, legs });
    }

    /// The rows that have ended since the last call: every change is dealt with in every store, rows that
    /// had to be read again included.
    pub(crate) fn ended(&mut self) -> Vec<Ended> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let commits = &self.shared.commits;
        for (at, window) in self.lanes.iter_mut().enumerate() {
            let flying = self.rows.values().filter_map(|flight| flight.flying(at));
            let mut closed = commits.closed(flying);
            if closed.is_empty() {
                continue;
            }
            closed.sort_unstable();
            // Read behind: what has to be read again is noted before its change counts as finished.
            let holding = window.lane.unsettled.holding();
            let is_held = |commit: u64| {
                let place = holding.partition_point(|(_, last)| *last < commit);
                holding.get(place).is_some_and(|(first, _)| *first <= commit)
            };
            for flight in self.rows.values_mut() {
                let Some(commit) = flight.flying(at) else { continue };
                if closed.binary_search(&commit).is_err() || is_held(commit) {
                    continue;
                }
                if let Some(leg) = flight.legs.get_mut(at) {
                    *leg = commits.take_kept(commit).map_or(Leg::Landed, Leg::Failed);
                }
                window.rows = window.rows.saturating_sub(1);
                window.bytes = window.bytes.saturating_sub(flight.size);
                window.moved = Instant::now();
            }
        }
        self.rows.extract_if(.., |_, flight| flight.is_over()).map(|(id, flight)| flight.end(id)).collect()
    }

    /// The ids of the rows that are on their way.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.rows.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn forget(&mut self, id: i64) {
        let Some(flight) = self.rows.remove(&id) else { return };
        for (leg, window) in flight.legs.into_iter().zip(&mut self.lanes) {
            if let Leg::Flying(commit) = leg {
                self.shared.commits.take_kept(commit);
                window.rows = window.rows.saturating_sub(1);
                window.bytes = window.bytes.saturating_sub(flight.size);
            }
        }
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        for id in self.ids() {
            self.forget(id);
        }
    }
}

impl Window {
    /// Half of what the queue holds, and no more rows than can wait to be read again: others use both.
    fn room(&self) -> (usize, usize) {
        let rows = (self.lane.unsettled.most() / 2).clamp(4, ROWS);
        (rows.saturating_sub(self.rows), (self.lane.limit() / 2).saturating_sub(self.bytes))
    }

    fn is_stuck(&self) -> bool {
        self.rows > 0 && self.moved.elapsed() > STUCK
    }
}

impl Flight {
    fn flying(&self, lane: usize) -> Option<u64> {
        match self.legs.get(lane) {
            Some(Leg::Flying(commit)) => Some(*commit),
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        !self.legs.iter().any(|leg| matches!(leg, Leg::Flying(_)))
    }

    fn end(self, id: i64) -> Ended {
        let mut how = How::Delivered;
        for leg in self.legs {
            match leg {
                Leg::Failed(error) => {
                    how = How::Failed(error);
                    break;
                }
                Leg::Refused => how = How::Refused,
                Leg::Landed | Leg::Flying(_) => {}
            }
        }
        Ended { id, attempts: self.attempts, table: self.table, how }
    }
}
