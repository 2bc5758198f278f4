//! Brokers that are wrong on purpose are rejected by the suite, each by a case that says what is wrong.
//!
//! They are the broker in memory, which is right, and a fault to choose. It is long because each fault is a line or two
//! within the one broker that it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::transport::conformance::{self, Dead, Harness, Own, Topic, Verdict};
use kvsync::transport::{
    Arrival, Backlog, Broker, DeadMessage, Ends, Health, MemoryBroker, MemoryQueue, Message, Status, Subscription,
};
use kvsync::{Error, ErrorKind, Result};
use kvsync_tests::wait::LONG;
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

/// How long the suite waits for a broker that is known to be wrong.
const SHORT: Duration = Duration::from_millis(300);

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KeepsNothing,
    KeepsAThousand,
    ChangesBodies,
    ForgetsTheForm,
    ForgetsTheId,
    CountsFromOne,
    NeverCounts,
    RefusesOddNames,
    RefusesCopies,
    OnePublisherOnly,
    EachConsumerGetsAll,
    GivesTooMany,
    EmptyIsAnError,
    BacklogKeeps,
    BacklogForgetsWhatWaits,
    BacklogWhileAway,
    NeverUp,
    AlwaysUp,
    LosesWhatIsDropped,
    LosesWhatWaits,
    ComesTooEarly,
    HoldsUpAll,
    ForgetsAcknowledgements,
    AcknowledgesAllBefore,
    AcknowledgesOne,
    ForgetsReasons,
    CutsReasons,
    LosesDeadLetters,
    DeadLettersComeAgain,
    ListsNone,
    ListsAll,
    ListingTakes,
    RedrivesAll,
    RedriveLoses,
    LosesOnClose,
    ClosesInNameOnly,
    ClosedPublishes,
    ClosedReceives,
    KilledHolds,
    IgnoresMaxBody,
    TooLargeIsUnavailable,
    OneFailsAll,
    AnswersTooFew,
    AnswersInReverse,
    FullLoses,
    FullIsRejected,
    FullForEver,
    UnroutedIsConfirmed,
    ForbiddenIsRejected,
    ForbiddenIsConfirmed,
    ConfirmsWhileAway,
    AwayIsRejected,
    NeverComesBack,
    LosesWhenStopped,
    LosesWhenKilled,
}

/// The case that has to say so.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::KeepsNothing, "what_is_confirmed_arrives"),
    (Fault::ForgetsTheForm, "what_is_confirmed_arrives"),
    (Fault::ForgetsTheId, "what_is_confirmed_arrives"),
    (Fault::CountsFromOne, "what_is_confirmed_arrives"),
    (Fault::ForgetsAcknowledgements, "what_is_confirmed_arrives"),
    (Fault::AnswersTooFew, "what_is_confirmed_arrives"),
    (Fault::EachConsumerGetsAll, "what_was_published_before_anyone_asked_arrives"),
    (Fault::ChangesBodies, "bodies_are_bytes"),
    (Fault::KeepsAThousand, "a_batch_of_thousands_arrives"),
    (Fault::EmptyIsAnError, "publishing_nothing_does_nothing"),
    (Fault::RefusesOddNames, "tables_and_actions_of_any_name_arrive"),
    (Fault::RefusesCopies, "the_same_message_twice_is_no_error"),
    (Fault::EachConsumerGetsAll, "two_consumers_share_a_queue"),
    (Fault::OnePublisherOnly, "several_publishers_and_threads_share_a_topic"),
    (Fault::BacklogKeeps, "the_backlog_tells_what_waits"),
    (Fault::NeverUp, "both_are_up"),
    (Fault::LosesWhatIsDropped, "what_is_dropped_is_delivered_again"),
    (Fault::NeverCounts, "redeliveries_are_counted"),
    (Fault::LosesWhatWaits, "redeliveries_are_counted"),
    (Fault::ComesTooEarly, "what_is_to_come_later_does_not_come_before"),
    (Fault::HoldsUpAll, "one_that_comes_later_holds_up_no_other"),
    (Fault::BacklogForgetsWhatWaits, "what_is_to_come_later_is_in_the_backlog"),
    (Fault::AcknowledgesAllBefore, "acknowledgements_in_any_order_are_of_those_named"),
    (Fault::AcknowledgesOne, "acknowledgements_in_any_order_are_of_those_named"),
    (Fault::ForgetsReasons, "a_dead_letter_is_kept_with_its_reason"),
    (Fault::CutsReasons, "a_dead_letter_is_kept_with_its_reason"),
    (Fault::LosesDeadLetters, "a_dead_letter_is_kept_with_its_reason"),
    (Fault::DeadLettersComeAgain, "a_dead_letter_is_kept_with_its_reason"),
    (Fault::ListsNone, "dead_letters_are_listed_and_stay"),
    (Fault::ListsAll, "dead_letters_are_listed_and_stay"),
    (Fault::ListingTakes, "dead_letters_are_listed_and_stay"),
    (Fault::RedrivesAll, "dead_letters_are_delivered_again"),
    (Fault::RedriveLoses, "dead_letters_are_delivered_again"),
    (Fault::LosesOnClose, "what_was_taken_comes_back_when_its_taker_closes"),
    (Fault::ClosesInNameOnly, "what_was_taken_comes_back_when_its_taker_closes"),
    (Fault::ClosedPublishes, "what_was_taken_comes_back_when_its_taker_closes"),
    (Fault::ClosedReceives, "what_was_taken_comes_back_when_its_taker_closes"),
    (Fault::GivesTooMany, "what_was_taken_comes_back_when_its_taker_closes"),
    (Fault::ClosesInNameOnly, "an_end_after_the_close_does_no_harm"),
    (Fault::KilledHolds, "what_a_killed_consumer_took_comes_back"),
    (Fault::IgnoresMaxBody, "what_is_too_large_is_rejected_and_nothing_else"),
    (Fault::TooLargeIsUnavailable, "what_is_too_large_is_rejected_and_nothing_else"),
    (Fault::OneFailsAll, "what_is_too_large_is_rejected_and_nothing_else"),
    (Fault::AnswersInReverse, "what_is_too_large_is_rejected_and_nothing_else"),
    (Fault::FullLoses, "a_full_queue_is_an_error_and_loses_nothing"),
    (Fault::FullIsRejected, "a_full_queue_is_an_error_and_loses_nothing"),
    (Fault::FullForEver, "a_full_queue_is_an_error_and_loses_nothing"),
    (Fault::UnroutedIsConfirmed, "what_nobody_would_receive_is_an_error"),
    (Fault::ForbiddenIsRejected, "who_may_not_publish_is_told_and_no_message_is_to_blame"),
    (Fault::ForbiddenIsConfirmed, "who_may_not_publish_is_told_and_no_message_is_to_blame"),
    (Fault::ConfirmsWhileAway, "a_server_that_comes_later_is_found"),
    (Fault::NeverComesBack, "a_server_that_comes_later_is_found"),
    (Fault::LosesWhenStopped, "restarts_and_kills_lose_nothing_that_was_confirmed"),
    (Fault::LosesWhenKilled, "restarts_and_kills_lose_nothing_that_was_confirmed"),
    (Fault::AlwaysUp, "a_server_that_is_away_or_hangs_is_told_and_ends_every_call"),
    (Fault::AwayIsRejected, "a_server_that_is_away_or_hangs_is_told_and_ends_every_call"),
    (Fault::BacklogWhileAway, "a_server_that_is_away_or_hangs_is_told_and_ends_every_call"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = FAULTS
        .iter()
        .map(|(fault, case)| Trial::test(format!("broken::{fault:?}::{case}"), || is_rejected(*fault, case)))
        .collect();
    trials.push(Trial::test("broken::without_a_fault_it_passes", passes));
    trials.push(Trial::test("broken::every_case_rejects_something", each_is_needed));
    trials
}

fn is_rejected(fault: Fault, name: &str) -> Result<(), Failed> {
    let case = conformance::cases().find(|case| case.name == name).ok_or("no case has this name")?;
    match case.run(&Wrong(fault)) {
        Verdict::Failed(_) => Ok(()),
        verdict => Err(format!("{verdict:?}").into()),
    }
}

fn passes() -> Result<(), Failed> {
    let verdicts = conformance::run(&Wrong(Fault::None));
    let wrong: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}").into()) }
}

fn each_is_needed() -> Result<(), Failed> {
    let idle: Vec<_> = conformance::cases().filter(|case| FAULTS.iter().all(|(_, name)| *name != case.name)).collect();
    if idle.is_empty() { Ok(()) } else { Err(format!("no fault for {idle:?}").into()) }
}

struct Wrong(Fault);

/// What one topic is: also on a server of its own, which is this memory.
struct Place {
    fault: Fault,
    memory: MemoryBroker,
    down: AtomicBool,
    was_down: AtomicBool,
    was_full: AtomicBool,
    waits: AtomicBool,
    made: AtomicU64,
    ids: Mutex<BTreeSet<String>>,
}

struct Publisher {
    place: Arc<Place>,
    number: u64,
    inner: MemoryBroker,
}

struct Taker {
    place: Arc<Place>,
    inner: MemoryQueue,
    held: Arc<Held>,
}

/// What was taken and has not ended, by its tag.
struct Held {
    place: Arc<Place>,
    next: AtomicU64,
    arrivals: Mutex<BTreeMap<u64, Arrival>>,
}

/// Whom the server refuses.
#[derive(Debug)]
struct Refused(Result<()>);

#[derive(Clone)]
struct Shared(Arc<Place>);

fn place(fault: Fault, capacity: usize) -> Arc<Place> {
    let memory = MemoryBroker::with_limits(1 << 20, capacity);
    drop(memory.queue("all"));
    bare(fault, memory)
}

fn bare(fault: Fault, memory: MemoryBroker) -> Arc<Place> {
    Arc::new(Place {
        fault,
        memory,
        down: AtomicBool::new(false),
        was_down: AtomicBool::new(false),
        was_full: AtomicBool::new(false),
        waits: AtomicBool::new(false),
        made: AtomicU64::new(0),
        ids: Mutex::default(),
    })
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "wrong on purpose")
}

impl Harness for Wrong {
    fn patience(&self) -> Duration {
        if self.0 == Fault::None { LONG } else { SHORT }
    }

    fn fresh(&self) -> Arc<dyn Topic> {
        Arc::new(Shared(place(self.0, usize::MAX)))
    }

    fn bounded(&self, most: u64) -> Option<Arc<dyn Topic>> {
        Some(Arc::new(Shared(place(self.0, usize::try_from(most).unwrap()))))
    }

    fn unrouted(&self) -> Option<Arc<dyn Broker>> {
        Some(Shared(bare(self.0, MemoryBroker::new())).broker())
    }

    fn forbidden(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(Refused(match self.0 {
            Fault::ForbiddenIsConfirmed => Ok(()),
            Fault::ForbiddenIsRejected => Err(error(ErrorKind::Rejected)),
            _ => Err(error(ErrorKind::Config)),
        })))
    }

    fn own(&self) -> Option<Box<dyn Own>> {
        Some(Box::new(Shared(place(self.0, usize::MAX))))
    }
}

impl Topic for Shared {
    fn broker(&self) -> Arc<dyn Broker> {
        let number = self.0.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(Publisher { place: Arc::clone(&self.0), number, inner: self.0.memory.clone() })
    }

    fn subscribe(&self) -> Arc<dyn Subscription> {
        let name = match self.0.fault {
            Fault::EachConsumerGetsAll => format!("of {}", self.0.made.fetch_add(1, Ordering::Relaxed)),
            _ => "all".to_owned(),
        };
        let held = Held { place: Arc::clone(&self.0), next: AtomicU64::new(1), arrivals: Mutex::default() };
        Arc::new(Taker { place: Arc::clone(&self.0), inner: self.0.memory.queue(&name), held: Arc::new(held) })
    }

    fn dead(&self) -> Vec<Dead> {
        let dead = self.0.memory.queue("all").dead_letters().into_iter();
        dead.map(|one| Dead { body: one.message.body, reason: one.reason }).collect()
    }

    fn taken_and_killed(&self, most: usize) -> Option<Vec<Bytes>> {
        let queue = self.0.memory.queue("all");
        let taken = queue.receive(most, Duration::ZERO).unwrap();
        let bodies = taken.iter().map(|arrival| arrival.body().clone()).collect();
        // Whoever is killed says nothing.
        std::mem::forget(taken);
        if self.0.fault != Fault::KilledHolds {
            queue.lose_hold();
        }
        Some(bodies)
    }
}

impl Own for Shared {
    fn topic(&self) -> Arc<dyn Topic> {
        Arc::new(self.clone())
    }

    fn stop(&self) {
        self.0.go_down(self.0.fault == Fault::LosesWhenStopped);
    }

    fn kill(&self) {
        self.0.go_down(self.0.fault == Fault::LosesWhenKilled);
    }

    fn start(&self) {
        self.0.down.store(false, Ordering::Release);
        self.0.memory.set_up(true);
    }

    fn pause(&self) {
        self.0.go_down(false);
    }

    fn resume(&self) {
        self.start();
    }
}

impl Place {
    fn go_down(&self, loses: bool) {
        if loses {
            Arrival::ack_all(self.memory.queue("all").receive(usize::MAX, Duration::ZERO).unwrap());
        }
        self.was_down.store(true, Ordering::Release);
        self.down.store(true, Ordering::Release);
        self.memory.set_up(false);
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    fn health(&self, right: Health) -> Health {
        match self.fault {
            Fault::NeverUp => Health::new(Status::Down, vec!["on purpose".to_owned()]),
            Fault::AlwaysUp => Health::new(Status::Up, Vec::new()),
            _ => right,
        }
    }
}

impl Publisher {
    /// What becomes of one message, which is the so many-th of its call.
    fn one(&self, place: usize, message: &Message) -> Result<()> {
        let too_large = message.body.len() > self.inner.max_body();
        let publish = |message: &Message| self.inner.publish(std::slice::from_ref(message)).remove(0);
        match self.place.fault {
            Fault::KeepsNothing => Ok(()),
            Fault::KeepsAThousand if place >= 1000 => Ok(()),
            Fault::ChangesBodies => {
                let body = String::from_utf8_lossy(&message.body).into_owned().into();
                publish(&Message { body, ..message.clone() })
            }
            Fault::RefusesOddNames if !message.table.chars().all(char::is_alphanumeric) => {
                Err(error(ErrorKind::Unavailable))
            }
            Fault::RefusesCopies if !self.place.ids.lock().insert(message.id.clone()) => {
                Err(error(ErrorKind::Rejected))
            }
            Fault::OnePublisherOnly if self.number > 0 => Err(error(ErrorKind::Unavailable)),
            Fault::IgnoresMaxBody if too_large => Ok(()),
            Fault::TooLargeIsUnavailable if too_large => Err(error(ErrorKind::Unavailable)),
            Fault::ConfirmsWhileAway if self.place.is_down() => Ok(()),
            Fault::AwayIsRejected if self.place.is_down() => Err(error(ErrorKind::Rejected)),
            Fault::NeverComesBack if self.place.was_down.load(Ordering::Acquire) => Err(error(ErrorKind::Unavailable)),
            Fault::ClosedPublishes => self.inner.clone().publish(std::slice::from_ref(message)).remove(0),
            Fault::FullForEver if self.place.was_full.load(Ordering::Acquire) => Err(error(ErrorKind::Unavailable)),
            Fault::FullForEver => publish(message).inspect_err(|_| self.place.was_full.store(true, Ordering::Release)),
            Fault::FullLoses | Fault::UnroutedIsConfirmed => publish(message).or(Ok(())),
            Fault::FullIsRejected => publish(message).map_err(|_| error(ErrorKind::Rejected)),
            _ => publish(message),
        }
    }
}

impl Broker for Publisher {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn max_body(&self) -> usize {
        self.inner.max_body()
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let answers = messages.iter().enumerate().map(|(place, message)| self.one(place, message));
        let mut answers: Vec<Result<()>> = answers.collect();
        match self.place.fault {
            Fault::AnswersTooFew => drop(answers.pop()),
            Fault::AnswersInReverse => answers.reverse(),
            Fault::OneFailsAll => {
                if let Some(Err(failed)) = answers.iter().find(|answer| answer.is_err()).cloned() {
                    answers.fill(Err(failed));
                }
            }
            _ => {}
        }
        answers
    }

    fn health(&self, deadline: Duration) -> Health {
        self.place.health(self.inner.health(deadline))
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Subscription for Taker {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        let fault = self.place.fault;
        if fault == Fault::HoldsUpAll && self.place.waits.load(Ordering::Acquire) {
            std::thread::sleep(wait);
            return Ok(Vec::new());
        }
        let most = if fault == Fault::GivesTooMany && most > 0 { most + 5 } else { most };
        let taken = match self.inner.receive(most, wait) {
            Err(_) if fault == Fault::ClosedReceives => Vec::new(),
            Ok(taken) if fault == Fault::EmptyIsAnError && taken.is_empty() => return Err(error(ErrorKind::Deadline)),
            taken => taken?,
        };
        let arrival = |inner: Arrival| {
            let tag = self.held.next.fetch_add(1, Ordering::Relaxed);
            let form = inner.content_type().filter(|_| fault != Fault::ForgetsTheForm).map(str::to_owned);
            let redelivered = match fault {
                Fault::NeverCounts => 0,
                Fault::CountsFromOne => inner.redelivered() + 1,
                _ => inner.redelivered(),
            };
            let arrival =
                Arrival::new(inner.body().clone(), form, redelivered, tag, Arc::clone(&self.held) as Arc<dyn Ends>)
                    .with_id(inner.id().filter(|_| fault != Fault::ForgetsTheId).map(str::to_owned));
            self.held.arrivals.lock().insert(tag, inner);
            arrival
        };
        Ok(taken.into_iter().map(arrival).collect())
    }

    fn backlog(&self) -> Result<Backlog> {
        match self.place.fault {
            Fault::BacklogKeeps => self.inner.backlog().map(|right| Backlog { waiting: right.waiting + 1, ..right }),
            Fault::BacklogForgetsWhatWaits => self.inner.backlog().map(|right| Backlog { waiting: 0, ..right }),
            Fault::BacklogWhileAway => Ok(self.inner.backlog().unwrap_or_default()),
            _ => self.inner.backlog(),
        }
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        match self.place.fault {
            Fault::ListsNone => Ok(Vec::new()),
            Fault::ListsAll => self.inner.dead(usize::MAX),
            Fault::ListingTakes => {
                let letters = self.inner.dead(most)?;
                Arrival::ack_all(self.inner.receive(self.inner.redrive(most)?, Duration::ZERO)?);
                Ok(letters)
            }
            _ => self.inner.dead(most),
        }
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        match self.place.fault {
            Fault::RedrivesAll => self.inner.redrive(usize::MAX),
            Fault::RedriveLoses => {
                let delivered = self.inner.redrive(most)?;
                Arrival::ack_all(self.inner.receive(delivered, Duration::ZERO)?);
                Ok(delivered)
            }
            _ => self.inner.redrive(most),
        }
    }

    fn health(&self, deadline: Duration) -> Health {
        self.place.health(self.inner.health(deadline))
    }

    fn close(&self) -> Result<()> {
        match self.place.fault {
            Fault::ClosesInNameOnly => Ok(()),
            Fault::LosesOnClose => {
                Arrival::ack_all(std::mem::take(&mut *self.held.arrivals.lock()).into_values().collect());
                self.inner.close()
            }
            _ => self.inner.close(),
        }
    }
}

impl Held {
    fn end(&self, tag: u64, end: impl FnOnce(Arrival)) {
        let arrival = self.arrivals.lock().remove(&tag);
        if let Some(arrival) = arrival {
            end(arrival);
        }
    }
}

impl Ends for Held {
    fn done(&self, mut tags: Vec<u64>) {
        match self.place.fault {
            Fault::ForgetsAcknowledgements => {
                for tag in tags.drain(..) {
                    self.end(tag, |arrival| arrival.again(Duration::ZERO));
                }
            }
            Fault::AcknowledgesAllBefore => {
                let last = tags.iter().max().copied().unwrap_or_default();
                tags = self.arrivals.lock().keys().copied().filter(|tag| *tag <= last).collect();
            }
            Fault::AcknowledgesOne => {
                for tag in tags.drain(1..) {
                    self.end(tag, |arrival| arrival.again(Duration::ZERO));
                }
            }
            _ => {}
        }
        for tag in tags {
            self.end(tag, Arrival::ack);
        }
    }

    fn again(&self, tag: u64, after: Duration) {
        match self.place.fault {
            Fault::LosesWhatIsDropped if after.is_zero() => self.end(tag, Arrival::ack),
            Fault::LosesWhatWaits if !after.is_zero() => self.end(tag, Arrival::ack),
            Fault::ComesTooEarly => self.end(tag, |arrival| arrival.again(Duration::ZERO)),
            _ => {
                self.place.waits.fetch_or(!after.is_zero(), Ordering::AcqRel);
                self.end(tag, |arrival| arrival.again(after));
            }
        }
    }

    fn dead(&self, tag: u64, reason: &str) {
        match self.place.fault {
            Fault::ForgetsReasons => self.end(tag, |arrival| arrival.dead("")),
            Fault::CutsReasons => {
                self.end(tag, |arrival| arrival.dead(&reason.chars().take(255).collect::<String>()));
            }
            Fault::LosesDeadLetters => self.end(tag, Arrival::ack),
            Fault::DeadLettersComeAgain => self.end(tag, |arrival| {
                let (body, id) = (arrival.body().clone(), "again".to_owned());
                let copy = Message { table: "users".into(), action: "update", id, content_type: "", body };
                self.place.memory.publish(&[copy]).remove(0).unwrap();
                arrival.dead(reason);
            }),
            _ => self.end(tag, |arrival| arrival.dead(reason)),
        }
    }
}

impl Broker for Refused {
    fn name(&self) -> &'static str {
        "a server that says no"
    }

    fn max_body(&self) -> usize {
        1 << 20
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        messages.iter().map(|_| self.0.clone()).collect()
    }

    fn health(&self, _: Duration) -> Health {
        Health::new(Status::Down, vec!["it says no".to_owned()])
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher").field(&self.place.fault).finish()
    }
}

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taker").field(&self.place.fault).finish()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.place.fault).finish()
    }
}
