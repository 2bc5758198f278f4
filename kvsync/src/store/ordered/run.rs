//! The commands, each within a transaction that others do not see.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::layout::{Kind, Place, expiring, string};
use super::sorted;
use super::{Reader, Writer};
use crate::clock::whole_millis;
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{Command, Condition, Direction, Reply};

/// A command that reads.
pub(super) fn read(entries: &dyn Reader, now: u64, command: &Command) -> Result<Reply> {
    let state = State { entries, now };
    match command {
        Command::Get { key } => Ok(Reply::Value(state.string(key)?.map(|string| string.value))),
        Command::MGet { keys } => {
            let value = |key: &Bytes| {
                Ok(match state.head(key)? {
                    Some(Head::String(string)) => Some(string.value),
                    Some(Head::Other(_)) | None => None,
                })
            };
            entries.prefetch(&mut keys.iter().map(|key| Place::of(key).head()));
            Ok(Reply::Values(keys.iter().map(value).collect::<Result<_>>()?))
        }
        Command::SMembers { key } => {
            let members = state.elements(key, Kind::Set)?;
            Ok(Reply::Members(members.into_iter().map(|(member, _)| member).collect()))
        }
        Command::HGet { key, field } => Ok(Reply::Value(state.element(key, Kind::Hash, field)?)),
        Command::HGetAll { key } => Ok(Reply::Fields(state.elements(key, Kind::Hash)?)),
        Command::ZScore { .. }
        | Command::ZCount { .. }
        | Command::ZLexCount { .. }
        | Command::ZRangeByScore { .. }
        | Command::ZRangeByLex { .. }
        | Command::ZhGet { .. }
        | Command::ZhScore { .. }
        | Command::ZhCount { .. }
        | Command::ZhLexCount { .. }
        | Command::ZhRangeByScore { .. }
        | Command::ZhRangeByLex { .. } => sorted::read(&state, command),
        Command::Set { .. }
        | Command::Del { .. }
        | Command::IncrBy { .. }
        | Command::SAdd { .. }
        | Command::SRem { .. }
        | Command::HSet { .. }
        | Command::HSetNx { .. }
        | Command::HDel { .. }
        | Command::ZAdd { .. }
        | Command::ZRem { .. }
        | Command::ZIncrBy { .. }
        | Command::ZhAdd { .. }
        | Command::ZhRem { .. }
        | Command::ZhIncrBy { .. } => Err(Error::new(ErrorKind::Rejected, "this command writes")),
    }
}

/// What stands under a key.
pub(super) enum Head {
    String(Text),
    Other(Kind),
}

pub(super) struct Text {
    pub(super) value: Bytes,
    pub(super) expires_at: u64,
}

/// A state of the store at a time.
pub(super) struct State<'a> {
    pub(super) entries: &'a dyn Reader,
    pub(super) now: u64,
}

impl State<'_> {
    /// What stands under a key and has not expired.
    pub(super) fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        let Some(head) = self.entries.get(&Place::of(key).head())? else { return Ok(None) };
        let damaged = || {
            Error::new(
                ErrorKind::Corrupt,
                format!("what stands under `{}` was not written by kvsync", key.escape_ascii()),
            )
        };
        match head.first().copied().and_then(Kind::of).ok_or_else(damaged)? {
            Kind::String => {
                let expires_at =
                    head.get(1..9).and_then(|at| at.try_into().ok()).map(u64::from_be_bytes).ok_or_else(damaged)?;
                let lives = expires_at == 0 || expires_at > self.now;
                Ok(lives.then(|| Head::String(Text { value: head.slice(9..), expires_at })))
            }
            other => Ok(Some(Head::Other(other))),
        }
    }

    pub(super) fn string(&self, key: &[u8]) -> Result<Option<Text>> {
        match self.head(key)? {
            Some(Head::String(string)) => Ok(Some(string)),
            Some(Head::Other(stands)) => Err(wrong(key, stands, Kind::String)),
            None => Ok(None),
        }
    }

    /// Whether something of this kind stands under a key; an error for another kind.
    pub(super) fn is(&self, key: &[u8], kind: Kind) -> Result<bool> {
        match self.head(key)? {
            Some(Head::Other(stands)) if stands == kind => Ok(true),
            Some(Head::Other(stands)) => Err(wrong(key, stands, kind)),
            Some(Head::String(_)) => Err(wrong(key, Kind::String, kind)),
            None => Ok(false),
        }
    }

    pub(super) fn element(&self, key: &[u8], kind: Kind, element: &[u8]) -> Result<Option<Bytes>> {
        if self.is(key, kind)? { self.entries.get(&Place::of(key).element(element)) } else { Ok(None) }
    }

    fn elements(&self, key: &[u8], kind: Kind) -> Result<Vec<(Bytes, Bytes)>> {
        if !self.is(key, kind)? {
            return Ok(Vec::new());
        }
        let place = Place::of(key);
        let (first, last) = place.ends(b'e');
        let between = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
        let entries = self.entries.range(between, Direction::Forward, usize::MAX)?;
        Ok(entries.into_iter().map(|(at, value)| (place.element_of(&at, false), value)).collect())
    }
}

/// A transaction that writes, at a time.
pub(super) struct Run<'a> {
    pub(super) entries: &'a mut dyn Writer,
    pub(super) now: u64,
}

impl Run<'_> {
    pub(super) fn state(&self) -> State<'_> {
        State { entries: self.entries, now: self.now }
    }

    /// Whether the condition of a command holds; true for one without.
    pub(super) fn holds(&self, command: &Command) -> Result<bool> {
        let state = self.state();
        match command {
            Command::Set { key, when, .. } => match when {
                Condition::Always => Ok(true),
                Condition::Absent => Ok(state.head(key)?.is_none()),
                Condition::Present => Ok(state.head(key)?.is_some()),
                Condition::Equals(wanted) => Ok(state.string(key)?.is_some_and(|stands| stands.value == *wanted)),
            },
            Command::Del { key, must_exist: true } => Ok(state.head(key)?.is_some()),
            Command::HSetNx { key, field, .. } => Ok(state.element(key, Kind::Hash, field)?.is_none()),
            Command::ZAdd { key, member, if_absent: true, .. } => {
                Ok(state.element(key, Kind::Sorted, member)?.is_none())
            }
            Command::ZhAdd { key, field, if_absent: true, .. } => {
                Ok(state.element(key, Kind::SortedHash, field)?.is_none())
            }
            _ => Ok(true),
        }
    }

    /// A command that writes, or one that reads.
    pub(super) fn write(&mut self, command: &Command) -> Result<Reply> {
        if command.does_nothing() {
            return Ok(Reply::Count(0));
        }
        match command {
            Command::Set { key, value, expires, .. } => {
                let holds = self.holds(command)?;
                if holds {
                    let expires_at = expires.map_or(0, |expires| self.now.saturating_add(whole_millis(expires)));
                    self.set(key, value, expires_at)?;
                }
                Ok(Reply::Taken(holds))
            }
            Command::Del { key, .. } => {
                let stood = self.state().head(key)?.is_some();
                self.clear(key)?;
                Ok(Reply::Taken(stood))
            }
            Command::IncrBy { key, by } => self.increment(key, *by),
            Command::SAdd { key, members } => {
                self.put(key, Kind::Set, members.iter().map(|member| (member, Bytes::new())).collect())
            }
            Command::SRem { key, members } => self.take(key, Kind::Set, members),
            Command::HSet { key, fields } => {
                self.put(key, Kind::Hash, fields.iter().map(|(field, value)| (field, value.clone())).collect())
            }
            Command::HSetNx { key, field, value } => {
                let holds = self.holds(command)?;
                if holds {
                    self.put(key, Kind::Hash, [(field, value.clone())].into())?;
                }
                Ok(Reply::Taken(holds))
            }
            Command::HDel { key, fields } => self.take(key, Kind::Hash, fields),
            Command::ZAdd { .. }
            | Command::ZRem { .. }
            | Command::ZIncrBy { .. }
            | Command::ZhAdd { .. }
            | Command::ZhRem { .. }
            | Command::ZhIncrBy { .. } => sorted::write(self, command),
            Command::Get { .. }
            | Command::MGet { .. }
            | Command::SMembers { .. }
            | Command::HGet { .. }
            | Command::HGetAll { .. }
            | Command::ZScore { .. }
            | Command::ZCount { .. }
            | Command::ZLexCount { .. }
            | Command::ZRangeByScore { .. }
            | Command::ZRangeByLex { .. }
            | Command::ZhGet { .. }
            | Command::ZhScore { .. }
            | Command::ZhCount { .. }
            | Command::ZhLexCount { .. }
            | Command::ZhRangeByScore { .. }
            | Command::ZhRangeByLex { .. } => read(self.entries, self.now, command),
        }
    }

    /// Says which kind stands under a key that held nothing, or only what has expired.
    pub(super) fn begin(&mut self, key: &[u8], kind: Kind) -> Result<()> {
        if !self.state().is(key, kind)? {
            self.clear(key)?;
            self.entries.put(Place::of(key).head(), Bytes::copy_from_slice(&[kind.byte()]));
        }
        Ok(())
    }

    /// Removes the head of a key whose last element went.
    pub(super) fn end(&mut self, key: &[u8]) -> Result<()> {
        let place = Place::of(key);
        let (first, last) = place.ends(b'e');
        let between = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
        if self.entries.range(between, Direction::Forward, 1)?.is_empty() {
            self.entries.remove(place.head());
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], expires_at: u64) -> Result<()> {
        let place = Place::of(key);
        let head = place.head();
        self.vacate(key, &place, &head)?;
        self.entries.put(head, string(value, expires_at));
        if expires_at != 0 {
            self.entries.put(expiring(expires_at, key), Bytes::new());
        }
        Ok(())
    }

    fn increment(&mut self, key: &[u8], by: i64) -> Result<Reply> {
        let rejected =
            |why: &str| Error::new(ErrorKind::Rejected, format!("the counter `{}` {why}", key.escape_ascii()));
        let (value, expires_at) = match self.state().string(key)? {
            None => (0, 0),
            Some(Text { value, expires_at }) => {
                let text = std::str::from_utf8(&value).ok();
                // As Redis: what is not written as it would write the number itself is none.
                let number = text.and_then(|text| text.parse::<i64>().ok().filter(|number| number.to_string() == text));
                (number.ok_or_else(|| rejected("holds no number of 64 bits"))?, expires_at)
            }
        };
        let value = value.checked_add(by).ok_or_else(|| rejected("would overflow"))?;
        self.set(key, value.to_string().as_bytes(), expires_at)?;
        Ok(Reply::Integer(value))
    }

    fn put(&mut self, key: &[u8], kind: Kind, elements: BTreeMap<&Bytes, Bytes>) -> Result<Reply> {
        self.begin(key, kind)?;
        let place = Place::of(key);
        let mut new = 0;
        for (element, value) in elements {
            let at = place.element(element);
            new += u64::from(self.entries.get(&at)?.is_none());
            self.entries.put(at, value);
        }
        Ok(Reply::Count(new))
    }

    fn take(&mut self, key: &[u8], kind: Kind, elements: &[Bytes]) -> Result<Reply> {
        if !self.state().is(key, kind)? {
            return Ok(Reply::Count(0));
        }
        let place = Place::of(key);
        let mut gone = 0;
        for element in elements {
            let at = place.element(element);
            if self.entries.get(&at)?.is_some() {
                self.entries.remove(at);
                gone += 1;
            }
        }
        self.end(key)?;
        Ok(Reply::Count(gone))
    }

    /// Removes all that stands under a key, what has expired too.
    fn clear(&mut self, key: &[u8]) -> Result<()> {
        let place = Place::of(key);
        let head = place.head();
        if self.vacate(key, &place, &head)? {
            self.entries.remove(head);
        }
        Ok(())
    }

    /// The same but for the head, for one that is written over it. Whether there was one.
    fn vacate(&mut self, key: &[u8], place: &Place, head: &[u8]) -> Result<bool> {
        let Some(stands) = self.entries.get(head)? else { return Ok(false) };
        if stands.first().copied() == Some(Kind::String.byte()) {
            let expires_at = stands.get(1..9).and_then(|at| at.try_into().ok()).map_or(0, u64::from_be_bytes);
            if expires_at != 0 {
                self.entries.remove(expiring(expires_at, key));
            }
            return Ok(true);
        }
        for tag in *b"es" {
            let (first, last) = place.ends(tag);
            let between = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
            for (at, _) in self.entries.range(between, Direction::Forward, usize::MAX)? {
                self.entries.remove(at.into());
            }
        }
        Ok(true)
    }
}

fn wrong(key: &[u8], stands: Kind, wanted: Kind) -> Error {
    let message =
        format!("`{}` holds {}, and the command is for {}", key.escape_ascii(), stands.as_str(), wanted.as_str());
    Error::new(ErrorKind::WrongType, message)
}
