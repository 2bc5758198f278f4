//! Publishes letters and waits until the server has confirmed each.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{failed, is_of_one_message, unpublished};
use super::link::Link;
use crate::error::{Error, ErrorKind, Result};

/// Messages that outlive a restart of the server.
const PERSISTENT: u8 = 2;
/// How many letters are handed to the connection's thread at a time.
const WINDOW: usize = 256;
/// How long to wait before what failed is tried again; three times as long each time, up to a limit.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often a message is sent again that a queue did not take. Other queues of the exchange get each copy.
const NACKED: u32 = 3;

/// A message on its way to an exchange.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// Publishes through a connection of its own, in any number of calls at a time.
pub(super) struct Publisher {
    pub(super) link: Arc<Link>,
    /// Channels that nobody uses. Each call has one alone: the client hands a letter that was returned to whichever
    /// confirmation comes next on its channel.
    idle: Mutex<Vec<Channel>>,
}

/// What one attempt came to.
struct Attempt {
    answers: Vec<Result<()>>,
    /// The channel, while it is of further use.
    channel: Option<Channel>,
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, idle: Mutex::new(Vec::new()) }
    }

    /// Publishes all, and again what a connection that was lost took with it, for as long as the settings say, and what a
    /// queue did not take, a few times: it may just be about to be there. Answers each, in order.
    pub(super) async fn publish(&self, letters: &[Letter]) -> Vec<Result<()>> {
        let until = Instant::now() + self.link.settings.retry_for;
        let mut answers: Vec<Result<()>> = Vec::new();
        let mut pending: Vec<(usize, Letter)> = letters.iter().cloned().enumerate().collect();
        // What is not answered below is answered by this: nothing.
        answers.resize_with(letters.len(), || Err(self.link.closed()));
        let (mut attempts, mut pause) = (0, AGAIN.0);
        while !pending.is_empty() {
            let batch: Vec<Letter> = pending.iter().map(|(_, letter)| letter.clone()).collect();
            let found = self.attempt_all(&batch, until).await;
            attempts += 1;
            let again = |error: &Error| is_of_the_connection(error) || (is_nack(error) && attempts <= NACKED);
            let mut left = Vec::new();
            for ((place, letter), answer) in pending.into_iter().zip(found) {
                if answer.as_ref().is_err_and(again) {
                    left.push((place, letter));
                }
                if let Some(slot) = answers.get_mut(place) {
                    *slot = answer;
                }
            }
            if Instant::now() + pause > until {
                break;
            }
            pending = left;
            if !pending.is_empty() {
                sleep(pause).await;
                pause = (pause * 3).min(AGAIN.1);
            }
        }
        answers
    }

    /// One attempt for all; where the server closes the channel because of one message, one for each of those that it
    /// left without an answer.
    async fn attempt_all(&self, letters: &[Letter], until: Instant) -> Vec<Result<()>> {
        let mut answers = self.attempt(letters, until).await;
        if letters.len() > 1 && answers.iter().any(|answer| answer.as_ref().is_err_and(is_of_one_message)) {
            for (letter, answer) in letters.iter().zip(&mut answers) {
                if answer.is_err() {
                    let alone = self.attempt(std::slice::from_ref(letter), until).await;
                    *answer = alone.into_iter().next().unwrap_or_else(|| Err(self.link.closed()));
                }
            }
        }
        answers
    }

    async fn attempt(&self, letters: &[Letter], until: Instant) -> Vec<Result<()>> {
        let connection = match self.link.connection_until(until).await {
            Ok(connection) => connection,
            Err(error) => return letters.iter().map(|_| Err(error.clone())).collect(),
        };
        let deadline = Instant::now() + self.link.settings.confirm_timeout;
        let channel = match timeout_at(deadline, self.channel(&connection)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return letters.iter().map(|_| Err(error.clone())).collect(),
            Err(_) => {
                self.link.suspect(&connection).await;
                return letters.iter().map(|_| Err(self.silent(ErrorKind::Unavailable))).collect();
            }
        };
        let Attempt { answers, channel } = self.send(channel, letters, deadline).await;
        match channel {
            Some(channel) if channel.status().connected() => self.idle.lock().push(channel),
            // The server closed it, for what stands or for one message.
            Some(_) => {}
            // A connection that was silent is not waited for a second time.
            None => self.link.suspect(&connection).await,
        }
        if answers.iter().flatten_err().any(Error::is_retryable) {
            // The exchange or the queue may have been deleted: then it is declared again before the next attempt.
            self.link.look_again().await;
        }
        answers
    }

    /// A channel in confirm mode that nobody else uses.
    async fn channel(&self, connection: &Connection) -> Result<Channel> {
        let idle = || self.idle.lock().pop();
        while let Some(channel) = idle() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let opened = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        opened.await.map_err(|error| failed("opening a channel", &self.link.place, error))
    }

    async fn send(&self, channel: Channel, letters: &[Letter], deadline: Instant) -> Attempt {
        let mut confirms: Vec<Result<PublisherConfirm>> = Vec::with_capacity(letters.len());
        for (window, part) in letters.chunks(WINDOW).enumerate() {
            let sending = part.iter().enumerate().map(|(place, letter)| {
                let number = window * WINDOW + place;
                let properties = letter.properties.clone().with_correlation_id(number.to_string().into());
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                let (exchange, key) = (letter.exchange.clone(), letter.key.clone());
                let channel = &channel;
                async move { channel.basic_publish(exchange, key, options, &letter.body, properties).await }
            });
            let Ok(sent) = timeout_at(deadline, join_all(sending)).await else {
                confirms.extend(part.iter().map(|_| Err(self.silent(ErrorKind::UnknownOutcome))));
                break;
            };
            // What was handed over and then failed may have been on its way.
            confirms.extend(sent.into_iter().map(|sent| sent.map_err(|error| unpublished(&self.link.place, error))));
        }
        let mut silent = confirms.len() < letters.len();
        let mut answers = Vec::with_capacity(letters.len());
        let mut returned: Vec<(usize, String)> = Vec::new();
        for confirm in confirms {
            answers.push(match confirm {
                Err(error) => Err(error),
                // Nothing more is waited for once the deadline has passed.
                Ok(_) if silent => Err(self.silent(ErrorKind::UnknownOutcome)),
                Ok(confirm) => match timeout_at(deadline, confirm).await {
                    Ok(Ok(confirmation)) => self.judge(confirmation, &mut returned),
                    Ok(Err(error)) => Err(unpublished(&self.link.place, error)),
                    Err(_) => {
                        silent = true;
                        Err(self.silent(ErrorKind::UnknownOutcome))
                    }
                },
            });
        }
        answers.resize_with(letters.len(), || Err(self.silent(ErrorKind::Unavailable)));
        for (number, why) in returned {
            if let (Some(answer), Some(letter)) = (answers.get_mut(number), letters.get(number)) {
                *answer = Err(self.unrouted(letter, &why));
            }
        }
        Attempt { answers, channel: Some(channel).filter(|_| !silent) }
    }

    /// What a confirmation says of its own message; one that was returned may be another's.
    fn judge(&self, confirmation: Confirmation, returned: &mut Vec<(usize, String)>) -> Result<()> {
        let answer = if confirmation.is_ack() {
            Ok(())
        } else {
            let message = format!(
                "a queue of rabbitmq at {} took no message, because it is full or cannot write; try again when its \
                 consumers have caught up",
                self.link.place
            );
            Err(Error::new(ErrorKind::Unavailable, message).with_source(Nack))
        };
        if let Some(message) = confirmation.take_message()
            && let Some(id) = message.delivery.properties.correlation_id()
            && let Ok(number) = id.as_str().parse()
        {
            returned.push((number, message.reply_text.to_string()));
        }
        answer
    }

    fn unrouted(&self, letter: &Letter, why: &str) -> Error {
        let message = format!(
            "no queue of rabbitmq at {} wants what `{}` brings with the key `{}` ({why}); start a consumer, or bind a queue",
            self.link.place, letter.exchange, letter.key
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    fn silent(&self, kind: ErrorKind) -> Error {
        let message = format!(
            "rabbitmq at {} did not confirm a message in time; publish it again, and look whether the server hangs or \
             has an alarm",
            self.link.place
        );
        Error::new(kind, message)
    }
}

/// Whether the connection failed, rather than a queue.
fn is_of_the_connection(error: &Error) -> bool {
    error.is_retryable()
        && (error.kind() == ErrorKind::UnknownOutcome
            || std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<lapin::Error>))
}

/// What the server answers for a queue that does not take a message.
#[derive(Debug)]
struct Nack;

impl std::error::Error for Nack {}

impl fmt::Display for Nack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("basic.nack")
    }
}

fn is_nack(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Nack>)
}

/// The failures among answers.
trait Failures<'a>: Iterator<Item = &'a Result<()>> + Sized {
    fn flatten_err(self) -> impl Iterator<Item = &'a Error> {
        self.filter_map(|answer| answer.as_ref().err())
    }
}

impl<'a, I: Iterator<Item = &'a Result<()>>> Failures<'a> for I {}

/// The properties of a message that outlives a restart.
pub(super) fn persistent(headers: FieldTable) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers)
}

/// Now, as the protocol tells times: in seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
