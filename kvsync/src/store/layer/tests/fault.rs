use std::time::Duration;

use super::*;
use crate::store::data::{Command, DataCommands, DataStore, Reads};
use crate::store::layer::{Fault, Injected, Odds};
use crate::store::{Status, Store};

#[test]
fn a_script_is_played_and_then_all_passes() {
    let store = Fault::new(MemoryStore::new());
    store.script([
        Injected::Nothing,
        Injected::Refuse(ErrorKind::Contention),
        Injected::RefuseAt(vec![1], ErrorKind::Unavailable),
        Injected::LoseAnswer,
        Injected::Delay(Duration::from_micros(1)),
    ]);
    assert_eq!(run(&store, write("a", 1)).unwrap(), Outcome::Written);
    assert_eq!(run(&store, write("a", 2)).map_err(|error| error.kind()), Err(ErrorKind::Contention));
    let answers = store.execute(&[write("b", 1), write("c", 1), write("d", 1)], &TERMS);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(run(&store, write("e", 1)).map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    let inner = store.inner();
    let versions = ["a", "b", "c", "d", "e"].map(|key| version(inner, key));
    assert_eq!(versions, [Some(at(1)), Some(at(1)), None, Some(at(1)), Some(at(1))]);
    assert_eq!(store.get("key").unwrap(), None, "late");
    assert_eq!(store.injected(), 4);
}

#[test]
fn of_one_seed_the_same_calls_meet_the_same_faults() {
    let odds = Odds { refuse: 0.2, refuse_some: 0.2, lose_answer: 0.2, delay: 0.2, by: Duration::ZERO };
    let play = |seed| {
        let store = Fault::seeded(MemoryStore::new(), seed, odds);
        let get = || Command::Get { key: Bytes::from_static(b"key") };
        let calls = (0..100).map(|_| {
            let answers = store.run(&[get(), get(), get()], Reads::Latest);
            answers.into_iter().map(|answer| answer.map_err(|error| error.kind())).collect::<Vec<_>>()
        });
        (calls.collect::<Vec<_>>(), store.injected())
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}

#[test]
fn it_says_that_it_is_no_store_to_rely_on() {
    let store = Fault::new(MemoryStore::new());
    assert_eq!(store.health(Duration::ZERO).status, Status::Degraded);
    store.set_down(true);
    assert_eq!(store.health(Duration::ZERO).status, Status::Down);
    assert_eq!(store.get("key").map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    assert_eq!(store.epoch().map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    store.set_down(false);
    assert_eq!(store.get("key").unwrap(), None);
}
