//! Puts messages with the dead letters, lists these, and delivers them again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable, LongLongInt, LongString};
use lapin::{BasicProperties, Channel};

use super::error::failed;
use super::link::Link;
use super::publish::{Letter, Publisher, persistent};
use super::settings::Names;
use crate::clock::millis;
use crate::error::Result;
use crate::transport::DeadMessage;

/// Why a dead letter could not be dealt with.
const REASON: &str = "x-kvsync-reason";
/// Which queue it was taken from, and the routing key that it was published with.
const QUEUE: &str = "x-kvsync-queue";
const ROUTING_KEY: &str = "x-kvsync-routing-key";
/// When it was put aside.
const AT: &str = "x-kvsync-at";
/// How often it was delivered before it was put aside.
const REDELIVERED: &str = "x-kvsync-redelivered";
/// How often the server delivered it before, since it came into the queue.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// The longest reason, and the longest text of another's header that is kept: headers have to fit into one frame.
const MAX_TEXT: usize = 4096;
/// The most headers of others that are kept.
const MAX_HEADERS: usize = 16;

/// What is remembered of a message until it has ended.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) redelivered: u32,
    routing_key: String,
    properties: BasicProperties,
}

impl Kept {
    pub(super) fn new(delivery: Delivery) -> Self {
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let earlier = number(&headers, REDELIVERED).saturating_add(number(&headers, DELIVERY_COUNT));
        let routing_key = match headers.inner().get(ROUTING_KEY) {
            Some(AMQPValue::LongString(key)) => String::from_utf8_lossy(key.as_bytes()).into_owned(),
            _ => delivery.routing_key.to_string(),
        };
        Self {
            body: Bytes::from(delivery.data),
            content_type: delivery.properties.content_type().as_ref().map(ToString::to_string),
            // Queues that do not count say at least this.
            redelivered: earlier.max(u32::from(delivery.redelivered)),
            routing_key,
            properties: delivery.properties,
        }
    }

    /// The id that it was published with.
    pub(super) fn id(&self) -> Option<String> {
        self.properties.message_id().as_ref().map(ToString::to_string)
    }
}

/// Publishes dead letters, on a connection of its own: a server with an alarm stops reading from those that
/// publish, and acknowledgements have to go on.
pub(super) struct Aside {
    publisher: Publisher,
    names: Names,
    queue: String,
}

impl Aside {
    pub(super) fn new(link: Arc<Link>, queue: &str) -> Self {
        let names = link.settings.names.clone();
        Self { publisher: Publisher::new(link), names, queue: queue.to_owned() }
    }

    /// Keeps it with its reason.
    pub(super) async fn dead(&self, kept: &Kept, reason: &str) -> Result<()> {
        let mut headers = self.headers(kept);
        headers.insert(REASON.into(), text(reason));
        headers.insert(REDELIVERED.into(), LongLongInt::from(kept.redelivered).into());
        headers.insert(AT.into(), AMQPValue::Timestamp(millis(SystemTime::now()) / 1000));
        let (exchange, key) = (self.names.dead_exchange().into(), self.queue.as_str().into());
        let (properties, body) = (carried(kept, headers), kept.body.clone());
        self.publish(Letter { exchange, key, properties, body }).await
    }

    /// Delivers up to so many dead letters again, read through this link; how many there were. Each is there until its
    /// copy is confirmed.
    pub(super) async fn redrive(&self, link: &Link, most: usize) -> Result<usize> {
        let (channel, letters) = self.take(link, most).await?;
        let (tags, letters): (Vec<u64>, Vec<Letter>) =
            letters.into_iter().map(|one| (one.delivery_tag, self.anew(&Kept::new(one)))).unzip();
        let (what, mut delivered, mut trouble) = ("putting back dead letters", 0, None);
        for (tag, answer) in tags.into_iter().zip(self.publisher.publish(&letters).await) {
            if let Err(error) = answer {
                trouble = Some(error);
                continue;
            }
            let told = channel.basic_ack(tag, BasicAckOptions::default()).await;
            told.map_err(|error| failed(what, &link.place, error))?;
            delivered += 1;
        }
        // Behind the acknowledgements.
        put_back(link, &channel).await?;
        trouble.map_or(Ok(delivered), Err)
    }

    /// Up to so many dead letters, read through this link.
    pub(super) async fn list(&self, link: &Link, most: usize) -> Result<Vec<DeadMessage>> {
        let (channel, letters) = self.take(link, most).await?;
        put_back(link, &channel).await?;
        Ok(letters.into_iter().map(told).collect())
    }

    /// Takes up to so many dead letters: until they are acknowledged, or the channel is closed, nobody else sees them.
    async fn take(&self, link: &Link, most: usize) -> Result<(Channel, Vec<Delivery>)> {
        let dead = Names::dead_queue(&self.queue);
        let what = format!("taking dead letters from `{dead}`");
        let connection = link.connection().await?;
        let taking = async {
            let (channel, mut letters) = (connection.create_channel().await?, Vec::new());
            while letters.len() < most
                && let Some(got) = channel.basic_get(dead.as_str().into(), BasicGetOptions::default()).await?
            {
                letters.push(got.delivery);
            }
            Ok((channel, letters))
        };
        link.within(&what, async { taking.await.map_err(|error| failed(&what, &link.place, error)) }).await
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.publisher.link.close().await
    }

    /// To its own queue only, as if it had just been published.
    fn anew(&self, kept: &Kept) -> Letter {
        Letter {
            exchange: self.names.dead_exchange().into(),
            key: Names::redrive_key(&self.queue).into(),
            properties: carried(kept, self.headers(kept)),
            body: kept.body.clone(),
        }
    }

    async fn publish(&self, letter: Letter) -> Result<()> {
        let answers = self.publisher.publish(&[letter]).await;
        answers.into_iter().next().unwrap_or_else(|| Err(self.publisher.link.closed()))
    }

    /// The headers that it came with, as far as they are short, and where it came from.
    fn headers(&self, kept: &Kept) -> FieldTable {
        let mut headers = FieldTable::default();
        let came = kept.properties.headers().clone().unwrap_or_default();
        for (name, value) in came.inner().iter().filter(|(_, value)| is_short(value)).take(MAX_HEADERS) {
            // What the server counts, it counts anew; of what we say it is said anew.
            if !name.as_str().starts_with("x-d") && ![REASON, REDELIVERED, AT].contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers.insert(QUEUE.into(), text(&self.queue));
        headers.insert(ROUTING_KEY.into(), text(&kept.routing_key));
        headers
    }
}

/// Closes the channel: the server puts back where it was what was taken there and not acknowledged.
async fn put_back(link: &Link, channel: &Channel) -> Result<()> {
    let what = "leaving the dead letters";
    let closing = async { channel.close(200, "done".into()).await.map_err(|error| failed(what, &link.place, error)) };
    link.within(what, closing).await
}

/// What is told of a dead letter.
fn told(letter: Delivery) -> DeadMessage {
    let headers = letter.properties.headers().clone().unwrap_or_default();
    let reason = match headers.inner().get(REASON) {
        Some(AMQPValue::LongString(reason)) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        _ => String::new(),
    };
    let at = match headers.inner().get(AT) {
        Some(AMQPValue::Timestamp(seconds)) => UNIX_EPOCH.checked_add(Duration::from_secs(*seconds)),
        _ => None,
    };
    // What the server counts is how often it was looked at here.
    let deliveries = number(&headers, REDELIVERED).saturating_add(1);
    let kept = Kept::new(letter);
    DeadMessage { id: kept.id(), body: kept.body, content_type: kept.content_type, reason, deliveries, at }
}

/// Its own properties, but for those that the server checks or acts upon.
fn carried(kept: &Kept, headers: FieldTable) -> BasicProperties {
    let (from, mut to) = (&kept.properties, persistent(headers));
    if let Some(id) = from.message_id() {
        to = to.with_message_id(id.clone());
    }
    if let Some(form) = from.content_type() {
        to = to.with_content_type(form.clone());
    }
    if let Some(time) = from.timestamp() {
        to = to.with_timestamp(*time);
    }
    to
}

fn is_short(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::LongString(text) => text.len() <= MAX_TEXT,
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::ByteArray(_) => false,
        _ => true,
    }
}

fn number(headers: &FieldTable, name: &str) -> u32 {
    let value = match headers.inner().get(name) {
        Some(AMQPValue::LongLongInt(value)) => *value,
        Some(AMQPValue::LongInt(value)) => i64::from(*value),
        _ => 0,
    };
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// A text that fits.
fn text(text: &str) -> AMQPValue {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    AMQPValue::LongString(LongString::from(text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let AMQPValue::LongString(kept) = text(&"ż".repeat(4000)) else { panic!("no text") };
        assert_eq!(kept.len(), MAX_TEXT);
        assert!(std::str::from_utf8(kept.as_bytes()).is_ok());
        assert_eq!(text("short"), AMQPValue::LongString("short".into()));
        let odd = format!("a{}", "ż".repeat(4000));
        assert!(matches!(text(&odd), AMQPValue::LongString(kept) if kept.len() == MAX_TEXT - 1));
    }

    #[test]
    fn deliveries_are_counted_through_every_queue() {
        let delivery = |headers: &[(&str, AMQPValue)], again| {
            let mut table = FieldTable::default();
            for (name, value) in headers {
                table.insert((*name).into(), value.clone());
            }
            let mut delivery =
                Delivery::mock(1, lapin::types::ShortString::from("x"), "users.update".into(), again, vec![1]);
            delivery.properties = BasicProperties::default().with_headers(table);
            Kept::new(delivery).redelivered
        };
        assert_eq!(delivery(&[], false), 0);
        assert_eq!(delivery(&[], true), 1);
        let counts = [(REDELIVERED, AMQPValue::LongLongInt(3)), (DELIVERY_COUNT, AMQPValue::LongLongInt(2))];
        assert_eq!(delivery(&counts, true), 5);
        assert_eq!(delivery(&[(REDELIVERED, AMQPValue::LongLongInt(-7))], false), 0);
    }
}
