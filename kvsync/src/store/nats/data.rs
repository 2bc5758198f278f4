//! The commands of [`DataStore`]: all that stands under one key is one entry, and a command reads it, runs on it in
//! memory, and writes it if nobody else did in the meantime. A plain `set` needs to know nothing, and only writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::update::{Next, put, update};
use super::{Inner, NatsStore, subject};
use crate::clock::{Clock as _, SystemClock, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::nats::Refused;
use crate::store::data::{
    Atomicity, Command, Condition, DataCapabilities, DataStore, Operation, Outcome, PORTABLE_OPERATIONS, Reads, Reply,
    atomic,
};
use crate::store::ordered::packed::{pack, unpack};
use crate::store::ordered::{Overlay, run_atomic, run_one};

/// The entries of one key, as the ordered layer has them.
type Entries = BTreeMap<Bytes, Bytes>;

impl DataStore for NatsStore {
    fn data_capabilities(&self) -> DataCapabilities {
        self.inner.data_capabilities()
    }

    /// Runs commands: those on one key as one write, in order, the keys side by side.
    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        let (store, owned) = (Arc::clone(&self.inner), commands.to_vec());
        let answered = self.inner.call(ErrorKind::UnknownOutcome, async move { Ok(run(store, owned, reads).await) });
        answered.unwrap_or_else(|error| commands.iter().map(|_| Err(error.clone())).collect())
    }

    /// Runs operations on one key as one; over several keys it is refused.
    fn run_atomic(&self, operations: &[Operation]) -> Result<Outcome> {
        atomic::check(operations, self.data_capabilities(), |_| 0)?;
        let (store, operations) = (Arc::clone(&self.inner), operations.to_vec());
        self.inner.call(ErrorKind::UnknownOutcome, async move {
            let Some(key) = operations.first().and_then(|operation| operation.command().keys().first().cloned()) else {
                return Ok(Outcome::Done);
            };
            for operation in &operations {
                operation.command().check(store.data_capabilities())?;
            }
            let repeats = operations.iter().all(|operation| operation.command().repeats());
            let until = store.until();
            change(&store, &key, repeats, until, |entries, now| {
                let mut overlay = Overlay::new(&*entries);
                let outcome = run_atomic(&mut overlay, now, &operations)?;
                let changed = overlay.into_changes();
                if outcome.is_done() {
                    apply(entries, changed);
                }
                Ok(outcome)
            })
            .await
        })
    }
}

impl NatsStore {
    /// Removes the strings whose time to live has passed and that nobody has written since: nothing else does. It
    /// reads all the data of the store, one entry after the other. Returns how many went.
    ///
    /// # Errors
    ///
    /// When the store could not be read or written; what went until then is gone.
    pub fn sweep_data(&self) -> Result<u64> {
        let (mut seen, mut swept) = (0, 0);
        loop {
            let store = Arc::clone(&self.inner);
            let (next, gone) = self.inner.call(ErrorKind::UnknownOutcome, async move { sweep(&store, seen).await })?;
            swept += gone;
            match next {
                Some(next) => seen = next,
                None => return Ok(swept),
            }
        }
    }
}

impl Inner {
    fn data_capabilities(&self) -> DataCapabilities {
        // Beside a value stand its lengths, its field and its score.
        let value = self.most.saturating_sub(64 + subject::MAX_KEY);
        DataCapabilities::new(subject::MAX_KEY, value / 2, value).with_atomic(Atomicity::Key, PORTABLE_OPERATIONS)
    }
}

async fn run(store: Arc<Inner>, commands: Vec<Command>, reads: Reads) -> Vec<Result<Reply>> {
    let until = store.until();
    let can = store.data_capabilities();
    let mut answers = Vec::with_capacity(commands.len());
    // A reading of many keys stands between what comes before it and what comes after.
    for part in commands.chunk_by(|one, next| !is_many(one) && !is_many(next)) {
        match part {
            [Command::MGet { keys }] => {
                let answer = match part.iter().try_for_each(|command| command.check(can)) {
                    Ok(()) => many(&store, keys.clone(), reads).await,
                    Err(refused) => Err(refused),
                };
                answers.push(answer);
            }
            part => answers.extend(by_key(&store, part, reads, until).await),
        }
    }
    answers
}

const fn is_many(command: &Command) -> bool {
    matches!(command, Command::MGet { .. })
}

async fn many(store: &Inner, keys: Vec<Bytes>, reads: Reads) -> Result<Reply> {
    let readings = keys.into_iter().map(|key| async move {
        let entries = load(store, &key, reads).await?;
        let command = Command::MGet { keys: vec![key] };
        run_one(&mut Overlay::new(&entries), now(), &command)?.values()
    });
    let found: Vec<Result<_>> = futures_util::stream::iter(readings).buffered(store.concurrency).collect().await;
    let values: Result<Vec<Vec<_>>> = found.into_iter().collect();
    Ok(Reply::Values(values?.into_iter().flatten().collect()))
}

/// Commands on one key each.
async fn by_key(store: &Inner, commands: &[Command], reads: Reads, until: Instant) -> Vec<Result<Reply>> {
    let can = store.data_capabilities();
    let mut answers: Vec<Option<Result<Reply>>> = commands.iter().map(|_| None).collect();
    let mut chains: HashMap<Bytes, Vec<(usize, Command)>> = HashMap::new();
    for ((place, command), answer) in commands.iter().enumerate().zip(&mut answers) {
        match (command.check(can), command.keys().first()) {
            (Ok(()), Some(key)) => chains.entry(key.clone()).or_default().push((place, command.clone())),
            (Err(refused), _) => *answer = Some(Err(refused)),
            (Ok(()), None) => {}
        }
    }
    let runs = chains.into_iter().map(|(key, commands)| chain(store, key, commands, reads, until));
    let mut running = futures_util::stream::iter(runs).buffer_unordered(store.concurrency);
    while let Some(answered) = running.next().await {
        for (place, told) in answered {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(told);
            }
        }
    }
    let lost = || Err(Error::new(ErrorKind::UnknownOutcome, "a command has no answer"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
}

/// Commands on one key: as one write, or each by itself where together they make an entry that is too large.
async fn chain(
    store: &Inner,
    key: Bytes,
    commands: Vec<(usize, Command)>,
    reads: Reads,
    until: Instant,
) -> Vec<(usize, Result<Reply>)> {
    let (places, commands): (Vec<usize>, Vec<Command>) = commands.into_iter().unzip();
    let answered = match together(store, &key, &commands, reads, until).await {
        Err(error) if error.kind() == ErrorKind::Rejected && commands.len() > 1 => {
            let mut answers = Vec::with_capacity(commands.len());
            for command in &commands {
                let answer = together(store, &key, std::slice::from_ref(command), reads, until).await;
                answers.push(answer.and_then(|mut answers| answers.pop().unwrap_or(Err(error.clone()))));
            }
            answers
        }
        Err(error) => commands.iter().map(|_| Err(error.clone())).collect(),
        Ok(answers) => answers,
    };
    places.into_iter().zip(answered).collect()
}

async fn together(
    store: &Inner,
    key: &Bytes,
    commands: &[Command],
    reads: Reads,
    until: Instant,
) -> Result<Vec<Result<Reply>>> {
    if !commands.iter().any(Command::writes) {
        let entries = load(store, key, reads).await?;
        return Ok(commands.iter().map(|command| run_one(&mut Overlay::new(&entries), now(), command)).collect());
    }
    let mut in_doubt = None;
    if let [command @ Command::Set { when: Condition::Always, .. }] = commands {
        match set(store, key, command, until).await {
            Ok(answer) => return Ok(vec![Ok(answer)]),
            // The other way knows what helps.
            Err(Refused::Unknown(error)) => in_doubt = Some(error),
            Err(Refused::Conflict | Refused::Full(_) | Refused::Failed(_)) => {}
        }
    }
    let repeats = commands.iter().all(Command::repeats);
    let answered = change(store, key, repeats, until, |entries, now| {
        let one = |command: &Command| {
            let mut overlay = Overlay::new(&*entries);
            let answer = run_one(&mut overlay, now, command)?;
            let changed = overlay.into_changes();
            apply(entries, changed);
            Ok(answer)
        };
        Ok(commands.iter().map(one).collect())
    });
    answered.await.map_err(|error| in_doubt.unwrap_or(error))
}

/// A plain `set`, whatever stands there.
async fn set(store: &Inner, key: &Bytes, command: &Command, until: Instant) -> Result<Reply, Refused> {
    let none = Entries::new();
    let mut overlay = Overlay::new(&none);
    let answer = run_one(&mut overlay, now(), command).map_err(Refused::Failed)?;
    let mut entries = Entries::new();
    apply(&mut entries, overlay.into_changes());
    let entry = pack(key, &entries).filter(|entry| entry.len() <= store.most);
    let entry = entry.ok_or_else(|| Refused::Failed(Error::new(ErrorKind::Rejected, "the entry is too large")))?;
    put(&store.client, &store.turns, &store.subjects.data(key), &store.terms(until, true), entry).await?;
    Ok(answer)
}

/// Reads what stands under a key, changes it, and writes it back if it is another.
async fn change<T>(
    store: &Inner,
    key: &[u8],
    repeats: bool,
    until: Instant,
    mut work: impl FnMut(&mut Entries, u64) -> Result<T>,
) -> Result<T> {
    let how = store.terms(until, repeats);
    update(&store.client, &store.turns, &store.subjects.data(key), &how, |stands: Option<&Bytes>| {
        let mut entries = unpack(key, stands)?;
        let answer = work(&mut entries, now())?;
        let next = match pack(key, &entries) {
            Some(packed) if Some(&packed) == stands => Next::Stay,
            Some(packed) => Next::Put(packed),
            None => Next::Remove,
        };
        Ok((next, answer))
    })
    .await
}

async fn load(store: &Inner, key: &[u8], reads: Reads) -> Result<Entries> {
    let stands = store.read(&store.subjects.data(key), reads).await?;
    unpack(key, stands.as_ref())
}

/// Removes what has expired of the entries behind a revision, and says where to go on.
async fn sweep(store: &Inner, mut seen: u64) -> Result<(Option<u64>, u64)> {
    let (until, enough) = (store.until(), Instant::now() + store.command_timeout / 2);
    let (filter, mut swept) = (store.subjects.all_data(), 0);
    loop {
        let Some((subject, stands)) = store.next(&filter, seen + 1, until).await? else { return Ok((None, swept)) };
        seen = stands.revision;
        if let (Some(key), Some(_)) = (store.subjects.data_of(&subject), stands.value) {
            let gone = change(store, &key, true, until, |entries, now| {
                let stood = !entries.is_empty();
                let mut overlay = Overlay::new(&*entries);
                crate::store::ordered::sweep_expired(&mut overlay, now)?;
                let changed = overlay.into_changes();
                apply(entries, changed);
                Ok(stood && entries.is_empty())
            });
            swept += u64::from(gone.await?);
        }
        if Instant::now() > enough {
            return Ok((Some(seen), swept));
        }
    }
}

fn apply(entries: &mut Entries, changed: BTreeMap<Bytes, Option<Bytes>>) {
    for (at, value) in changed {
        match value {
            Some(value) => entries.insert(at, value),
            None => entries.remove(&at),
        };
    }
}

fn now() -> u64 {
    millis(SystemClock.now())
}
