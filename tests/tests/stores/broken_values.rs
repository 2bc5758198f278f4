//! Stores that keep values wrongly on purpose, or not for as long as they should, are rejected by the suite.
//!
//! They are the store in memory behind a layer, as in [`broken_commands`](crate::broken_commands), with the faults that
//! are about bytes, scores, numbers of things, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use kvsync::store::data::{
    Command, Condition, DataCapabilities, DataCommands, DataStore, Operation, Outcome, Reads, Reply,
};
use kvsync::store::{Health, MemoryStore, Status, Store};
use kvsync::{Error, ErrorKind, Result};
use libtest_mimic::{Failed, Trial};
use parking_lot::Mutex;

/// What is wrong. Those that are lazy drop what has expired when a key is read or written, but for one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KeysAreText,
    KeysDecodePercent,
    KeysOfAtMost255,
    FieldsAreText,
    FieldValuesAreText,
    TrimsNewlines,
    ZerosAreOrdered,
    ScoresCompareAsSingle,
    CounterIsCorruptOnBytes,
    CounterReadsWithoutMaking,
    MGetOfAtMostAThousand,
    BatchOfAtMostFiveThousand,
    LazyIfPresent,
    LazyIfEqual,
    LazyIfAbsent,
    LazyDelete,
    LazyCounter,
    LazySet,
    LazyMGet,
    LazyAtomic,
    TimeInSeconds,
    TimeTripled,
    TimeWraps,
    TimeWrapsBelowZero,
    TimeOutlivesADelete,
}

/// And the case that has to say so.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::KeysAreText, "odd_keys_of_data_are_themselves"),
    (Fault::KeysDecodePercent, "odd_keys_of_data_are_themselves"),
    (Fault::KeysOfAtMost255, "odd_keys_of_data_are_themselves"),
    (Fault::FieldsAreText, "a_sorted_hash_takes_fields_of_any_bytes"),
    (Fault::FieldValuesAreText, "a_sorted_hash_takes_fields_of_any_bytes"),
    (Fault::TrimsNewlines, "a_string_is_read_back"),
    (Fault::ZerosAreOrdered, "equal_scores_come_in_the_order_of_members"),
    (Fault::ScoresCompareAsSingle, "scores_keep_every_bit"),
    (Fault::CounterIsCorruptOnBytes, "a_counter_refuses_what_is_no_number"),
    (Fault::CounterReadsWithoutMaking, "a_counter_begins_at_nothing"),
    (Fault::MGetOfAtMostAThousand, "many_are_read_in_the_order_asked"),
    (Fault::BatchOfAtMostFiveThousand, "a_large_batch_is_answered_whole"),
    (Fault::LazyIfPresent, "what_has_expired_is_absent_for_conditions"),
    (Fault::LazyIfEqual, "what_has_expired_is_absent_for_conditions"),
    (Fault::LazyIfAbsent, "what_has_expired_is_absent_for_conditions"),
    (Fault::LazyDelete, "what_has_expired_is_absent_for_conditions"),
    (Fault::LazyCounter, "what_has_expired_is_absent_for_every_command"),
    (Fault::LazySet, "what_has_expired_is_absent_for_every_command"),
    (Fault::LazySet, "any_kind_takes_the_place_of_what_has_expired"),
    (Fault::LazyMGet, "what_has_expired_is_absent_for_every_command"),
    (Fault::LazyAtomic, "what_has_expired_is_absent_for_every_command"),
    (Fault::TimeInSeconds, "a_time_to_live_is_as_long_as_said"),
    (Fault::TimeTripled, "a_time_to_live_is_as_long_as_said"),
    (Fault::TimeWraps, "a_long_time_to_live_is_long"),
    (Fault::TimeWrapsBelowZero, "a_long_time_to_live_is_long"),
    (Fault::TimeOutlivesADelete, "a_set_takes_the_time_to_live_away"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let failed = |fault: &Fault, name: &str| {
        let case = conformance::cases().find(|case| case.name == name).unwrap();
        matches!(case.run(fault), Verdict::Failed(_))
    };
    let rejected = |(fault, name): &(Fault, &'static str)| {
        let (fault, name) = (*fault, *name);
        Trial::test(format!("broken_values::{fault:?}_is_rejected_as_{name}"), move || {
            if failed(&fault, name) { Ok(()) } else { Err(Failed::from(format!("{name} passes"))) }
        })
    };
    let mut trials: Vec<Trial> = FAULTS.iter().map(rejected).collect();
    trials.push(Trial::test("broken_values::without_a_fault_it_passes", move || {
        let names: BTreeSet<&str> = FAULTS.iter().map(|(_, name)| *name).collect();
        let wrong: Vec<&str> = names.into_iter().filter(|name| failed(&Fault::None, name)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Failed::from(format!("{wrong:?} fail"))) }
    }));
    trials
}

impl Harness for Fault {
    fn fresh(&self) -> Stores {
        Stores::data(Arc::new(Twisted { fault: *self, right: MemoryStore::new(), notes: Mutex::default() }))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}

struct Twisted {
    fault: Fault,
    right: MemoryStore,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// When strings end, of a store that drops them by itself.
    ends: BTreeMap<Bytes, Instant>,
    /// When strings would have ended that were deleted.
    ghosts: BTreeMap<Bytes, Instant>,
    /// Members that were given the score -0.
    minus: BTreeSet<Bytes>,
}

impl fmt::Debug for Twisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Twisted({:?})", self.fault)
    }
}

impl Store for Twisted {
    fn name(&self) -> &'static str {
        "twisted"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl DataStore for Twisted {
    fn data_capabilities(&self) -> DataCapabilities {
        DataCapabilities::new(1 << 12, 1 << 12, 1 << 20)
    }

    fn run(&self, commands: &[Command], _reads: Reads) -> Vec<Result<Reply>> {
        let too_many = Error::new(ErrorKind::Rejected, "too many");
        if self.fault == Fault::BatchOfAtMostFiveThousand && commands.len() > 5_000 {
            return commands.iter().map(|_| Err(too_many.clone())).collect();
        }
        let one = |command: &Command| match command {
            Command::MGet { keys } if self.fault == Fault::MGetOfAtMostAThousand && keys.len() > 1_000 => {
                Err(too_many.clone())
            }
            command => self.one(command),
        };
        commands.iter().map(one).collect()
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        let twisted = |operation: &Operation| {
            let mut command = operation.command().clone();
            if self.fault != Fault::LazyAtomic {
                self.drop_expired(&command);
            }
            self.twist(&mut command);
            Operation::new(command)
        };
        self.right.run_atomic(&operations.iter().map(twisted).collect::<Result<Vec<_>>>()?)
    }
}

impl Twisted {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn one(&self, command: &Command) -> Result<Reply> {
        command.check(self.data_capabilities())?;
        let sees_expired = match command {
            Command::Set { when: Condition::Present, .. } => self.is(Fault::LazyIfPresent),
            Command::Set { when: Condition::Equals(_), .. } => self.is(Fault::LazyIfEqual),
            Command::Set { when: Condition::Absent, .. } => self.is(Fault::LazyIfAbsent),
            Command::Del { .. } => self.is(Fault::LazyDelete),
            Command::IncrBy { .. } => self.is(Fault::LazyCounter),
            Command::SAdd { .. } => self.is(Fault::LazySet),
            Command::MGet { .. } => self.is(Fault::LazyMGet),
            _ => false,
        };
        if !sees_expired {
            self.drop_expired(command);
        }
        if let Command::IncrBy { key, by: 0 } = command
            && self.is(Fault::CounterReadsWithoutMaking)
            && self.right.get(key)?.is_none()
        {
            return Ok(Reply::Integer(0));
        }
        if let Command::IncrBy { key, .. } = command
            && self.is(Fault::CounterIsCorruptOnBytes)
            && self.right.get(key)?.is_some_and(|value| std::str::from_utf8(&value).is_err())
        {
            return Err(Error::new(ErrorKind::Corrupt, "this is no text"));
        }
        let mut command = command.clone();
        self.twist(&mut command);
        let mut reply = self.right.run(std::slice::from_ref(&command), Reads::Latest).remove(0)?;
        if let Reply::Scored(found) = &mut reply {
            let notes = self.notes.lock();
            match self.fault {
                Fault::ZerosAreOrdered => {
                    found.sort_by_key(|found| found.score == 0.0 && !notes.minus.contains(&found.member));
                }
                #[allow(clippy::cast_possible_truncation, reason = "that is the fault")]
                Fault::ScoresCompareAsSingle => found.sort_by(|one, other| {
                    (one.score as f32).total_cmp(&(other.score as f32)).then(one.member.cmp(&other.member))
                }),
                _ => {}
            }
        }
        Ok(reply)
    }

    /// Drops what has expired under the keys of a command.
    fn drop_expired(&self, command: &Command) {
        let mut notes = self.notes.lock();
        for key in command.keys() {
            if notes.ends.get(key).is_some_and(|end| *end <= Instant::now()) {
                notes.ends.remove(key);
                self.right.delete(key).unwrap();
            }
        }
    }

    fn twist(&self, command: &mut Command) {
        let key_of = |key: &mut Bytes| match self.fault {
            Fault::KeysAreText => *key = lossy(key),
            Fault::KeysDecodePercent => *key = String::from_utf8_lossy(key).replace("%3A", ":").into(),
            Fault::KeysOfAtMost255 => key.truncate(255),
            _ => {}
        };
        match command {
            Command::Set { key, value, expires, .. } => {
                key_of(key);
                if self.is(Fault::TrimsNewlines) && value.ends_with(b"\n") {
                    value.truncate(value.len() - 1);
                }
                self.twist_time(key, expires);
            }
            Command::Del { key, .. } => {
                key_of(key);
                let mut notes = self.notes.lock();
                if let Some(end) = notes.ends.remove(key) {
                    notes.ghosts.insert(key.clone(), end);
                }
            }
            Command::Get { key } => key_of(key),
            Command::MGet { keys } => keys.iter_mut().for_each(key_of),
            Command::ZAdd { member, score, .. } if *score == 0.0 && score.is_sign_negative() => {
                self.notes.lock().minus.insert(member.clone());
            }
            Command::ZhAdd { field, value, .. } => match self.fault {
                Fault::FieldsAreText => *field = lossy(field),
                Fault::FieldValuesAreText => *value = lossy(value),
                _ => {}
            },
            _ => {}
        }
    }

    fn twist_time(&self, key: &Bytes, expires: &mut Option<Duration>) {
        const MILLI: Duration = Duration::from_millis(1);
        let mut notes = self.notes.lock();
        match (self.fault, *expires) {
            (Fault::TimeInSeconds, Some(time)) => *expires = Some(Duration::from_secs(time.as_secs()).max(MILLI)),
            (Fault::TimeTripled, Some(time)) => *expires = Some(3 * time),
            #[allow(clippy::cast_possible_truncation, reason = "that is the fault")]
            (Fault::TimeWraps, Some(time)) => {
                *expires = Some(Duration::from_millis(u64::from(time.as_millis() as u32)).max(MILLI));
            }
            (Fault::TimeWrapsBelowZero, Some(time)) if time.as_millis() > i32::MAX as u128 => *expires = Some(MILLI),
            (Fault::TimeOutlivesADelete, None) => {
                notes.ends.remove(key);
                let left = notes.ghosts.remove(key).map(|end| end.saturating_duration_since(Instant::now()));
                *expires = left.filter(|left| *left >= MILLI);
            }
            (Fault::TimeOutlivesADelete, Some(time)) => drop(notes.ends.insert(key.clone(), Instant::now() + time)),
            (fault, Some(time)) if is_lazy(fault) => {
                // The store in memory would drop it by itself.
                notes.ends.insert(key.clone(), Instant::now() + time);
                *expires = None;
            }
            _ => drop(notes.ends.remove(key)),
        }
    }
}

const fn is_lazy(fault: Fault) -> bool {
    use Fault::{
        LazyAtomic, LazyCounter, LazyDelete, LazyIfAbsent, LazyIfEqual, LazyIfPresent, LazyMGet, LazySet, None,
    };
    matches!(
        fault,
        LazyAtomic | LazyCounter | LazyDelete | LazyIfAbsent | LazyIfEqual | LazyIfPresent | LazyMGet | LazySet | None
    )
}

fn lossy(bytes: &[u8]) -> Bytes {
    String::from_utf8_lossy(bytes).into_owned().into()
}
