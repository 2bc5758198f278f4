//! The steps of the protocol, the keys side by side, those on one key as one write.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::Inner;
use super::update::{Next, update};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;
use crate::store::steps::plan;
use crate::store::{Outcome, Step};

/// The answers to some steps, by their places in the call.
type Answers = Vec<(usize, Result<Outcome>)>;

/// Runs steps and answers each, in order.
pub(super) async fn execute(store: Arc<Inner>, steps: Vec<Step>, terms: Terms) -> Vec<Result<Outcome>> {
    let until = store.until();
    let mut answers: Vec<Option<Result<Outcome>>> = steps.iter().map(|_| None).collect();
    let mut chains: HashMap<Key, Vec<(usize, Step)>> = HashMap::new();
    for ((place, step), answer) in steps.into_iter().enumerate().zip(&mut answers) {
        match key_of(&step) {
            Ok(key) => chains.entry(key.clone()).or_default().push((place, step)),
            Err(refused) => *answer = Some(Err(refused)),
        }
    }
    let runs = chains.into_iter().map(|(key, steps)| chain(&store, key, steps, terms, until));
    let mut running = futures_util::stream::iter(runs).buffer_unordered(store.concurrency);
    while let Some(answered) = running.next().await {
        for (place, told) in answered {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(told);
            }
        }
    }
    let lost = || Err(Error::new(ErrorKind::UnknownOutcome, "a step has no answer"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
}

/// Steps on one key: as one write, or each by itself where together they make an entry that is too large.
async fn chain(
    store: &Inner,
    key: Key,
    steps: Vec<(usize, Step)>,
    terms: Terms,
    until: tokio::time::Instant,
) -> Answers {
    let (places, steps): (Vec<usize>, Vec<Step>) = steps.into_iter().unzip();
    let answered = match together(store, &key, &steps, &terms, until).await {
        Err(error) if error.kind() == ErrorKind::Rejected && steps.len() > 1 => {
            let mut answers = Vec::with_capacity(steps.len());
            for step in &steps {
                let answer = together(store, &key, std::slice::from_ref(step), &terms, until).await;
                answers.push(answer.and_then(|mut answers| answers.pop().unwrap_or(Err(error.clone()))));
            }
            answers
        }
        Err(error) => steps.iter().map(|_| Err(error.clone())).collect(),
        Ok(answers) => answers,
    };
    places.into_iter().zip(answered).collect()
}

async fn together(
    store: &Inner,
    key: &Key,
    steps: &[Step],
    terms: &Terms,
    until: tokio::time::Instant,
) -> Result<Vec<Result<Outcome>>> {
    super::within(key.as_str().len())?;
    let subject = store.subjects.row(key.as_str());
    let how = store.terms(until, true);
    update(&store.client, &store.turns, &subject, &how, |stands: Option<&Bytes>| {
        let (answers, mut changed) = plan(steps, terms, &|_| Ok(stands.cloned()));
        let next = match changed.remove(key) {
            None => Next::Stay,
            Some(Some(entry)) => Next::Put(entry),
            Some(None) => Next::Remove,
        };
        Ok((next, answers))
    })
    .await
}

fn key_of(step: &Step) -> Result<&Key> {
    match step {
        Step::Merge(change) => Ok(&change.home),
        Step::Write(write) => Ok(&write.key),
        Step::Confirm { home, .. } => Ok(home),
        Step::Sweep(key) | Step::Remove { key, .. } => Ok(key),
        Step::Apply(_) => {
            Err(Error::new(ErrorKind::Rejected, "nats writes one key at a time; a change goes there in steps"))
        }
    }
}
