//! A sorted set or hash: its head counts the members, each of which is an item of its own.
//!
//! The members of one life of a key carry its generation. When the key is deleted only the head goes; what carries its
//! generation is seen by nobody then, and removed afterwards.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::error::foreign;
use super::super::items::Action;
use super::super::layout::{self, Attributes, BY_SCORE, Layout, MAX_RANGE, Tag, binary, fresh};
use super::kind::Kind;
use crate::error::Result;

/// The longest member: behind a generation and a score it is a key of the index.
pub(super) const MAX_MEMBER: usize = MAX_RANGE - 16;

pub(super) struct Sorted {
    pub(super) kind: Kind,
    pub(super) generation: Tag,
    pub(super) count: u64,
    /// Those that were read or written.
    members: BTreeMap<Bytes, Member>,
}

struct Member {
    stood: Option<Scored>,
    now: Option<Scored>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    pub(super) score: f64,
    pub(super) value: Bytes,
}

impl Sorted {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, generation: fresh(), count: 0, members: BTreeMap::new() }
    }

    pub(super) fn of(kind: Kind, head: &Attributes) -> Result<Self> {
        let generation = layout::bytes(head, "g").and_then(|generation| generation.try_into().ok());
        let (generation, count) = generation.zip(layout::integer(head, "n")).ok_or_else(|| foreign("generation"))?;
        Ok(Self { kind, generation, count, members: BTreeMap::new() })
    }

    pub(super) fn read(&mut self, member: Bytes, item: Option<Attributes>) -> Result<()> {
        let stood = item.map(|item| scored(self.kind, item)).transpose()?.map(|(_, scored)| scored);
        self.members.insert(member, Member { now: stood.clone(), stood });
        Ok(())
    }

    pub(super) fn get(&self, member: &Bytes) -> Option<&Scored> {
        self.members.get(member)?.now.as_ref()
    }

    /// Adds a member, or writes over it; whether it is new.
    pub(super) fn insert(&mut self, member: &Bytes, scored: Scored) -> bool {
        let member = self.members.entry(member.clone()).or_insert(Member { stood: None, now: None });
        let new = member.now.replace(scored).is_none();
        self.count = self.count.saturating_add(u64::from(new));
        new
    }

    /// Removes a member; whether it was there.
    pub(super) fn remove(&mut self, member: &Bytes) -> bool {
        let gone = self.members.get_mut(member).is_some_and(|member| member.now.take().is_some());
        self.count = self.count.saturating_sub(u64::from(gone));
        gone
    }

    pub(super) fn is_changed(&self) -> bool {
        self.members.values().any(|member| member.stood != member.now)
    }

    /// What has to be written beside the head.
    pub(super) fn actions(&self, layout: &Layout, key: &[u8]) -> Vec<Action> {
        let changed = self.members.iter().filter(|(_, member)| member.stood != member.now);
        let action = |(member, states): (&Bytes, &Member)| {
            let place = layout.element(key, &self.generation, member);
            let Some(scored) = &states.now else { return Action::Clear(place) };
            let mut item = place.key();
            let by_score = [self.generation.as_slice(), &ordered(scored.score), member].concat();
            item.insert(BY_SCORE.to_owned(), binary(by_score));
            if self.kind == Kind::SortedHash {
                item.insert("v".to_owned(), binary(scored.value.clone()));
            }
            Action::Set(item)
        };
        changed.map(action).collect()
    }
}

/// The member that an item holds.
pub(super) fn scored(kind: Kind, mut item: Attributes) -> Result<(Bytes, Scored)> {
    let by_score = layout::take(&mut item, BY_SCORE).ok_or_else(|| foreign("score"))?;
    let score = by_score.get(8..16).and_then(|score| score.try_into().ok()).ok_or_else(|| foreign("score"))?;
    let value = match kind {
        Kind::SortedHash => layout::take(&mut item, "v").ok_or_else(|| foreign("value"))?,
        _ => Bytes::new(),
    };
    Ok((by_score.slice(16..), Scored { score: number(score), value }))
}

/// The bytes of a score, ordered as scores are. There is one zero.
pub(super) fn ordered(score: f64) -> [u8; 8] {
    let bits = (score + 0.0).to_bits();
    let negative = bits >> 63 == 1;
    (if negative { !bits } else { bits | (1 << 63) }).to_be_bytes()
}

fn number(ordered: [u8; 8]) -> f64 {
    let bits = u64::from_be_bytes(ordered);
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_ordered_as_numbers_and_come_back() {
        let scores = [f64::NEG_INFINITY, f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY];
        assert!(scores.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
        assert!(scores.iter().all(|score| number(ordered(*score)).to_bits() == score.to_bits()));
        assert_eq!(ordered(-0.0), ordered(0.0));
    }
}
