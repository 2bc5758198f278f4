//! The bare client, to see what the server keeps, and to do what others do.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use kvsync_tests::Tested;
use lapin::options::{
    BasicGetOptions, BasicNackOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

/// A message, as the server keeps it.
pub(crate) struct Letter {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Letter {
    /// A header, as a text.
    pub(crate) fn text(&self, name: &str) -> String {
        match self.properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
            Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            other => format!("{other:?}"),
        }
    }
}

/// Does something on a channel in confirm mode.
pub(crate) fn with<T, F: Future<Output = Tested<T>>>(url: &str, work: impl FnOnce(Channel) -> F) -> Tested<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let answer = work(channel).await;
        // A server that hung up has closed it.
        let _ = connection.close(200, "done".into()).await;
        answer
    })
}

/// What stands in a queue. It stays there.
pub(crate) fn peek(url: &str, queue: &str) -> Tested<Vec<Letter>> {
    with(url, async |channel| {
        let mut found = Vec::new();
        while let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? {
            let got = got.delivery;
            found.push(Letter { properties: got.properties, body: got.data.into() });
        }
        channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
        // Others find them only when they stand there again.
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        while channel.queue_declare(queue.into(), passive, FieldTable::default()).await?.message_count()
            < u32::try_from(found.len())?
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(found)
    })
}

/// Deletes a topic, as far as it stands.
pub(crate) fn forget(url: &str, name: &str) -> Tested {
    with(url, async |channel| {
        for queue in [name.to_owned(), format!("{name}.dead")] {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        for exchange in [name.to_owned(), format!("{name}.dead")] {
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        }
        Ok(())
    })
}
