//! Strings in a table of another layout.

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use super::Inner;
use super::call::Effect;
use super::error::foreign;
use super::layout::{Attributes, MAX_HASH};
use crate::error::{Error, ErrorKind, Result};

/// A table whose items are a partition key and a string, `pk` and `value`: the form in which the DynamoDB driver of the
/// Go framework `GoFr` keeps its strings, and many programs of their own. It shares such a table with them, and has
/// nothing to do with rows or with the commands of a [`DynamoDbStore`](super::DynamoDbStore).
///
/// ```no_run
/// use kvsync::store::dynamodb::DynamoDbStore;
///
/// let table = DynamoDbStore::builder("gofr-kv-store").region("eu-west-1").plain()?;
/// table.set("greeting", "hello")?;
/// assert_eq!(table.get("greeting")?.as_deref(), Some("hello"));
/// # Ok::<(), kvsync::Error>(())
/// ```
///
/// A write replaces the whole item, with attributes that others may have added to it, as that of `GoFr` does. Each call is one
/// request, tried again as those of the store.
#[derive(Clone)]
pub struct PlainTable {
    inner: Arc<Inner>,
    partition_key: String,
}

impl PlainTable {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, partition_key: "pk".to_owned() }
    }

    /// The same table by another name of its partition key, which is `pk` by default.
    #[must_use]
    pub fn partition_key(self, name: impl Into<String>) -> Self {
        Self { partition_key: name.into(), ..self }
    }

    /// The string under a key, by a strongly consistent reading. Blocks for the time that a reading may take.
    ///
    /// # Errors
    ///
    /// When DynamoDB does not answer or refuses, as it does a key that is empty or longer than 2048 bytes, and
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where the item has no string `value`.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let key = self.key(key)?;
        let found = self.inner.read(|call| async move {
            let request = || {
                let get = call.store.client.get_item().table_name(&call.store.table);
                get.set_key(Some(key.clone())).consistent_read(true).send()
            };
            Ok(call.send(Effect::Reads, request).await?.output.item)
        })?;
        let value = |mut item: Attributes| match item.remove("value") {
            Some(AttributeValue::S(value)) => Ok(value),
            _ => Err(foreign("string `value`")),
        };
        found.map(value).transpose()
    }

    /// Writes a string. Repeating it is harmless. Blocks for the time that a write may take.
    ///
    /// # Errors
    ///
    /// When DynamoDB does not answer or refuses; [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome) where it
    /// may have been written.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut item = self.key(key)?;
        item.insert("value".to_owned(), AttributeValue::S(value.to_owned()));
        self.inner.write(|call| async move {
            let request = || {
                let put = call.store.client.put_item().table_name(&call.store.table);
                put.set_item(Some(item.clone())).send()
            };
            call.send(Effect::Writes, request).await?;
            Ok(())
        })
    }

    /// Removes what stands under a key, if anything does. Repeating it is harmless. Blocks for the time that a write may
    /// take.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn delete(&self, key: &str) -> Result<()> {
        let key = self.key(key)?;
        self.inner.write(|call| async move {
            let request = || {
                let delete = call.store.client.delete_item().table_name(&call.store.table);
                delete.set_key(Some(key.clone())).send()
            };
            call.send(Effect::Writes, request).await?;
            Ok(())
        })
    }

    fn key(&self, key: &str) -> Result<Attributes> {
        if key.is_empty() || key.len() > MAX_HASH {
            let message = format!("a key of {} bytes; dynamodb takes 1 to {MAX_HASH}", key.len());
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        Ok([(self.partition_key.clone(), AttributeValue::S(key.to_owned()))].into())
    }
}

impl fmt::Debug for PlainTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainTable").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
