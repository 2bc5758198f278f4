//! An outbox whose rows are delivered, as the rest of the pipeline sees it: to be rung, asked and waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Pipeline;
use super::lane::{Lane, Shared, late};
use crate::change::OutboxRange;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicBool, Mutex};
use crate::transport::{Failing, Outbox, OutboxDepth};

/// How often an outbox is asked for someone who waits: this first, then ever more rarely.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const RAREST_LOOK: Duration = Duration::from_millis(50);

/// How long someone waits.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) deadline: Instant,
    /// Also for a database that is down.
    pub(super) outages: bool,
    /// Who is waited for.
    pub(super) lanes: &'a [Arc<Lane>],
}

/// An outbox whose rows are delivered by this process, too.
pub(crate) struct Post {
    pub(crate) outbox: Arc<dyn Outbox>,
    /// Rows have been committed: the relay is to look at once.
    rung: AtomicBool,
    /// All that the retention has kept is to be delivered once more.
    replay: AtomicBool,
    /// What it holds has changed by hand: the relay is to count anew.
    recount: AtomicBool,
    seen: Mutex<PostSeen>,
}

/// What was last seen of an outbox.
#[derive(Debug, Clone, Default)]
pub(crate) struct PostSeen {
    pub(crate) depth: Option<OutboxDepth>,
    /// Rows that have failed and will be tried again.
    pub(crate) failing: Vec<Failing>,
    /// Rows about models that no process seems to know.
    pub(crate) strangers: u64,
    /// Rows that this process holds.
    pub(crate) in_flight: usize,
    /// Why it could not be asked.
    pub(crate) error: Option<Arc<Error>>,
    /// When that was seen, and how old the row was then that is the first to be delivered.
    pub(crate) at: Option<Instant>,
    pub(crate) oldest_age: Option<Duration>,
    /// Since when it has been asked and has not answered.
    pub(crate) asked: Option<Instant>,
}

impl Post {
    pub(crate) fn new(outbox: Arc<dyn Outbox>) -> Arc<Self> {
        let (rung, replay, recount) = (AtomicBool::new(true), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { outbox, rung, replay, recount, seen: Mutex::default() })
    }

    /// Whether it was rung since the last question.
    pub(crate) fn take_ring(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Asks for all that the retention has kept to be delivered once more.
    pub(crate) fn replay(&self) {
        self.replay.store(true, Ordering::Release);
    }

    pub(crate) fn wants_replay(&self) -> bool {
        self.replay.load(Ordering::Acquire)
    }

    /// Whether that was asked for since the last question.
    pub(crate) fn take_replay(&self) -> bool {
        self.replay.swap(false, Ordering::AcqRel)
    }

    /// Whether it was changed by hand since the last question.
    pub(crate) fn take_recount(&self) -> bool {
        self.recount.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn wants_recount(&self) -> bool {
        self.recount.load(Ordering::Acquire)
    }

    pub(crate) fn seen(&self) -> PostSeen {
        self.seen.lock().clone()
    }

    pub(crate) fn see(&self, change: impl FnOnce(&mut PostSeen)) {
        change(&mut self.seen.lock());
    }
}

impl Shared {
    /// Rows may be claimed from the outbox of this database.
    pub(crate) fn ring(&self, database: &str) {
        for post in self.relays.get().into_iter().flatten().filter(|post| post.outbox.name() == database) {
            post.rung.store(true, Ordering::Release);
            self.commits.touch();
        }
    }

    pub(crate) fn posts(&self) -> &[Arc<Post>] {
        self.relays.get().map_or(&[], Vec::as_slice)
    }

    /// Waits until no row of this range waits to be delivered.
    fn wait_for_range(&self, outbox: &dyn Outbox, range: &OutboxRange, patience: Patience<'_>) -> Result<()> {
        self.ring(outbox.name());
        self.asked_again(outbox, patience, || outbox.waits(range), |waits| !*waits).map(drop)
    }

    /// Asks until the answer is good enough, or the deadline has passed.
    fn asked_again<T>(
        &self,
        outbox: &dyn Outbox,
        Patience { deadline, outages, lanes }: Patience<'_>,
        ask: impl Fn() -> Result<T>,
        is_good: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let mut look = FIRST_LOOK;
        loop {
            let failure = match ask() {
                Ok(answer) if is_good(&answer) => return Ok(answer),
                Ok(_) => None,
                Err(error) if outages && error.is_retryable() => Some(error),
                Err(error) => return Err(error),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.wait(look.min(left)) {
                let late = late(lanes, &format!("rows of the outbox of `{}` are not delivered yet", outbox.name()));
                return Err(match failure {
                    Some(failure) => late.with_source(failure),
                    None => late,
                });
            }
            look = (look * 3 / 2).min(RAREST_LOOK);
        }
    }
}

impl Pipeline {
    /// Delivers the rows of these outboxes from now on. Only the first call counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when a thread cannot be started.
    pub fn relay(&self, outboxes: Vec<Arc<dyn Outbox>>) -> Result<()> {
        let posts: Vec<Arc<Post>> = outboxes.into_iter().map(Post::new).collect();
        if self.shared.relays.set(posts).is_err() {
            tracing::warn!("the outboxes of a pipeline were set twice; the first ones stay");
            return Ok(());
        }
        for (number, post) in self.shared.posts().iter().enumerate() {
            let (post, lanes, shared) = (Arc::clone(post), self.lanes().to_vec(), Arc::clone(&self.shared));
            let config = self.relay;
            self.pool.spawn(&format!("kvsync-relay-{number}"), move || {
                super::relay::Relay::new(Arc::clone(&post), lanes.clone(), Arc::clone(&shared), config).run();
            })?;
        }
        Ok(())
    }

    /// Rows may be claimed from the outbox of this database: there are new ones, or some were let go of.
    pub fn ring(&self, database: &str) {
        self.shared.ring(database);
    }

    /// Dead letters of this database were let go of or dropped: health counts anew, and what is due is claimed.
    pub fn recount(&self, database: &str) {
        for post in self.shared.posts().iter().filter(|post| post.outbox.name() == database) {
            post.recount.store(true, Ordering::Release);
        }
        self.shared.ring(database);
    }

    /// Delivers all that the outboxes have kept once more, whenever a store may have forgotten what it
    /// acknowledged.
    pub fn replay_what_is_forgotten(&self) {
        let shared = Arc::downgrade(&self.shared);
        self.on_forgot(move |_, _| {
            let Some(shared) = shared.upgrade() else { return };
            shared.posts().iter().for_each(|post| post.replay());
            shared.commits.touch();
        });
    }

    /// Waits until the rows that are committed now in any outbox have been dealt with.
    pub(super) fn drain_outboxes(&self, patience: Patience<'_>) -> Result<()> {
        self.shared.drain_outboxes(patience)
    }

    /// Fails where rows of an outbox have failed and will be tried again.
    pub(super) fn failing(&self) -> Result<()> {
        for post in self.shared.posts() {
            let failing = post.outbox.failing()?;
            if !failing.is_empty() {
                let each: Vec<String> = failing.iter().map(ToString::to_string).collect();
                let message =
                    format!("rows of the outbox of `{}` are not delivered: {}", post.outbox.name(), each.join("; "));
                return Err(Error::new(ErrorKind::Rejected, message));
            }
        }
        Ok(())
    }

    /// Waits until the rows of this range have been dealt with; of an open one, those that are committed now.
    pub(super) fn wait_for_outbox(&self, range: &OutboxRange, deadline: Instant) -> Result<()> {
        let patience = Patience { deadline, outages: true, lanes: self.lanes() };
        let post = self.shared.posts().iter().find(|post| post.outbox.name() == range.database).ok_or_else(|| {
            let message =
                format!("the commit is in the outbox of `{}`, which this handle does not deliver", range.database);
            Error::new(ErrorKind::Config, message)
        })?;
        let outbox = &*post.outbox;
        if range.last == i64::MAX {
            let range = self.shared.asked_again(outbox, patience, || outbox.range(), |_| true)?;
            return range.map_or(Ok(()), |range| self.shared.wait_for_range(outbox, &range, patience));
        }
        self.shared.wait_for_range(outbox, range, patience)?;
        match outbox.failure(range)? {
            Some(failure) => {
                let message = format!(
                    "a row of the commit, or of one at the same time, could not be delivered; readers ask the database \
                     for it: {failure}"
                );
                Err(Error::new(ErrorKind::Rejected, message))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("outbox", &self.outbox).field("seen", &self.seen()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Waits until the rows that are committed now in any outbox have been dealt with.
    pub(super) fn drain_outboxes(&self, patience: Patience<'_>) -> Result<()> {
        let ranges: Result<Vec<_>> = self
            .posts()
            .iter()
            .map(|post| Ok((post, self.asked_again(&*post.outbox, patience, || post.outbox.range(), |_| true)?)))
            .collect();
        for (post, range) in ranges? {
            if let Some(range) = range {
                self.wait_for_range(&*post.outbox, &range, patience)?;
            }
        }
        Ok(())
    }
}
