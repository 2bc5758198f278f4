//! What the client's failures mean.

use lapin::ErrorKind as Cause;

use crate::error::{Error, ErrorKind};

/// The reply codes of the protocol that mean something to us.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// The failure of something that was not a publication, at this place. None of these is of one message.
pub(super) fn failed(what: &str, place: &str, error: lapin::Error) -> Error {
    let (kind, advice) = match code(&error) {
        Some(ACCESS_REFUSED) => (ErrorKind::Config, "give the user this right, or another user or password"),
        Some(NOT_ALLOWED) => (ErrorKind::Config, "is there such a virtual host, and may the user use it?"),
        Some(NOT_FOUND) => (ErrorKind::Config, "declare it, or let kvsync do so (without `check_only`)"),
        Some(PRECONDITION_FAILED) => (
            ErrorKind::Config,
            "it stands with other settings; delete it or take another name (with `check_only` it is used as it is, also if \
             it drops messages)",
        ),
        _ => (ErrorKind::Unavailable, "is the server running?"),
    };
    Error::new(kind, format!("{what} failed at rabbitmq at {place}; {advice}")).with_source(error)
}

/// Why a consumer that received does so no more. It begins anew, on a topology that was looked at again.
pub(super) fn interrupted(what: &str, place: &str, error: lapin::Error) -> Error {
    let advice = match code(&error) {
        Some(PRECONDITION_FAILED) => {
            "was a message held for longer than the server's `consumer_timeout`? what was taken comes again"
        }
        Some(NOT_FOUND) => "was the queue deleted?",
        _ => return failed(what, place, error),
    };
    Error::new(ErrorKind::Unavailable, format!("{what} failed at rabbitmq at {place}; {advice}")).with_source(error)
}

/// The failure of a publication that was handed over.
pub(super) fn unpublished(place: &str, error: lapin::Error) -> Error {
    let (kind, message) = match code(&error) {
        Some(PRECONDITION_FAILED) => (
            ErrorKind::Rejected,
            format!("rabbitmq at {place} refused a message; is it larger than `max_message_size`?"),
        ),
        Some(ACCESS_REFUSED | NOT_ALLOWED) => return failed("publishing", place, error),
        // What was handed over before that may have been kept.
        Some(NOT_FOUND) => (
            ErrorKind::UnknownOutcome,
            format!("the exchange was not there at rabbitmq at {place}; declare it, and publish again"),
        ),
        _ => (
            ErrorKind::UnknownOutcome,
            format!("rabbitmq at {place} was lost before it confirmed a message; publish it again"),
        ),
    };
    Error::new(kind, message).with_source(error)
}

/// Whether the server closed the channel because of what one of the messages is.
pub(super) fn is_of_one_message(error: &Error) -> bool {
    error.kind() == ErrorKind::Rejected
        && std::error::Error::source(error)
            .and_then(|cause| cause.downcast_ref::<lapin::Error>())
            .is_some_and(|cause| code(cause) == Some(PRECONDITION_FAILED))
}

/// Whether there is no such queue. One whose nodes are away is told with the same code.
pub(super) fn is_no_queue(error: &lapin::Error) -> bool {
    matches!(error.kind(), Cause::ProtocolError(error)
        if error.get_id() == NOT_FOUND && error.get_message().as_str().contains("no queue"))
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        Cause::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}
