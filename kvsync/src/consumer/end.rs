//! How a message ends: what is said of it to the hooks, the broker, the listener and health.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::Shared;
use super::hook::Called;
use super::reason;
use super::trouble::What;
use super::work::{Held, Takes};
use crate::error::{Error, ErrorKind, without_passwords};
use crate::report::{MessageReport, Outcome, Report};
use crate::transport::Arrival;
use crate::transport::message::About;
use crate::worker::Beaten;

/// How a message ends.
pub(super) enum End {
    Done(Outcome),
    Again(Error, Duration),
    Dead(Error),
}

impl Shared {
    /// Whether the store may still be told of a change.
    pub(super) fn may_be_written(&self, about: &About, epoch: u32) -> Result<(), Error> {
        let own = about.version.epoch();
        if own < epoch {
            let message =
                format!("it is of epoch {own}, from before the database was restored; the store's is {epoch}");
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        let longest = self.retention.dead / 2;
        let oldest = self.clock.now().checked_sub(longest).unwrap_or(SystemTime::UNIX_EPOCH);
        if about.captured_at < oldest {
            let hours = longest.as_secs_f64() / 3600.0;
            let message = format!(
                "it was captured more than {hours:.1} hours ago: whether its row was deleted since cannot be told any \
                 more; backfill or repair its table"
            );
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        Ok(())
    }

    /// How a message ends that the store was told of, as far as it answered.
    pub(super) fn end_of(&self, held: &Held<'_>, takes: Takes, redelivered: u32) -> End {
        let outcome = match &held.job {
            None if held.left_out.is_some() => Outcome::Failed,
            None => Outcome::Written,
            Some(job) => {
                if job.beaten == Beaten::ByEpoch {
                    let own = held.about.version.epoch();
                    let message = format!("it is of epoch {own}, and its row was written in a higher one");
                    return End::Dead(Error::new(ErrorKind::Rejected, message));
                }
                let Some(fate) = job.fate else {
                    let error = Error::new(ErrorKind::Unavailable, "the store did not answer");
                    let last = self.store_error.lock().clone();
                    let error = match last {
                        Some(last) => error.with_source(last),
                        None => error,
                    };
                    let pause = if self.stop.is_stopped() { Duration::ZERO } else { self.backoff.max };
                    return End::Again(error, pause);
                };
                let refused = matches!(fate, Outcome::Failed | Outcome::Masked);
                if let Some(error) = job.error.as_ref().filter(|_| refused) {
                    let message = "the store refused it; readers of its row are sent to the database";
                    let told = Error::new(error.kind(), message).with_source(Arc::clone(error));
                    if takes == Takes::Nothing {
                        return End::Again(told, self.backoff.max);
                    }
                    if is_of_one_key(error) {
                        return End::Dead(told);
                    }
                    // A right for its table may be missing: whatever else it is, somebody can mend it.
                    let pause = self.pauses.after(redelivered.saturating_add(1));
                    let what = What::Store(Arc::clone(&held.about.table));
                    self.troubles.failed(what, &held.about, error, Some(pause));
                    return End::Again(told, pause);
                }
                self.troubles.well(|| What::Store(Arc::clone(&held.about.table)), &held.about);
                fate
            }
        };
        if let Some(error) = &held.left_out {
            return End::Dead(error.clone());
        }
        if let Some(message) = &held.message {
            for hook in &held.hooks {
                let end = match hook.call(message, outcome == Outcome::Superseded, redelivered) {
                    Called::Well => {
                        self.troubles.well(|| What::Hook(hook.model), &held.about);
                        continue;
                    }
                    Called::Unreadable(error) => End::Dead(error),
                    Called::Failed(error) => self.once_more(error, redelivered),
                };
                if let End::Again(error, _) | End::Dead(error) = &end {
                    let pause = if let End::Again(_, pause) = &end { Some(*pause) } else { None };
                    self.troubles.failed(What::Hook(hook.model), &held.about, error, pause);
                }
                return end;
            }
        }
        End::Done(outcome)
    }

    /// It is delivered again after a pause, or has been often enough.
    pub(super) fn once_more(&self, error: Error, redelivered: u32) -> End {
        let deliveries = redelivered.saturating_add(1);
        if deliveries >= self.attempts { End::Dead(error) } else { End::Again(error, self.pauses.after(deliveries)) }
    }

    /// It is given back, so that another may have it at once.
    pub(super) fn given_back(&self) -> End {
        End::Again(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)), Duration::ZERO)
    }

    /// Whether the time has passed that there was for what is held.
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_stopped() && self.ends_at.lock().is_some_and(|at| Instant::now() >= at)
    }

    /// Says to the broker, to the listener and to health how a message ended.
    pub(super) fn end(&self, arrival: Arrival, about: Option<&About>, end: End) {
        let redelivered = arrival.redelivered();
        match end {
            End::Done(outcome) => {
                if let Some(about) = about {
                    self.tell_done(about, outcome, redelivered);
                }
                arrival.ack();
            }
            End::Again(error, after) => {
                self.counts.again.fetch_add(1, Ordering::Relaxed);
                self.count("again");
                self.tell(about, Outcome::Deferred, Some(error), redelivered);
                arrival.again(after);
            }
            End::Dead(error) => {
                let reason = without_passwords(&reason(&error));
                self.log_dead(&arrival, about, &reason);
                self.counts.dead.fetch_add(1, Ordering::Relaxed);
                self.count("dead");
                self.tell(about, Outcome::Failed, Some(error), redelivered);
                arrival.dead(&reason);
            }
        }
        self.counts.let_go();
    }

    /// What an operator needs to find the row, and the message among the dead letters.
    fn log_dead(&self, arrival: &Arrival, about: Option<&About>, reason: &str) {
        let (id, deliveries) = (arrival.id(), arrival.redelivered().saturating_add(1));
        if let Some(About { table, model, action, primary_key, version, .. }) = about {
            tracing::error!(
                queue = &*self.name,
                table = &**table,
                primary_key = &**primary_key,
                model = &**model,
                %action,
                %version,
                id,
                deliveries,
                reason,
                "a message is a dead letter"
            );
        } else {
            tracing::error!(
                queue = &*self.name,
                id,
                content_type = arrival.content_type(),
                bytes = arrival.body().len(),
                deliveries,
                reason,
                "a message is a dead letter"
            );
        }
    }

    pub(super) fn tell_done(&self, about: &About, outcome: Outcome, redelivered: u32) {
        let lag = self.clock.now().duration_since(about.captured_at).unwrap_or_default();
        self.counts.acknowledge(outcome, lag);
        self.count("done");
        self.count_lag(lag);
        self.tell(Some(about), outcome, None, redelivered);
    }

    fn tell(&self, about: Option<&About>, outcome: Outcome, error: Option<Error>, redelivered: u32) {
        if !self.reporter.listens() {
            return;
        }
        self.reporter.report(Report::Message(MessageReport {
            subscription: Arc::clone(&self.name),
            table: about.map(|about| Arc::clone(&about.table)),
            model: about.map(|about| Arc::clone(&about.model)),
            key: about.map(|about| about.home.clone()),
            action: about.map(|about| about.action),
            version: about.map(|about| about.version),
            outcome,
            error: error.map(Arc::new),
            redelivered,
            lag: about.and_then(|about| self.clock.now().duration_since(about.captured_at).ok()),
        }));
    }

    /// The store failed: nothing more is received until it answers, and takes what it is given.
    pub(super) fn store_failed(&self, error: Arc<Error>) {
        self.met.store(false, Ordering::Release);
        let mut last = self.store_error.lock();
        if last.is_none() {
            tracing::warn!(queue = &*self.name, %error, "the store takes nothing");
        }
        *last = Some(error);
    }

    /// It answers, and takes what it is given.
    pub(super) fn store_is_well(&self) {
        if self.store_error.lock().take().is_some() {
            tracing::info!(queue = &*self.name, "the store takes changes again");
        }
    }

    #[cfg(feature = "metrics")]
    fn count(&self, outcome: &'static str) {
        let queue = metrics::SharedString::from_shared(Arc::clone(&self.name));
        metrics::counter!("kvsync_consumer_messages_total", "queue" => queue, "outcome" => outcome).increment(1);
    }

    #[cfg(feature = "metrics")]
    fn count_lag(&self, lag: Duration) {
        let queue = metrics::SharedString::from_shared(Arc::clone(&self.name));
        metrics::histogram!("kvsync_consumer_lag_seconds", "queue" => queue).record(lag);
    }

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self, reason = "it has the signature of the one that counts")]
    fn count(&self, _: &'static str) {}

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self, reason = "it has the signature of the one that counts")]
    fn count_lag(&self, _: Duration) {}
}

/// Whether the store has refused because of what stands under a key: no other message is concerned.
pub(super) fn is_of_one_key(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnknownLayout | ErrorKind::WrongType)
}
