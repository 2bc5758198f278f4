//! Items read and written: in batches, and under conditions that compare tags.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    ConditionCheck, Delete, DeleteRequest, KeysAndAttributes, Put, PutRequest, ReturnValue,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem, WriteRequest,
};

use super::call::{Call, Effect, Refused, Tries};
use super::error::{Failure, unbuilt};
use super::layout::{self, Attributes, Place, Tag, VERSION, binary, bytes, tag};
use crate::error::{Error, ErrorKind, Result};
use crate::version::Version;

/// The most items of one request that reads, and of a transaction.
const READS: usize = 100;
/// The most items of a transaction; commands that would touch more are refused before.
pub(super) const TRANSACTION: usize = 100;
/// The most bytes of a transaction.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// The most items of one request that writes without conditions.
const WRITES: usize = 25;

/// What becomes of an item, if it is the one that was read.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// It is written over what had this tag, or where nothing stood.
    Put(Attributes, Option<Tag>),
    /// It is removed, if it has this tag.
    Delete(Place, Tag),
    /// It stays as it is: with this tag, or absent.
    Check(Place, Option<Tag>),
    /// It is written, whatever stands there.
    Set(Attributes),
    /// It is removed, whatever stands there.
    Clear(Place),
}

/// What has to stand where an item is written.
#[derive(Clone, Copy)]
enum If {
    Nothing,
    Tag(Tag),
    /// Nothing, or an item with a lower [`VERSION`].
    Older(Version),
}

/// What became of a write.
pub(super) enum Written {
    Done,
    /// What was read had changed, and nothing was done; what stands there now, where the server tells.
    Lost(Option<Attributes>),
    /// As [`Written::Lost`], but an earlier try may have been done and written over since.
    InDoubt,
}

impl Call {
    /// Reads items, in the order asked.
    pub(super) async fn get_all(&self, places: &[Place], consistent: bool) -> Result<Vec<Option<Attributes>>> {
        if let [place] = places {
            return Ok(vec![self.get(place, consistent).await?]);
        }
        let wanted: Vec<&Place> = places.iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = std::collections::BTreeMap::new();
        let mut call = self.clone();
        for chunk in wanted.chunks(READS) {
            let keys = chunk.iter().map(|place| place.key()).collect();
            let ask = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(consistent);
            let (mut left, mut tries) = (Some(ask.build().map_err(unbuilt)?), Tries::default());
            while let Some(ask) = left.take() {
                let request =
                    || self.store.client.batch_get_item().request_items(&self.store.table, ask.clone()).send();
                let output = call.send(Effect::Reads, request).await?.output;
                let before = found.len();
                for item in output.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                    found.insert(Place::of(&item)?, item);
                }
                // What the server had no capacity for, or what is beyond 16 MB.
                left = output.unprocessed_keys.into_iter().flatten().map(|(_, ask)| ask).next();
                left = left.filter(|left| !left.keys().is_empty());
                if found.len() > before {
                    (call, tries) = (call.renewed(), Tries::default());
                }
                if let Some(left) = &left
                    && !call.pause(&mut tries).await
                {
                    let (left, name) = (left.keys().len(), &self.store.name);
                    let message = format!(
                        "{name} left {left} keys unread until the time was up, for want of capacity or because they are \
                         large; raise the capacity, or ask for fewer at once"
                    );
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
            }
        }
        Ok(places.iter().map(|place| found.get(place).cloned()).collect())
    }

    pub(super) async fn get(&self, place: &Place, consistent: bool) -> Result<Option<Attributes>> {
        let request = || {
            let get = self.store.client.get_item().table_name(&self.store.table);
            get.set_key(Some(place.key())).consistent_read(consistent).send()
        };
        Ok(self.send(Effect::Reads, request).await?.output.item)
    }

    /// Writes an item over whatever stands there, and returns that.
    pub(super) async fn replace(&self, item: &Attributes) -> Result<Option<Attributes>> {
        let request = || {
            let put = self.store.client.put_item().table_name(&self.store.table).set_item(Some(item.clone()));
            put.return_values(ReturnValue::AllOld).send()
        };
        Ok(self.send(Effect::Writes, request).await?.output.attributes)
    }

    /// One action, atomic on its item. A put is recognised by its tag, so that sending it again after an answer that
    /// was lost does not hide that it was done.
    pub(super) async fn act(&self, action: Action) -> Result<Written> {
        match action {
            Action::Put(item, stood) => self.put(item, stood.map_or(If::Nothing, If::Tag)).await,
            Action::Delete(place, stood) => self.delete(&place, stood).await,
            other => self.transact(&[other]).await,
        }
    }

    /// Writes an item over nothing, or over one that says of itself that it has a lower version.
    pub(super) async fn put_newer(&self, item: Attributes, version: Version) -> Result<Written> {
        self.put(item, If::Older(version)).await
    }

    async fn put(&self, item: Attributes, stands: If) -> Result<Written> {
        let request = || {
            let put = self.store.client.put_item().table_name(&self.store.table).set_item(Some(item.clone()));
            let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            match stands {
                If::Tag(tag) => put
                    .condition_expression("#t = :t")
                    .expression_attribute_names("#t", "t")
                    .expression_attribute_values(":t", binary(tag)),
                If::Older(version) => put
                    .condition_expression("attribute_not_exists(hk) OR #n < :n")
                    .expression_attribute_names("#n", VERSION)
                    .expression_attribute_values(":n", binary(*version.as_bytes())),
                If::Nothing => put.condition_expression("attribute_not_exists(hk)"),
            }
            .send()
        };
        match self.send(Effect::Writes, request).await {
            Ok(_) => Ok(Written::Done),
            Err(Refused { said: Some(PutItemError::ConditionalCheckFailedException(failed)), in_doubt, .. }) => {
                let own = failed.item.as_ref().is_some_and(|stands| bytes(stands, "t") == bytes(&item, "t"));
                Ok(match (own, in_doubt) {
                    (true, _) => Written::Done,
                    (false, true) => Written::InDoubt,
                    (false, false) => Written::Lost(failed.item),
                })
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn delete(&self, place: &Place, stood: Tag) -> Result<Written> {
        let request = || {
            let delete = self.store.client.delete_item().table_name(&self.store.table).set_key(Some(place.key()));
            delete
                .condition_expression("#t = :t")
                .expression_attribute_names("#t", "t")
                .expression_attribute_values(":t", binary(stood))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
        };
        match self.send(Effect::Writes, request).await {
            Ok(_) => Ok(Written::Done),
            Err(Refused { said: Some(DeleteItemError::ConditionalCheckFailedException(failed)), in_doubt, .. }) => {
                Ok(if in_doubt { Written::InDoubt } else { Written::Lost(failed.item) })
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Several actions as one. Sent again, it is recognised by its token.
    pub(super) async fn transact(&self, actions: &[Action]) -> Result<Written> {
        let size: usize = actions.iter().map(size).sum();
        if size > TRANSACTION_BYTES {
            let message = format!("an atomic write of {size} bytes; dynamodb takes 4 MB as one: write less at a time");
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        let items = actions.iter().map(|action| self.of(action)).collect::<Result<Vec<_>>>()?;
        let mut tries = Tries::default();
        loop {
            let token = format!("{:032x}", rand::random::<u128>());
            let request = || {
                let write = self.store.client.transact_write_items().set_transact_items(Some(items.clone()));
                write.client_request_token(&token).send()
            };
            let Err(refused) = self.send(Effect::Writes, request).await else { return Ok(Written::Done) };
            let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = &refused.said else {
                return Err(refused.into());
            };
            // Canceled is not done, also where an earlier try was in doubt: it had the same token.
            match Failure::of_transaction(canceled, &self.store.name) {
                None => return Ok(Written::Lost(None)),
                Some(failure) if failure.passes && self.pause(&mut tries).await => {}
                Some(failure) => return Err(failure.into()),
            }
        }
    }

    fn of(&self, action: &Action) -> Result<TransactWriteItem> {
        const SAME: &str = "#t = :t";
        const NOTHING: &str = "attribute_not_exists(hk)";
        let (table, whole) = (&self.store.table, TransactWriteItem::builder());
        let whole = match action {
            Action::Put(item, stood) => {
                let put = Put::builder().table_name(table).set_item(Some(item.clone()));
                let put = match stood {
                    Some(tag) => put
                        .condition_expression(SAME)
                        .expression_attribute_names("#t", "t")
                        .expression_attribute_values(":t", binary(*tag)),
                    None => put.condition_expression(NOTHING),
                };
                whole.put(put.build().map_err(unbuilt)?)
            }
            Action::Delete(place, tag) => whole.delete(
                Delete::builder()
                    .table_name(table)
                    .set_key(Some(place.key()))
                    .condition_expression(SAME)
                    .expression_attribute_names("#t", "t")
                    .expression_attribute_values(":t", binary(*tag))
                    .build()
                    .map_err(unbuilt)?,
            ),
            Action::Check(place, stood) => {
                let check = ConditionCheck::builder().table_name(table).set_key(Some(place.key()));
                let check = match stood {
                    Some(tag) => check
                        .condition_expression(SAME)
                        .expression_attribute_names("#t", "t")
                        .expression_attribute_values(":t", binary(*tag)),
                    None => check.condition_expression(NOTHING),
                };
                whole.condition_check(check.build().map_err(unbuilt)?)
            }
            Action::Set(item) => {
                whole.put(Put::builder().table_name(table).set_item(Some(item.clone())).build().map_err(unbuilt)?)
            }
            Action::Clear(place) => {
                whole.delete(Delete::builder().table_name(table).set_key(Some(place.key())).build().map_err(unbuilt)?)
            }
        };
        Ok(whole.build())
    }

    /// Writes items that nobody sees yet.
    pub(super) async fn set_all(&self, items: Vec<Attributes>) -> Result<()> {
        let request = |item| PutRequest::builder().set_item(Some(item)).build();
        let puts = items.into_iter().map(|item| Ok(WriteRequest::builder().put_request(request(item)?).build()));
        self.write_all(puts.collect::<Result<_, _>>().map_err(unbuilt)?).await
    }

    /// Removes items that nobody sees any more.
    pub(super) async fn clear_all(&self, places: &[Place]) -> Result<()> {
        let request = |place: &Place| DeleteRequest::builder().set_key(Some(place.key())).build();
        let deletes = places.iter().map(|place| Ok(WriteRequest::builder().delete_request(request(place)?).build()));
        self.write_all(deletes.collect::<Result<_, _>>().map_err(unbuilt)?).await
    }

    async fn write_all(&self, requests: Vec<WriteRequest>) -> Result<()> {
        for chunk in requests.chunks(WRITES) {
            let (mut left, mut tries) = (chunk.to_vec(), Tries::default());
            while !left.is_empty() {
                let request =
                    || self.store.client.batch_write_item().request_items(&self.store.table, left.clone()).send();
                let output = self.send(Effect::Writes, request).await?.output;
                left = output.unprocessed_items.into_iter().flatten().flat_map(|(_, left)| left).collect();
                if !left.is_empty() && !self.pause(&mut tries).await {
                    let message = format!("{} left items unwritten, for want of capacity", self.store.name);
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
            }
        }
        Ok(())
    }
}

/// What an action counts in a transaction.
fn size(action: &Action) -> usize {
    match action {
        Action::Put(item, _) | Action::Set(item) => layout::size(item),
        Action::Delete(place, _) | Action::Check(place, _) | Action::Clear(place) => layout::size(&place.key()),
    }
}

/// The tag of what stands, where something does.
pub(super) fn standing(item: Option<&Attributes>) -> Result<Option<Tag>> {
    item.map(tag).transpose()
}
