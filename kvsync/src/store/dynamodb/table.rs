//! The table itself: created, and looked at.

use std::sync::atomic::Ordering;

use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, LocalSecondaryIndex, Projection, ProjectionType,
    ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};

use super::call::{Call, Effect, Refused, Tries};
use super::error::unbuilt;
use super::layout::{BY_SCORE, HASH, INDEX, RANGE, TTL};
use crate::error::{Error, ErrorKind, Result};

/// Creates the table unless it is there, and has it remove what expires.
pub(super) async fn create(call: &Call) -> Result<()> {
    let attribute =
        |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::B).build();
    let attributes =
        [HASH, RANGE, BY_SCORE].map(attribute).into_iter().collect::<Result<Vec<_>, _>>().map_err(unbuilt)?;
    let index = LocalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(schema(BY_SCORE)?))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()
        .map_err(unbuilt)?;
    let keys = schema(RANGE)?;
    let request = || {
        let create = call.store.client.create_table().table_name(&call.store.table);
        create
            .set_attribute_definitions(Some(attributes.clone()))
            .set_key_schema(Some(keys.clone()))
            .local_secondary_indexes(index.clone())
            .billing_mode(BillingMode::PayPerRequest)
            .send()
    };
    match call.send(Effect::Writes, request).await {
        Ok(_) | Err(Refused { said: Some(CreateTableError::ResourceInUseException(_)), .. }) => {}
        Err(refused) => return Err(refused.into()),
    }
    let mut tries = Tries::default();
    while describe(call).await?.table_status() != Some(&TableStatus::Active) {
        if !call.pause(&mut tries).await {
            let message = format!("{} is still being created", call.store.name);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
    if removes(call).await == Some(true) {
        return Ok(());
    }
    let enabled = TimeToLiveSpecification::builder().attribute_name(TTL).enabled(true).build().map_err(unbuilt)?;
    let request = || {
        let update = call.store.client.update_time_to_live().table_name(&call.store.table);
        update.time_to_live_specification(enabled.clone()).send()
    };
    match call.send(Effect::Writes, request).await {
        Ok(_) => Ok(()),
        // Another process may have enabled it since, which is refused the second time.
        Err(_) if removes(call).await == Some(true) => Ok(()),
        Err(refused) => Err(refused.into()),
    }
}

/// Fails where DynamoDB does not answer at all.
pub(super) async fn reach(call: &Call) -> Result<()> {
    match describe(call).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        _ => Ok(()),
    }
}

/// Fails unless the table is there and has the keys of this store. Who may not describe it finds out by reading.
pub(super) async fn check(call: &Call) -> Result<()> {
    let table = match describe(call).await {
        Ok(table) => table,
        Err(error) if error.kind() == ErrorKind::Rejected => {
            return super::rows::epoch(call.clone()).await.map(|_| ()).map_err(|other| other.with_source(error));
        }
        Err(error) => return Err(error),
    };
    let own = table.key_schema() == schema(RANGE)?
        && table.local_secondary_indexes().iter().any(|index| {
            index.index_name() == Some(INDEX) && schema(BY_SCORE).is_ok_and(|keys| index.key_schema() == keys)
        });
    if own {
        return Ok(());
    }
    let message = format!(
        "the table `{}` has other keys than `{HASH}` and `{RANGE}` with the local index `{INDEX}`; give the store one of \
         its own (`Builder::create_table`)",
        call.store.table
    );
    Err(Error::new(ErrorKind::Config, message))
}

/// Whether the table removes what has expired; none where that may not be asked.
pub(super) async fn removes(call: &Call) -> Option<bool> {
    if call.store.removes.load(Ordering::Relaxed) {
        return Some(true);
    }
    let request = || call.store.client.describe_time_to_live().table_name(&call.store.table).send();
    let told = call.send(Effect::Reads, request).await.ok()?.output.time_to_live_description?;
    let on = matches!(told.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
    let on = on && told.attribute_name() == Some(TTL);
    call.store.removes.store(on, Ordering::Relaxed);
    Some(on)
}

async fn describe(call: &Call) -> Result<TableDescription> {
    let request = || call.store.client.describe_table().table_name(&call.store.table).send();
    let told = call.send(Effect::Reads, request).await?.output.table;
    told.ok_or_else(|| Error::new(ErrorKind::Corrupt, "dynamodb described no table; is it a proxy?"))
}

fn schema(range: &str) -> Result<Vec<KeySchemaElement>> {
    let element = |name: &str, of| KeySchemaElement::builder().attribute_name(name).key_type(of).build();
    [element(HASH, KeyType::Hash), element(range, KeyType::Range)]
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(unbuilt)
}
