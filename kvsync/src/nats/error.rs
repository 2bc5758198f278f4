//! What went wrong, as an error of this crate. `place` is what it went wrong with, such as `the bucket shop`.

use std::error::Error as StdError;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, PublishError, PublishErrorKind,
    RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{DirectGetError, DirectGetErrorKind, RawMessageError, RawMessageErrorKind};
use async_nats::{ConnectError, ConnectErrorKind};

use crate::error::{Error, ErrorKind};

/// Why the servers could not be reached. URLs are never quoted: they may hold a password.
pub(crate) fn connecting(error: ConnectError, at: &str) -> Error {
    const UNTRUSTED: &str = "speaks no TLS, or its certificate is not trusted; see `ca_file`";
    let (kind, what) = match error.kind() {
        ConnectErrorKind::ServerParse => {
            (ErrorKind::Config, "cannot be named so; write `nats://host:port` or `tls://host:port`")
        }
        ConnectErrorKind::Authentication => (ErrorKind::Config, "wants a signature, and the credentials give none"),
        ConnectErrorKind::AuthorizationViolation => (ErrorKind::Rejected, "does not take this user, token or key"),
        ConnectErrorKind::Tls => (ErrorKind::Config, UNTRUSTED),
        // The handshake fails as any other reading of the connection. An alert is what the server says of us.
        ConnectErrorKind::Io if error.to_string().contains("received fatal alert") => {
            (ErrorKind::Config, "broke off TLS; does it want to see a certificate of ours? see `client_certificate`")
        }
        ConnectErrorKind::Io if error.to_string().contains("certificate") => (ErrorKind::Config, UNTRUSTED),
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            (ErrorKind::Unavailable, "did not answer; is it running?")
        }
    };
    Error::new(kind, format!("nats at {at} {what}")).with_source(error)
}

/// What the server said of a write, or why it said nothing.
pub(crate) enum Refused {
    /// Somebody else wrote first; nothing was done.
    Conflict,
    /// Nothing was done, and somebody has to make room first.
    Full(Error),
    /// Nothing was done, for this reason.
    Failed(Error),
    /// It may have been done.
    Unknown(Error),
}

pub(crate) fn publishing(error: PublishError, place: &str) -> Refused {
    if let Some(told) = told(&error) {
        return match told.error_code() {
            // The second has no number in its text, so that servers can count it; with the third, another write to the
            // key is under way in the cluster.
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
            | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY => Refused::Conflict,
            code if is_full(code) => Refused::Full(answered(code, told.code(), place, "a write").with_source(error)),
            code => Refused::Failed(answered(code, told.code(), place, "a write").with_source(error)),
        };
    }
    match error.kind() {
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => Refused::Conflict,
        PublishErrorKind::StreamNotFound => Refused::Failed(nobody(place).with_source(error)),
        PublishErrorKind::MaxPayloadExceeded => {
            let message = format!("this is larger than the servers of {place} take; see `max_payload`");
            Refused::Failed(Error::new(ErrorKind::Rejected, message).with_source(error))
        }
        PublishErrorKind::MaxAckPending => {
            let message = format!("too many writes to {place} at a time");
            Refused::Failed(Error::new(ErrorKind::Unavailable, message).with_source(error))
        }
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::Other => {
            Refused::Unknown(cut_off(place).with_source(error))
        }
    }
}

/// The error of a call to the API of JetStream that was not answered as it should be.
pub(crate) fn asking(error: impl StdError + Send + Sync + 'static, place: &str) -> Error {
    if let Some(told) = told(&error) {
        return answered(told.error_code(), told.code(), place, "a request").with_source(error);
    }
    if is_nobody(&error) {
        return nobody(place).with_source(error);
    }
    let message = format!("the servers of {place} did not answer; are they running?");
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// Whether there is no such stream, or consumer of one.
pub(crate) fn is_missing(error: &(dyn StdError + 'static)) -> bool {
    told(error)
        .is_some_and(|told| [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND].contains(&told.error_code()))
}

/// Whether there is no such message.
pub(crate) fn is_none(error: &(dyn StdError + 'static)) -> bool {
    told(error).is_some_and(|told| told.error_code() == ErrorCode::NO_MESSAGE_FOUND)
}

/// Whether the message alone is refused, because of its size.
pub(crate) fn is_too_large(error: &(dyn StdError + 'static)) -> bool {
    let by_client = |error: &PublishError| error.kind() == PublishErrorKind::MaxPayloadExceeded;
    let limits = [ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM];
    told(error).is_some_and(|told| limits.contains(&told.error_code()))
        || chain(error).any(|error| error.downcast_ref().is_some_and(by_client))
}

/// Whether nobody listened to a question: there is no JetStream, or no leader now.
pub(crate) fn is_nobody(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| {
        if let Some(error) = error.downcast_ref::<RequestError>() {
            return error.kind() == RequestErrorKind::NoResponders;
        }
        if let Some(error) = error.downcast_ref::<DirectGetError>() {
            return matches!(error.kind(), DirectGetErrorKind::ErrorResponse(status, _)
                if status == async_nats::StatusCode::NO_RESPONDERS);
        }
        error
            .downcast_ref::<CreateStreamError>()
            .is_some_and(|error| error.kind() == CreateStreamErrorKind::JetStreamUnavailable)
    })
}

/// A write whose answer never came.
pub(crate) fn cut_off(place: &str) -> Error {
    Error::new(ErrorKind::UnknownOutcome, format!("a write to {place} was not answered"))
}

fn nobody(place: &str) -> Error {
    let message = format!("no server keeps {place} now; is JetStream on, and does its stream have a leader?");
    Error::new(ErrorKind::Unavailable, message)
}

/// Whether there is no room for more.
fn is_full(code: ErrorCode) -> bool {
    [
        ErrorCode::STREAM_STORE_FAILED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::MEMORY_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
    ]
    .contains(&code)
}

fn answered(code: ErrorCode, status: usize, place: &str, what: &str) -> Error {
    let (kind, why) = match code {
        ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND => {
            (ErrorKind::Unavailable, "is not there; was it removed?")
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            (ErrorKind::Rejected, "takes nothing as large as this; see `max_payload` and its own limit")
        }
        code if is_full(code) => (ErrorKind::Unavailable, "has no room left; raise its limits or make room"),
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => (
            ErrorKind::Rejected,
            "needs JetStream, which is off for this account; start `nats-server -js`, or allow it",
        ),
        ErrorCode::STREAM_SEALED => (ErrorKind::Rejected, "is sealed"),
        _ if status == 503 => (ErrorKind::Unavailable, "cannot be served now"),
        _ => (ErrorKind::Rejected, "does not allow it"),
    };
    Error::new(kind, format!("{what} failed: {place} {why}"))
}

/// JetStream's own error, wherever in the chain the client put it.
fn told(error: &(dyn StdError + 'static)) -> Option<async_nats::jetstream::Error> {
    chain(error).find_map(|error| {
        if let Some(error) = error.downcast_ref::<async_nats::jetstream::Error>() {
            return Some(error.clone());
        }
        if let Some(error) = error.downcast_ref::<RawMessageError>()
            && let RawMessageErrorKind::JetStream(told) = error.kind()
        {
            return Some(told);
        }
        if let Some(error) = error.downcast_ref::<GetStreamError>()
            && let GetStreamErrorKind::JetStream(told) = error.kind()
        {
            return Some(told);
        }
        match error.downcast_ref::<CreateStreamError>()?.kind() {
            CreateStreamErrorKind::JetStream(told) => Some(told),
            _ => None,
        }
    })
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
