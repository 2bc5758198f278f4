//! What each command does to what was read: pure functions.

use bytes::Bytes;

use super::draft::{Draft, Text};
use super::kind::Kind;
use super::sorted::Scored;
use crate::clock::whole_millis;
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{Command, Condition, Reply};

/// Whether the condition of a command holds; true for one without.
pub(super) fn holds(draft: &Draft, command: &Command) -> Result<bool> {
    match command {
        Command::Set { when: Condition::Absent, .. } => Ok(draft.kind().is_none()),
        Command::Set { when: Condition::Present, .. } | Command::Del { must_exist: true, .. } => {
            Ok(draft.kind().is_some())
        }
        Command::Set { when: Condition::Equals(wanted), .. } => {
            Ok(draft.text()?.is_some_and(|stands| stands.value == *wanted))
        }
        Command::HSetNx { field, .. } => Ok(draft.flat(Kind::Hash)?.is_none_or(|hash| hash.get(field).is_none())),
        Command::ZAdd { member, if_absent: true, .. } => Ok(scored(draft, Kind::Sorted, member)?.is_none()),
        Command::ZhAdd { field, if_absent: true, .. } => Ok(scored(draft, Kind::SortedHash, field)?.is_none()),
        _ => Ok(true),
    }
}

/// Runs a command on its key, of which everything it names was read.
pub(super) fn apply(draft: &mut Draft, command: &Command, now: u64) -> Result<Reply> {
    use Kind::{Hash, Set, Sorted, SortedHash};
    if command.does_nothing() {
        return Ok(Reply::Count(0));
    }
    match command {
        Command::Get { .. } => Ok(Reply::Value(draft.text()?.map(|text| text.value.clone()))),
        Command::Set { value, expires, .. } => {
            let holds = holds(draft, command)?;
            if holds {
                let expires_at = expires.map_or(0, |expires| now.saturating_add(whole_millis(expires)));
                draft.set(Text { value: value.clone(), expires_at });
            }
            Ok(Reply::Taken(holds))
        }
        Command::Del { .. } => {
            let stood = draft.kind().is_some();
            draft.clear();
            Ok(Reply::Taken(stood))
        }
        Command::IncrBy { by, .. } => increment(draft, *by),
        Command::SAdd { members, .. } => put(draft, Set, members.iter().map(|member| (member, Bytes::new()))),
        Command::HSet { fields, .. } => put(draft, Hash, fields.iter().map(|(field, value)| (field, value.clone()))),
        Command::HSetNx { field, value, .. } => {
            let holds = holds(draft, command)?;
            if holds {
                put(draft, Hash, [(field, value.clone())].into_iter())?;
            }
            Ok(Reply::Taken(holds))
        }
        Command::SRem { members: elements, .. } => take(draft, Set, elements),
        Command::HDel { fields: elements, .. } => take(draft, Hash, elements),
        Command::SMembers { .. } => {
            let set = draft.flat(Set)?;
            Ok(Reply::Members(set.iter().flat_map(|set| set.elements()).map(|(member, _)| member.clone()).collect()))
        }
        Command::HGet { field, .. } => Ok(Reply::Value(draft.flat(Hash)?.and_then(|hash| hash.get(field)).cloned())),
        Command::HGetAll { .. } => {
            let owned = |(field, value): (&Bytes, &Bytes)| (field.clone(), value.clone());
            Ok(Reply::Fields(draft.flat(Hash)?.iter().flat_map(|hash| hash.elements()).map(owned).collect()))
        }
        Command::ZAdd { member, score, if_absent, .. } => {
            add(draft, Sorted, member, Scored { score: *score, value: Bytes::new() }, *if_absent)
        }
        Command::ZhAdd { field, value, score, if_absent, .. } => {
            add(draft, SortedHash, field, Scored { score: *score, value: value.clone() }, *if_absent)
        }
        Command::ZRem { members, .. } => remove(draft, Sorted, members),
        Command::ZhRem { fields, .. } => remove(draft, SortedHash, fields),
        Command::ZScore { member, .. } => Ok(Reply::Score(scored(draft, Sorted, member)?.map(|found| found.score))),
        Command::ZhScore { field, .. } => Ok(Reply::Score(scored(draft, SortedHash, field)?.map(|found| found.score))),
        Command::ZhGet { field, .. } => {
            Ok(Reply::Value(scored(draft, SortedHash, field)?.map(|found| found.value.clone())))
        }
        Command::ZIncrBy { member, by, .. } => {
            let stands = scored(draft, Sorted, member)?.cloned();
            let stands = stands.unwrap_or(Scored { score: 0.0, value: Bytes::new() });
            raise(draft, Sorted, member, stands, *by)
        }
        Command::ZhIncrBy { field, by, .. } => match scored(draft, SortedHash, field)?.cloned() {
            Some(stands) => raise(draft, SortedHash, field, stands, *by),
            None => Ok(Reply::Score(None)),
        },
        Command::MGet { .. }
        | Command::ZCount { .. }
        | Command::ZLexCount { .. }
        | Command::ZRangeByScore { .. }
        | Command::ZRangeByLex { .. }
        | Command::ZhCount { .. }
        | Command::ZhLexCount { .. }
        | Command::ZhRangeByScore { .. }
        | Command::ZhRangeByLex { .. } => {
            Err(Error::new(ErrorKind::Corrupt, "this command reads more than a draft has; this is a fault of kvsync"))
        }
    }
}

fn increment(draft: &mut Draft, by: i64) -> Result<Reply> {
    let key = draft.key.clone();
    let rejected = |why: &str| Error::new(ErrorKind::Rejected, format!("the counter `{}` {why}", key.escape_ascii()));
    let (value, expires_at) = match draft.text()? {
        None => (0, 0),
        Some(Text { value, expires_at }) => {
            let text = std::str::from_utf8(value).ok();
            // As Redis: what is not written as it would write the number itself is none.
            let number = text.and_then(|text| text.parse::<i64>().ok().filter(|number| number.to_string() == text));
            (number.ok_or_else(|| rejected("holds no number of 64 bits"))?, *expires_at)
        }
    };
    let value = value.checked_add(by).ok_or_else(|| rejected("would overflow"))?;
    draft.set(Text { value: value.to_string().into(), expires_at });
    Ok(Reply::Integer(value))
}

fn put<'a>(draft: &mut Draft, kind: Kind, elements: impl Iterator<Item = (&'a Bytes, Bytes)>) -> Result<Reply> {
    let flat = draft.begin_flat(kind)?;
    let new = elements.filter(|(element, value)| flat.insert((*element).clone(), value.clone())).count();
    Ok(Reply::Count(u64::try_from(new).unwrap_or(u64::MAX)))
}

fn take(draft: &mut Draft, kind: Kind, elements: &[Bytes]) -> Result<Reply> {
    if !draft.is(kind)? {
        return Ok(Reply::Count(0));
    }
    let flat = draft.begin_flat(kind)?;
    let gone = elements.iter().filter(|element| flat.remove(element)).count();
    if flat.is_empty() {
        draft.clear();
    }
    Ok(Reply::Count(u64::try_from(gone).unwrap_or(u64::MAX)))
}

fn scored<'a>(draft: &'a Draft, kind: Kind, member: &Bytes) -> Result<Option<&'a Scored>> {
    Ok(draft.sorted(kind)?.and_then(|sorted| sorted.get(member)))
}

fn add(draft: &mut Draft, kind: Kind, member: &Bytes, scored: Scored, if_absent: bool) -> Result<Reply> {
    let stands = draft.sorted(kind)?.is_some_and(|sorted| sorted.get(member).is_some());
    if !(stands && if_absent) {
        draft.begin_sorted(kind)?.insert(member, scored);
    }
    Ok(Reply::Taken(!stands))
}

fn raise(draft: &mut Draft, kind: Kind, member: &Bytes, stands: Scored, by: f64) -> Result<Reply> {
    let score = stands.score + by;
    if score.is_nan() {
        let key = draft.key.escape_ascii();
        let message = format!("adding {by} to the score {} of `{key}` gives no number", stands.score);
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    draft.begin_sorted(kind)?.insert(member, Scored { score, ..stands });
    Ok(Reply::Score(Some(score)))
}

fn remove(draft: &mut Draft, kind: Kind, members: &[Bytes]) -> Result<Reply> {
    if !draft.is(kind)? {
        return Ok(Reply::Count(0));
    }
    let sorted = draft.begin_sorted(kind)?;
    let gone = members.iter().filter(|member| sorted.remove(member)).count();
    if sorted.count == 0 {
        draft.clear();
    }
    Ok(Reply::Count(u64::try_from(gone).unwrap_or(u64::MAX)))
}
