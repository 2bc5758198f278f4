//! The steps of the protocol: what stands is read for all of them at once, and each key is written under the
//! condition that it still stands. An entry without a ledger carries its version beside it, so that a newer one is
//! written under that condition, and nothing is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;

use super::call::{Call, Effect, Tries};
use super::error::foreign;
use super::items::{Action, Written, standing};
use super::layout::{self, Attributes, HASH, MAX_VALUE, Place, VERSION, binary, fresh, has_ended, number};
use crate::clock::{Clock, SystemClock, millis};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Record, Terms};
use crate::store::steps::plan;
use crate::store::{Cursor, Outcome, Page, Step};

/// How many keys are written at a time.
const ABREAST: usize = 32;
/// What a cursor of this store begins with.
const CURSOR: &[u8] = b"dynamodb1:";

/// Runs the steps: those on one key in order, keys side by side.
pub(super) async fn execute(call: Call, steps: Vec<Step>, terms: Terms) -> Result<Vec<Result<Outcome>>> {
    let mut answers: Vec<Option<Result<Outcome>>> = steps.iter().map(|_| None).collect();
    let mut groups: BTreeMap<&Key, Vec<usize>> = BTreeMap::new();
    for (place, (step, answer)) in steps.iter().zip(&mut answers).enumerate() {
        match key_of(step).and_then(|key| call.store.fits(key).map(|()| key)) {
            Ok(key) => groups.entry(key).or_default().push(place),
            Err(refused) => *answer = Some(Err(refused)),
        }
    }
    // An entry that is written alone is tried without a reading.
    let alone = |group: &[usize]| match group {
        [place] => matches!(steps.get(*place), Some(Step::Write(_))),
        _ => false,
    };
    let read = groups.iter().filter(|(_, group)| !alone(group));
    let places: Vec<Place> = read.map(|(key, _)| call.store.layout.row(key.as_str())).collect();
    let mut found = if places.is_empty() { Vec::new() } else { call.get_all(&places, true).await? }.into_iter();
    let mut work = Vec::with_capacity(groups.len());
    for (key, group) in groups {
        let stands = if alone(&group) { Stands::Unread } else { Stands::Read(found.next().flatten()) };
        let steps: Vec<Step> = group.iter().filter_map(|place| steps.get(*place)).cloned().collect();
        let (call, key) = (call.clone(), key.clone());
        work.push(async move { (group, group_of_one_key(&call, &key, &steps, &terms, stands).await) });
    }
    let mut done = futures_util::stream::iter(work).buffer_unordered(ABREAST);
    while let Some((group, told)) = done.next().await {
        for (place, told) in group.into_iter().zip(told) {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(told);
            }
        }
    }
    let unanswered = || Err(Error::new(ErrorKind::Corrupt, "a step was not answered; this is a fault of kvsync"));
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect())
}

/// What is known of a key when its steps begin.
enum Stands {
    Read(Option<Attributes>),
    Unread,
}

/// The steps on one key as one write; where that is refused, one by one, so that each has its own answer.
async fn group_of_one_key(
    call: &Call,
    key: &Key,
    steps: &[Step],
    terms: &Terms,
    stands: Stands,
) -> Vec<Result<Outcome>> {
    let error = match one_write(call, key, steps, terms, stands).await {
        Ok(answers) => return answers,
        Err(error) if error.kind() == ErrorKind::Rejected && steps.len() > 1 => error,
        Err(error) => return steps.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut answers = Vec::with_capacity(steps.len());
    for step in steps {
        let stands = call.get(&call.store.layout.row(key.as_str()), true).await;
        let told = match stands {
            Ok(stands) => one_write(call, key, std::slice::from_ref(step), terms, Stands::Read(stands)).await,
            Err(failed) => Err(failed),
        };
        answers.push(told.and_then(|mut told| told.pop().unwrap_or_else(|| Err(error.clone()))));
    }
    answers
}

/// A compare-and-set loop: the steps are planned on what stands, and written if it still does.
async fn one_write(
    call: &Call,
    key: &Key,
    steps: &[Step],
    terms: &Terms,
    stands: Stands,
) -> Result<Vec<Result<Outcome>>> {
    let place = call.store.layout.row(key.as_str());
    let mut tries = Tries::default();
    let mut stands = match (stands, steps) {
        (Stands::Read(stands), _) => stands,
        (Stands::Unread, [Step::Write(write)]) => {
            let entry = Envelope::encode(&write.head, None, &write.value);
            match call.put_newer(item(&place, entry, terms)?, write.head.version).await? {
                Written::Done => return Ok(vec![Ok(Outcome::Written)]),
                Written::Lost(Some(now)) => Some(now),
                Written::Lost(None) | Written::InDoubt => call.get(&place, true).await?,
            }
        }
        (Stands::Unread, _) => call.get(&place, true).await?,
    };
    loop {
        let stood = standing(stands.as_ref())?;
        let entry = entry_of(stands, terms.now)?;
        let (answers, mut changed) = plan(steps, terms, &|_| Ok(entry.clone()));
        let action = match (changed.remove(key), stood) {
            (None, _) | (Some(None), None) => return Ok(answers),
            (Some(new), _) if new == entry => return Ok(answers),
            (Some(None), Some(tag)) => Action::Delete(place.clone(), tag),
            (Some(Some(new)), stood) => Action::Put(item(&place, new, terms)?, stood),
        };
        stands = match call.act(action).await? {
            Written::Done => return Ok(answers),
            Written::Lost(Some(now)) => Some(now),
            // Doing steps again is harmless, whether they were done or not.
            Written::Lost(None) | Written::InDoubt => call.get(&place, true).await?,
        };
        if !call.pause(&mut tries).await {
            return Err(Error::new(ErrorKind::Contention, format!("others never stopped to write `{key}`")));
        }
    }
}

pub(super) async fn get_many(call: Call, keys: Vec<Key>) -> Result<Vec<Option<Bytes>>> {
    keys.iter().try_for_each(|key| call.store.fits(key))?;
    let places: Vec<Place> = keys.iter().map(|key| call.store.layout.row(key.as_str())).collect();
    let now = millis(SystemClock.now());
    call.get_all(&places, true).await?.into_iter().map(|item| entry_of(item, now)).collect()
}

/// One request of a scan of the whole table: what is filtered out is read, and paid for, all the same.
pub(super) async fn scan(call: Call, prefix: String, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
    let begin = cursor.as_ref().map(decoded).transpose()?;
    let limit = i32::try_from(limit.max(1)).unwrap_or(i32::MAX);
    let place = call.store.layout.row(&prefix);
    let request = || {
        let scan = call.store.client.scan().table_name(&call.store.table).consistent_read(true).limit(limit);
        scan.projection_expression("hk")
            .filter_expression("rk = :r AND begins_with(hk, :p) AND (attribute_not_exists(#x) OR #x > :now)")
            .expression_attribute_names("#x", "x")
            .expression_attribute_values(":r", binary(place.range.clone()))
            .expression_attribute_values(":p", binary(place.hash.clone()))
            .expression_attribute_values(":now", number(millis(SystemClock.now())))
            .set_exclusive_start_key(begin.as_ref().map(Place::key))
            .send()
    };
    let output = call.send(Effect::Reads, request).await?.output;
    let key = |item: &Attributes| {
        let hash = layout::bytes(item, HASH).ok_or_else(|| foreign("key"))?;
        call.store.layout.row_key(hash).map(Key::new).ok_or_else(|| foreign("key of text"))
    };
    let keys = output.items.iter().flatten().map(key).collect::<Result<_>>()?;
    let next = output.last_evaluated_key.filter(|last| !last.is_empty());
    Ok(Page { keys, next: next.map(|last| Ok::<_, Error>(encoded(&Place::of(&last)?))).transpose()? })
}

pub(super) async fn epoch(call: Call) -> Result<u32> {
    let found = call.get(&call.store.layout.epoch(), true).await?;
    found.map_or(Ok(0), |item| epoch_of(&item))
}

pub(super) async fn raise_epoch(call: Call, epoch: u32) -> Result<u32> {
    let place = call.store.layout.epoch();
    let mut tries = Tries::default();
    loop {
        let stands = call.get(&place, true).await?;
        let now = stands.as_ref().map_or(Ok(0), epoch_of)?;
        if now >= epoch {
            return Ok(now);
        }
        let mut item = place.key();
        item.insert("n".to_owned(), number(epoch.into()));
        item.insert("t".to_owned(), binary(fresh()));
        // Raising it twice is harmless: whatever was done is read again.
        if let Written::Done = call.act(Action::Put(item, standing(stands.as_ref())?)).await? {
            return Ok(epoch);
        }
        if !call.pause(&mut tries).await {
            return Err(Error::new(ErrorKind::Contention, "others never stopped to raise the epoch"));
        }
    }
}

fn epoch_of(item: &Attributes) -> Result<u32> {
    layout::integer(item, "n").and_then(|epoch| u32::try_from(epoch).ok()).ok_or_else(|| foreign("epoch"))
}

fn key_of(step: &Step) -> Result<&Key> {
    match step {
        Step::Merge(change) => Ok(&change.home),
        Step::Write(write) => Ok(&write.key),
        Step::Confirm { home: key, .. } | Step::Sweep(key) | Step::Remove { key, .. } => Ok(key),
        Step::Apply(_) => Err(Error::new(ErrorKind::Rejected, "dynamodb takes a change in steps, and not as a whole")),
    }
}

/// The bytes of an entry, unless it has ended.
fn entry_of(item: Option<Attributes>, now: u64) -> Result<Option<Bytes>> {
    let Some(mut item) = item.filter(|item| !has_ended(item, now)) else { return Ok(None) };
    layout::take(&mut item, "v").map(Some).ok_or_else(|| foreign("value"))
}

/// The item of an entry, which ends when the entry may be forgotten.
fn item(place: &Place, entry: Bytes, terms: &Terms) -> Result<Attributes> {
    if entry.len() > MAX_VALUE {
        let message = format!("an entry of {} bytes; dynamodb takes {MAX_VALUE}", entry.len());
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    let envelope = Envelope::parse(&entry)?;
    let mut item = place.key();
    let ends = if envelope.ledger.is_some() {
        Record::from_envelope(envelope)?.forgotten_at(terms)
    } else {
        item.insert(VERSION.to_owned(), binary(*envelope.head.version.as_bytes()));
        envelope.head.expires_at
    };
    item.insert("v".to_owned(), binary(entry));
    item.insert("t".to_owned(), binary(fresh()));
    layout::end(&mut item, ends);
    Ok(item)
}

fn encoded(last: &Place) -> Cursor {
    let length = u16::try_from(last.hash.len()).unwrap_or(u16::MAX).to_be_bytes();
    Cursor([CURSOR, &length, &last.hash, &last.range].concat())
}

fn decoded(cursor: &Cursor) -> Result<Place> {
    let parts = || {
        let (length, rest) = cursor.0.strip_prefix(CURSOR)?.split_first_chunk::<2>()?;
        let (hash, range) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some(Place { hash: hash.to_vec(), range: range.to_vec() })
    };
    let refused = || Error::new(ErrorKind::Rejected, "this cursor is not of this scan; begin again without one");
    parts().filter(|place| !place.hash.is_empty() && !place.range.is_empty()).ok_or_else(refused)
}
