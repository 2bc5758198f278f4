//! Delivers the rows of one outbox: claims them, hands their changes to every store, and says in the outbox
//! what became of them.
//!
//! Rows are durable, so nothing of them is ever let go of: what there is no room for waits in its table.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backon::ExponentialBackoff;

use super::config::RelayConfig;
use super::flight::{Ended, Flights, How};
use super::lane::{Lane, Shared};
use super::post::Post;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Claimed, Failure, failure_text};

/// How many rows are claimed at once.
const CLAIM: usize = 256;
/// How long the outbox is left alone between two turns: rows that end together are told together, and
/// writers of the same database find it free.
const TURN: Duration = Duration::from_millis(3);
/// How many delivered rows are deleted at once.
const PURGE: usize = 500;
/// How often the outbox is put in order, and its depth read.
const UPKEEP: Duration = Duration::from_secs(15);
/// How soon its depth is read again once rows have failed, or have been delivered that had.
const SOON: Duration = Duration::from_secs(1);

pub(crate) struct Relay {
    post: Arc<Post>,
    shared: Arc<Shared>,
    config: RelayConfig,
    flights: Flights,
    /// What the outbox has yet to be told.
    delivered: Vec<i64>,
    failed: Vec<Failure>,
    postponed: Vec<i64>,
    /// When to look for rows, to extend claims, to put the outbox in order, and to ask again after a failure.
    look: Instant,
    extend: Instant,
    upkeep: Instant,
    again: Option<Instant>,
    waits: ExponentialBackoff,
    /// About how many bytes a row takes.
    row_size: usize,
}

impl Relay {
    pub(crate) fn new(post: Arc<Post>, lanes: Vec<Arc<Lane>>, shared: Arc<Shared>, config: RelayConfig) -> Self {
        let now = Instant::now();
        Self {
            flights: Flights::new(Arc::clone(&shared), lanes),
            delivered: Vec::new(),
            failed: Vec::new(),
            postponed: Vec::new(),
            look: now,
            extend: now + config.lease / 3,
            upkeep: now,
            again: None,
            waits: shared.backoff.waits(),
            row_size: 1 << 10,
            post,
            shared,
            config,
        }
    }

    /// Delivers until it is told to stop; then gives back what it holds.
    pub(crate) fn run(&mut self) {
        loop {
            let moves = self.shared.commits.moves();
            self.collect();
            if self.shared.stop.is_stopped() {
                break;
            }
            if self.again.is_none_or(|again| again <= Instant::now()) {
                self.post.see(|seen| seen.asked = Some(Instant::now()));
                let turned = self.turn();
                self.post.see(|seen| seen.asked = None);
                self.note(turned);
            }
            self.post.see(|seen| seen.in_flight = self.flights.len());
            if !self.has_work() {
                self.shared.commits.wait_for_move(moves, self.next());
            }
            if self.shared.stop.wait(TURN) {
                self.collect();
                break;
            }
        }
        // Whatever fails here ends when the claims run out.
        let mut held = self.flights.ids();
        held.append(&mut self.postponed);
        let _ = self.tell();
        let _ = self.post.outbox.release(&held, Duration::ZERO);
    }

    /// What is due with the outbox.
    fn turn(&mut self) -> Result<()> {
        self.tell()?;
        let now = Instant::now();
        if now >= self.extend {
            for ids in self.flights.ids().chunks(CLAIM) {
                self.post.outbox.extend(ids, self.config.lease)?;
            }
            self.extend = now + self.config.lease / 3;
        }
        if self.post.take_ring() || now >= self.look {
            self.look = now + self.config.poll;
            self.claim()?;
        }
        if self.post.take_replay()
            && let Err(error) = self.post.outbox.replay(SystemTime::UNIX_EPOCH)
        {
            self.post.replay();
            return Err(error);
        }
        if self.post.take_recount() || now >= self.upkeep {
            self.upkeep = now + UPKEEP;
            self.put_in_order()?;
        }
        Ok(())
    }

    fn claim(&mut self) -> Result<()> {
        let (rows, bytes) = self.flights.room();
        let most = rows.min(CLAIM).min((bytes / self.row_size).max(1));
        if most == 0 || bytes == 0 {
            return Ok(());
        }
        let claimed = self.post.outbox.claim(most, self.config.lease).inspect_err(|_| self.look = Instant::now())?;
        if claimed.len() == most {
            // There may be more.
            self.look = Instant::now();
        }
        let (mut sum, count) = (0, claimed.len());
        for row in claimed {
            sum += self.send(row);
        }
        if let Some(size) = sum.checked_div(count) {
            self.row_size = self.row_size.midpoint(size) + 1;
        }
        Ok(())
    }

    /// Sends a row on its way, and returns about how many bytes it takes.
    fn send(&mut self, row: Claimed) -> usize {
        let Claimed { id, table, attempts, changes } = row;
        match changes {
            Ok(changes) if changes.is_empty() => {
                self.delivered.push(id);
                0
            }
            Ok(changes) => {
                let size = changes.iter().map(|change| change.size).sum();
                self.flights.send(id, attempts, table, changes);
                size
            }
            Err(error) => {
                self.failed(id, attempts, &table, &error);
                0
            }
        }
    }

    /// Takes note of rows that have ended.
    fn collect(&mut self) {
        for Ended { id, attempts, table, how } in self.flights.ended() {
            if attempts > 0 {
                self.upkeep = self.upkeep.min(Instant::now() + SOON);
            }
            match how {
                How::Delivered => self.delivered.push(id),
                How::Refused => self.postponed.push(id),
                How::Failed(error) => self.failed(id, attempts, &table, &error),
            }
        }
    }

    /// A row has failed: an outage says nothing about it, anything else counts.
    fn failed(&mut self, id: i64, attempts: u32, table: &str, error: &Error) {
        if error.is_retryable() || error.kind() == ErrorKind::Closed {
            return self.postponed.push(id);
        }
        let attempts = attempts.saturating_add(1);
        let text = failure_text(error);
        // What was written unseen is not seen by trying again.
        let hopeless = error.kind() == ErrorKind::Capture || attempts >= self.config.attempts;
        let retry_in = (!hopeless).then(|| self.config.backoff.after(attempts));
        if retry_in.is_none() {
            let name = self.post.outbox.name();
            tracing::error!(database = name, table, id, error = text, "a change is a dead letter");
            let reason = format!("a change of it is a dead letter of the outbox, of the id {id}: {text}");
            self.shared.dirty.mark(&name.into(), Some(table), 1, self.shared.clock.now(), &reason);
            self.upkeep = Instant::now();
        }
        self.upkeep = self.upkeep.min(Instant::now() + SOON);
        self.failed.push(Failure { id, error: text, retry_in });
    }

    /// Tells the outbox what became of rows. What could not be told is told again.
    fn tell(&mut self) -> Result<()> {
        let outbox = &*self.post.outbox;
        while !self.delivered.is_empty() {
            let some = self.delivered.len().min(CLAIM);
            outbox.delivered(self.delivered.get(..some).unwrap_or_default())?;
            self.delivered.drain(..some);
        }
        outbox.failed(&self.failed)?;
        self.failed.clear();
        if !self.postponed.is_empty() {
            // A store had no room for them, or something was down.
            outbox.release(&self.postponed, self.shared.backoff.max)?;
            self.postponed.clear();
        }
        Ok(())
    }

    /// Deletes what was delivered long ago, and looks how much there is.
    fn put_in_order(&mut self) -> Result<()> {
        let outbox = &*self.post.outbox;
        if outbox.purge(self.config.retention, PURGE)? == PURGE {
            // There is more; rows that wait come first.
            self.upkeep = Instant::now();
            return Ok(());
        }
        let strangers = outbox.strangers(self.config.strangers)?;
        if strangers > 0 {
            let database = outbox.name();
            tracing::warn!(database, strangers, "rows of the outbox are about models that no process seems to know");
        }
        let (depth, failing) = (outbox.depth()?, outbox.failing()?);
        // The row may be of a machine whose clock is ahead.
        let age = |since| self.shared.clock.now().duration_since(since).unwrap_or_default();
        self.post.see(|seen| {
            (seen.depth, seen.failing, seen.strangers) = (Some(depth), failing, strangers);
            (seen.at, seen.oldest_age) = (Some(Instant::now()), depth.oldest.map(age));
        });
        Ok(())
    }

    /// Remembers how the outbox answered. One that failed is left alone for a while.
    fn note(&mut self, turned: Result<()>) {
        match turned {
            Ok(()) => {
                if self.again.take().is_some() {
                    tracing::info!(database = self.post.outbox.name(), "the outbox answers again");
                    self.waits = self.shared.backoff.waits();
                }
                self.post.see(|seen| seen.error = None);
            }
            Err(error) => {
                if self.again.is_none() {
                    tracing::warn!(database = self.post.outbox.name(), %error, "the outbox cannot be asked");
                }
                self.again = Some(crate::clock::from_now(self.waits.next().unwrap_or(self.shared.backoff.max)));
                self.post.see(|seen| seen.error = Some(Arc::new(error)));
            }
        }
    }

    /// Whether there is something to do at once.
    fn has_work(&self) -> bool {
        let told = self.delivered.is_empty() && self.failed.is_empty() && self.postponed.is_empty();
        let now = Instant::now();
        self.again.is_none()
            && (!told
                || self.post.wants_replay()
                || self.post.wants_recount()
                || self.upkeep <= now
                || (self.look <= now && self.flights.room().0 > 0))
    }

    /// When there will be something to do, if nothing happens.
    fn next(&self) -> Instant {
        self.again.unwrap_or_else(|| {
            // Without room there is no use in looking, and what makes room wakes.
            let look = if self.flights.room().0 > 0 { self.look } else { self.look + self.config.poll };
            look.min(self.extend).min(self.upkeep)
        })
    }
}
