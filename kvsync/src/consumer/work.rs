//! What a consumer's worker does with what it receives: reads it, and writes it into the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::end::{End, is_of_one_key};
use super::fit::fit;
use super::hook::Hook;
use crate::error::{Error, ErrorKind, failure_text, without_passwords};
use crate::model::panic_message;
use crate::record::Form;
use crate::report::{Outcome, Report};
use crate::store::SyncStore;
use crate::transport::message::About;
use crate::transport::{Arrival, ChangeMessage};
use crate::worker::{Applier, Beaten, Job, Target};

/// How long one question for messages may wait: so long a worker may take to see that it is to stop.
const WAIT: Duration = Duration::from_millis(200);
/// For how long a worker goes on asking a store that does not answer before it gives back what it holds: the broker
/// may deliver to others, and would sooner or later take it away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a part of a store is asked that does not answer while others do: these wait for it.
const PARTLY: u32 = 3;
/// How many rounds a job may take in one go: a refusal is asked again at once, an outage is not.
const ROUNDS: u32 = 8;

pub(super) struct Worker {
    shared: Arc<Shared>,
    applier: Option<Applier>,
    hooked: bool,
}

/// What a store takes that has refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Other things: it has refused this for what it is.
    Others,
    Nothing,
}

/// A message on its way.
pub(super) struct Held<'a> {
    /// Where its arrival is.
    place: usize,
    pub(super) about: About,
    /// What the store is told; nothing without a store.
    pub(super) job: Option<Job>,
    /// What of it the store cannot hold.
    pub(super) left_out: Option<Error>,
    /// For hooks.
    pub(super) message: Option<ChangeMessage>,
    pub(super) hooks: Vec<&'a Hook>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let applier = shared
            .store
            .as_ref()
            .map(|store| Applier::new(Target::Store(Arc::clone(store)), Arc::clone(&shared.clock), shared.retention));
        let hooked = !shared.hooks.is_empty();
        Self { shared, applier, hooked }
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut waits = shared.backoff.waits();
        while !shared.stop.is_stopped() {
            // What cannot be written now is better left with the broker.
            if let Err(error) = shared.meet(0) {
                shared.store_failed(Arc::new(error));
                shared.stop.wait(waits.next().unwrap_or(shared.backoff.max));
                continue;
            }
            match shared.subscription.receive(shared.batch, WAIT) {
                Ok(arrivals) => {
                    if shared.queue_error.lock().take().is_some() {
                        tracing::info!(queue = &*shared.name, "messages can be received again");
                    }
                    waits = shared.backoff.waits();
                    if arrivals.is_empty() {
                        self.confirm();
                    } else {
                        shared.counts.take(u64::try_from(arrivals.len()).unwrap_or(u64::MAX));
                        self.take(arrivals);
                    }
                }
                Err(error) => {
                    let text = without_passwords(&failure_text(&error));
                    if shared.queue_error.lock().replace(Arc::new(error)).is_none() {
                        tracing::warn!(queue = &*shared.name, error = text, "nothing can be received; trying again");
                    }
                    shared.stop.wait(waits.next().unwrap_or(shared.backoff.max));
                }
            }
        }
        self.confirm();
    }

    fn confirm(&mut self) {
        if let Some(applier) = &mut self.applier {
            applier.confirm();
        }
    }

    /// Deals with messages. One that makes code panic is a dead letter, and holds up no other.
    pub(super) fn take(&mut self, arrivals: Vec<Arrival>) {
        let mut slots: Vec<Option<Arrival>> = arrivals.into_iter().map(Some).collect();
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.batch(&mut slots))) else { return };
        let message = panic_message(&*panic);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(thread, message, "handling messages panicked");
        self.shared.reporter.report(Report::Panicked { thread, message: message.clone() });
        let alone = slots.len() == 1;
        for arrival in slots.iter_mut().filter_map(Option::take) {
            if alone {
                let error = Error::new(ErrorKind::Rejected, format!("handling it panicked: {message}"));
                self.shared.end(arrival, None, End::Dead(error));
            } else {
                self.take(vec![arrival]);
            }
        }
    }

    fn batch(&mut self, slots: &mut [Option<Arrival>]) {
        let shared = Arc::clone(&self.shared);
        let mut held = self.read(&shared, slots);
        let told = held.iter().map(|held| held.about.version.epoch()).max().unwrap_or(0);
        let takes = match shared.meet(told) {
            Ok(()) => self.write(&mut held),
            Err(error) => {
                shared.store_failed(Arc::new(error));
                Takes::Nothing
            }
        };
        let (hooked, others): (Vec<Held<'_>>, Vec<Held<'_>>) =
            held.into_iter().partition(|held| !held.hooks.is_empty());
        let mut done = Vec::with_capacity(others.len());
        for held in others {
            let Some(arrival) = slots.get_mut(held.place).and_then(Option::take) else { continue };
            match shared.end_of(&held, takes, arrival.redelivered()) {
                End::Done(outcome) => {
                    shared.tell_done(&held.about, outcome, arrival.redelivered());
                    done.push(arrival);
                }
                end => shared.end(arrival, Some(&held.about), end),
            }
        }
        for _ in &done {
            shared.counts.let_go();
        }
        Arrival::ack_all(done);
        for held in hooked {
            let Some(redelivered) = slots.get(held.place).and_then(Option::as_ref).map(Arrival::redelivered) else {
                continue;
            };
            let end = if shared.is_over() { shared.given_back() } else { shared.end_of(&held, takes, redelivered) };
            if let Some(arrival) = slots.get_mut(held.place).and_then(Option::take) {
                shared.end(arrival, Some(&held.about), end);
            }
        }
    }

    /// Reads what was received. What is no message, or may not be written any more, is a dead letter.
    fn read<'a>(&self, shared: &'a Shared, slots: &mut [Option<Arrival>]) -> Vec<Held<'a>> {
        let mut read = Vec::with_capacity(slots.len());
        for (place, slot) in slots.iter_mut().enumerate() {
            let Some(arrival) = slot else { continue };
            if arrival.redelivered() > 0 {
                shared.counts.redelivered.fetch_add(1, Ordering::Relaxed);
            }
            match ChangeMessage::decode(arrival.content_type(), arrival.body()) {
                Ok(message) => read.push((place, message)),
                Err(error) => {
                    if let Some(arrival) = slot.take() {
                        shared.end(arrival, None, End::Dead(error));
                    }
                }
            }
        }
        // The store follows the highest epoch before any change of a lower one is judged.
        let told = read.iter().map(|(_, message)| message.version().epoch());
        let told = told.filter(|told| shared.believes(*told)).max().unwrap_or(0);
        let epoch = shared.epoch.load(Ordering::Acquire).max(told);
        let mut held = Vec::with_capacity(read.len());
        for (place, message) in read {
            match self.prepare(shared, place, message, epoch) {
                Ok(one) => held.push(one),
                Err(refused) => {
                    let (about, error) = *refused;
                    if let Some(arrival) = slots.get_mut(place).and_then(Option::take) {
                        let end = if shared.believes(about.version.epoch()) {
                            End::Dead(error)
                        } else {
                            shared.once_more(error, arrival.redelivered())
                        };
                        shared.end(arrival, Some(&about), end);
                    }
                }
            }
        }
        held
    }

    fn prepare<'a>(
        &self,
        shared: &'a Shared,
        place: usize,
        message: ChangeMessage,
        epoch: u32,
    ) -> Result<Held<'a>, Box<(About, Error)>> {
        let hooks: Vec<&Hook> =
            if self.hooked { shared.hooks.iter().filter(|hook| hook.is_of(&message)).collect() } else { Vec::new() };
        let of_hooks = (!hooks.is_empty()).then(|| message.clone());
        let (Some(applier), Some(store)) = (&self.applier, &shared.store) else {
            let (about, _) = message.into_form(&crate::worker::terms(&*shared.clock, &shared.retention));
            return Ok(Held { place, about, job: None, left_out: None, message: of_hooks, hooks });
        };
        let terms = applier.terms();
        let (about, mut form) = message.into_form(&terms);
        if !shared.believes(about.version.epoch()) {
            let error = shared.unbelievable(&about);
            return Err(Box::new((about, error)));
        }
        if let Err(error) = shared.may_be_written(&about, epoch) {
            return Err(Box::new((about, error)));
        }
        match fit(&mut form, store.name(), &store.capabilities(), &terms) {
            Ok(left_out) => {
                let nothing = matches!(&form, Form::Registers(writes) if writes.is_empty());
                let job = (!nothing).then(|| Job::new(form));
                Ok(Held { place, about, job, left_out, message: of_hooks, hooks })
            }
            Err(error) => Err(Box::new((about, error))),
        }
    }

    /// Writes what is held into the store, for as long as there is patience with it. Whether the store takes anything.
    fn write(&mut self, held: &mut [Held<'_>]) -> Takes {
        let Some(applier) = &mut self.applier else { return Takes::Others };
        let shared = &self.shared;
        let began = Instant::now();
        let mut waits = shared.backoff.waits();
        let (mut refusals, mut partly) = (0, 0);
        loop {
            let mut jobs: Vec<&mut Job> =
                held.iter_mut().filter_map(|held| held.job.as_mut()).filter(|job| job.fate.is_none()).collect();
            if jobs.is_empty() || refusals > ROUNDS {
                break;
            }
            let round = applier.round(&mut jobs);
            let Some(error) = round.error.filter(|error| error.is_retryable()) else {
                refusals += 1;
                if round.answered {
                    shared.store_is_well();
                }
                continue;
            };
            shared.store_failed(error);
            partly += u32::from(round.answered);
            if partly > PARTLY {
                break;
            }
            let wait = waits.next().unwrap_or(shared.backoff.max);
            if began.elapsed() + wait > PATIENCE || shared.stop.wait(wait) {
                break;
            }
        }
        let refused = |job: &Job| {
            let failed = matches!(job.fate, Some(Outcome::Failed | Outcome::Masked));
            failed && job.error.as_ref().is_some_and(|error| !is_of_one_key(error))
        };
        let mut takes = Takes::Others;
        if held.iter().filter_map(|held| held.job.as_ref()).any(refused)
            && let Err(error) = shared.try_store()
        {
            shared.store_failed(Arc::new(error));
            takes = Takes::Nothing;
        }
        let beaten = held.iter_mut().filter_map(|held| held.job.as_mut()).filter(|job| job.beaten != Beaten::Fairly);
        let mut beaten: Vec<&mut Job> = beaten.collect();
        if !beaten.is_empty() {
            // Where the store does not say, nothing is acknowledged that it may have refused.
            let epoch = shared.store.as_ref().and_then(|store| SyncStore::epoch(&**store).ok());
            for job in &mut beaten {
                match epoch {
                    Some(epoch) => job.judge(epoch),
                    None => job.fate = None,
                }
            }
        }
        takes
    }
}
