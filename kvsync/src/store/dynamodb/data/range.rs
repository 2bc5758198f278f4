//! Ranges of sorted sets and hashes: by score in the index, by bytes in the table.

use std::ops::Bound;

use aws_sdk_dynamodb::types::Select;
use bytes::Bytes;

use super::super::call::{Call, Effect, Tries};
use super::super::layout::{Attributes, BY_SCORE, INDEX, RANGE, Tag, binary};
use super::draft::Draft;
use super::kind::Kind;
use super::load::heads;
use super::sorted::{MAX_MEMBER, Scored, ordered, scored};
use crate::clock::{Clock, SystemClock, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::{self, Command, Direction, Entry, LexRange, Reply, ScoreRange};

/// A range that a command asks for.
struct Asked<'a> {
    kind: Kind,
    ends: Ends<'a>,
    direction: Direction,
    limit: Option<usize>,
    counts: bool,
}

#[derive(Clone, Copy)]
enum Ends<'a> {
    Scores(&'a ScoreRange),
    Bytes(&'a LexRange),
}

/// Whether a command asks for a range, or counts one.
pub(super) fn is_range(command: &Command) -> bool {
    asked(command).is_some()
}

/// Reads a range as it stands at one moment: the head has to be the same before and after.
pub(super) async fn range(call: &Call, command: &Command, consistent: bool) -> Result<Reply> {
    let (Some(asked), Some(key)) = (asked(command), command.keys().first()) else {
        return Err(Error::new(ErrorKind::Corrupt, "this command asks for no range; this is a fault of kvsync"));
    };
    let mut tries = Tries::default();
    loop {
        let before = head(call, key, consistent).await?;
        let Some(sorted) = before.sorted(asked.kind)? else { return Ok(reply(command, &asked, Found::default())) };
        let found = query(call, key, &sorted.generation, &asked, consistent).await?;
        if !consistent || head(call, key, consistent).await?.stood == before.stood {
            return Ok(reply(command, &asked, found));
        }
        if !call.pause(&mut tries).await {
            let message = format!("others never stopped to write `{}` while it was read", key.escape_ascii());
            return Err(Error::new(ErrorKind::Contention, message));
        }
    }
}

async fn head(call: &Call, key: &Bytes, consistent: bool) -> Result<Draft> {
    let drafts = heads(call, std::iter::once(key), consistent, millis(SystemClock.now())).await?;
    drafts.into_values().next().map_or_else(|| Draft::of(key, None, 0), Ok)
}

#[derive(Default)]
struct Found {
    members: Vec<(Bytes, Scored)>,
    count: u64,
}

async fn query(call: &Call, key: &[u8], generation: &Tag, asked: &Asked<'_>, consistent: bool) -> Result<Found> {
    let mut found = Found::default();
    let Some((begin, end)) = between(asked.ends, *generation).filter(|(begin, end)| begin <= end) else {
        return Ok(found);
    };
    let hash = call.store.layout.head(key).hash;
    let range = if matches!(asked.ends, Ends::Scores(_)) { BY_SCORE } else { RANGE };
    let mut next: Option<Attributes> = None;
    loop {
        let left = asked.limit.map(|limit| limit.saturating_sub(found.members.len()));
        if left == Some(0) {
            return Ok(found);
        }
        let request = || {
            let query = call.store.client.query().table_name(&call.store.table).consistent_read(consistent);
            let query = query
                .key_condition_expression(format!("hk = :h AND {range} BETWEEN :a AND :z"))
                .expression_attribute_values(":h", binary(hash.clone()))
                .expression_attribute_values(":a", binary(begin.clone()))
                .expression_attribute_values(":z", binary(end.clone()))
                .scan_index_forward(asked.direction == Direction::Forward)
                .set_limit(left.map(|left| i32::try_from(left).unwrap_or(i32::MAX)))
                .set_exclusive_start_key(next.clone());
            let by_score = range == BY_SCORE;
            let query = query.set_index_name(by_score.then(|| INDEX.to_owned()));
            let select = match (asked.counts, by_score, asked.kind) {
                (true, ..) => Select::Count,
                // The index has the keys only; values are fetched from the table.
                (false, true, Kind::SortedHash) | (false, false, _) => Select::AllAttributes,
                (false, true, _) => Select::AllProjectedAttributes,
            };
            query.select(select).send()
        };
        let output = call.send(Effect::Reads, request).await?.output;
        found.count = found.count.saturating_add(u64::try_from(output.count).unwrap_or_default());
        for item in output.items.into_iter().flatten() {
            found.members.push(scored(asked.kind, item)?);
        }
        next = output.last_evaluated_key.filter(|next| !next.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// The range keys that begin and end a range, both within it; none where nothing can be.
fn between(ends: Ends<'_>, generation: Tag) -> Option<(Vec<u8>, Vec<u8>)> {
    match ends {
        Ends::Scores(scores) => {
            let place = |score: f64| u64::from_be_bytes(ordered(score));
            let begin = match scores.min {
                Bound::Included(score) => place(score),
                Bound::Excluded(score) => place(score).checked_add(1)?,
                Bound::Unbounded => 0,
            };
            let end = match scores.max {
                Bound::Included(score) => place(score),
                Bound::Excluded(score) => place(score).checked_sub(1)?,
                Bound::Unbounded => u64::MAX,
            };
            let whole = |score: u64| [generation, score.to_be_bytes()].concat();
            Some((whole(begin), [whole(end), vec![u8::MAX; MAX_MEMBER]].concat()))
        }
        Ends::Bytes(members) => {
            // No member is as long as this, so what is cut off compares with all of them as the whole.
            let cut = |bytes: &Bytes| bytes.get(..=MAX_MEMBER).unwrap_or(bytes).to_vec();
            let begin = match &members.min {
                Bound::Included(member) => cut(member),
                Bound::Excluded(member) => [cut(member), vec![0]].concat(),
                Bound::Unbounded => Vec::new(),
            };
            let end = match &members.max {
                Bound::Included(member) => cut(member),
                Bound::Excluded(member) => before(cut(member))?,
                Bound::Unbounded => vec![u8::MAX; MAX_MEMBER],
            };
            let whole = |member: Vec<u8>| [b"e".as_slice(), &generation, &member].concat();
            Some((whole(begin), whole(end)))
        }
    }
}

/// The last bytes that a member before these may have.
fn before(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    if let Some(last) = bytes.pop()?.checked_sub(1) {
        bytes.push(last);
        bytes.resize(bytes.len().max(MAX_MEMBER), u8::MAX);
    }
    Some(bytes)
}

fn asked(command: &Command) -> Option<Asked<'_>> {
    use Ends::{Bytes as B, Scores};
    use Kind::{Sorted, SortedHash};
    let count = |kind, ends| Asked { kind, ends, direction: Direction::Forward, limit: None, counts: true };
    let find = |kind, ends, direction: &Direction, limit: &Option<usize>| Asked {
        kind,
        ends,
        direction: *direction,
        limit: *limit,
        counts: false,
    };
    match command {
        Command::ZCount { scores, .. } => Some(count(Sorted, Scores(scores))),
        Command::ZhCount { scores, .. } => Some(count(SortedHash, Scores(scores))),
        Command::ZLexCount { members, .. } => Some(count(Sorted, B(members))),
        Command::ZhLexCount { fields, .. } => Some(count(SortedHash, B(fields))),
        Command::ZRangeByScore { scores, direction, limit, .. } => Some(find(Sorted, Scores(scores), direction, limit)),
        Command::ZhRangeByScore { scores, direction, limit, .. } => {
            Some(find(SortedHash, Scores(scores), direction, limit))
        }
        Command::ZRangeByLex { members, direction, limit, .. } => Some(find(Sorted, B(members), direction, limit)),
        Command::ZhRangeByLex { fields, direction, limit, .. } => Some(find(SortedHash, B(fields), direction, limit)),
        _ => None,
    }
}

fn reply(command: &Command, asked: &Asked<'_>, found: Found) -> Reply {
    let members = found.members.into_iter();
    match (asked.counts, asked.kind, command) {
        (true, ..) => Reply::Count(found.count),
        (false, Kind::SortedHash, _) => {
            Reply::Entries(members.map(|(field, Scored { score, value })| Entry { field, value, score }).collect())
        }
        (false, _, Command::ZRangeByLex { .. }) => Reply::Members(members.map(|(member, _)| member).collect()),
        (false, ..) => {
            Reply::Scored(members.map(|(member, Scored { score, .. })| data::Scored { member, score }).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excluded_end_leaves_out_itself_and_nothing_before_it() {
        let all: Vec<Vec<u8>> = (0..3_u8)
            .flat_map(|a| [vec![a], vec![a, 0], vec![a, 1], vec![a, 255], vec![a, 255, 255]])
            .chain([vec![], vec![255; MAX_MEMBER], vec![254; MAX_MEMBER]])
            .collect();
        for end in &all {
            let last = before(end.clone());
            for member in &all {
                assert_eq!(last.as_ref().is_some_and(|last| member <= last), member < end, "{member:?} and {end:?}");
            }
        }
    }
}
