//! Sorted sets and sorted hashes: the same, but that a sorted hash has values.

use std::ops::Bound;

use bytes::Bytes;

use super::layout::{Kind, Place, scored};
use super::run::{Run, State};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{Command, Direction, Entry, LexRange, Reply, ScoreRange, Scored};

/// A command that reads.
pub(super) fn read(state: &State<'_>, command: &Command) -> Result<Reply> {
    use Kind::{Sorted, SortedHash};
    let all = |entries: Vec<Entry>| u64::try_from(entries.len()).unwrap_or(u64::MAX);
    match command {
        Command::ZScore { key, member } => Ok(Reply::Score(find(state, key, Sorted, member)?.map(|found| found.score))),
        Command::ZhScore { key, field } => {
            Ok(Reply::Score(find(state, key, SortedHash, field)?.map(|found| found.score)))
        }
        Command::ZhGet { key, field } => {
            Ok(Reply::Value(find(state, key, SortedHash, field)?.map(|found| found.value)))
        }
        Command::ZCount { key, scores } => {
            by_score(state, key, Sorted, scores, Direction::Forward, None).map(all).map(Reply::Count)
        }
        Command::ZhCount { key, scores } => {
            by_score(state, key, SortedHash, scores, Direction::Forward, None).map(all).map(Reply::Count)
        }
        Command::ZLexCount { key, members } => {
            by_lex(state, key, Sorted, members, Direction::Forward, None).map(all).map(Reply::Count)
        }
        Command::ZhLexCount { key, fields } => {
            by_lex(state, key, SortedHash, fields, Direction::Forward, None).map(all).map(Reply::Count)
        }
        Command::ZRangeByScore { key, scores, direction, limit } => {
            let found = by_score(state, key, Sorted, scores, *direction, *limit)?;
            let scored = |entry: Entry| Scored { member: entry.field, score: entry.score };
            Ok(Reply::Scored(found.into_iter().map(scored).collect()))
        }
        Command::ZRangeByLex { key, members, direction, limit } => {
            let found = by_lex(state, key, Sorted, members, *direction, *limit)?;
            Ok(Reply::Members(found.into_iter().map(|entry| entry.field).collect()))
        }
        Command::ZhRangeByScore { key, scores, direction, limit } => {
            by_score(state, key, SortedHash, scores, *direction, *limit).map(Reply::Entries)
        }
        Command::ZhRangeByLex { key, fields, direction, limit } => {
            by_lex(state, key, SortedHash, fields, *direction, *limit).map(Reply::Entries)
        }
        _ => Err(Error::new(ErrorKind::Rejected, "this is no reading of a sorted set or hash")),
    }
}

/// A command that writes.
pub(super) fn write(run: &mut Run<'_>, command: &Command) -> Result<Reply> {
    match command {
        Command::ZAdd { key, member, score, if_absent } => add(
            run,
            key,
            Kind::Sorted,
            &Entry { field: member.clone(), value: Bytes::new(), score: *score },
            *if_absent,
        ),
        Command::ZhAdd { key, field, value, score, if_absent } => {
            let entry = Entry { field: field.clone(), value: value.clone(), score: *score };
            add(run, key, Kind::SortedHash, &entry, *if_absent)
        }
        Command::ZRem { key, members } => remove(run, key, Kind::Sorted, members),
        Command::ZhRem { key, fields } => remove(run, key, Kind::SortedHash, fields),
        Command::ZIncrBy { key, member, by } => {
            let stands = find(&run.state(), key, Kind::Sorted, member)?;
            let stands = stands.unwrap_or_else(|| Entry { field: member.clone(), value: Bytes::new(), score: 0.0 });
            increment(run, key, Kind::Sorted, stands, *by)
        }
        Command::ZhIncrBy { key, field, by } => match find(&run.state(), key, Kind::SortedHash, field)? {
            Some(stands) => increment(run, key, Kind::SortedHash, stands, *by),
            None => Ok(Reply::Score(None)),
        },
        _ => Err(Error::new(ErrorKind::Rejected, "this is no write of a sorted set or hash")),
    }
}

fn find(state: &State<'_>, key: &[u8], kind: Kind, field: &Bytes) -> Result<Option<Entry>> {
    state.element(key, kind, field)?.map(|stands| entry(key, field.clone(), &stands)).transpose()
}

fn by_score(
    state: &State<'_>,
    key: &[u8],
    kind: Kind,
    scores: &ScoreRange,
    direction: Direction,
    limit: Option<usize>,
) -> Result<Vec<Entry>> {
    if !state.is(key, kind)? {
        return Ok(Vec::new());
    }
    let place = Place::of(key);
    let (begin, end) = place.scores(scores.min, scores.max);
    if begin >= end {
        return Ok(Vec::new());
    }
    let between = (Bound::Included(begin.as_slice()), Bound::Excluded(end.as_slice()));
    let found = state.entries.range(between, direction, limit.unwrap_or(usize::MAX))?;
    let places = found.iter().map(|(at, _)| place.element(&place.element_of(at, true)));
    state.entries.prefetch(&mut { places });
    let of_field = |(at, _): (Bytes, Bytes)| {
        let field = place.element_of(&at, true);
        let stands = state.entries.get(&place.element(&field))?;
        entry(key, field, &stands.unwrap_or_default())
    };
    found.into_iter().map(of_field).collect()
}

fn by_lex(
    state: &State<'_>,
    key: &[u8],
    kind: Kind,
    fields: &LexRange,
    direction: Direction,
    limit: Option<usize>,
) -> Result<Vec<Entry>> {
    if !state.is(key, kind)? {
        return Ok(Vec::new());
    }
    let place = Place::of(key);
    let (first, last) = place.ends(b'e');
    let begin = fields.min.as_ref().map(|field| place.element(field));
    let end = fields.max.as_ref().map(|field| place.element(field));
    let begin = if begin == Bound::Unbounded { Bound::Included(first) } else { begin };
    let end = if end == Bound::Unbounded { Bound::Excluded(last) } else { end };
    let between = (begin.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
    if super::overlay::is_empty(between) {
        return Ok(Vec::new());
    }
    let found = state.entries.range(between, direction, limit.unwrap_or(usize::MAX))?;
    found.into_iter().map(|(at, stands)| entry(key, place.element_of(&at, false), &stands)).collect()
}

fn add(run: &mut Run<'_>, key: &[u8], kind: Kind, entry: &Entry, if_absent: bool) -> Result<Reply> {
    let stands = find(&run.state(), key, kind, &entry.field)?;
    let new = stands.is_none();
    if new || !if_absent {
        put(run, key, kind, stands.map(|stands| stands.score), entry)?;
    }
    Ok(Reply::Taken(new))
}

fn increment(run: &mut Run<'_>, key: &[u8], kind: Kind, stands: Entry, by: f64) -> Result<Reply> {
    let score = stands.score + by;
    if score.is_nan() {
        let message = format!("adding {by} to the score {} of `{}` gives no number", stands.score, key.escape_ascii());
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    let before = stands.score;
    put(run, key, kind, Some(before), &Entry { score, ..stands })?;
    Ok(Reply::Score(Some(score)))
}

fn put(run: &mut Run<'_>, key: &[u8], kind: Kind, before: Option<f64>, entry: &Entry) -> Result<()> {
    run.begin(key, kind)?;
    let place = Place::of(key);
    if let Some(before) = before {
        run.entries.remove(place.by_score(before, &entry.field));
    }
    run.entries.put(place.by_score(entry.score, &entry.field), Bytes::new());
    run.entries.put(place.element(&entry.field), scored(entry.score, &entry.value));
    Ok(())
}

fn remove(run: &mut Run<'_>, key: &[u8], kind: Kind, fields: &[Bytes]) -> Result<Reply> {
    let place = Place::of(key);
    let mut gone = 0;
    for field in fields {
        if let Some(stands) = find(&run.state(), key, kind, field)? {
            run.entries.remove(place.by_score(stands.score, field));
            run.entries.remove(place.element(field));
            gone += 1;
        }
    }
    if gone > 0 {
        run.end(key)?;
    }
    Ok(Reply::Count(gone))
}

fn entry(key: &[u8], field: Bytes, stands: &Bytes) -> Result<Entry> {
    let score = stands.get(..8).and_then(|score| score.try_into().ok()).map(f64::from_be_bytes);
    let damaged = || Error::new(ErrorKind::Corrupt, format!("a member of `{}` has no score", key.escape_ascii()));
    Ok(Entry { field, score: score.ok_or_else(damaged)?, value: stands.slice(8..) })
}
