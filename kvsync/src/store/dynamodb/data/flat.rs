//! A set or a hash: elements in the order of their bytes, in the head itself, or cut into pages beside it.
//!
//! A page is never changed. A write makes new ones in place of those that it touches, and they are seen once the head
//! names them; so a reader who has read a head finds its pages as they were, or one missing, and begins again.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use super::super::error::foreign;
use super::super::layout::{Attributes, binary, fresh};
use super::kind::Kind;
use crate::error::Result;

/// How many bytes of elements are kept in one item, unless one alone has more.
const PAGE: usize = 32 * 1024;

pub(super) struct Flat {
    pub(super) kind: Kind,
    pages: Vec<Page>,
}

/// Elements from `first` on, up to the next page's. The first page has what is before it, too.
struct Page {
    first: Bytes,
    /// None for one that is not stored as an item of its own.
    id: Option<Bytes>,
    /// None for one that was not read.
    elements: Option<BTreeMap<Bytes, Bytes>>,
    changed: bool,
}

/// What has to be written.
pub(super) struct Stored {
    /// The attribute of the head, by its name.
    pub(super) head: (&'static str, AttributeValue),
    /// New pages, by their ids.
    pub(super) pages: Vec<(Bytes, AttributeValue)>,
    /// Ids of pages that the head names no more.
    pub(super) dropped: Vec<Bytes>,
}

impl Flat {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, pages: Vec::new() }
    }

    /// What this head holds or names.
    pub(super) fn of(kind: Kind, head: &mut Attributes) -> Result<Self> {
        if let Some(AttributeValue::L(list)) = head.remove("v") {
            let elements = Some(elements_of(kind, list)?);
            let page = Page { first: Bytes::new(), id: None, elements, changed: false };
            return Ok(Self { kind, pages: vec![page] });
        }
        let Some(AttributeValue::L(list)) = head.remove("p") else { return Err(foreign("elements")) };
        let named = pairs(list)?.into_iter();
        let page = |(first, id)| Page { first, id: Some(id), elements: None, changed: false };
        Ok(Self { kind, pages: named.map(page).collect() })
    }

    /// The pages that have these elements, or all, as far as they were not read.
    pub(super) fn unread(&self, elements: Option<&[&Bytes]>) -> Vec<Bytes> {
        let unread = |page: &Page| if page.elements.is_none() { page.id.clone() } else { None };
        match elements {
            None => self.pages.iter().filter_map(unread).collect(),
            Some(elements) => {
                let mut at: Vec<usize> = elements.iter().map(|element| self.page_of(element)).collect();
                at.sort_unstable();
                at.dedup();
                at.into_iter().filter_map(|at| self.pages.get(at)).filter_map(unread).collect()
            }
        }
    }

    /// Takes a page that was read.
    pub(super) fn read(&mut self, id: &Bytes, mut item: Attributes) -> Result<()> {
        let Some(AttributeValue::L(list)) = item.remove("v") else { return Err(foreign("elements")) };
        let elements = elements_of(self.kind, list)?;
        if let Some(page) = self.pages.iter_mut().find(|page| page.id.as_ref() == Some(id)) {
            page.elements = Some(elements);
        }
        Ok(())
    }

    pub(super) fn get(&self, element: &Bytes) -> Option<&Bytes> {
        self.pages.get(self.page_of(element))?.elements.as_ref()?.get(element)
    }

    /// Adds an element, or writes over it; whether it is new.
    pub(super) fn insert(&mut self, element: Bytes, value: Bytes) -> bool {
        if self.pages.is_empty() {
            let elements = Some(BTreeMap::new());
            self.pages.push(Page { first: Bytes::new(), id: None, elements, changed: true });
        }
        let at = self.page_of(&element);
        let Some(page) = self.pages.get_mut(at) else { return false };
        let elements = page.elements.get_or_insert_default();
        if elements.get(&element) != Some(&value) {
            page.changed = true;
        }
        elements.insert(element, value).is_none()
    }

    /// Removes an element; whether it was there.
    pub(super) fn remove(&mut self, element: &Bytes) -> bool {
        let at = self.page_of(element);
        let Some(page) = self.pages.get_mut(at) else { return false };
        let gone = page.elements.as_mut().is_some_and(|elements| elements.remove(element).is_some());
        page.changed |= gone;
        gone
    }

    pub(super) fn is_changed(&self) -> bool {
        self.pages.iter().any(|page| page.changed)
    }

    /// Whether no element is left. A page that was not read has some.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.iter().all(|page| page.elements.as_ref().is_some_and(BTreeMap::is_empty))
    }

    /// The elements of the pages that were read, with their values.
    pub(super) fn elements(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pages.iter().filter_map(|page| page.elements.as_ref()).flatten()
    }

    /// The ids of all pages that are items of their own.
    pub(super) fn ids(&self) -> Vec<Bytes> {
        self.pages.iter().filter_map(|page| page.id.clone()).collect()
    }

    /// The form in which it is stored.
    pub(super) fn store(self) -> Stored {
        let (kind, mut dropped) = (self.kind, Vec::new());
        let mut named: Vec<(Bytes, Result<Bytes, AttributeValue>)> = Vec::new();
        for page in self.pages {
            match (page.id, page.elements) {
                (Some(id), _) if !page.changed => named.push((page.first, Ok(id))),
                (id, elements) => {
                    dropped.extend(id);
                    let cut = cut(elements.unwrap_or_default()).into_iter();
                    named.extend(cut.filter_map(|part| {
                        let first = part.first()?.0.clone();
                        Some((first, Err(list_of(kind, part))))
                    }));
                }
            }
        }
        if let [(_, Err(list))] = named.as_slice() {
            return Stored { head: ("v", list.clone()), pages: Vec::new(), dropped };
        }
        let mut pages = Vec::new();
        let mut list = Vec::with_capacity(named.len() * 2);
        for (first, page) in named {
            let id = page.unwrap_or_else(|elements| {
                let id = Bytes::copy_from_slice(&fresh());
                pages.push((id.clone(), elements));
                id
            });
            list.extend([binary(first), binary(id)]);
        }
        Stored { head: ("p", AttributeValue::L(list)), pages, dropped }
    }

    fn page_of(&self, element: &Bytes) -> usize {
        self.pages.partition_point(|page| page.first <= *element).saturating_sub(1)
    }
}

/// Cuts elements into parts of about equal size, none larger than a page unless it is a single one.
fn cut(elements: BTreeMap<Bytes, Bytes>) -> Vec<Vec<(Bytes, Bytes)>> {
    let size = |(element, value): (&Bytes, &Bytes)| element.len() + value.len() + 4;
    let total: usize = elements.iter().map(size).sum();
    let most = total.div_ceil(total.div_ceil(PAGE).max(1));
    let mut parts: Vec<Vec<(Bytes, Bytes)>> = Vec::new();
    let mut full = usize::MAX;
    for (element, value) in elements {
        let size = size((&element, &value));
        match parts.last_mut() {
            Some(part) if full + size <= most => {
                full += size;
                part.push((element, value));
            }
            _ => {
                full = size;
                parts.push(vec![(element, value)]);
            }
        }
    }
    parts
}

fn list_of(kind: Kind, elements: Vec<(Bytes, Bytes)>) -> AttributeValue {
    let mut list = Vec::with_capacity(elements.len() * 2);
    for (element, value) in elements {
        list.push(binary(element));
        if kind == Kind::Hash {
            list.push(binary(value));
        }
    }
    AttributeValue::L(list)
}

fn elements_of(kind: Kind, list: Vec<AttributeValue>) -> Result<BTreeMap<Bytes, Bytes>> {
    if kind == Kind::Hash {
        return Ok(pairs(list)?.into_iter().collect());
    }
    list.into_iter().map(|element| Ok((blob(element)?, Bytes::new()))).collect()
}

fn pairs(list: Vec<AttributeValue>) -> Result<Vec<(Bytes, Bytes)>> {
    let mut pairs = Vec::with_capacity(list.len() / 2);
    let mut list = list.into_iter();
    while let Some(first) = list.next() {
        pairs.push((blob(first)?, blob(list.next().ok_or_else(|| foreign("pair"))?)?));
    }
    Ok(pairs)
}

fn blob(value: AttributeValue) -> Result<Bytes> {
    match value {
        AttributeValue::B(blob) => Ok(blob.into_inner().into()),
        _ => Err(foreign("binary element")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Stores it and reads it again, as another process would.
    fn again(flat: Flat, table: &mut HashMap<Bytes, AttributeValue>) -> Flat {
        let kind = flat.kind;
        let stored = flat.store();
        table.extend(stored.pages);
        for id in stored.dropped {
            table.remove(&id).unwrap();
        }
        let mut head: Attributes = [(stored.head.0.to_owned(), stored.head.1)].into();
        Flat::of(kind, &mut head).unwrap()
    }

    fn load(flat: &mut Flat, elements: Option<&[&Bytes]>, table: &HashMap<Bytes, AttributeValue>) {
        for id in flat.unread(elements) {
            flat.read(&id, [("v".to_owned(), table[&id].clone())].into()).unwrap();
        }
    }

    #[test]
    fn elements_are_found_again_through_every_split() {
        let mut table = HashMap::new();
        let mut flat = Flat::new(Kind::Hash);
        let mut wanted = BTreeMap::new();
        for number in 0..600_u32 {
            let element = Bytes::from(format!("{:0>40}", number.wrapping_mul(2_654_435_761) % 10_007));
            let value = Bytes::from(vec![b'v'; usize::try_from(number).unwrap() % 700]);
            load(&mut flat, Some(&[&element]), &table);
            assert_eq!(flat.insert(element.clone(), value.clone()), wanted.insert(element, value).is_none());
            flat = again(flat, &mut table);
        }
        assert!(table.len() > 5, "it has to be cut into pages");
        load(&mut flat, None, &table);
        assert!(flat.elements().eq(wanted.iter()));
        for (element, value) in &wanted {
            assert_eq!(flat.get(element), Some(value));
        }
        let all: Vec<Bytes> = wanted.keys().cloned().collect();
        for element in all.iter().skip(1) {
            load(&mut flat, Some(&[element]), &table);
            assert!(flat.remove(element) && !flat.remove(element));
            flat = again(flat, &mut table);
        }
        load(&mut flat, None, &table);
        assert_eq!(flat.elements().count(), 1);
        assert!(flat.remove(&all[0]) && flat.is_empty());
    }

    #[test]
    fn what_is_written_as_it_stands_changes_nothing() {
        let mut flat = Flat::new(Kind::Set);
        assert!(flat.insert("a".into(), Bytes::new()) && flat.is_changed());
        let mut flat = again(flat, &mut HashMap::new());
        assert!(!flat.insert("a".into(), Bytes::new()) && !flat.is_changed());
        assert!(!flat.remove(&"b".into()) && !flat.is_changed());
    }
}
