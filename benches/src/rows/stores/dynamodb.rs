use std::collections::HashMap;
use std::hint::black_box;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest, ScalarAttributeType,
    WriteRequest,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use bytes::Bytes;
use futures_util::future::try_join_all;
use kvsync::envelope::VERSION_AT;
use kvsync::store::DynamoDbStore;
use tokio::runtime::{Builder, Runtime};

use super::sides::{Bare, By, compare};
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};
use crate::{Result, servers};

/// The most items of one request that writes.
const BATCH: usize = 25;

/// DynamoDB (here dynoxide), against the AWS SDK on a runtime of its own that the calling thread drives with `block_on`.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let url = servers::dynamodb()?;
    let table = format!("bench-{}", std::process::id());
    let builder = DynamoDbStore::builder(&table).region("us-east-1").endpoint(&url).credentials("bench", "bench");
    builder.create_table()?;
    let store = builder.connect()?;
    let mut bare = Table::create(&url, format!("{table}-bare"))?;
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(20), each: 10, operations: 10 };
    let by = By { clocks: [Clock::Wall, Clock::Process], goal: Goal::AtLeast(0.95) };
    compare(&store, &mut bare, turns, &by)
}

/// A table of a key, a version and bytes.
struct Table {
    client: Client,
    name: String,
    runtime: Runtime,
}

impl Table {
    fn create(url: &str, name: String) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
            .http_client(HttpBuilder::new().build_http())
            .build();
        let client = Client::from_conf(config);
        let key = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S);
        let hash = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
        let create = client.create_table().table_name(&name).attribute_definitions(key.build()?);
        let create = create.key_schema(hash.build()?).billing_mode(BillingMode::PayPerRequest);
        runtime.block_on(create.send())?;
        Ok(Self { client, name, runtime })
    }
}

impl Bare for Table {
    /// `GetItem`, consistent.
    fn get(&mut self, key: &str) -> Result<bool> {
        let get = self.client.get_item().table_name(&self.name).key("pk", text(key)).consistent_read(true);
        Ok(black_box(self.runtime.block_on(get.send())?).item.is_some())
    }

    /// `PutItem`.
    fn set(&mut self, key: &str, value: &Bytes) -> Result {
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item(key, value)));
        self.runtime.block_on(put.send())?;
        Ok(())
    }

    /// As many `BatchWriteItem`s as it takes, at once.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result {
        let mut writes = Vec::new();
        for keys in keys.chunks(BATCH) {
            let puts = keys.iter().map(|key| {
                let put = PutRequest::builder().set_item(Some(item(key, value))).build()?;
                Ok(WriteRequest::builder().put_request(put).build())
            });
            let puts = puts.collect::<Result<Vec<_>>>()?;
            writes.push(self.client.batch_write_item().request_items(&self.name, puts).send());
        }
        self.runtime.block_on(try_join_all(writes))?;
        Ok(())
    }

    /// One `PutItem`, under the condition that nothing with this version or a higher one stands.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool> {
        let version = AttributeValue::B(Blob::new(entry.get(VERSION_AT..20).unwrap_or_default()));
        let mut item = item(key, entry);
        item.insert("version".into(), version.clone());
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(pk) OR version < :v");
        match self.runtime.block_on(put.expression_attribute_values(":v", version).send()) {
            Ok(_) => Ok(true),
            Err(error) => match error.into_service_error() {
                PutItemError::ConditionalCheckFailedException(_) => Ok(false),
                other => Err(other.into()),
            },
        }
    }
}

fn text(key: &str) -> AttributeValue {
    AttributeValue::S(key.to_owned())
}

fn item(key: &str, value: &[u8]) -> HashMap<String, AttributeValue> {
    HashMap::from([("pk".into(), text(key)), ("value".into(), AttributeValue::B(Blob::new(value)))])
}
