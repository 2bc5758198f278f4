//! Writes what commands made of what was read, if it still stands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::Inner;
use super::super::call::{Call, Effect};
use super::super::items::{Action, Written};
use super::super::layout::{Attributes, Place, binary, fresh};
use super::draft::{self, Garbage, Now};
use super::load::Drafts;
use crate::error::{Error, ErrorKind, Result};

/// How long what nobody sees any more is removed for.
const CLEANING: Duration = Duration::from_hours(1);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    Done,
    /// Others wrote in between, and nothing was done.
    Lost,
    /// Others wrote in between, and it may have been done before.
    InDoubt,
}

/// Writes what has changed as one. With `whole`, what has not changed has to stand all the same.
pub(super) async fn commit(call: &Call, drafts: Drafts, whole: bool) -> Result<Committed> {
    let layout = &call.store.layout;
    let (mut actions, mut pages, mut new) = (Vec::new(), Vec::new(), Vec::new());
    let mut garbage: Vec<(Bytes, Garbage)> = Vec::new();
    for (key, mut draft) in drafts {
        if !draft.is_changed() {
            if whole {
                actions.push(Action::Check(layout.head(&key), draft.stood));
            }
            continue;
        }
        garbage.extend(draft.garbage.drain(..).map(|garbage| (key.clone(), garbage)));
        match (draft.now, draft.stood) {
            (Now::Nothing, None) => {}
            (Now::Nothing, Some(tag)) => actions.push(Action::Delete(layout.head(&key), tag)),
            (Now::Text(text), stood) => actions.push(Action::Put(draft::text(layout, &key, text), stood)),
            (Now::Flat(flat), stood) => {
                let mut head = draft::head(layout, &key, flat.kind);
                let stored = flat.store();
                head.insert(stored.head.0.to_owned(), stored.head.1);
                actions.push(Action::Put(head, stood));
                garbage.push((key.clone(), Garbage::Pages(stored.dropped)));
                for (id, elements) in stored.pages {
                    let place = layout.page(&key, &id);
                    let mut page = place.key();
                    page.insert("v".to_owned(), elements);
                    page.insert("t".to_owned(), binary(fresh()));
                    pages.push(page);
                    new.push(place);
                }
            }
            (Now::Sorted(sorted), stood) => {
                actions.push(Action::Put(draft::sorted(layout, &key, &sorted), stood));
                actions.extend(sorted.actions(layout, &key));
            }
        }
    }
    if !pages.is_empty() {
        set_pages(call, pages, &new).await?;
    }
    let written = match <[Action; 1]>::try_from(actions) {
        Ok([action]) => call.act(action).await,
        Err(actions) if actions.is_empty() => Ok(Written::Done),
        Err(actions) => call.transact(&actions).await,
    };
    match written {
        Ok(Written::Done) => {
            clean(&call.store, garbage);
            Ok(Committed::Done)
        }
        Ok(Written::Lost(_)) => {
            clean_places(&call.store, new);
            Ok(Committed::Lost)
        }
        // What was written before may be what others have built upon.
        Ok(Written::InDoubt) => Ok(Committed::InDoubt),
        Err(error) => {
            if error.kind() != ErrorKind::UnknownOutcome {
                clean_places(&call.store, new);
            }
            Err(error)
        }
    }
}

/// Removes what nobody sees any more, beside the calls. What fails is left: it costs storage and nothing else.
pub(super) fn clean(store: &Arc<Inner>, garbage: Vec<(Bytes, Garbage)>) {
    let mut places = Vec::new();
    for (key, garbage) in garbage {
        match garbage {
            Garbage::Pages(ids) => places.extend(ids.iter().map(|id| store.layout.page(&key, id))),
            Garbage::Members(generation) => {
                let call = Call::lasting(store, CLEANING);
                store.bridge.spawn(async move {
                    let first = call.store.layout.element(&key, &generation, &[]);
                    told(&call, clear_members(&call, &first).await);
                });
            }
        }
    }
    clean_places(store, places);
}

/// Writes pages that no head names yet: whatever becomes of it, nothing has been done.
async fn set_pages(call: &Call, pages: Vec<Attributes>, places: &[Place]) -> Result<()> {
    call.set_all(pages).await.map_err(|error| {
        clean_places(&call.store, places.to_vec());
        let kind = if error.kind() == ErrorKind::UnknownOutcome { ErrorKind::Unavailable } else { error.kind() };
        Error::new(kind, "the pages of a large set or hash could not be written, and nothing was done")
            .with_source(error)
    })
}

fn clean_places(store: &Arc<Inner>, places: Vec<Place>) {
    if places.is_empty() {
        return;
    }
    let call = Call::lasting(store, CLEANING);
    store.bridge.spawn(async move { told(&call, call.clear_all(&places).await) });
}

/// Removes all items whose range key begins as this one.
async fn clear_members(call: &Call, first: &Place) -> Result<()> {
    loop {
        let request = || {
            let query = call.store.client.query().table_name(&call.store.table);
            query
                .key_condition_expression("hk = :h AND begins_with(rk, :r)")
                .expression_attribute_values(":h", binary(first.hash.clone()))
                .expression_attribute_values(":r", binary(first.range.clone()))
                .projection_expression("hk, rk")
                .consistent_read(true)
                .send()
        };
        let output = call.send(Effect::Reads, request).await?.output;
        let places = output.items.iter().flatten().map(Place::of).collect::<Result<Vec<_>>>()?;
        if places.is_empty() {
            return Ok(());
        }
        call.clear_all(&places).await?;
    }
}

fn told(call: &Call, cleaned: Result<()>) {
    if let Err(error) = cleaned {
        tracing::warn!(store = call.store.name, %error, "items that nobody sees any more were left in the table");
    }
}
