//! What DynamoDB and the network say, in the crate's own words.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::error::TransactionCanceledException;

use crate::error::{Error, ErrorKind};

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// Whether the same may be answered a moment later.
    pub(super) passes: bool,
    /// Whether what was asked may have been done all the same.
    pub(super) in_doubt: bool,
    message: String,
    source: Option<String>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, passes: false, in_doubt: false, message: message.into(), source: None }
    }

    /// No answer came in time.
    pub(super) fn late(at: &str) -> Self {
        Self {
            passes: true,
            in_doubt: true,
            ..Self::new(ErrorKind::Unavailable, format!("{at} did not answer in time"))
        }
    }

    /// Why a request to the table of this name failed.
    pub(super) fn of<E>(error: &SdkError<E>, at: &str) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        let own = match error {
            SdkError::ConstructionFailure(_) => {
                let message = format!("the request to {at} cannot be made; are region and endpoint right?");
                Self::new(ErrorKind::Config, message)
            }
            SdkError::TimeoutError(_) => Self::late(at),
            SdkError::DispatchFailure(_) => Self::of_network(error, at),
            SdkError::ServiceError(service) => {
                let said = service.err();
                let (code, said) = (said.code().unwrap_or_default(), said.message().unwrap_or_default());
                judge(code, said, status.unwrap_or_default(), at)
            }
            _ => {
                let status = status.map_or_else(String::new, |status| format!(" with HTTP status {status}"));
                let message = format!("{at} answered{status} what is no answer of dynamodb; is it a proxy?");
                Self { passes: true, in_doubt: true, ..Self::new(ErrorKind::Unavailable, message) }
            }
        };
        Self { source: Some(chain(error)), ..own }
    }

    fn of_network(error: &(dyn StdError + 'static), at: &str) -> Self {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let text = chain(error);
        if find::<io::Error>(error).is_none() && text.contains("redential") {
            return Self::new(
                ErrorKind::Rejected,
                "no AWS credentials were found; set them in the environment, a profile, or give the machine a role",
            );
        }
        // Of anything but a refused connection it cannot be told whether the request had been sent.
        let in_doubt = !find::<io::Error>(error).is_some_and(refused);
        let message = format!("{at} cannot be reached; is the endpoint right, and is there a network?");
        Self { passes: true, in_doubt, ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// Why a transaction was not done, by the reasons that it names for each of its actions. `None` where
    /// conditions failed, which says that others wrote in between.
    pub(super) fn of_transaction(canceled: &TransactionCanceledException, at: &str) -> Option<Self> {
        let mut own = None;
        for reason in canceled.cancellation_reasons() {
            let said = reason.message().unwrap_or_default();
            let failure = match reason.code().unwrap_or_default() {
                "" | "None" | "ConditionalCheckFailed" => continue,
                // Others are at it at this moment: neither a failed condition nor a failure of the server.
                "TransactionConflict" => Self {
                    passes: true,
                    ..Self::new(ErrorKind::Contention, "another transaction on the same items was under way")
                },
                "ThrottlingError" | "ProvisionedThroughputExceeded" => throttled(at),
                "ItemCollectionSizeLimitExceeded" => collection_is_full(),
                "ValidationError" => invalid(said, at),
                other => Self::new(ErrorKind::Rejected, format!("{at} refused a transaction: {other} {said}")),
            };
            if !failure.passes {
                return Some(failure);
            }
            own = Some(failure);
        }
        own
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.kind, failure.message);
        match failure.source {
            Some(source) => error.with_source(Said(source)),
            None => error,
        }
    }
}

/// What the client said, with all its causes. Its own errors hold the request, and cannot be shared.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Said {}

/// A request that lacks what it must have.
pub(super) fn unbuilt(error: BuildError) -> Error {
    Error::new(ErrorKind::Corrupt, "a request to dynamodb was left unfinished; this is a fault of kvsync")
        .with_source(error)
}

/// An item that is not as this store writes them.
pub(super) fn foreign(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("an item of the table has no {what}; did another program write it?"))
}

/// What an error reply means.
fn judge(code: &str, said: &str, status: u16, at: &str) -> Failure {
    use ErrorKind::{Config, Contention, Rejected, Unavailable};
    match code {
        "ConditionalCheckFailedException" => Failure::new(Contention, "what stood in dynamodb had changed"),
        "TransactionConflictException" | "ReplicatedWriteConflictException" => Failure {
            passes: true,
            ..Failure::new(Contention, "a transaction of others on the same item was under way")
        },
        "TransactionInProgressException" => {
            Failure { passes: true, in_doubt: true, ..Failure::new(Unavailable, "the transaction is still under way") }
        }
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "LimitExceededException" => throttled(at),
        "ResourceNotFoundException" => {
            Failure::new(Config, format!("{at} is not there; create it (`Builder::create_table`), or check the region"))
        }
        "ItemCollectionSizeLimitExceededException" => collection_is_full(),
        "ValidationException" => invalid(said, at),
        "AccessDeniedException" => {
            Failure::new(Rejected, format!("these AWS credentials lack a right on {at}: {said}"))
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException"
        | "ExpiredTokenException" => Failure::new(Rejected, format!("{at} does not take these credentials: {said}")),
        _ if status >= 500 => {
            Failure { passes: true, in_doubt: true, ..Failure::new(Unavailable, replied(code, said, status, at)) }
        }
        _ => Failure::new(Rejected, replied(code, said, status, at)),
    }
}

/// What is said of an answer that nothing else is known of.
fn replied(code: &str, said: &str, status: u16, at: &str) -> String {
    if code.is_empty() && said.is_empty() {
        return format!("{at} answered with HTTP status {status} and no word of dynamodb's; is it a proxy?");
    }
    format!("{at} answered with HTTP status {status}: {code} {said}")
}

/// What was wrong with a request, which dynamodb says in words alone.
fn invalid(said: &str, at: &str) -> Failure {
    let lower = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let what = if has(&["transaction"]) && has(&["size"]) {
        "takes no transaction of more than 4 MB"
    } else if has(&["item size", "maximum allowed size"]) {
        "takes no item of more than 400 KB"
    } else if has(&["tablename", "table name"]) {
        "has no name of a table"
    } else if has(&["empty string value", "empty binary value"]) {
        "takes no empty key"
    } else if has(&["size of hashkey", "size of rangekey"]) {
        "takes no key of more than 2048 bytes"
    } else if has(&["schema", "missing the key", "type mismatch for key"]) {
        "refused a request; has the table the keys of this store?"
    } else {
        "refused a request"
    };
    Failure::new(ErrorKind::Rejected, format!("{at} {what}: {said}"))
}

fn throttled(at: &str) -> Failure {
    let message = format!("{at} has no capacity left for the table or a key; raise it, or spread the keys");
    Failure { passes: true, ..Failure::new(ErrorKind::Unavailable, message) }
}

fn collection_is_full() -> Failure {
    Failure::new(ErrorKind::Rejected, "everything under one key may be 10 GB at most in dynamodb, and is")
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::CancellationReason;

    use super::*;

    fn canceled(codes: &[&str]) -> TransactionCanceledException {
        let reasons = codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
        TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons)).build()
    }

    #[test]
    fn a_conflict_is_contention_and_no_failed_condition() {
        let conflict = Failure::of_transaction(&canceled(&["None", "TransactionConflict"]), "t").unwrap();
        assert_eq!((conflict.kind, conflict.passes, conflict.in_doubt), (ErrorKind::Contention, true, false));
        assert!(Failure::of_transaction(&canceled(&["None", "ConditionalCheckFailed"]), "t").is_none());
        let throttled = Failure::of_transaction(&canceled(&["ThrottlingError"]), "t").unwrap();
        assert_eq!((throttled.kind, throttled.passes), (ErrorKind::Unavailable, true));
        let full = Failure::of_transaction(&canceled(&["TransactionConflict", "ItemCollectionSizeLimitExceeded"]), "t");
        assert_eq!(full.unwrap().kind, ErrorKind::Rejected, "what never passes is told first");
    }

    #[test]
    fn each_code_says_whether_a_retry_helps() {
        let kind = |code: &str, status| judge(code, "", status, "t");
        assert!(kind("ThrottlingException", 400).passes && !kind("ThrottlingException", 400).in_doubt);
        assert!(kind("InternalServerError", 500).passes && kind("InternalServerError", 500).in_doubt);
        assert_eq!(kind("ResourceNotFoundException", 400).kind, ErrorKind::Config);
        assert_eq!(kind("ValidationException", 400).kind, ErrorKind::Rejected);
        assert_eq!(kind("AccessDeniedException", 400).kind, ErrorKind::Rejected);
        assert!(!kind("SomethingNew", 400).passes);
    }

    #[test]
    fn what_was_wrong_is_told_by_its_own_reason() {
        for (said, told) in [
            ("Item size has exceeded the maximum allowed size", "400 KB"),
            ("Transaction request cannot exceed the size of 4194304 bytes", "4 MB"),
            ("Value 'a b' at 'tableName' failed to satisfy constraint", "name of a table"),
            ("The AttributeValue for a key attribute cannot contain an empty string value. Key: pk", "empty key"),
            ("Size of hashkey has exceeded the maximum size limit of2048 bytes", "2048 bytes"),
            ("The provided key element does not match the schema", "right keys"),
            ("Invalid KeyConditionExpression", "dynamodb table t refused a request: Invalid"),
        ] {
            let told = told.replace("right keys", "keys of this store");
            let text = judge("ValidationException", said, 400, "dynamodb table t").message;
            assert!(text.contains(&told) && text.ends_with(said), "{text}");
        }
        let text = judge("", "", 403, "dynamodb table t at http://h").message;
        assert!(text.contains("dynamodb table t at http://h") && text.contains("403"), "{text}");
    }
}
