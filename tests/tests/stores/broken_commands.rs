//! Stores whose commands are wrong on purpose are rejected by the suite, each by a case that says what is
//! wrong.
//!
//! They are the store in memory behind a layer that distorts what is asked or answered, and a fault to
//! choose; or two stores of two contracts that are one underneath. It is long because each fault is a line or a few within the one layer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use kvsync::store::data::{
    Command, Condition, DataCapabilities, DataCommands, DataStore, Direction, Entry, LexRange, Operation, Outcome,
    Reads, Reply, ScoreRange,
};
use kvsync::store::{Health, MemoryStore, Status, Store};
use kvsync::{Error, ErrorKind, Result};
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

use crate::commands;

/// Each fault, and the case that has to say so.
macro_rules! faults {
    ($($fault:ident => $case:literal,)*) => {
        /// What is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Fault { None, $($fault),* }

        const FAULTS: &[(Fault, &str)] = &[$((Fault::$fault, $case)),*];
    };
}

faults! {
    EmptyIsAbsent => "a_string_is_read_back",
    CutsAtNul => "a_string_is_read_back",
    AbsentIsEmpty => "what_is_absent_is_none",
    SetRefusesOtherKinds => "a_set_replaces_any_kind",
    SetIfAbsentReplaces => "set_if_absent_sets_once",
    SetIfPresentCreates => "set_if_present_never_creates",
    SetIfEqualComparesBeginnings => "set_if_equal_compares_all_bytes",
    SetIfEqualTakesAbsentForEmpty => "set_if_equal_compares_all_bytes",
    DeletesAlwaysFind => "a_delete_says_whether_something_was_there",
    MGetSorts => "many_are_read_in_the_order_asked",
    MGetDropsDuplicates => "many_are_read_in_the_order_asked",
    MGetDropsTheAbsent => "many_are_read_in_the_order_asked",
    MGetFailsOnOtherKinds => "many_are_read_in_the_order_asked",
    IgnoresTimeToLive => "a_string_expires",
    SetKeepsTimeToLive => "a_set_takes_the_time_to_live_away",
    ExpiredIsPresent => "what_has_expired_is_absent_for_conditions",
    TakesNoTime => "a_time_to_live_of_nothing_is_refused",
    LongTimeIsNone => "a_time_to_live_has_no_upper_end",
    LongTimeIsRefused => "a_time_to_live_has_no_upper_end",
    CounterBeginsAtOne => "a_counter_begins_at_nothing",
    CounterLosesTimeToLive => "a_counter_keeps_its_time_to_live",
    CounterTakesAnyText => "a_counter_refuses_what_is_no_number",
    CounterTrims => "a_counter_refuses_what_is_no_number",
    CounterWraps => "a_counter_does_not_overflow",
    CounterSaturates => "a_counter_does_not_overflow",
    IncrementIsNotAtomic => "a_counter_loses_no_increment",
    SetIfEqualIsNotAtomic => "set_if_equal_is_a_compare_and_set",
    SAddCountsAll => "a_set_holds_each_member_once",
    SRemCountsAll => "a_set_holds_each_member_once",
    EmptySetStays => "an_emptied_set_is_gone",
    SetOfAtMostAThousand => "a_set_of_many_members_is_read_whole",
    OtherKindsAreOverwritten => "set_commands_refuse_other_kinds",
    OtherKindsReadAsAbsent => "hash_commands_refuse_other_kinds",
    SortedKindsAreOne => "sorted_set_commands_refuse_other_kinds",
    NothingRefusesOtherKinds => "what_names_no_member_answers_nothing_whatever_stands_there",
    HSetReplacesTheHash => "fields_are_set_and_read",
    FirstOfAFieldNamedTwice => "of_a_field_named_twice_the_last_counts",
    HSetIfAbsentReplaces => "hset_if_absent_sets_a_field_once",
    ZAddIfAbsentMoves => "zadd_if_absent_moves_no_member",
    ZIncrByReplaces => "scores_are_added_up",
    ScoresAreSingle => "scores_keep_every_bit",
    NaNIsZero => "a_score_is_a_number",
    ByMember => "members_come_in_the_order_of_scores",
    TiesReversed => "equal_scores_come_in_the_order_of_members",
    TiesFoldCase => "equal_scores_come_in_the_order_of_members",
    NegativeZeroIsLess => "equal_scores_come_in_the_order_of_members",
    ExclusiveIsInclusive => "bounds_of_scores_include_exclude_and_are_infinite",
    InclusiveIsExclusive => "bounds_of_scores_include_exclude_and_are_infinite",
    InfiniteIsUnbounded => "bounds_of_scores_include_exclude_and_are_infinite",
    SwapsEnds => "a_range_that_ends_before_it_begins_is_empty",
    LimitIsOneMore => "a_limit_takes_the_first",
    LimitOfNoneIsAll => "a_limit_takes_the_first",
    LimitsBeforeReversing => "a_limit_takes_the_first",
    ReverseIsForward => "members_come_in_the_order_of_scores",
    CountsAll => "bounds_of_scores_include_exclude_and_are_infinite",
    LexFoldsCase => "members_of_equal_score_are_a_dictionary",
    LexAsUtf16 => "members_of_equal_score_are_a_dictionary",
    LexExclusiveIsInclusive => "bounds_of_members_include_exclude_and_are_infinite",
    ValueLostOnNewScore => "a_score_of_a_field_is_moved_without_its_value",
    ZhIncrByCreates => "a_score_of_a_field_is_moved_without_its_value",
    ZhAddIfAbsentReplaces => "zh_add_if_absent_leaves_a_field_as_it_is",
    ReplacedFieldsComeBack => "nothing_of_a_replaced_sorted_hash_comes_back",
    ValuesStandBesideTheKey => "a_sorted_hash_is_in_no_other_keys_way",
    ZhLimitIsIgnored => "fields_are_found_as_members_are",
    BatchFailsAsAWhole => "a_command_that_fails_leaves_the_others_alone",
    BatchStopsAtAFailure => "a_command_that_fails_leaves_the_others_alone",
    BatchAnswersInReverse => "each_command_of_a_batch_has_its_answer",
    BatchWritesLast => "commands_on_one_key_take_effect_in_order",
    BatchOfAtMostAHundred => "a_large_batch_is_answered_whole",
    AtomicStopsHalfway => "a_failed_condition_undoes_all_and_is_named",
    AtomicNamesTheNext => "a_failed_condition_undoes_all_and_is_named",
    AtomicNamesAll => "every_failed_condition_is_told_from_those_that_hold",
    AtomicIgnoresConditions => "every_failed_condition_is_told_from_those_that_hold",
    AtomicTakesKeysForMembers => "conditions_are_looked_at_before_anything_is_written",
    AtomicWritesWhatFits => "a_wrong_kind_undoes_all",
    AtomicTellsWrongKindsFirst => "a_failed_condition_is_told_before_a_wrong_kind",
    AtomicOneByOne => "racing_atomic_writes_are_whole",
    AtomicShowsHalves => "no_reader_sees_half_an_atomic_write",
    AtomicTakesAnyNumber => "too_many_operations_are_refused",
    EntriesAreFewerThanSaid => "as_many_entries_as_it_says_are_written_as_one",
    EntriesAreNotCounted => "a_write_that_touches_too_many_entries_is_refused",
    AtomicRefusesTheSameInOne => "one_operation_may_name_the_same_twice",
    AtomicKeepsTheFirstOfTwo => "one_operation_may_name_the_same_twice",
    AtomicTakesRaisingForACondition => "raising_an_absent_field_is_no_condition",
    AtomicTakesTheSameTwice => "two_operations_on_the_same_are_refused",
    CutsValues => "values_of_every_size_up_to_the_limit",
    FoldsKeys => "odd_keys_of_data_are_themselves",
    TrimsKeys => "odd_keys_of_data_are_themselves",
    AbsentOnOutage => "an_unreachable_server_is_an_error_and_never_an_absence",
    DoneOnOutage => "an_unreachable_server_is_an_error_and_never_an_absence",
    RefusedOnOutage => "an_unreachable_server_is_an_error_and_never_an_absence",
    UpWhenClosed => "a_store_whose_calls_are_closed_is_down",
    ComesBackWhenAsked => "a_store_whose_calls_are_closed_is_down",
    UpOnOutage => "an_unreachable_server_is_an_error_and_never_an_absence",
}

/// Faults that random commands find as well.
const FOUND_AT_RANDOM: &[Fault] = &[
    Fault::EmptyIsAbsent,
    Fault::CounterWraps,
    Fault::SAddCountsAll,
    Fault::HSetReplacesTheHash,
    Fault::TiesReversed,
    Fault::ExclusiveIsInclusive,
    Fault::LimitIsOneMore,
    Fault::LexExclusiveIsInclusive,
    Fault::ValueLostOnNewScore,
    Fault::AtomicStopsHalfway,
    Fault::OtherKindsAreOverwritten,
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = FAULTS.iter().map(|(fault, case)| rejected(*fault, case)).collect();
    trials.extend(FOUND_AT_RANDOM.iter().map(|fault| {
        let found = || match (0..500).find_map(|seed| commands::history(&Wrong::new(*fault, true), seed).err()) {
            Some(_) => Ok(()),
            None => Err(Failed::from("500 random histories found nothing")),
        };
        Trial::test(format!("broken_commands::{fault:?}_is_found_at_random"), found)
    }));
    trials.push(Trial::test("broken_commands::without_a_fault_it_passes", || {
        let failed: Vec<_> = conformance::cases().filter_map(|case| failure(Fault::None, case.name)).collect();
        if failed.is_empty() { Ok(()) } else { Err(Failed::from(format!("{failed:?}"))) }
    }));
    trials
}

fn rejected(fault: Fault, case: &'static str) -> Trial {
    Trial::test(format!("broken_commands::{fault:?}_is_rejected"), move || {
        // A race needs a few rounds to be lost.
        match (0..50).find_map(|_| failure(fault, case)) {
            Some(_) => Ok(()),
            None => Err(Failed::from(format!("{case} passes with {fault:?}"))),
        }
    })
}

fn failure(fault: Fault, name: &str) -> Option<(&'static str, String)> {
    let case = conformance::cases().find(|case| case.name == name).unwrap();
    match case.run(&fault) {
        Verdict::Failed(why) => Some((case.name, why)),
        Verdict::Passed | Verdict::NotApplicable(_) => None,
    }
}

impl Harness for Fault {
    fn fresh(&self) -> Stores {
        Stores::data(Arc::new(Wrong::new(*self, true)))
    }

    fn unreachable(&self) -> Option<Stores> {
        Some(Stores::data(Arc::new(Wrong::new(*self, false))))
    }
}

/// The store in memory, told and asked wrongly.
struct Wrong {
    fault: Fault,
    up: bool,
    right: MemoryStore,
    /// Held by every call but those of the faults that race.
    whole: Mutex<()>,
    closed: AtomicBool,
    /// The fields of sorted hashes that were replaced.
    left: Mutex<BTreeMap<Bytes, Vec<Entry>>>,
    /// The keys that were given a time to live, with it and since when.
    ending: Mutex<BTreeMap<Bytes, (Instant, Duration)>>,
}

impl fmt::Debug for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrong({:?})", self.fault)
    }
}

impl Store for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn health(&self, _deadline: Duration) -> Health {
        let closed = match self.fault {
            Fault::UpWhenClosed => false,
            Fault::ComesBackWhenAsked => self.closed.swap(false, Ordering::Relaxed),
            _ => self.closed.load(Ordering::Relaxed),
        };
        let up = (self.up || self.fault == Fault::UpOnOutage) && !closed;
        Health::new(if up { Status::Up } else { Status::Down }, Vec::new())
    }

    fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl DataStore for Wrong {
    fn data_capabilities(&self) -> DataCapabilities {
        let can = DataCapabilities::new(1 << 12, 1 << 12, 1 << 20);
        if self.fault == Fault::EntriesAreNotCounted { can.with_max_entries(100) } else { can }
    }

    fn run(&self, commands: &[Command], _reads: Reads) -> Vec<Result<Reply>> {
        if !self.up {
            return commands.iter().map(|command| self.outage(command)).collect();
        }
        if self.closed.load(Ordering::Relaxed) {
            return commands.iter().map(|_| Err(Error::new(ErrorKind::Closed, "closed"))).collect();
        }
        let racing = matches!(self.fault, Fault::IncrementIsNotAtomic | Fault::SetIfEqualIsNotAtomic);
        let _whole = (!racing).then(|| self.whole.lock());
        let mut places: Vec<usize> = (0..commands.len()).collect();
        if self.fault == Fault::BatchWritesLast {
            places.sort_by_key(|place| commands[*place].writes());
        }
        if self.fault == Fault::BatchOfAtMostAHundred {
            places.truncate(100);
        }
        let mut replies: Vec<Option<Result<Reply>>> = vec![None; places.len()];
        for place in places {
            replies[place] = Some(self.one(&commands[place]));
        }
        let mut replies: Vec<Result<Reply>> = replies.into_iter().flatten().collect();
        let failed = replies.iter().position(Result::is_err);
        match (self.fault, failed) {
            (Fault::BatchFailsAsAWhole, Some(at)) => replies = vec![replies[at].clone(); replies.len()],
            (Fault::BatchStopsAtAFailure, Some(at)) => {
                let why = replies[at].clone();
                replies[at..].fill(why);
            }
            (Fault::BatchAnswersInReverse, _) => replies.reverse(),
            _ => {}
        }
        replies
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        if !self.up {
            return match self.fault {
                Fault::DoneOnOutage => Ok(Outcome::Done),
                _ => Err(down()),
            };
        }
        let said = self.data_capabilities().with_max_entries(usize::MAX);
        operations.iter().try_for_each(|operation| operation.command().check(said))?;
        let one_by_one = |operations: &[Operation]| -> Result<Outcome> {
            for (place, operation) in operations.iter().enumerate() {
                let done = self.right.run_atomic(std::slice::from_ref(operation))?;
                if !done.is_done() {
                    return Ok(Outcome::Refused(vec![place]));
                }
            }
            Ok(Outcome::Done)
        };
        let bare: Result<Vec<Operation>> =
            operations.iter().map(|operation| Operation::new(unconditional(operation.command()))).collect();
        if let Some(answer) = self.judged(operations) {
            return answer;
        }
        match self.fault {
            Fault::AtomicStopsHalfway => return one_by_one(operations),
            Fault::AtomicTellsWrongKindsFirst
                if operations.iter().any(|one| self.is_of_another_kind(one.command())) =>
            {
                return Err(Error::new(ErrorKind::WrongType, "another kind"));
            }
            Fault::AtomicTakesKeysForMembers => {
                for (place, operation) in operations.iter().enumerate() {
                    let command = operation.command();
                    if matches!(command, Command::ZAdd { key, if_absent: true, .. } if self.stands(key)) {
                        return Ok(Outcome::Refused(vec![place]));
                    }
                    self.right.run_atomic(std::slice::from_ref(operation))?;
                }
                return Ok(Outcome::Done);
            }
            Fault::AtomicTakesTheSameTwice => {
                let refused = self.refused(operations);
                return if refused.is_empty() { one_by_one(operations) } else { Ok(Outcome::Refused(refused)) };
            }
            Fault::EntriesAreFewerThanSaid if self.right.data_capabilities().max_operations == operations.len() => {
                return Err(Error::new(ErrorKind::Rejected, "too many"));
            }
            Fault::AtomicTakesAnyNumber => {
                for some in operations.chunks(50) {
                    self.right.run_atomic(some)?;
                }
                return Ok(Outcome::Done);
            }
            Fault::AtomicOneByOne => {
                let refused = self.refused(operations);
                dawdle();
                return if refused.is_empty() { one_by_one(&bare?) } else { Ok(Outcome::Refused(refused)) };
            }
            Fault::AtomicIgnoresConditions => return self.right.run_atomic(&bare?),
            Fault::AtomicShowsHalves => {
                let half = operations.len() / 2;
                self.right.run_atomic(&operations[..half])?;
                dawdle();
                return self.right.run_atomic(&operations[half..]);
            }
            Fault::AtomicWritesWhatFits => {
                let answer = self.right.run_atomic(operations);
                if answer.is_err() {
                    for operation in operations {
                        let _ = self.right.run_atomic(std::slice::from_ref(operation));
                    }
                }
                return answer;
            }
            _ => {}
        }
        let mut answer = self.right.run_atomic(operations)?;
        if let Outcome::Refused(places) = &mut answer {
            match self.fault {
                Fault::AtomicNamesTheNext => places.iter_mut().for_each(|place| *place += 1),
                Fault::AtomicNamesAll => *places = (0..operations.len()).collect(),
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "down on purpose")
}

/// Gives others the time to come in between.
fn dawdle() {
    std::thread::sleep(Duration::from_micros(100));
}

fn unconditional(command: &Command) -> Command {
    match command.clone() {
        Command::Set { key, value, expires, .. } => Command::Set { key, value, when: Condition::Always, expires },
        Command::Del { key, .. } => Command::Del { key, must_exist: false },
        Command::HSetNx { key, field, value } => Command::HSet { key, fields: vec![(field, value)] },
        Command::ZAdd { key, member, score, .. } => Command::ZAdd { key, member, score, if_absent: false },
        Command::ZhAdd { key, field, value, score, .. } => {
            Command::ZhAdd { key, field, value, score, if_absent: false }
        }
        other => other,
    }
}

impl Wrong {
    fn new(fault: Fault, up: bool) -> Self {
        let (whole, closed, left, ending) = Default::default();
        Self { fault, up, right: MemoryStore::new(), whole, closed, left, ending }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// What is said of an atomic write by the operations alone.
    fn judged(&self, operations: &[Operation]) -> Option<Result<Outcome>> {
        match self.fault {
            Fault::AtomicRefusesTheSameInOne => {
                let twice = |operation: &Operation| {
                    let named = operation.command().elements().unwrap_or_default();
                    named.iter().collect::<std::collections::BTreeSet<_>>().len() < named.len()
                };
                let refused = || Err(Error::new(ErrorKind::Rejected, "the same twice"));
                operations.iter().any(twice).then(refused)
            }
            Fault::AtomicKeepsTheFirstOfTwo => {
                let reversed = |operation: &Operation| match operation.command().clone() {
                    Command::HSet { key, fields } => {
                        Operation::new(Command::HSet { key, fields: fields.into_iter().rev().collect() })
                    }
                    command => Operation::new(command),
                };
                let reversed: Vec<Operation> = operations.iter().map(reversed).collect::<Result<_>>().ok()?;
                Some(self.right.run_atomic(&reversed))
            }
            Fault::AtomicTakesRaisingForACondition => {
                let absent = |operation: &Operation| match operation.command() {
                    Command::ZhIncrBy { key, field, .. } => {
                        self.right.zh_score(key, field).is_ok_and(|it| it.is_none())
                    }
                    _ => false,
                };
                let failed: Vec<usize> = (0..operations.len()).filter(|place| absent(&operations[*place])).collect();
                (!failed.is_empty()).then_some(Ok(Outcome::Refused(failed)))
            }
            _ => None,
        }
    }

    fn outage(&self, command: &Command) -> Result<Reply> {
        let absent = || self.right.run(std::slice::from_ref(command), Reads::Latest).remove(0);
        match self.fault {
            Fault::AbsentOnOutage if !command.writes() => absent(),
            Fault::DoneOnOutage if command.writes() => absent(),
            Fault::RefusedOnOutage => Err(Error::new(ErrorKind::Rejected, "no such host")),
            _ => Err(down()),
        }
    }

    /// The places of the conditions that do not hold, each looked at alone.
    fn refused(&self, operations: &[Operation]) -> Vec<usize> {
        let fails = |operation: &Operation| match operation.command() {
            Command::Set { key, when, .. } => match when {
                Condition::Always => false,
                Condition::Absent => self.stands(key),
                Condition::Present => !self.stands(key),
                Condition::Equals(wanted) => self.right.get(key).ok().flatten().as_ref() != Some(wanted),
            },
            Command::Del { key, must_exist } => *must_exist && !self.stands(key),
            Command::HSetNx { key, field, .. } => self.right.hget(key, field).is_ok_and(|it| it.is_some()),
            _ => false,
        };
        (0..operations.len()).filter(|place| fails(&operations[*place])).collect()
    }

    /// Whether a set command is on what is no set.
    fn is_of_another_kind(&self, command: &Command) -> bool {
        matches!(command, Command::SAdd { key, .. } if self.right.smembers(key).is_err())
    }

    fn stands(&self, key: &Bytes) -> bool {
        let present = Command::Set { key: key.clone(), value: Bytes::new(), when: Condition::Absent, expires: None };
        // An atomic write that cannot happen tells without a trace whether something stands there.
        let never = Command::Del { key: Bytes::from_static(b"\xffnothing"), must_exist: true };
        let both = [present, never].map(|command| Operation::new(command).unwrap());
        self.right.run_atomic(&both).is_ok_and(|answer| answer.refused(0))
    }

    fn ask(&self, command: &Command) -> Result<Reply> {
        self.right.run(std::slice::from_ref(command), Reads::Latest).remove(0)
    }

    fn one(&self, command: &Command) -> Result<Reply> {
        let mut command = command.clone();
        if let Some(answer) = self.instead(&command) {
            return answer;
        }
        command.check(self.data_capabilities()).or_else(|refused| {
            let lenient = matches!(self.fault, Fault::NaNIsZero | Fault::TakesNoTime);
            if lenient { Ok(()) } else { Err(refused) }
        })?;
        self.distort(&mut command);
        let answer = match self.ask(&command) {
            Err(error) if error.kind() == ErrorKind::WrongType => self.on_another_kind(&command, error),
            answer => answer,
        };
        let mut reply = answer?;
        self.misreport(&command, &mut reply);
        Ok(reply)
    }

    fn on_another_kind(&self, command: &Command, error: Error) -> Result<Reply> {
        let Some(key) = command.keys().first() else { return Err(error) };
        match self.fault {
            Fault::OtherKindsAreOverwritten if command.writes() => {
                self.right.delete(key)?;
                self.ask(command)
            }
            Fault::SortedKindsAreOne if self.right.zcount(key, ..).is_ok() || self.right.zh_count(key, ..).is_ok() => {
                MemoryStore::new().run(std::slice::from_ref(command), Reads::Latest).remove(0)
            }
            Fault::OtherKindsReadAsAbsent if !command.writes() => {
                MemoryStore::new().run(std::slice::from_ref(command), Reads::Latest).remove(0)
            }
            _ => Err(error),
        }
    }

    /// What is done in place of a command.
    fn instead(&self, command: &Command) -> Option<Result<Reply>> {
        match (self.fault, command) {
            (Fault::SetRefusesOtherKinds, Command::Set { key, .. }) => self.right.get(key).err().map(Err),
            (Fault::NothingRefusesOtherKinds, Command::SAdd { key, members }) if members.is_empty() => {
                self.right.smembers(key).err().map(Err)
            }
            (Fault::LongTimeIsRefused, Command::Set { expires: Some(expires), .. }) => {
                let refused = i64::try_from(expires.as_millis()).is_err();
                refused.then(|| Err(Error::new(ErrorKind::Rejected, "not an integer")))
            }
            (Fault::ReplacedFieldsComeBack, Command::Set { key, .. }) => {
                let fields = self.right.zh_range_by_score(key, .., None).ok()?;
                self.left.lock().insert(key.clone(), fields);
                None
            }
            (Fault::ReplacedFieldsComeBack, Command::ZhAdd { key, .. }) if !self.stands(key) => {
                let left = self.left.lock().remove(key).unwrap_or_default();
                let back = |Entry { field, value, score }: &Entry| self.right.zh_add(key, field, value, *score);
                left.iter().find_map(|entry| back(entry).err()).map(Err)
            }
            (Fault::ValuesStandBesideTheKey, Command::Del { key, .. }) => {
                self.right.delete([key, b"\0values".as_slice()].concat()).err().map(Err)
            }
            (Fault::MGetFailsOnOtherKinds, Command::MGet { keys }) => {
                keys.iter().find_map(|key| self.right.get(key).err()).map(Err)
            }
            (Fault::SetIfEqualComparesBeginnings, Command::Set { key, value, when: Condition::Equals(wanted), .. }) => {
                let stands = self.right.get(key).ok()??;
                let beginning = !wanted.is_empty() && stands.starts_with(wanted) || stands == wanted;
                beginning.then(|| self.right.set(key, value).map(|()| Reply::Taken(true)))
            }
            (
                Fault::SetIfEqualTakesAbsentForEmpty,
                Command::Set { key, value, when: Condition::Equals(wanted), .. },
            ) => {
                let absent = wanted.is_empty() && self.right.get(key).ok()?.is_none();
                absent.then(|| self.right.set(key, value).map(|()| Reply::Taken(true)))
            }
            (Fault::SetIfEqualIsNotAtomic, Command::Set { key, value, when: Condition::Equals(wanted), .. }) => {
                let equal = self.right.get(key).ok()?.as_ref() == Some(wanted);
                dawdle();
                equal.then(|| self.right.set(key, value).map(|()| Reply::Taken(true)))
            }
            (Fault::ExpiredIsPresent, Command::Set { key, when: Condition::Absent, .. }) => {
                let expired = self.ending.lock().contains_key(key) && self.right.get(key).ok()?.is_none();
                expired.then_some(Ok(Reply::Taken(false)))
            }
            (_, Command::IncrBy { key, by }) => self.increments(key, *by),
            (Fault::HSetReplacesTheHash, Command::HSet { key, .. }) => {
                self.right.hget_all(key).ok()?;
                self.right.delete(key).err().map(Err)
            }
            (Fault::HSetIfAbsentReplaces, Command::HSetNx { key, field, value }) => {
                Some(self.right.hset(key, [(field, value)]).map(|new| Reply::Taken(new > 0)))
            }
            (Fault::ZIncrByReplaces, Command::ZIncrBy { key, member, by }) => {
                Some(self.right.zadd(key, member, *by).map(|_| Reply::Score(Some(*by))))
            }
            (Fault::ZhIncrByCreates, Command::ZhIncrBy { key, field, .. }) => {
                self.right.zh_add_if_absent(key, field, "", 0.0).err().map(Err)
            }
            (Fault::ValueLostOnNewScore, Command::ZhIncrBy { key, field, by }) => {
                let score = self.right.zh_score(key, field).ok()?? + by;
                (!score.is_nan()).then(|| self.right.zh_add(key, field, "", score).map(|_| Reply::Score(Some(score))))
            }
            _ => None,
        }
    }

    fn increments(&self, key: &Bytes, by: i64) -> Option<Result<Reply>> {
        let text = self.right.get(key).ok()?;
        let text = text.as_ref().map_or(Some("0"), |text| std::str::from_utf8(text).ok());
        let number = match self.fault {
            Fault::CounterTrims => text?.trim().parse::<i64>().ok()?,
            Fault::CounterTakesAnyText => text.and_then(|text| text.parse().ok()).unwrap_or(0),
            Fault::CounterBeginsAtOne if !self.stands(key) => 1,
            Fault::CounterLosesTimeToLive
            | Fault::CounterWraps
            | Fault::CounterSaturates
            | Fault::IncrementIsNotAtomic => text?.parse().ok()?,
            _ => return None,
        };
        if self.is(Fault::IncrementIsNotAtomic) {
            dawdle();
        }
        let sum = match self.fault {
            Fault::CounterSaturates => number.saturating_add(by),
            _ => number.wrapping_add(by),
        };
        Some(self.right.set(key, sum.to_string()).map(|()| Reply::Integer(sum)))
    }

    /// What is asked in place of what was.
    fn distort(&self, command: &mut Command) {
        if self.is(Fault::FoldsKeys) || self.is(Fault::TrimsKeys) {
            self.rename(command);
        }
        match command {
            Command::Set { key, value, when, expires } => {
                match (self.fault, &when) {
                    (Fault::SetIfAbsentReplaces, Condition::Absent)
                    | (Fault::SetIfPresentCreates, Condition::Present) => *when = Condition::Always,
                    _ => {}
                }
                self.distort_value(value);
                self.distort_end(key, expires);
            }
            Command::HSet { fields, .. } => {
                if self.is(Fault::FirstOfAFieldNamedTwice) {
                    fields.reverse();
                }
                for (_, value) in fields {
                    self.distort_value(value);
                }
            }
            Command::ZAdd { score, if_absent, .. } => {
                *score = self.distorted_score(*score);
                *if_absent &= !self.is(Fault::ZAddIfAbsentMoves);
            }
            Command::ZhAdd { score, if_absent, .. } => {
                *score = self.distorted_score(*score);
                *if_absent &= !self.is(Fault::ZhAddIfAbsentReplaces);
            }
            Command::ZIncrBy { by, .. } | Command::ZhIncrBy { by, .. } if self.is(Fault::NaNIsZero) && by.is_nan() => {
                *by = 0.0;
            }
            Command::ZCount { scores, .. } | Command::ZhCount { scores, .. } => {
                self.distort_scores(scores);
                if self.is(Fault::CountsAll) {
                    *scores = ScoreRange::from(..);
                }
            }
            Command::ZRangeByScore { scores, direction, limit, .. } => {
                self.distort_scores(scores);
                self.distort_range(direction, limit);
            }
            Command::ZhRangeByScore { scores, direction, limit, .. } => {
                self.distort_scores(scores);
                self.distort_range(direction, limit);
                if self.is(Fault::ZhLimitIsIgnored) {
                    *limit = None;
                }
            }
            Command::ZLexCount { members, .. } | Command::ZhLexCount { fields: members, .. } => {
                self.distort_members(members);
            }
            Command::ZRangeByLex { members, direction, limit, .. }
            | Command::ZhRangeByLex { fields: members, direction, limit, .. } => {
                self.distort_members(members);
                self.distort_range(direction, limit);
            }
            _ => {}
        }
    }

    fn rename(&self, command: &mut Command) {
        let stored = |key: &Bytes| -> Bytes {
            let Ok(text) = std::str::from_utf8(key) else { return key.clone() };
            if self.is(Fault::FoldsKeys) { text.to_lowercase().into() } else { text.trim().to_owned().into() }
        };
        match command {
            Command::Get { key } | Command::Set { key, .. } | Command::Del { key, .. } => *key = stored(key),
            Command::MGet { keys } => keys.iter_mut().for_each(|key| *key = stored(key)),
            _ => {}
        }
    }

    fn distort_value(&self, value: &mut Bytes) {
        match self.fault {
            Fault::CutsValues => value.truncate(65_535),
            Fault::CutsAtNul => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                value.truncate(end);
            }
            _ => {}
        }
    }

    fn distort_end(&self, key: &Bytes, expires: &mut Option<Duration>) {
        let mut ending = self.ending.lock();
        match (self.fault, *expires) {
            (Fault::TakesNoTime, Some(time)) if time.is_zero() => *expires = None,
            // As a number that wraps.
            (Fault::LongTimeIsNone, Some(time)) if time.as_millis() >> 53 > 0 => {
                *expires = Some(Duration::from_millis(1));
            }
            (Fault::IgnoresTimeToLive, _) => *expires = None,
            (Fault::SetKeepsTimeToLive, None) => {
                let left = ending.get(key).map(|(since, time)| time.saturating_sub(since.elapsed()));
                *expires = left.filter(|left| left.as_millis() > 0);
            }
            (_, Some(time)) => drop(ending.insert(key.clone(), (Instant::now(), time))),
            _ => {}
        }
    }

    fn distorted_score(&self, score: f64) -> f64 {
        match self.fault {
            Fault::NaNIsZero if score.is_nan() => 0.0,
            #[allow(clippy::cast_possible_truncation, reason = "that is the fault")]
            Fault::ScoresAreSingle => f64::from(score as f32),
            Fault::NegativeZeroIsLess if score == 0.0 && score.is_sign_negative() => -f64::MIN_POSITIVE,
            _ => score,
        }
    }

    fn distort_scores(&self, scores: &mut ScoreRange) {
        let distorted = |bound: Bound<f64>| match (self.fault, bound) {
            (Fault::ExclusiveIsInclusive, Bound::Excluded(end)) => Bound::Included(end),
            (Fault::InclusiveIsExclusive, Bound::Included(end)) => Bound::Excluded(end),
            (Fault::InfiniteIsUnbounded, Bound::Excluded(end)) if end.is_infinite() => Bound::Unbounded,
            (Fault::NaNIsZero, Bound::Included(end) | Bound::Excluded(end)) if end.is_nan() => Bound::Unbounded,
            (_, bound) => bound,
        };
        *scores = ScoreRange { min: distorted(scores.min), max: distorted(scores.max) };
        if let (Fault::SwapsEnds, Bound::Included(min), Bound::Included(max)) = (self.fault, scores.min, scores.max)
            && min > max
        {
            *scores = ScoreRange::from(max..=min);
        }
    }

    fn distort_members(&self, members: &mut LexRange) {
        if self.is(Fault::LexExclusiveIsInclusive) {
            let included = |bound: &Bound<Bytes>| match bound.clone() {
                Bound::Excluded(end) => Bound::Included(end),
                bound => bound,
            };
            *members = LexRange { min: included(&members.min), max: included(&members.max) };
        }
    }

    fn distort_range(&self, direction: &mut Direction, limit: &mut Option<usize>) {
        match self.fault {
            Fault::LimitIsOneMore => *limit = limit.map(|limit| limit.saturating_add(1)),
            Fault::LimitOfNoneIsAll => *limit = limit.filter(|limit| *limit > 0),
            Fault::LimitsBeforeReversing if limit.is_some() => *direction = Direction::Forward,
            Fault::ReverseIsForward => *direction = Direction::Forward,
            _ => {}
        }
    }

    /// What is answered in place of what was.
    fn misreport(&self, command: &Command, reply: &mut Reply) {
        match (self.fault, command, reply) {
            (Fault::EmptyIsAbsent, _, Reply::Value(value)) => *value = value.take().filter(|value| !value.is_empty()),
            (Fault::AbsentIsEmpty, _, Reply::Value(value)) => *value = Some(value.take().unwrap_or_default()),
            (Fault::DeletesAlwaysFind, Command::Del { .. }, Reply::Taken(taken)) => *taken = true,
            (Fault::MGetSorts, _, Reply::Values(values)) => values.sort(),
            (Fault::MGetDropsDuplicates, Command::MGet { keys }, Reply::Values(values)) => {
                let mut seen = std::collections::BTreeSet::new();
                let mut new = keys.iter().map(|key| seen.insert(key));
                values.retain(|_| new.next().unwrap_or_default());
            }
            (Fault::MGetDropsTheAbsent, _, Reply::Values(values)) => values.retain(Option::is_some),
            (Fault::SAddCountsAll, Command::SAdd { members, .. }, Reply::Count(count))
            | (Fault::SRemCountsAll, Command::SRem { members, .. }, Reply::Count(count)) => {
                *count = members.len() as u64;
            }
            (Fault::EmptySetStays, Command::SRem { key, .. }, _) if !self.stands(key) => {
                drop(self.right.set(key, ""));
            }
            (Fault::SetOfAtMostAThousand, _, Reply::Members(members)) => members.truncate(1000),
            (Fault::ByMember, _, Reply::Scored(found)) => found.sort_by(|one, other| one.member.cmp(&other.member)),
            (Fault::TiesReversed, _, Reply::Scored(found)) => {
                found.sort_by(|one, other| one.score.total_cmp(&other.score).then(other.member.cmp(&one.member)));
            }
            (Fault::TiesFoldCase, _, Reply::Scored(found)) => {
                let folded = |member: &Bytes| member.to_ascii_lowercase();
                found.sort_by(|one, other| {
                    one.score.total_cmp(&other.score).then(folded(&one.member).cmp(&folded(&other.member)))
                });
            }
            (Fault::LexFoldsCase, Command::ZRangeByLex { .. }, Reply::Members(members)) => {
                members.sort_by_key(|member| member.to_ascii_lowercase());
            }
            (Fault::LexAsUtf16, Command::ZRangeByLex { direction, .. }, Reply::Members(members)) => {
                members.sort_by_key(|member| String::from_utf8_lossy(member).encode_utf16().collect::<Vec<_>>());
                if *direction == Direction::Reverse {
                    members.reverse();
                }
            }
            _ => {}
        }
    }
}
