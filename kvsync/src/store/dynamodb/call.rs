//! One call of a user's: its deadline, and how its requests are sent again.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use rand::Rng;

use super::Inner;
use super::error::Failure;
use crate::error::{Error, ErrorKind, Result};

/// How long the bridge waits beyond the deadline for a call that is about to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// The first pause before something is tried again, and the longest; each is a random part of it.
const FIRST: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_millis(400);

/// How many items fit in one answer, however large they are: it has 16 MB at most, an item 400 KB.
const AN_ANSWER: usize = 40;

/// A call under way.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) store: Arc<Inner>,
    deadline: Deadline,
}

/// When a call has to have ended.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    until: Instant,
    /// From when on nothing is tried again.
    patient_until: Instant,
    /// What it is put off to at most, where answers keep coming.
    last: Instant,
    /// What it is put off by.
    budget: Duration,
}

/// An answer.
pub(super) struct Answer<T> {
    pub(super) output: T,
}

/// No answer, or a refusal.
pub(super) struct Refused<E> {
    pub(super) failure: Failure,
    /// What the server said, where it is it that refused.
    pub(super) said: Option<E>,
    /// Whether an earlier try, or this one, may have done what was asked.
    pub(super) in_doubt: bool,
}

impl<E> From<Refused<E>> for Error {
    fn from(refused: Refused<E>) -> Self {
        let mut failure = refused.failure;
        if refused.in_doubt {
            failure.kind = ErrorKind::UnknownOutcome;
        }
        failure.into()
    }
}

/// Whether a request changes the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// How often something was tried again.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Inner {
    /// Runs the requests of one call, and blocks until they are answered, or until this much time has passed.
    pub(super) fn call<T, F>(
        self: &Arc<Self>,
        effect: Effect,
        budget: Duration,
        work: impl FnOnce(Call) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.call_about(1, effect, budget, work)
    }

    /// The same of a call that reads this many items: it may take as much longer as the answers are more.
    pub(super) fn call_about<T, F>(
        self: &Arc<Self>,
        items: usize,
        effect: Effect,
        budget: Duration,
        work: impl FnOnce(Call) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        use crate::bridge::Cut;
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)));
        }
        // What is tried last has its time, too.
        let last = if effect == Effect::Writes { self.settings.command_timeout } else { Duration::ZERO };
        let patience = budget.saturating_sub(last);
        let more = u32::try_from(items.div_ceil(AN_ANSWER).saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = budget.saturating_add(self.settings.command_timeout.saturating_mul(more));
        let deadline = Deadline {
            until: crate::clock::from_now(budget),
            patient_until: crate::clock::from_now(patience),
            last: crate::clock::from_now(longest),
            budget,
        };
        let call = Call { store: Arc::clone(self), deadline };
        let answer = self.bridge.run(longest.saturating_add(GRACE), work(call));
        answer.unwrap_or_else(|cut| {
            let (kind, what) = match (cut, effect) {
                (Cut::OwnThread, _) => (ErrorKind::Rejected, "cannot be asked from its own thread"),
                (Cut::Panic, Effect::Writes) => (ErrorKind::UnknownOutcome, "ended in a panic"),
                (Cut::Panic, Effect::Reads) => (ErrorKind::Unavailable, "ended in a panic"),
                (Cut::Deadline, Effect::Writes) => (ErrorKind::UnknownOutcome, "did not end in time"),
                (Cut::Deadline, Effect::Reads) => (ErrorKind::Unavailable, "did not end in time"),
            };
            Err(Error::new(kind, format!("a call of {} {what}", self.name)))
        })
    }

    /// How long a call may take in all.
    pub(super) fn budget(&self, effect: Effect) -> Duration {
        match effect {
            Effect::Reads => self.settings.command_timeout,
            Effect::Writes => self.settings.retry_for.saturating_add(self.settings.command_timeout),
        }
    }
}

impl Tries {
    pub(super) const fn is_first(&self) -> bool {
        self.0 == 0
    }
}

impl Call {
    /// One that nobody waits for.
    pub(super) fn lasting(store: &Arc<Inner>, time: Duration) -> Self {
        let until = crate::clock::from_now(time);
        let deadline = Deadline { until, patient_until: until, last: until, budget: time };
        Self { store: Arc::clone(store), deadline }
    }

    /// Sends a request, and again after failures that may pass while there is time.
    pub(super) async fn send<O, E, F>(
        &self,
        effect: Effect,
        mut request: impl FnMut() -> F,
    ) -> Result<Answer<O>, Refused<E>>
    where
        F: Future<Output = Result<O, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let (mut tries, mut in_doubt) = (Tries::default(), false);
        loop {
            let timeout = self.store.settings.command_timeout.min(self.left());
            let (failure, said) = match tokio::time::timeout(timeout, request()).await {
                Ok(Ok(output)) => return Ok(Answer { output }),
                Ok(Err(error)) => (Failure::of(&error, &self.store.name), error.into_service_error_if_any()),
                Err(_) => (Failure::late(&self.store.name), None),
            };
            in_doubt |= failure.in_doubt && effect == Effect::Writes;
            if !(failure.passes && self.pause(&mut tries).await) {
                return Err(Refused { failure, said, in_doubt });
            }
        }
    }

    /// Waits before something is tried again; false when there is no time left.
    pub(super) async fn pause(&self, tries: &mut Tries) -> bool {
        let most = FIRST.saturating_mul(1 << tries.0.min(16)).min(LONGEST);
        tries.0 = tries.0.saturating_add(1);
        let pause = most.mul_f64(rand::rng().random_range(0.0..1.0));
        if pause >= self.deadline.patient_until.saturating_duration_since(Instant::now()) {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    fn left(&self) -> Duration {
        self.deadline.until.saturating_duration_since(Instant::now())
    }

    /// The call as it goes on after an answer that brought something.
    pub(super) fn renewed(&self) -> Self {
        Self { store: Arc::clone(&self.store), deadline: self.deadline.renewed(Instant::now()) }
    }
}

impl Deadline {
    fn renewed(self, now: Instant) -> Self {
        let by = now.checked_add(self.budget).map_or(self.last, |until| until.min(self.last));
        let put_off = by.saturating_duration_since(self.until);
        Self { until: self.until + put_off, patient_until: self.patient_until + put_off, ..self }
    }
}

trait ServiceError<E> {
    fn into_service_error_if_any(self) -> Option<E>;
}

impl<E> ServiceError<E> for SdkError<E> {
    fn into_service_error_if_any(self) -> Option<E> {
        match self {
            Self::ServiceError(service) => Some(service.into_err()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_begins_anew_with_what_comes_and_ends_all_the_same() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let deadline = Deadline {
            until: begun + 3 * second,
            patient_until: begun + second,
            last: begun + 9 * second,
            budget: 3 * second,
        };
        let renewed = deadline.renewed(begun + 2 * second);
        assert_eq!((renewed.until, renewed.patient_until), (begun + 5 * second, begun + 3 * second));
        assert_eq!(renewed.renewed(begun + 8 * second).until, begun + 9 * second);
        let fixed = Deadline { last: deadline.until, ..deadline };
        assert_eq!(fixed.renewed(begun + 2 * second).until, deadline.until);
    }
}
