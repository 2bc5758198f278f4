//! The commands of [`DataStore`]: what they name is read, they are run on it in memory, and what they change is written
//! under the condition that nobody wrote in between. Every write of a key changes the tag of its head.

mod apply;
mod commit;
mod draft;
mod flat;
mod kind;
mod load;
mod range;
mod sorted;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;

use self::apply::{apply, holds};
use self::commit::{Committed, clean, commit};
use self::draft::{Draft, Now, Text};
use self::load::{heads, load};
use super::DynamoDbStore;
use super::call::{Call, Tries};
use super::items::TRANSACTION;
use super::layout::MAX_VALUE;
use crate::clock::{Clock, SystemClock, millis, whole_millis};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{Command, Condition, DataCapabilities, DataStore, Operation, Outcome, Reads, Reply, atomic};

/// How many keys are at work at a time.
const ABREAST: usize = 32;

impl DataStore for DynamoDbStore {
    fn data_capabilities(&self) -> DataCapabilities {
        let can = DataCapabilities::new(self.inner.layout.max_key(), sorted::MAX_MEMBER, MAX_VALUE);
        can.with_max_entries(TRANSACTION)
    }

    /// Runs commands on different keys side by side.
    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        let can = self.data_capabilities();
        let checked: Vec<Result<()>> = commands.iter().map(|command| command.check(can)).collect();
        let ran: Vec<Command> = commands
            .iter()
            .zip(&checked)
            .filter(|(_, checked)| checked.is_ok())
            .map(|(command, _)| command.clone())
            .collect();
        let (count, keys) = (ran.len(), ran.iter().map(|command| command.keys().len()).sum());
        let answers = if ran.iter().any(Command::writes) {
            self.inner.write_about(keys, |call| run(call, ran, reads))
        } else {
            self.inner.read_about(keys, |call| run(call, ran, reads))
        };
        let answers = answers.unwrap_or_else(|error| vec![Err(error); count]);
        let mut answers = answers.into_iter();
        let missing = || Err(Error::new(ErrorKind::Corrupt, "a command was not answered; this is a fault of kvsync"));
        checked.into_iter().map(|checked| checked.and_then(|()| answers.next().unwrap_or_else(missing))).collect()
    }

    /// One transaction, after a reading of all that the operations name. Of an answer [`Outcome::Refused`] every
    /// condition that failed is named.
    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        let can = self.data_capabilities();
        atomic::check(operations, can, |_| 0)?;
        operations.iter().try_for_each(|operation| operation.command().check(can))?;
        if operations.is_empty() {
            return Ok(Outcome::Done);
        }
        let operations = operations.to_vec();
        self.inner.write_about(operations.len(), |call| run_atomic(call, operations))
    }
}

/// Runs commands, those on one key in order.
async fn run(call: Call, commands: Vec<Command>, reads: Reads) -> Result<Vec<Result<Reply>>> {
    let consistent = reads == Reads::Latest;
    let mut answers: BTreeMap<usize, Result<Reply>> = BTreeMap::new();
    let mut groups: BTreeMap<&Bytes, Vec<(usize, &Command)>> = BTreeMap::new();
    for (place, command) in commands.iter().enumerate() {
        match command.keys() {
            // What came before on any of its keys comes first.
            _ if matches!(command, Command::MGet { .. }) => {
                side_by_side(&call, std::mem::take(&mut groups), consistent, &mut answers).await;
                answers.insert(place, many(&call, command.keys(), consistent).await);
            }
            [key] => groups.entry(key).or_default().push((place, command)),
            _ => {}
        }
    }
    side_by_side(&call, groups, consistent, &mut answers).await;
    Ok(answers.into_values().collect())
}

async fn side_by_side(
    call: &Call,
    groups: BTreeMap<&Bytes, Vec<(usize, &Command)>>,
    consistent: bool,
    answers: &mut BTreeMap<usize, Result<Reply>>,
) {
    let only_gets =
        |group: &[(usize, &Command)]| group.iter().all(|(_, command)| matches!(command, Command::Get { .. }));
    let (gets, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, group)| only_gets(group));
    // Strings are read a hundred at a time.
    let keys: Vec<Bytes> = gets.iter().map(|(key, _)| (*key).clone()).collect();
    let found = if keys.is_empty() { Ok(BTreeMap::new()) } else { heads(call, keys.iter(), consistent, now()).await };
    for (key, group) in gets {
        let reply = found.as_ref().map_err(Clone::clone).and_then(|found| match found.get(key) {
            Some(draft) => Ok(Reply::Value(draft.text()?.map(|text| text.value.clone()))),
            None => Ok(Reply::Value(None)),
        });
        answers.extend(group.into_iter().map(|(place, _)| (place, reply.clone())));
    }
    let mut work = Vec::with_capacity(others.len());
    for (_, group) in others {
        let group: Vec<(usize, Command)> = group.into_iter().map(|(place, command)| (place, command.clone())).collect();
        let call = call.clone();
        work.push(async move {
            let mut answers = Vec::with_capacity(group.len());
            for (place, command) in group {
                answers.push((place, one(&call, &command, consistent).await));
            }
            answers
        });
    }
    let mut done = futures_util::stream::iter(work).buffer_unordered(ABREAST);
    while let Some(told) = done.next().await {
        answers.extend(told);
    }
}

async fn many(call: &Call, keys: &[Bytes], consistent: bool) -> Result<Reply> {
    let found = heads(call, keys.iter(), consistent, now()).await?;
    let value = |key| match found.get(key).map(|draft| &draft.now) {
        Some(Now::Text(text)) => Some(text.value.clone()),
        _ => None,
    };
    Ok(Reply::Values(keys.iter().map(value).collect()))
}

/// Runs a command, and again while others write what it has read.
async fn one(call: &Call, command: &Command, consistent: bool) -> Result<Reply> {
    if command.does_nothing() {
        return Ok(Reply::Count(0));
    }
    if range::is_range(command) {
        return range::range(call, command, consistent).await;
    }
    if let Command::Set { key, value, when: Condition::Always, expires } = command {
        return set(call, key, value, expires.map_or(0, |expires| now().saturating_add(whole_millis(expires)))).await;
    }
    let mut tries = Tries::default();
    loop {
        let consistent = consistent || command.writes() || !tries.is_first();
        let now = now();
        if let Some(mut drafts) = load(call, &[command], consistent, now).await? {
            let mut draft = drafts.values_mut();
            let draft = draft.next().ok_or_else(|| Error::new(ErrorKind::Corrupt, "a command without a key"))?;
            let reply = apply(draft, command, now)?;
            if !draft.is_changed() {
                return Ok(reply);
            }
            match commit(call, drafts, false).await? {
                Committed::Done => return Ok(reply),
                Committed::InDoubt if !command.repeats() => return Err(in_doubt(command)),
                Committed::InDoubt | Committed::Lost => {}
            }
        }
        if !call.pause(&mut tries).await {
            return Err(contended());
        }
    }
}

/// The one command that need not know what stood there.
async fn set(call: &Call, key: &Bytes, value: &Bytes, expires_at: u64) -> Result<Reply> {
    let item = draft::text(&call.store.layout, key, Text { value: value.clone(), expires_at });
    // What another program left there has nothing that would have to be removed.
    if let Ok(mut stood) = Draft::of(key, call.replace(&item).await?, 0) {
        stood.clear();
        clean(&call.store, stood.garbage.into_iter().map(|garbage| (key.clone(), garbage)).collect());
    }
    Ok(Reply::Taken(true))
}

async fn run_atomic(call: Call, operations: Vec<Operation>) -> Result<Outcome> {
    let commands: Vec<&Command> = operations.iter().map(Operation::command).collect();
    let mut tries = Tries::default();
    loop {
        let now = now();
        if let Some(mut drafts) = load(&call, &commands, true, now).await? {
            let failed = atomic::failed(commands.iter().copied(), |command| {
                let draft = command.keys().first().and_then(|key| drafts.get(key));
                draft.map_or(Ok(true), |draft| holds(draft, command))
            })?;
            if !failed.is_empty() {
                return Ok(Outcome::Refused(failed));
            }
            for command in &commands {
                if let Some(draft) = command.keys().first().and_then(|key| drafts.get_mut(key)) {
                    apply(draft, command, now)?;
                }
            }
            match commit(&call, drafts, true).await? {
                Committed::Done => return Ok(Outcome::Done),
                Committed::InDoubt => {
                    let message = "others wrote the same before it was known whether this atomic write was done";
                    return Err(Error::new(ErrorKind::UnknownOutcome, message));
                }
                Committed::Lost => {}
            }
        }
        if !call.pause(&mut tries).await {
            return Err(contended());
        }
    }
}

fn now() -> u64 {
    millis(SystemClock.now())
}

fn in_doubt(command: &Command) -> Error {
    let message = format!("others wrote the same before it was known whether this {} was done", command.name());
    Error::new(ErrorKind::UnknownOutcome, message)
}

fn contended() -> Error {
    Error::new(ErrorKind::Contention, "others never stopped to write the same, and nothing was done")
}
