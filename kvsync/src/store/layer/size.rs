//! How many bytes a call carries: values, members and fields, without keys and what frames them.

use bytes::Bytes;

use crate::record::{Content, Delta};
use crate::store::data::{self, Command, Condition, Reply};
use crate::store::{Outcome, Page, Step};

/// What has so many bytes.
pub trait Size {
    /// How many.
    fn size(&self) -> usize;
}

/// The bytes that a step carries.
pub(super) fn of_step(step: &Step) -> usize {
    match step {
        Step::Apply(change) | Step::Merge(change) => of_change(change),
        Step::Write(write) => write.value.as_bytes().len(),
        Step::Remove { stands, .. } => stands.len(),
        Step::Confirm { .. } | Step::Sweep(_) => 0,
    }
}

/// The bytes that a command carries.
pub(super) fn of_command(command: &Command) -> usize {
    match command {
        Command::Set { value, when: Condition::Equals(stands), .. } => value.len() + stands.len(),
        Command::Set { value, .. } => value.len(),
        Command::SAdd { members: many, .. }
        | Command::SRem { members: many, .. }
        | Command::ZRem { members: many, .. }
        | Command::HDel { fields: many, .. }
        | Command::ZhRem { fields: many, .. } => sum(many),
        Command::HSet { fields, .. } => pairs(fields),
        Command::HSetNx { field, value, .. } | Command::ZhAdd { field, value, .. } => field.len() + value.len(),
        Command::HGet { field: one, .. }
        | Command::ZAdd { member: one, .. }
        | Command::ZScore { member: one, .. }
        | Command::ZIncrBy { member: one, .. }
        | Command::ZhGet { field: one, .. }
        | Command::ZhScore { field: one, .. }
        | Command::ZhIncrBy { field: one, .. } => one.len(),
        Command::Get { .. }
        | Command::MGet { .. }
        | Command::Del { .. }
        | Command::IncrBy { .. }
        | Command::SMembers { .. }
        | Command::HGetAll { .. }
        | Command::ZCount { .. }
        | Command::ZLexCount { .. }
        | Command::ZRangeByScore { .. }
        | Command::ZRangeByLex { .. }
        | Command::ZhCount { .. }
        | Command::ZhLexCount { .. }
        | Command::ZhRangeByScore { .. }
        | Command::ZhRangeByLex { .. } => 0,
    }
}

fn of_change(change: &Delta) -> usize {
    match &change.content {
        Content::Put { value, .. } => value.as_bytes().len(),
        Content::Delete | Content::Unknown => 0,
    }
}

fn sum(many: &[Bytes]) -> usize {
    many.iter().map(Bytes::len).sum()
}

fn pairs(fields: &[(Bytes, Bytes)]) -> usize {
    fields.iter().map(|(field, value)| field.len() + value.len()).sum()
}

impl Size for Outcome {
    fn size(&self) -> usize {
        match self {
            Self::Merged { record, .. } => record.value.as_bytes().len(),
            Self::Applied { .. } | Self::Written | Self::Superseded | Self::Done => 0,
        }
    }
}

impl Size for Reply {
    fn size(&self) -> usize {
        match self {
            Self::Value(value) => value.as_ref().map_or(0, Bytes::len),
            Self::Values(values) => values.size(),
            Self::Members(members) => sum(members),
            Self::Fields(fields) => pairs(fields),
            Self::Scored(scored) => scored.iter().map(|one| one.member.len()).sum(),
            Self::Entries(entries) => entries.iter().map(|entry| entry.field.len() + entry.value.len()).sum(),
            Self::Taken(_) | Self::Integer(_) | Self::Count(_) | Self::Score(_) => 0,
        }
    }
}

impl Size for Vec<Option<Bytes>> {
    fn size(&self) -> usize {
        self.iter().flatten().map(Bytes::len).sum()
    }
}

/// A page carries keys and nothing else.
impl Size for Page {
    fn size(&self) -> usize {
        self.keys.iter().map(|key| key.as_str().len()).sum()
    }
}

impl Size for u32 {
    fn size(&self) -> usize {
        0
    }
}

impl Size for data::Outcome {
    fn size(&self) -> usize {
        0
    }
}
