//! What stands under a key as it was read, and what commands make of it. Nothing is written here.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::super::error::foreign;
use super::super::items::standing;
use super::super::layout::{self, Attributes, Layout, Tag, binary, fresh, has_ended, integer, number};
use super::flat::Flat;
use super::kind::{Kind, code, of_code, wrong};
use super::sorted::Sorted;
use crate::error::Result;

/// A key.
pub(super) struct Draft {
    pub(super) key: Bytes,
    /// The tag of the head that was read, which may be one that has expired.
    pub(super) stood: Option<Tag>,
    pub(super) now: Now,
    /// Whether the head has to be written, whatever is in it.
    pub(super) changed: bool,
    pub(super) garbage: Vec<Garbage>,
}

pub(super) enum Now {
    Nothing,
    Text(Text),
    Flat(Flat),
    Sorted(Sorted),
}

#[derive(Clone)]
pub(super) struct Text {
    pub(super) value: Bytes,
    /// Milliseconds since the Unix epoch; 0 is never.
    pub(super) expires_at: u64,
}

/// What nobody sees any more once the head is written.
#[derive(Debug, Clone)]
pub(super) enum Garbage {
    /// Pages, by their ids.
    Pages(Vec<Bytes>),
    /// The members of a generation.
    Members(Tag),
}

impl Draft {
    /// What this head says at a time.
    pub(super) fn of(key: &Bytes, head: Option<Attributes>, now: u64) -> Result<Self> {
        let stood = standing(head.as_ref())?;
        let now = match head.filter(|head| !has_ended(head, now)) {
            Some(head) => Now::of(head)?,
            None => Now::Nothing,
        };
        Ok(Self { key: key.clone(), stood, now, changed: false, garbage: Vec::new() })
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        match &self.now {
            Now::Nothing => None,
            Now::Text(_) => Some(Kind::String),
            Now::Flat(flat) => Some(flat.kind),
            Now::Sorted(sorted) => Some(sorted.kind),
        }
    }

    /// Whether something of this kind stands there; an error for another kind.
    pub(super) fn is(&self, wanted: Kind) -> Result<bool> {
        match self.kind() {
            None => Ok(false),
            Some(kind) if kind == wanted => Ok(true),
            Some(kind) => Err(wrong(&self.key, kind, wanted)),
        }
    }

    pub(super) fn text(&self) -> Result<Option<&Text>> {
        self.is(Kind::String)?;
        Ok(if let Now::Text(text) = &self.now { Some(text) } else { None })
    }

    pub(super) fn flat(&self, kind: Kind) -> Result<Option<&Flat>> {
        self.is(kind)?;
        Ok(if let Now::Flat(flat) = &self.now { Some(flat) } else { None })
    }

    pub(super) fn sorted(&self, kind: Kind) -> Result<Option<&Sorted>> {
        self.is(kind)?;
        Ok(if let Now::Sorted(sorted) = &self.now { Some(sorted) } else { None })
    }

    /// The set or hash, made where nothing stands.
    pub(super) fn begin_flat(&mut self, kind: Kind) -> Result<&mut Flat> {
        if !self.is(kind)? {
            self.now = Now::Flat(Flat::new(kind));
        }
        if let Now::Flat(flat) = &mut self.now { Ok(flat) } else { Err(foreign("elements")) }
    }

    /// The sorted set or hash, made where nothing stands.
    pub(super) fn begin_sorted(&mut self, kind: Kind) -> Result<&mut Sorted> {
        if !self.is(kind)? {
            self.now = Now::Sorted(Sorted::new(kind));
        }
        if let Now::Sorted(sorted) = &mut self.now { Ok(sorted) } else { Err(foreign("members")) }
    }

    pub(super) fn set(&mut self, text: Text) {
        self.clear();
        self.now = Now::Text(text);
        self.changed = true;
    }

    /// Removes all that stands under the key.
    pub(super) fn clear(&mut self) {
        match std::mem::replace(&mut self.now, Now::Nothing) {
            Now::Nothing => return,
            Now::Text(_) => {}
            Now::Flat(flat) => self.garbage.push(Garbage::Pages(flat.ids())),
            Now::Sorted(sorted) => self.garbage.push(Garbage::Members(sorted.generation)),
        }
        self.changed = true;
    }

    /// Whether there is anything to write.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
            || match &self.now {
                Now::Nothing | Now::Text(_) => false,
                Now::Flat(flat) => flat.is_changed(),
                Now::Sorted(sorted) => sorted.is_changed(),
            }
    }
}

impl Now {
    fn of(mut head: Attributes) -> Result<Self> {
        let kind = match head.get("k") {
            Some(AttributeValue::S(code)) => of_code(code),
            _ => None,
        };
        match kind.ok_or_else(|| foreign("kind"))? {
            Kind::String => {
                let expires_at = integer(&head, "x").unwrap_or_default();
                let value = layout::take(&mut head, "v").ok_or_else(|| foreign("value"))?;
                Ok(Self::Text(Text { value, expires_at }))
            }
            kind @ (Kind::Set | Kind::Hash) => Flat::of(kind, &mut head).map(Self::Flat),
            kind @ (Kind::Sorted | Kind::SortedHash) => Sorted::of(kind, &head).map(Self::Sorted),
        }
    }
}

/// The head of a kind, without what it holds.
pub(super) fn head(layout: &Layout, key: &[u8], kind: Kind) -> Attributes {
    let mut item = layout.head(key).key();
    item.insert("k".to_owned(), AttributeValue::S(code(kind).to_owned()));
    item.insert("t".to_owned(), binary(fresh()));
    item
}

/// The head of a string.
pub(super) fn text(layout: &Layout, key: &[u8], text: Text) -> Attributes {
    let mut item = head(layout, key, Kind::String);
    item.insert("v".to_owned(), binary(text.value));
    layout::end(&mut item, text.expires_at);
    item
}

/// The head of a sorted set or hash.
pub(super) fn sorted(layout: &Layout, key: &[u8], sorted: &Sorted) -> Attributes {
    let mut item = head(layout, key, sorted.kind);
    item.insert("g".to_owned(), binary(sorted.generation));
    item.insert("n".to_owned(), number(sorted.count));
    item
}
