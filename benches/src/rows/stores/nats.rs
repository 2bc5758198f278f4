use std::hint::black_box;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use futures_util::future::try_join_all;
use kvsync::envelope::VERSION_AT;
use kvsync::store::NatsStore;
use kvsync::store::data::DataCommands;
use tokio::runtime::{Builder, Runtime};

use super::sides::{Bare, By, compare, each, there};
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};
use crate::{Result, servers};

/// The bare client's bucket.
const BUCKET: &str = "bare";

/// NATS, against a bucket of async-nats on a runtime of its own that the calling thread drives with `block_on`. Both
/// buckets are on disk.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let store = NatsStore::builder([servers::nats()?]).bucket("bench").connect()?;
    let mut bare = Bucket::open(servers::nats()?)?;
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 20 };
    let by = By { clocks: [Clock::Wall, Clock::Process], goal: Goal::AtLeast(0.95) };
    let mut figures = compare(&store, &mut bare, turns, &by)?;
    let names: Vec<String> = (0..100).map(|number| format!("user:{number}")).collect();
    let rounds = turns.measure_by(
        by.clocks,
        &mut each(&names, |name| there(black_box(store.eventual().get(name)?).is_some())),
        &mut each(&names, |key| there(black_box(bare.runtime.block_on(bare.bucket.get(name(key)))?).is_some())),
    )?;
    figures.extend(by.figures(rounds, "eventual get ÷ bare"));
    Ok(figures)
}

struct Bucket {
    bucket: kv::Store,
    runtime: Runtime,
}

impl Bucket {
    fn open(url: String) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let bucket = runtime.block_on(async {
            let jetstream = jetstream::new(async_nats::connect(url).await?);
            // `create_key_value` does not understand what a server 2.9 answers.
            jetstream.create_stream(stream()).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(jetstream.get_key_value(BUCKET).await?)
        })?;
        Ok(Self { bucket, runtime })
    }
}

impl Bare for Bucket {
    /// The leader's entry, as our `get` promises it; `get` of a bucket asks any server.
    fn get(&mut self, key: &str) -> Result<bool> {
        let subject = format!("{}{}", self.bucket.prefix, name(key));
        let found = self.runtime.block_on(self.bucket.stream.get_last_raw_message_by_subject(&subject))?;
        Ok(!black_box(found).payload.is_empty())
    }

    /// `put`, which looks at nothing.
    fn set(&mut self, key: &str, value: &Bytes) -> Result {
        self.runtime.block_on(self.bucket.put(name(key), value.clone()))?;
        Ok(())
    }

    /// As many `put`s at once.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result {
        let puts = keys.iter().map(|key| self.bucket.put(name(key), value.clone()));
        self.runtime.block_on(try_join_all(puts))?;
        Ok(())
    }

    /// Reads the entry, compares the versions, and updates it if the revision is still that one.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool> {
        let name = name(key);
        self.runtime.block_on(async {
            let stands = self.bucket.entry(name.clone()).await?;
            let revision = stands.as_ref().map_or(0, |stands| stands.revision);
            let newer = stands.is_none_or(|stands| stands.value.get(VERSION_AT..20) < entry.get(VERSION_AT..20));
            if newer {
                self.bucket.update(name, Bytes::copy_from_slice(entry), revision).await?;
            }
            Ok(newer)
        })
    }
}

/// A bucket as every client makes it, with a history of one.
fn stream() -> Config {
    Config {
        name: format!("KV_{BUCKET}"),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: -1,
        max_consumers: -1,
        discard: DiscardPolicy::New,
        num_replicas: 1,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// NATS allows no colon.
fn name(key: &str) -> String {
    key.replace(':', ".")
}
