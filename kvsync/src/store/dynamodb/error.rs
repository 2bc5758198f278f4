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
    pub(super) fn late() -> Self {
        Self { passes: true, in_doubt: true, ..Self::new(ErrorKind::Unavailable, "dynamodb did not answer in time") }
    }

    pub(super) fn of<E>(error: &SdkError<E>, table: &str) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let own = match error {
            SdkError::ConstructionFailure(_) => {
                Self::new(ErrorKind::Config, "the request to dynamodb cannot be made; are region and endpoint right?")
            }
            SdkError::TimeoutError(_) => Self::late(),
            SdkError::DispatchFailure(_) => Self::of_network(error),
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let said = service.err();
                judge(said.code().unwrap_or_default(), said.message().unwrap_or_default(), status, table)
            }
            _ => Self {
                passes: true,
                in_doubt: true,
                ..Self::new(ErrorKind::Unavailable, "dynamodb answered something that is no answer; is it a proxy?")
            },
        };
        Self { source: Some(chain(error)), ..own }
    }

    fn of_network(error: &(dyn StdError + 'static)) -> Self {
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
        let message = "dynamodb cannot be reached; is the endpoint right, and is there a network?";
        Self { passes: true, in_doubt, ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// Why a transaction was not done, by the reasons that it names for each of its actions. `None` where
    /// conditions failed, which says that others wrote in between.
    pub(super) fn of_transaction(canceled: &TransactionCanceledException) -> Option<Self> {
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
                "ThrottlingError" | "ProvisionedThroughputExceeded" => throttled(),
                "ItemCollectionSizeLimitExceeded" => collection_is_full(),
                other => Self::new(ErrorKind::Rejected, format!("dynamodb refused a transaction: {other} {said}")),
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
fn judge(code: &str, said: &str, status: u16, table: &str) -> Failure {
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
        | "LimitExceededException" => throttled(),
        "ResourceNotFoundException" => Failure::new(
            Config,
            format!("dynamodb has no table `{table}` here; create it (`Builder::create_table`), or check the region"),
        ),
        "ItemCollectionSizeLimitExceededException" => collection_is_full(),
        "ValidationException" if said.contains("size") => {
            Failure::new(Rejected, format!("dynamodb takes no item of more than 400 KB: {said}"))
        }
        "ValidationException" => Failure::new(
            Rejected,
            format!("dynamodb refused a request; has the table `{table}` the right keys? {said}"),
        ),
        "AccessDeniedException" => {
            Failure::new(Rejected, format!("these AWS credentials lack a right on the table `{table}`: {said}"))
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException"
        | "ExpiredTokenException" => {
            Failure::new(Rejected, format!("dynamodb does not take these credentials: {said}"))
        }
        _ if status >= 500 => Failure {
            passes: true,
            in_doubt: true,
            ..Failure::new(Unavailable, format!("dynamodb failed: {code} {said}"))
        },
        _ => Failure::new(Rejected, format!("dynamodb refused: {code} {said}")),
    }
}

fn throttled() -> Failure {
    let message = "dynamodb has no capacity left for this table or key; raise it, or spread the keys";
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
        let conflict = Failure::of_transaction(&canceled(&["None", "TransactionConflict"])).unwrap();
        assert_eq!((conflict.kind, conflict.passes, conflict.in_doubt), (ErrorKind::Contention, true, false));
        assert!(Failure::of_transaction(&canceled(&["None", "ConditionalCheckFailed"])).is_none());
        let throttled = Failure::of_transaction(&canceled(&["ThrottlingError"])).unwrap();
        assert_eq!((throttled.kind, throttled.passes), (ErrorKind::Unavailable, true));
        let full = Failure::of_transaction(&canceled(&["TransactionConflict", "ItemCollectionSizeLimitExceeded"]));
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
}
