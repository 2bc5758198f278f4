//! One connection, and the questions that are asked on it, each with its deadline.
//!
//! The client library holds back what it is given while it has no connection, and keeps questions open whose
//! connection is gone. So a question waits here until there is a connection, and ends when that one does.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::response::Response;
use async_nats::{Event, ServerError};
use futures_util::future::{Either, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::Servers;
use super::error;
use crate::error::{Error, ErrorKind, Result};

/// How many refusals are remembered, so that each question finds its own.
const REFUSALS: usize = 64;
/// Longer than any question takes.
const LONGEST: Duration = Duration::from_hours(24);
/// What the refusal of a subscription says; answers are all that we subscribe to.
const SUBSCRIPTION: &str = "for Subscription to";

/// A connection, which is made again by itself when it ends.
pub(crate) struct Link {
    pub(crate) nats: async_nats::Client,
    pub(crate) jetstream: Context,
    /// What is kept there, such as `the bucket shop`: for errors.
    place: String,
    signals: watch::Receiver<Signals>,
}

/// What the connection tells beside its answers.
#[derive(Debug, Default)]
struct Signals {
    /// How many connections have ended.
    ended: u64,
    /// What the server forbade, in its words; it answers no question that it forbids.
    refusals: VecDeque<Arc<str>>,
}

impl Signals {
    /// Why no answer will be heard while this connection lasts, if it is so.
    fn deaf(&self) -> Option<Arc<str>> {
        self.refusals.iter().find(|refusal| refusal.contains(SUBSCRIPTION)).map(Arc::clone)
    }
}

/// Why a question has no answer.
pub(crate) enum Cut {
    Late,
    Ended,
    Forbidden(Arc<str>),
    /// We may ask, and not hear the answers.
    Deaf(Arc<str>),
}

impl Link {
    /// Connects.
    pub(crate) async fn connect(servers: Servers, place: String, until: Instant) -> Result<Self> {
        let (tell, signals) = watch::channel(Signals::default());
        let tell = Arc::new(tell);
        let options = servers.options.event_callback(move |event| {
            hear(&tell, event);
            std::future::ready(())
        });
        let at = servers.at;
        let connected = timeout_at(until, options.connect(servers.addresses)).await;
        let late = |_| Error::new(ErrorKind::Unavailable, format!("nats at {at} did not answer in time"));
        let nats = connected.map_err(late)?.map_err(|error| error::connecting(error, &at))?;
        // Each question has a deadline of its own here.
        let builder = async_nats::jetstream::ContextBuilder::new().timeout(LONGEST);
        let jetstream = builder.build(nats.clone());
        Ok(Self { nats, jetstream, place, signals })
    }

    /// The version of the server, and its name.
    pub(crate) fn server(&self) -> (String, String) {
        let info = self.nats.server_info();
        (info.version, info.server_name)
    }

    /// Sends what waits, and closes the connection.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.nats.drain().await {
            tracing::debug!(%error, "the connection to nats was closed already");
        }
    }

    /// Asks on a connection that stands. The subject is the one that the server would forbid.
    pub(crate) async fn ask<T>(&self, subject: &str, until: Instant, asked: impl Future<Output = T>) -> Result<T, Cut> {
        self.connected(until).await.map_err(|_| Cut::Late)?;
        self.answer(subject, until, asked).await
    }

    /// Waits for an answer until the deadline, and while the connection stands and nothing was forbidden.
    pub(crate) async fn answer<T>(
        &self,
        subject: &str,
        until: Instant,
        asked: impl Future<Output = T>,
    ) -> Result<T, Cut> {
        let cut = self.cut(subject);
        match timeout_at(until, select(pin!(asked), pin!(cut))).await {
            Ok(Either::Left((answer, _))) => Ok(answer),
            Ok(Either::Right((cut, _))) => Err(cut),
            Err(_) => Err(Cut::Late),
        }
    }

    /// Waits until the connection that stands now has ended, or until the server forbids this subject.
    pub(crate) fn cut(&self, subject: &str) -> impl Future<Output = Cut> + Send + use<> {
        self.cut_by(format!("\"{subject}\""))
    }

    /// The same for all subjects that begin so.
    pub(crate) fn cut_below(&self, beginning: &str) -> impl Future<Output = Cut> + Send + use<> {
        self.cut_by(format!("\"{beginning}"))
    }

    fn cut_by(&self, quoted: String) -> impl Future<Output = Cut> + Send + use<> {
        let mut signals = self.signals.clone();
        let (before, deaf) = {
            let told = signals.borrow_and_update();
            (told.ended, told.deaf())
        };
        async move {
            if let Some(refusal) = deaf {
                return Cut::Deaf(refusal);
            }
            loop {
                if signals.changed().await.is_err() {
                    return pending().await;
                }
                let told = signals.borrow_and_update();
                if let Some(refusal) = told.refusals.iter().find(|refusal| refusal.contains(&quoted)) {
                    return Cut::Forbidden(Arc::clone(refusal));
                }
                if let Some(refusal) = told.deaf() {
                    return Cut::Deaf(refusal);
                }
                if told.ended != before {
                    return Cut::Ended;
                }
            }
        }
    }

    /// Asks the API of JetStream, `call` being what follows `$JS.API.`.
    pub(crate) async fn api<A: DeserializeOwned>(
        &self,
        call: &str,
        question: &(impl Serialize + Sync),
        until: Instant,
    ) -> Result<A> {
        let subject = format!("$JS.API.{call}");
        let asked = self.jetstream.request::<_, _, Response<A>>(call.to_owned(), question);
        match self.ask(&subject, until, asked).await {
            Ok(Ok(Response::Ok(answer))) => Ok(answer),
            Ok(Ok(Response::Err { error })) => Err(self.asking(error)),
            Ok(Err(error)) => Err(self.asking(error)),
            Err(cut) => Err(self.unanswered(cut)),
        }
    }

    /// Waits until the connection stands.
    pub(crate) async fn connected(&self, until: Instant) -> Result<()> {
        // The state changes a moment before it is told.
        const MOMENT: Duration = Duration::from_millis(20);
        let mut signals = self.signals.clone();
        while self.nats.connection_state() != State::Connected {
            if Instant::now() >= until {
                return Err(self.unanswered(Cut::Late));
            }
            let _ = timeout(MOMENT, signals.changed()).await;
        }
        Ok(())
    }

    /// The error of a question that was not answered.
    pub(crate) fn unanswered(&self, cut: Cut) -> Error {
        let place = &self.place;
        match cut {
            Cut::Late => {
                let message = format!("the servers of {place} did not answer in time; are they running?");
                Error::new(ErrorKind::Unavailable, message)
            }
            Cut::Ended => {
                let message = format!("the connection to the servers of {place} ended");
                Error::new(ErrorKind::Unavailable, message)
            }
            Cut::Forbidden(refusal) => {
                let message = format!("the user of {place} may not do this: {refusal}");
                Error::new(ErrorKind::Rejected, message)
            }
            Cut::Deaf(refusal) => {
                let message = format!(
                    "the user of {place} may not subscribe to answers; let it, or give the prefix that it may subscribe \
                     to (`inbox_prefix`): {refusal}"
                );
                Error::new(ErrorKind::Rejected, message)
            }
        }
    }

    /// The error of a question to JetStream that was answered with one.
    pub(crate) fn asking(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        if error::is_nobody(&error) && !self.nats.server_info().jetstream {
            let message = "this nats server has no JetStream, which all that is stored needs; start `nats-server -js`";
            return Error::new(ErrorKind::Config, message).with_source(error);
        }
        error::asking(error, &self.place)
    }
}

/// Keeps what a question may wait for.
fn hear(tell: &watch::Sender<Signals>, event: Event) {
    tell.send_modify(|signals| match event {
        Event::Disconnected | Event::Closed => signals.ended += 1,
        // Rights may have changed in between.
        Event::Connected => signals.refusals.clear(),
        Event::ServerError(ServerError::Other(refusal)) => {
            signals.refusals.truncate(REFUSALS - 1);
            signals.refusals.push_front(refusal.into());
        }
        Event::ServerError(_)
        | Event::LameDuckMode
        | Event::Draining
        | Event::SlowConsumer(_)
        | Event::ClientError(_) => {}
    });
}
