use std::time::Duration;

use super::*;
use crate::store::data::{AtomicWrite, Command, Condition, DataCommands, DataStore, Reads, Reply};
use crate::store::layer::{Fault, Injected, Retry};

const ALL: ErrorKind = ErrorKind::Unavailable;

/// A store that meets these faults, one a try, and is tried for longer than any test takes.
fn over(faults: impl IntoIterator<Item = Injected>) -> Retry<Fault<MemoryStore>> {
    let fault = Fault::new(MemoryStore::new());
    fault.script(faults);
    Retry::new(fault).pauses(Duration::from_micros(1), Duration::from_micros(10)).deadline(Duration::from_hours(1))
}

fn set(value: &'static str) -> Command {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(value.as_bytes()));
    Command::Set { key, value, when: Condition::Always, expires: None }
}

fn incr(key: &'static str) -> Command {
    Command::IncrBy { key: Bytes::from_static(key.as_bytes()), by: 1 }
}

#[test]
fn what_passes_is_repeated() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Contention] {
        let store = over([Injected::Refuse(kind), Injected::Refuse(kind)]);
        assert_eq!(store.incr_by("key", 1).unwrap(), 1);
        assert_eq!(store.store.injected(), 2);
    }
    let store = over([Injected::LoseAnswer, Injected::Refuse(ErrorKind::Deadline)]);
    assert_eq!(store.get("key").unwrap(), None, "a reading");
    let store = over([Injected::LoseAnswer]);
    store.set("key", "1").unwrap();
    let store = over([Injected::LoseAnswer]);
    assert_eq!(run(&store, write("row", 1)).unwrap(), Outcome::Superseded, "the first try had written it");
    let store = over([Injected::Refuse(ALL), Injected::LoseAnswer]);
    assert_eq!(store.get_many(&[Key::new("row")]).unwrap(), [None]);
    let store = over([Injected::Refuse(ALL); 1]);
    assert_eq!(store.scan("", None, 1).unwrap().keys, []);
    let store = over([Injected::LoseAnswer, Injected::Refuse(ALL)]);
    assert_eq!((store.raise_epoch(3).unwrap(), store.epoch().unwrap()), (3, 3));
}

#[test]
fn what_may_have_been_done_is_not_done_again_unless_that_is_harmless() {
    let store = over([Injected::LoseAnswer]);
    assert_eq!(store.incr_by("key", 1).map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    assert_eq!(store.incr_by("key", 0).unwrap(), 1);
    let store = over([Injected::LoseAnswer]);
    let taken = store.set_if_absent("key", "1");
    assert_eq!(taken.map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome), "it would seem taken");
    let store = over([Injected::Refuse(ErrorKind::Deadline)]);
    assert!(store.incr_by("key", 1).is_err(), "a deadline does not tell whether it was done");

    let mut atomic = AtomicWrite::new();
    atomic.set_if_absent("key", "1");
    let store = over([Injected::LoseAnswer]);
    assert_eq!(store.atomic_write(&atomic).map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    let store = over([Injected::Refuse(ErrorKind::Contention), Injected::Refuse(ALL)]);
    assert!(store.atomic_write(&atomic).unwrap().is_done());
}

#[test]
fn what_does_not_pass_is_not_repeated() {
    let store = over([Injected::Refuse(ErrorKind::Rejected), Injected::Refuse(ALL)]);
    assert_eq!(store.get("key").map_err(|error| error.kind()), Err(ErrorKind::Rejected));
    assert_eq!(store.store.injected(), 1);
    let store = over([]).deadline(Duration::ZERO);
    store.store.set_down(true);
    assert_eq!(store.get("key").map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    assert_eq!(store.store.injected(), 1, "there was no time left");
    let store = over([Injected::Refuse(ALL), Injected::Refuse(ALL)]).deadline(Duration::MAX);
    assert_eq!(store.get("key").unwrap(), None, "for ever");
}

#[test]
fn of_many_those_that_failed_are_repeated_and_none_overtakes_what_was_done() {
    let store = over([Injected::RefuseAt(vec![0, 2], ALL)]);
    let answers = store.run(&[incr("a"), incr("b"), incr("a")], Reads::Latest);
    let values: Vec<i64> = answers.into_iter().map(|answer| answer.and_then(Reply::integer).unwrap()).collect();
    assert_eq!(values, [1, 1, 2]);

    let store = over([Injected::RefuseAt(vec![0], ALL)]);
    let answers = store.run(&[set("first"), set("second")], Reads::Latest);
    assert!(answers[0].is_err() && answers[1].is_ok());
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"second"[..]), "the first must not come after it");

    let store = over([Injected::RefuseAt(vec![1], ALL)]);
    assert!(store.execute(&[write("a", 1), write("b", 1)], &TERMS).into_iter().all(|answer| answer.is_ok()));
    assert_eq!((version(&store, "a"), version(&store, "b")), (Some(at(1)), Some(at(1))));
}
