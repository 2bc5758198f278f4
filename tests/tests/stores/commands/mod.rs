//! Random histories of commands: a store answers each as the store in memory does, and that one as a real
//! Redis does, asked by a client that knows nothing of kvsync.

mod draw;
mod redis;

use std::sync::Arc;

use bytes::Bytes;
use kvsync::store::MemoryStore;
use kvsync::store::conformance::{Harness, Verdict};
use kvsync::store::data::{
    Atomicity, Command, DataStore, Direction, LexRange, Operation, Outcome, Reads, Reply, ScoreRange,
};
use kvsync::{ErrorKind, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::draw::Draw;
use crate::matrix::Case;

/// What a command is answered with, and the kind of error it fails with.
type Answer = Result<Reply, ErrorKind>;

const HISTORIES: u64 = 30;

/// The cases that compare a store with the one in memory, and that one with Redis.
pub(crate) fn cases(name: &str, harness: &Arc<dyn Harness>) -> Vec<(&'static str, Case)> {
    let own = Arc::clone(harness);
    let mut cases: Vec<(&'static str, Case)> =
        vec![("random_commands_answer_as_the_store_in_memory", Box::new(move || as_in_memory(&*own)))];
    if name == "memory" {
        cases.push(("random_commands_answer_as_a_bare_redis", Box::new(as_bare_redis)));
    }
    cases
}

fn as_in_memory(harness: &dyn Harness) -> Verdict {
    let Some(store) = harness.fresh().data else { return Verdict::NotApplicable("it runs no commands") };
    let failed = (0..HISTORIES).find_map(|seed| history(&*store, seed).err().map(|why| format!("seed {seed}: {why}")));
    failed.map_or(Verdict::Passed, Verdict::Failed)
}

/// One history on this store and on one in memory; an error says where they part.
pub(crate) fn history(store: &dyn DataStore, seed: u64) -> Result<(), String> {
    let reference = MemoryStore::new();
    let mut random = StdRng::seed_from_u64(seed);
    // One slot, for stores that have slots.
    let prefix = format!("{{history {seed}}}");
    for round in 0..10 + seed {
        let mut draw = Draw { random: &mut random, prefix: &prefix, redis: false };
        let atomic = draw.random.random_bool(0.3);
        let count = draw.random.random_range(1..=4);
        let commands: Vec<Command> = (0..count).map(|_| draw.command()).collect();
        if atomic {
            let operations = one_atomic_write(store, commands);
            let (wanted, found) = (reference.run_atomic(&operations), settled(store, &operations));
            if !alike(&wanted, &found) {
                return Err(format!("round {round}: {operations:?} answered {found:?}, wanted {wanted:?}"));
            }
        } else {
            compare(round, &commands, answers(&reference, &commands), answers(store, &commands))?;
        }
    }
    let all = everything(&prefix);
    compare(u64::MAX, &all, answers(&reference, &all), answers(store, &all))
}

fn answers(store: &dyn DataStore, commands: &[Command]) -> Vec<Answer> {
    store.run(commands, Reads::Latest).into_iter().map(|reply| reply.map_err(|error| error.kind())).collect()
}

fn as_bare_redis() -> Verdict {
    let run = |seed| -> kvsync_tests::Tested {
        let mut bare = redis::connect()?;
        let reference = MemoryStore::new();
        let mut random = StdRng::seed_from_u64(seed);
        let prefix = format!("commands:{:016x}:", rand::random::<u64>());
        let mut draw = Draw { random: &mut random, prefix: &prefix, redis: true };
        let commands: Vec<Command> = (0..30 + 5 * seed).map(|_| draw.command()).collect();
        let commands = [commands, everything(&prefix).into_iter().filter(redis::has).collect()].concat();
        let mut found = Vec::new();
        for command in &commands {
            found.push(redis::run(&mut bare, command)?);
        }
        redis::forget(&mut bare, &Draw::keys(&prefix))?;
        Ok(compare(0, &commands, answers(&reference, &commands), found)?)
    };
    let failed = (0..HISTORIES).find_map(|seed| run(seed).err().map(|why| format!("seed {seed}: {why}")));
    failed.map_or(Verdict::Passed, Verdict::Failed)
}

/// All that can be read of the keys of a history.
fn everything(prefix: &str) -> Vec<Command> {
    let [a, b, equal, equal_too] = Draw::keys(prefix);
    let (scores, direction, limit) = (ScoreRange::from(..), Direction::Forward, None);
    let of_any = |key: &Bytes| {
        let key = key.clone();
        [Command::MGet { keys: vec![key.clone()] }, Command::SMembers { key: key.clone() }, Command::HGetAll { key }]
    };
    let mut all: Vec<Command> = [&a, &b, &equal, &equal_too].into_iter().flat_map(of_any).collect();
    all.extend([
        Command::ZRangeByScore { key: a, scores, direction, limit },
        Command::ZhRangeByScore { key: b, scores, direction, limit },
        Command::ZRangeByLex { key: equal, members: LexRange::all(), direction, limit },
        Command::ZhRangeByLex { key: equal_too, fields: LexRange::all(), direction, limit },
    ]);
    all
}

/// The operations among some commands; of one key where the store writes no more at a time.
fn one_atomic_write(store: &dyn DataStore, commands: Vec<Command>) -> Vec<Operation> {
    let one = store.data_capabilities().atomic == Atomicity::Key;
    let first = commands.iter().find(|command| command.writes()).and_then(|command| command.keys().first().cloned());
    let within = |command: &Command| !one || command.keys().first() == first.as_ref();
    commands.into_iter().filter(|command| within(command)).filter_map(|command| Operation::new(command).ok()).collect()
}

fn settled(store: &dyn DataStore, operations: &[Operation]) -> Result<Outcome> {
    loop {
        match store.run_atomic(operations) {
            Err(error) if error.kind() == ErrorKind::Contention => {}
            answer => return answer,
        }
    }
}

/// Whether two stores did the same. Where several things are in the way, a store may name any of them.
fn alike(wanted: &Result<Outcome>, found: &Result<Outcome>) -> bool {
    let undone = |kind| matches!(kind, ErrorKind::WrongType | ErrorKind::Rejected);
    match (wanted, found) {
        (Ok(Outcome::Done), Ok(Outcome::Done)) => true,
        (Ok(Outcome::Refused(wanted)), Ok(Outcome::Refused(found))) => {
            !found.is_empty() && found.iter().all(|place| wanted.contains(place))
        }
        (Err(wanted), Err(found)) => undone(wanted.kind()) && undone(found.kind()),
        (Ok(_), _) | (_, Ok(_)) => false,
    }
}

/// Fails where an answer is another one, or an error of another kind.
fn compare(round: u64, commands: &[Command], wanted: Vec<Answer>, found: Vec<Answer>) -> Result<(), String> {
    if found.len() != commands.len() {
        return Err(format!("round {round}: {} answers to {} commands", found.len(), commands.len()));
    }
    for ((command, wanted), found) in commands.iter().zip(wanted).zip(found) {
        let (wanted, found) = (specified(command, wanted), specified(command, found));
        if found != wanted {
            return Err(format!("round {round}: {command:?} answered {found:?}, wanted {wanted:?}, in {commands:?}"));
        }
    }
    Ok(())
}

/// An answer without what is unspecified: the order of members of a set and of fields of a hash.
fn specified(command: &Command, mut answer: Answer) -> Answer {
    match (command, &mut answer) {
        (Command::HGetAll { .. }, Ok(Reply::Fields(fields))) => fields.sort(),
        (Command::SMembers { .. }, Ok(Reply::Members(members))) => members.sort(),
        _ => {}
    }
    answer
}
