//! Reads what commands name: the heads of their keys, then the pages and members that they are about.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::call::Call;
use super::super::layout::Place;
use super::draft::{Draft, Now};
use crate::error::Result;
use crate::store::data::Command;

/// The keys of some commands.
pub(super) type Drafts = BTreeMap<Bytes, Draft>;

/// Reads all that these commands need; none where a page had gone in the meantime.
pub(super) async fn load(call: &Call, commands: &[&Command], consistent: bool, now: u64) -> Result<Option<Drafts>> {
    let mut drafts = heads(call, commands.iter().flat_map(|command| command.keys()), consistent, now).await?;
    let layout = &call.store.layout;
    let (mut wanted, mut places): (Vec<(Bytes, Part)>, Vec<Place>) = (Vec::new(), Vec::new());
    for command in commands {
        let draft = command.keys().first().and_then(|key| drafts.get(key));
        let Some(draft) = draft.filter(|draft| draft.kind().is_some() && draft.kind() == command.kind()) else {
            continue;
        };
        let named = command.elements();
        match &draft.now {
            Now::Nothing | Now::Text(_) => {}
            Now::Flat(flat) => {
                for id in flat.unread(named.as_deref()) {
                    places.push(layout.page(&draft.key, &id));
                    wanted.push((draft.key.clone(), Part::Page(id)));
                }
            }
            Now::Sorted(sorted) => {
                for member in named.into_iter().flatten() {
                    places.push(layout.element(&draft.key, &sorted.generation, member));
                    wanted.push((draft.key.clone(), Part::Member(member.clone())));
                }
            }
        }
    }
    if places.is_empty() {
        return Ok(Some(drafts));
    }
    for ((key, part), item) in wanted.into_iter().zip(call.get_all(&places, consistent).await?) {
        match (drafts.get_mut(&key).map(|draft| &mut draft.now), part, item) {
            (Some(Now::Flat(flat)), Part::Page(id), Some(item)) => flat.read(&id, item)?,
            (Some(Now::Sorted(sorted)), Part::Member(member), item) => sorted.read(member, item)?,
            _ => return Ok(None),
        }
    }
    Ok(Some(drafts))
}

/// Reads the heads of keys.
pub(super) async fn heads(
    call: &Call,
    keys: impl Iterator<Item = &Bytes>,
    consistent: bool,
    now: u64,
) -> Result<Drafts> {
    let mut keys: Vec<Bytes> = keys.cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    let places: Vec<Place> = keys.iter().map(|key| call.store.layout.head(key)).collect();
    let heads = call.get_all(&places, consistent).await?;
    keys.into_iter().zip(heads).map(|(key, head)| Ok((key.clone(), Draft::of(&key, head, now)?))).collect()
}

/// What is read beside a head.
enum Part {
    Page(Bytes),
    Member(Bytes),
}
