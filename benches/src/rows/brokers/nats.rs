//! NATS `JetStream`, against async-nats on a runtime that the calling thread drives.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use async_nats::jetstream::{self, Context};
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, TryFutureExt as _};
use kvsync::transport::Message;
use kvsync::transport::nats::NatsBroker;
use tokio::runtime::{Builder, Runtime};

use super::{BATCH, Bare, Ends, PUBLISHERS, both, compare};
use crate::options::Options;
use crate::table::Figure;
use crate::{Result, servers};

/// The bare client's stream, which is what its subjects begin with.
const STREAM: &str = "bench-bare";
/// As many as a queue of kvsync holds.
const PREFETCH: usize = 512;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let url = servers::nats()?;
    let open = || {
        let builder = NatsBroker::builder([url.as_str()]).stream("bench").prefix("bench");
        // The queue first: without one nothing can be published.
        let subscription = builder.queue("bench")?;
        Ok(Ends { broker: builder.broker()?, subscription })
    };
    compare(options, "NATS", open, &mut Client::open(&url)?)
}

/// Publisher and consumer, each with a connection.
struct Client {
    url: String,
    jetstream: Context,
    stream: Stream,
    messages: pull::Stream,
    // Dropped last: the connections live on it.
    runtime: Runtime,
}

impl Client {
    fn open(url: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (jetstream, stream, messages) = runtime.block_on(async {
            let jetstream = jetstream::new(async_nats::connect(url).await?);
            let other = jetstream::new(async_nats::connect(url).await?);
            let stream = jetstream.get_or_create_stream(config()).await?;
            let config = pull::Config { durable_name: Some("bench".to_owned()), ..pull::Config::default() };
            let consumer = other.get_stream(STREAM).await?.get_or_create_consumer("bench", config).await?;
            let messages = consumer.stream().max_messages_per_batch(PREFETCH).messages().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((jetstream, stream, messages))
        })?;
        Ok(Self { url: url.to_owned(), jetstream, stream, messages, runtime })
    }
}

impl Bare for Client {
    fn pass(&mut self, messages: &[Message]) -> Result {
        let (jetstream, arriving, count) = (&self.jetstream, &mut self.messages, messages.len());
        let publishers = messages.chunks(count.div_ceil(PUBLISHERS)).map(|part| async move {
            for batch in part.chunks(BATCH) {
                let sent = join_all(batch.iter().map(|one| jetstream.send_publish(subject(one), letter(one)))).await;
                let confirms = sent.into_iter().collect::<Result<Vec<_>, _>>()?;
                try_join_all(confirms.into_iter().map(std::future::IntoFuture::into_future)).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        let receiver = async {
            for _ in 0..count {
                arriving.next().await.ok_or("the consumer ended")??.ack().await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        self.runtime.block_on(both(try_join_all(publishers).map_ok(drop), receiver))
    }

    /// What nobody confirms is sent when the client flushes it.
    fn throw(&mut self, messages: &[Message]) -> Result {
        let url = &self.url;
        self.runtime.block_on(async {
            for message in messages {
                let client = async_nats::connect(url).await?;
                let thrown = format!("thrown.{}", subject(message));
                client.publish_with_headers(thrown, headers(message), message.body.clone()).await?;
                client.drain().await?;
            }
            Ok(())
        })
    }

    fn rest(&mut self) -> Result {
        self.runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.stream.purge().await?;
            Ok(())
        })
    }
}

/// A stream as kvsync makes it.
fn config() -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{STREAM}.*.*")],
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        discard: DiscardPolicy::New,
        num_replicas: 1,
        ..Config::default()
    }
}

fn subject(message: &Message) -> String {
    format!("{STREAM}.{}.{}", message.table, message.action)
}

fn letter(message: &Message) -> PublishMessage {
    PublishMessage::build().payload(message.body.clone()).headers(headers(message))
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", message.id.as_str());
    headers.insert("Content-Type", message.content_type);
    headers.insert("Nats-Expected-Stream", STREAM);
    headers
}
