//! What the client library says, in the crate's own words. The numbers are those of FoundationDB's documentation.

use foundationdb::FdbError;

use crate::error::{Error, ErrorKind};

const TRANSACTION_TOO_OLD: i32 = 1007;
const NOT_COMMITTED: i32 = 1020;
const TIMED_OUT: i32 = 1031;
const LOCKED: i32 = 1038;
const TOO_LARGE: i32 = 2101;
const KEY_TOO_LARGE: i32 = 2102;
const VALUE_TOO_LARGE: i32 = 2103;
const NO_CLUSTER_FILE: i32 = 1515;
const BAD_CLUSTER_FILE: i32 = 2104;

/// Why a transaction ended, once nothing is to be tried again. `committing` says whether its commit was under way.
pub(super) fn of(failed: FdbError, committing: bool) -> Error {
    let (kind, what) = match failed.code() {
        _ if committing && in_doubt(failed) => (
            ErrorKind::UnknownOutcome,
            "the commit of a transaction in foundationdb was cut off: it may have happened or not",
        ),
        NOT_COMMITTED => {
            (ErrorKind::Contention, "others wrote the same in foundationdb again and again; nothing was done")
        }
        TRANSACTION_TOO_OLD => (
            ErrorKind::Deadline,
            "a transaction in foundationdb has five seconds, and this one took longer; ask for less at a time",
        ),
        TIMED_OUT => {
            (ErrorKind::Deadline, "foundationdb did not answer in time; is the cluster up? See `fdbcli status`")
        }
        TOO_LARGE => (ErrorKind::Rejected, "a transaction in foundationdb takes 10 MB, and this one is larger"),
        KEY_TOO_LARGE => (ErrorKind::Rejected, "a key in foundationdb has 10 kB at most, its prefix included"),
        VALUE_TOO_LARGE => (ErrorKind::Rejected, "a value in foundationdb has 100 kB at most"),
        LOCKED => (ErrorKind::Unavailable, "the database is locked; see `fdbcli`, `unlock`"),
        NO_CLUSTER_FILE | BAD_CLUSTER_FILE => {
            (ErrorKind::Config, "the cluster file of foundationdb is missing or is none")
        }
        _ if failed.is_retryable() => (ErrorKind::Unavailable, "foundationdb cannot serve now"),
        _ => (ErrorKind::Rejected, "foundationdb refused"),
    };
    Error::new(kind, what).with_source(failed)
}

/// Whether a commit that failed so may have happened, or may happen yet.
pub(super) fn in_doubt(failed: FdbError) -> bool {
    failed.is_maybe_committed() || failed.code() == TIMED_OUT
}

/// A failure outside of any transaction.
pub(super) fn plain(what: &'static str, failed: FdbError) -> Error {
    let kind = if failed.is_retryable() { ErrorKind::Unavailable } else { ErrorKind::Config };
    Error::new(kind, what).with_source(failed)
}
