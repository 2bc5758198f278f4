//! What the scripts answer, as outcomes of steps.

use bytes::Bytes;
use redis::Value;

use super::error::Failure;
use super::strange;
use crate::envelope::{Envelope, Value as Body};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Delta, Record, Terms};
use crate::store::{Outcome, Step};

/// What a script that ran these steps answered.
pub(super) fn outcomes(steps: &[Step], value: Value, terms: &Terms, prefix: &str) -> Vec<Result<Outcome>> {
    match (steps, value) {
        ([Step::Apply(_), ..], value) => applied(steps, value, prefix),
        ([Step::Write(_)], Value::Int(1)) => vec![Ok(Outcome::Written)],
        ([Step::Write(_)], Value::Int(0)) => vec![Ok(Outcome::Superseded)],
        ([Step::Write(_), ..], Value::Array(exceptions)) => written(steps, exceptions),
        ([Step::Merge(change)], Value::Int(1)) => {
            let mut record = Record::new();
            let superseded = record.merge(change, terms);
            vec![Ok(Outcome::Merged { superseded, record: Box::new(record) })]
        }
        ([Step::Merge(change)], Value::Array(answer)) => vec![merged(change, answer)],
        ([Step::Confirm { .. } | Step::Remove { .. }], Value::Int(1)) | ([Step::Sweep(_)], Value::Int(_)) => {
            vec![Ok(Outcome::Done)]
        }
        ([step], Value::BulkString(letter)) => {
            vec![Err(flaw(letter.first().copied().unwrap_or_default(), key_of(step).as_str()))]
        }
        (steps, _) => steps.iter().map(|_| Err(strange())).collect(),
    }
}

/// The numbers of those that were superseded, and a letter before the number of those that are left alone.
fn written(steps: &[Step], exceptions: Vec<Value>) -> Vec<Result<Outcome>> {
    let mut outcomes: Vec<_> = steps.iter().map(|_| Ok(Outcome::Written)).collect();
    for exception in exceptions {
        let (letter, number) = match &exception {
            Value::Int(number) => (None, usize::try_from(*number).ok()),
            Value::BulkString(text) => match text.split_first() {
                Some((letter, number)) => {
                    (Some(*letter), std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()))
                }
                None => (None, None),
            },
            _ => (None, None),
        };
        let index = number.and_then(|number: usize| number.checked_sub(1));
        let Some((outcome, step)) = index.and_then(|index| outcomes.get_mut(index).zip(steps.get(index))) else {
            return steps.iter().map(|_| Err(strange())).collect();
        };
        *outcome = letter.map_or(Ok(Outcome::Superseded), |letter| Err(flaw(letter, key_of(step).as_str())));
    }
    outcomes
}

/// A letter for each change, and the key that each refusal is about.
fn applied(steps: &[Step], value: Value, prefix: &str) -> Vec<Result<Outcome>> {
    let mut parts = match value {
        Value::Array(parts) => parts,
        letters => vec![letters],
    }
    .into_iter()
    .map(|part| if let Value::BulkString(bytes) = part { bytes } else { Vec::new() });
    let letters = parts.next().unwrap_or_default();
    let outcome = |(index, _)| match letters.get(index) {
        Some(b'1') => Ok(Outcome::Applied { superseded: false }),
        Some(b'0') => Ok(Outcome::Applied { superseded: true }),
        Some(letter) => {
            let key = parts.next().unwrap_or_default();
            let key = String::from_utf8_lossy(&key);
            Err(flaw(*letter, key.strip_prefix(prefix).unwrap_or(&key)))
        }
        None => Err(strange()),
    };
    steps.iter().enumerate().map(outcome).collect()
}

/// Whether the record held something newer, whether its value follows, the record, and two ends.
fn merged(change: &Delta, answer: Vec<Value>) -> Result<Outcome> {
    let Ok([Value::Int(superseded), Value::Int(whole), Value::BulkString(mut bytes), ends, others]) =
        <[Value; 5]>::try_from(answer)
    else {
        return Err(strange());
    };
    if whole == 0 {
        bytes.extend_from_slice(Body::none().as_bytes());
    }
    let mut record = Envelope::parse(&Bytes::from(bytes)).and_then(Record::from_envelope)?;
    if whole == 0 {
        record.value = value_of(change);
    }
    record.expires_at = time(ends)?;
    if let Some((head, _)) = &mut record.foreign {
        head.expires_at = time(others)?;
    }
    Ok(Outcome::Merged { superseded: superseded == 1, record: Box::new(record) })
}

fn time(value: Value) -> Result<u64> {
    let bytes = if let Value::BulkString(bytes) = value { bytes } else { Vec::new() };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| strange())
}

/// The failure of a step, with its key where it is about what stands there.
pub(super) fn about(step: &Step, failure: Failure) -> Error {
    if failure.kind == ErrorKind::Corrupt {
        flaw(b'T', key_of(step).as_str()).with_source(Error::from(failure))
    } else {
        failure.into()
    }
}

/// What a script found under a key that is not ours to build upon.
fn flaw(letter: u8, key: &str) -> Error {
    let (kind, what) = match letter {
        b'L' => (ErrorKind::UnknownLayout, "was written by a newer kvsync and is left alone; update this program"),
        b'T' => (ErrorKind::Corrupt, "is of another type and is left alone; did another program write it?"),
        _ => (ErrorKind::Corrupt, "is no kvsync entry and is left alone; did another program write it?"),
    };
    Error::new(kind, format!("what stands under `{key}` {what}"))
}

fn key_of(step: &Step) -> &Key {
    match step {
        Step::Apply(change) | Step::Merge(change) => &change.home,
        Step::Write(write) => &write.key,
        Step::Confirm { home: key, .. } | Step::Sweep(key) | Step::Remove { key, .. } => key,
    }
}

fn value_of(change: &Delta) -> Body {
    if let Content::Put { value, .. } = &change.content { value.clone() } else { Body::none() }
}
