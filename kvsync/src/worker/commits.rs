use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How many commits that failed are remembered for whoever asks later.
const FAILED: usize = 1024;

/// The commits of this process that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    state: Mutex<State>,
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    open: BTreeMap<u64, Open>,
    failed: BTreeMap<u64, Arc<Error>>,
    /// The commits whose changes an outbox keeps, each with its first failure.
    kept: HashMap<u64, Option<Arc<Error>>>,
    finished: u64,
    /// Counts whatever a waiter may be waiting for.
    moves: u64,
}

#[derive(Debug)]
struct Open {
    /// Changes, counted once for each store.
    left: usize,
    since: Instant,
}

/// What has not been dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Left {
    /// Commits.
    pub(crate) commits: usize,
    /// Changes, counted once for each store.
    pub(crate) changes: usize,
}

/// What came of waiting for a commit.
#[derive(Debug)]
pub(crate) enum Waited {
    /// All its changes are dealt with.
    Done,
    /// They are, and one of them failed.
    Failed(Arc<Error>),
    /// The deadline passed first.
    TooLong,
}

impl Commits {
    /// Gives a commit its number. It is open until as many changes as this are finished.
    pub(crate) fn open(&self, changes: usize, since: Instant) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        let commit = state.last;
        if changes > 0 {
            state.open.insert(commit, Open { left: changes, since });
        }
        commit
    }

    /// The same for changes that an outbox keeps until they are dealt with. To be ended by
    /// [`take_kept`](Self::take_kept).
    pub(crate) fn open_kept(&self, changes: usize, since: Instant) -> u64 {
        let commit = self.open(changes, since);
        self.state.lock().kept.insert(commit, None);
        commit
    }

    /// Whether an outbox keeps the changes of this commit.
    pub(crate) fn is_kept(&self, commit: u64) -> bool {
        self.state.lock().kept.contains_key(&commit)
    }

    /// Those of these commits of which no change is on its way.
    pub(crate) fn closed(&self, commits: impl Iterator<Item = u64>) -> Vec<u64> {
        let state = self.state.lock();
        commits.filter(|commit| !state.open.contains_key(commit)).collect()
    }

    /// Forgets a commit that an outbox keeps, and returns its first failure.
    pub(crate) fn take_kept(&self, commit: u64) -> Option<Arc<Error>> {
        self.state.lock().kept.remove(&commit).flatten()
    }

    /// A number that is another when something has moved on.
    pub(crate) fn moves(&self) -> u64 {
        self.state.lock().moves
    }

    /// Waits until something has moved on since this number was read, or the deadline has passed.
    pub(crate) fn wait_for_move(&self, seen: u64, deadline: Instant) {
        self.until(deadline, |state| state.moves != seen);
    }

    /// The newest commit.
    pub(crate) fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// This many changes of a commit are finished; with an error, one of them failed for good. To be
    /// called once for each change, so when its delivery ends and not before.
    pub(crate) fn finish(&self, commit: u64, changes: usize, error: Option<Arc<Error>>) {
        self.finish_all([(commit, changes, error)]);
    }

    /// The same for changes of several commits.
    pub(crate) fn finish_all(&self, commits: impl IntoIterator<Item = (u64, usize, Option<Arc<Error>>)>) {
        let mut state = self.state.lock();
        for (commit, changes, error) in commits {
            state.finish(commit, changes, error);
        }
        state.moves += 1;
        drop(state);
        self.progress.notify_all();
    }

    /// Something moved on elsewhere that a waiter may be waiting for.
    pub(crate) fn touch(&self) {
        // The lock is what a waiter holds from its check to its wait.
        self.state.lock().moves += 1;
        self.progress.notify_all();
    }

    /// Waits until this commit is neither open nor held up, or the deadline has passed.
    pub(crate) fn wait(&self, commit: u64, deadline: Instant, held_up: impl Fn(u64) -> bool) -> Waited {
        match self.until(deadline, |state| !state.open.contains_key(&commit) && !held_up(commit)) {
            Some(state) => state.failed.get(&commit).cloned().map_or(Waited::Done, Waited::Failed),
            None => Waited::TooLong,
        }
    }

    /// Waits until no commit up to this one is open or held up, or the deadline has passed. Whether all
    /// are done.
    pub(crate) fn flush(&self, commit: u64, deadline: Instant, held_up: impl Fn() -> bool) -> bool {
        let done = |state: &State| state.open.first_key_value().is_none_or(|(first, _)| *first > commit) && !held_up();
        self.until(deadline, done).is_some()
    }

    /// What is open.
    pub(crate) fn left(&self) -> Left {
        let state = self.state.lock();
        Left { commits: state.open.len(), changes: state.open.values().map(|open| open.left).sum() }
    }

    /// Changes that were finished, counted once for each store.
    pub(crate) fn finished(&self) -> u64 {
        self.state.lock().finished
    }

    /// When the oldest open commit was published.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.state.lock().open.first_key_value().map(|(_, open)| open.since)
    }

    fn until(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while !done(&state) {
            if self.progress.wait_until(&mut state, deadline).timed_out() {
                return done(&state).then_some(state);
            }
        }
        Some(state)
    }
}

impl State {
    fn finish(&mut self, commit: u64, changes: usize, error: Option<Arc<Error>>) {
        if let Some(kept) = self.kept.get_mut(&commit) {
            *kept = kept.take().or(error);
        } else if let Some(error) = error {
            self.failed.insert(commit, error);
            if self.failed.len() > FAILED {
                self.failed.pop_first();
            }
        }
        self.finished += u64::try_from(changes).unwrap_or(u64::MAX);
        if let Some(open) = self.open.get_mut(&commit) {
            open.left = open.left.saturating_sub(changes);
            if open.left == 0 {
                self.open.remove(&commit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn a_commit_is_done_when_its_last_change_is() {
        let commits = Commits::default();
        let commit = commits.open(2, Instant::now());
        commits.finish(commit, 1, None);
        assert!(matches!(commits.wait(commit, soon(), |_| false), Waited::TooLong));
        commits.finish(commit, 1, None);
        assert!(matches!(commits.wait(commit, soon(), |_| false), Waited::Done));
        assert!(matches!(commits.wait(commit, soon(), |_| true), Waited::TooLong));
    }

    #[test]
    fn a_flush_does_not_wait_for_later_commits() {
        let commits = Commits::default();
        let (first, _later) = (commits.open(1, Instant::now()), commits.open(1, Instant::now()));
        assert!(!commits.flush(first, soon(), || false));
        commits.finish(first, 1, None);
        assert!(commits.flush(first, soon(), || false));
        assert_eq!(commits.left(), Left { commits: 1, changes: 1 });
    }

    #[test]
    fn what_an_outbox_keeps_ends_when_it_is_taken() {
        let commits = Commits::default();
        let commit = commits.open_kept(1, Instant::now());
        let seen = commits.moves();
        assert!(commits.is_kept(commit) && commits.closed([commit].into_iter()).is_empty());
        commits.finish(commit, 1, Some(Arc::new(Error::new(ErrorKind::Codec, "no form"))));
        commits.wait_for_move(seen, Instant::now() + Duration::from_secs(30));
        assert_eq!(commits.closed([commit].into_iter()), [commit]);
        assert!(commits.take_kept(commit).is_some() && !commits.is_kept(commit));
    }

    #[test]
    fn a_failure_is_remembered_and_the_oldest_forgotten() {
        let commits = Commits::default();
        for _ in 0..=FAILED {
            let commit = commits.open(1, Instant::now());
            commits.finish(commit, 1, Some(Arc::new(Error::new(ErrorKind::Codec, "no form"))));
        }
        assert!(matches!(commits.wait(1, soon(), |_| false), Waited::Done));
        assert!(matches!(commits.wait(2, soon(), |_| false), Waited::Failed(_)));
    }
}

#[cfg(all(test, kvsync_shuttle))]
mod models {
    use shuttle::thread::spawn;

    use super::*;
    use crate::sync::model::{explore, never, soon};

    #[test]
    fn whoever_waits_for_a_commit_wakes_when_all_its_changes_are_finished_and_not_before() {
        explore(|| {
            let commits = Arc::new(Commits::default());
            let (first, second) = (commits.open(2, Instant::now()), commits.open(1, Instant::now()));
            let workers: Vec<_> = [vec![first, second], vec![first]]
                .into_iter()
                .map(|changes| {
                    let commits = Arc::clone(&commits);
                    spawn(move || changes.into_iter().for_each(|commit| commits.finish(commit, 1, None)))
                })
                .collect();
            let waiters = [first, second].map(|commit| {
                let commits = Arc::clone(&commits);
                spawn(move || {
                    assert!(matches!(commits.wait(commit, never(), |_| false), Waited::Done));
                    assert_eq!(commits.closed([commit].into_iter()), [commit]);
                })
            });
            let later = commits.open(1, Instant::now());
            assert!(commits.flush(second, never(), || false));
            assert!(commits.finished() >= 3, "a flush ended early");
            assert_eq!(commits.left(), Left { commits: 1, changes: 1 });
            assert!(!commits.flush(later, soon(), || true));
            for thread in workers.into_iter().chain(waiters) {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn whoever_is_held_up_from_outside_wakes_when_it_is_touched() {
        explore(|| {
            let commits = Arc::new(Commits::default());
            let held_up = Arc::new(shuttle::sync::atomic::AtomicBool::new(true));
            let ordering = std::sync::atomic::Ordering::SeqCst;
            let commit = commits.open(1, Instant::now());
            let seen = commits.moves();
            let waiter = {
                let (commits, held_up) = (Arc::clone(&commits), Arc::clone(&held_up));
                spawn(move || {
                    assert!(matches!(commits.wait(commit, never(), |_| held_up.load(ordering)), Waited::Done));
                    assert!(commits.flush(commit, never(), || held_up.load(ordering)));
                })
            };
            let watcher = {
                let commits = Arc::clone(&commits);
                spawn(move || commits.wait_for_move(seen, never()))
            };
            commits.finish(commit, 1, None);
            held_up.store(false, ordering);
            commits.touch();
            waiter.join().unwrap();
            watcher.join().unwrap();
        });
    }
}
