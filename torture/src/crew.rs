//! The processes of a run: who is alive, who was killed, and what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;

use crate::Outcome;
use crate::check::Excuses;
use crate::child::{Child, Progress};
use crate::job::Job;

/// How long a process may take to bring everything that it wrote to the store.
const QUIET: Duration = Duration::from_mins(4);

/// Who stands where: writers first, from zero.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    /// The first relay.
    pub(crate) relays: usize,
    /// The first consumer of a broker; behind the last process where there is none.
    pub(crate) consumers: usize,
    /// The process that owns the store, and does everything but write.
    pub(crate) owner: Option<usize>,
}

/// The processes of a run.
pub(crate) struct Crew {
    /// What each place does; the number and the seed are new with each incarnation.
    jobs: Vec<Job>,
    places: Vec<Mutex<Option<Child>>>,
    next: AtomicI32,
    /// What each process did, those that are no more included.
    progress: Mutex<Vec<Arc<Mutex<Progress>>>>,
    excuses: Mutex<Excuses>,
    complaints: Arc<Mutex<Vec<String>>>,
    interrupted: Arc<AtomicBool>,
}

impl Crew {
    /// Starts a process for each job.
    pub(crate) fn start(jobs: Vec<Job>, interrupted: Arc<AtomicBool>) -> Outcome<Self> {
        let places = jobs.iter().map(|_| Mutex::new(None)).collect();
        let crew = Self {
            jobs,
            places,
            next: AtomicI32::new(1),
            progress: Mutex::default(),
            excuses: Mutex::default(),
            complaints: Arc::default(),
            interrupted,
        };
        for place in 0..crew.places.len() {
            crew.fill(place)?;
        }
        Ok(crew)
    }

    /// Kills the process at this place and starts another there; `between` comes when the one is gone for sure and the
    /// other is not there yet.
    pub(crate) fn kill(&self, place: usize, between: impl FnOnce()) -> Outcome {
        if let Some(child) = self.take(place) {
            if !self.consumes(place) {
                self.excuses.lock().killed.insert(child.writer);
            }
            child.kill()?;
        }
        between();
        self.fill(place)
    }

    /// Whether the process at this place takes from a broker: what it is killed with is delivered again.
    fn consumes(&self, place: usize) -> bool {
        self.jobs.get(place).is_some_and(|job| job.consumes().is_some())
    }

    /// Lets the process at this place end in good order, and starts another there, as [`kill`](Self::kill).
    pub(crate) fn retire(&self, place: usize, between: impl FnOnce()) -> Outcome {
        if let Some(mut child) = self.take(place) {
            child.tell(if self.consumes(place) { "leave" } else { "stop" })?;
            let deadline = Instant::now() + QUIET;
            let answer = loop {
                match child.answer(Duration::from_millis(100)) {
                    Ok(answer) => break answer,
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) if self.interrupted.load(Ordering::SeqCst) => return Ok(()),
                    Err(_) => {}
                }
            };
            if answer != "flushed" {
                // Faults go on meanwhile: it ends with what it could not write, as if it had been killed, and says so.
                println!("  process {} stopped in good order and said `{answer}`", child.writer);
                if !self.consumes(place) {
                    self.excuses.lock().killed.insert(child.writer);
                }
            }
            if child.is_dirty() {
                self.excuses.lock().dirty.insert(child.writer);
            }
            child.kill()?;
        }
        between();
        self.fill(place)
    }

    /// Freezes the process at this place for a while.
    pub(crate) fn pause(&self, place: usize, long: Duration) -> Outcome {
        let Some(slot) = self.places.get(place) else { return Ok(()) };
        for (signal, then) in [(Signal::STOP, long), (Signal::CONT, Duration::ZERO)] {
            if let Some(child) = &*slot.lock() {
                child.signal(signal)?;
            }
            thread::sleep(then);
        }
        Ok(())
    }

    /// The store lost what it had acknowledged.
    pub(crate) fn forgot(&self) {
        self.excuses.lock().forgot = true;
    }

    /// What the processes said that should not happen.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().clone()
    }

    /// What may be missing.
    pub(crate) fn excuses(&self) -> Excuses {
        let mut excuses = self.excuses.lock().clone();
        let alive =
            self.places.iter().filter_map(|slot| slot.lock().as_ref().map(|child| (child.writer, child.is_dirty())));
        excuses.dirty.extend(alive.filter_map(|(writer, dirty)| dirty.then_some(writer)));
        excuses
    }

    /// What all of them said that they did so far.
    pub(crate) fn told(&self) -> Progress {
        let mut sum = Progress::default();
        for of_one in self.progress.lock().iter() {
            let of_one = of_one.lock();
            sum.writes += of_one.writes;
            sum.conflicts += of_one.conflicts;
            sum.retries += of_one.retries;
            sum.backlog += of_one.backlog;
            sum.received += of_one.received;
            sum.redelivered += of_one.redelivered;
        }
        sum
    }

    /// The same. An error when one ended by itself.
    pub(crate) fn progress(&self) -> Outcome<Progress> {
        for slot in &self.places {
            let mut slot = slot.lock();
            let Some(child) = &mut *slot else { continue };
            if let Some(status) = child.ended()? {
                return Err(format!("process {} ended by itself: {status}", child.writer).into());
            }
        }
        Ok(self.told())
    }

    /// Lets every process stop to write, and waits until all that they wrote is in the store. Those who deliver come
    /// last, as they wait for what is there when they are asked.
    pub(crate) fn quiet(&self, layout: Layout) -> Outcome {
        let (others, consumers) = self.places.split_at(layout.consumers.min(self.places.len()));
        let (writers, relays) = others.split_at(layout.relays.min(others.len()));
        [writers, relays, consumers].into_iter().try_for_each(Self::flushed)
    }

    fn flushed(places: &[Mutex<Option<Child>>]) -> Outcome {
        let mut unflushed = Vec::new();
        for slot in places {
            if let Some(child) = &mut *slot.lock() {
                child.tell("stop")?;
            }
        }
        for slot in places {
            if let Some(child) = &*slot.lock() {
                let answer = child.answer(QUIET)?;
                if answer != "flushed" {
                    unflushed.push(format!("process {}: {answer}", child.writer));
                }
            }
        }
        if unflushed.is_empty() { Ok(()) } else { Err(unflushed.join("; ").into()) }
    }

    /// Asks the process at this place, which is quiet, for one thing more, and returns what it says when it is done.
    pub(crate) fn ask(&self, place: usize, command: &str) -> Outcome<String> {
        let mut slot = self.places.get(place).ok_or("there is no such process")?.lock();
        let child = slot.as_mut().ok_or("the process is gone")?;
        child.tell(command)?;
        let answer = child.answer(QUIET)?;
        match (answer.strip_prefix("done "), answer.as_str()) {
            (Some(told), _) => Ok(told.to_owned()),
            (None, other) => Err(format!("process {} was asked to {command} and said `{other}`", child.writer).into()),
        }
    }

    fn take(&self, place: usize) -> Option<Child> {
        self.places.get(place)?.lock().take()
    }

    fn fill(&self, place: usize) -> Outcome {
        let (Some(job), Some(slot)) = (self.jobs.get(place), self.places.get(place)) else { return Ok(()) };
        let writer = self.next.fetch_add(1, Ordering::SeqCst);
        let seed = job.seed.wrapping_add(u64::from(writer.unsigned_abs()) << 20);
        let child = Child::start(&Job { writer, seed, ..job.clone() }, Arc::clone(&self.complaints))?;
        self.progress.lock().push(child.progress());
        *slot.lock() = Some(child);
        Ok(())
    }
}
