//! What Redis and the network say, in the crate's own words.

use redis::{RedisError, ServerError};

use crate::error::{Error, ErrorKind};

/// Why a request has no answer, and what may be done about it. Cheap to clone: one broken connection
/// fails many requests.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) cure: Cure,
    message: String,
    source: Option<RedisError>,
}

/// What may be done about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cure {
    /// Nothing that this store could do.
    None,
    /// The same again after a while.
    Wait,
    /// The same again, on another connection.
    Reconnect,
    /// The same again after the scripts were loaded.
    Load,
    /// Another node serves the slot now: this address.
    Moved(String),
    /// Another node serves this key already, and has to be told that it was asked for it: this address.
    Ask(String),
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, cure: Cure, message: impl Into<String>) -> Self {
        Self { kind, cure, message: message.into(), source: None }
    }

    pub(super) fn with_cure(self, cure: Cure) -> Self {
        Self { cure, ..self }
    }

    pub(super) fn because(self, source: RedisError) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The network failed between here and the server at this address; `sent` says whether a request may
    /// have arrived.
    pub(super) fn of_network(error: RedisError, address: &str, sent: bool) -> Self {
        let cure = if error.is_timeout() { Cure::Wait } else { Cure::Reconnect };
        let what = match (error.is_timeout(), sent) {
            (true, true) => "did not answer in time",
            (true, false) => "could not be reached in time",
            (false, true) => "closed the connection before it answered",
            (false, false) => "cannot be reached; is it running, and is the address right?",
        };
        let message = match tls_hint(&error) {
            Some(hint) => format!("redis at {address} does not speak as expected; {hint}"),
            None => format!("redis at {address} {what}"),
        };
        Self { kind: ErrorKind::Unavailable, cure, message, source: Some(error) }
    }

    /// The same failure, where it was the first thing that was heard from the server: a server without TLS
    /// waits for the rest of what it takes for a command, and one with TLS hangs up on others.
    pub(super) fn of_greeting(self, address: &str, tls: bool) -> Self {
        let Some(source) = &self.source else { return self };
        let message = match (tls, source.is_timeout(), source.is_connection_dropped()) {
            (true, true, _) => format!("redis at {address} did not answer in time; if it has no TLS, use `redis://`"),
            (false, _, true) => {
                format!("redis at {address} closed the connection at once; if it has TLS, use `rediss://`")
            }
            _ => return self,
        };
        Self { message, ..self }
    }

    /// The same failure, saying first whose it is.
    pub(super) fn about(self, whose: &str) -> Self {
        Self { message: format!("{whose}: {}", self.message), ..self }
    }

    /// The server at this address is no primary.
    pub(super) fn of_replica(address: &str) -> Self {
        let message = format!("redis at {address} is a read-only replica, and no primary (any longer, or yet)");
        Self::new(ErrorKind::Unavailable, Cure::Wait, message)
    }

    /// The server at this address answered with an error.
    pub(super) fn of_server(error: &ServerError, address: &str) -> Self {
        let detail = error.details().unwrap_or_default();
        let (kind, mut cure, what) = judge(error.code(), detail);
        if let Cure::Moved(target) | Cure::Ask(target) = &mut cure
            && target.starts_with(':')
        {
            // A node leaves out the host where it is its own.
            target.insert_str(0, address.rsplit_once(':').map_or(address, |(host, _)| host));
        }
        let message = match what {
            Some(what) => format!("redis at {address} {what}"),
            None if error.code() == "NOPERM" => format!(
                "redis at {address} refused: NOPERM {detail}; `ACL SETUSER` with `+@read +@write +@scripting +@connection +info` \
                 and the keys of the store gives the user its rights"
            ),
            None => format!("redis at {address} refused: {} {detail}", error.code()),
        };
        Self { kind, cure, message, source: Some(error.clone().into()) }
    }

    /// The same for a command that carried a password: a server that does not know the command repeats what
    /// it was told.
    pub(super) fn of_login(error: &ServerError, address: &str, password: Option<&str>) -> Self {
        let repeats = error.details().is_some_and(|detail| {
            // Redis's own texts, but for this one, hold nothing of a command; a proxy's may.
            let foreign = error.code() == "ERR" && !detail.contains("called without any password");
            detail.contains("args beginning with") || (foreign && password.is_some_and(|word| detail.contains(word)))
        });
        if password.is_none() || !repeats {
            return Self::of_server(error, address);
        }
        let what = "does not understand `AUTH`; is it redis, and does it want a password?";
        Self::new(ErrorKind::Rejected, Cure::None, format!("redis at {address} {what}"))
    }

    /// The same failure of a write that may have happened at an earlier try.
    pub(super) fn in_doubt(self) -> Self {
        Self { kind: ErrorKind::UnknownOutcome, ..self }
    }

    /// Whether the user may not run a command.
    pub(super) fn is_lack_of_rights(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.code() == Some("NOPERM"))
    }

    /// Whether the server understood and refused for a reason that may lie in one step of many.
    pub(super) fn is_refusal(&self) -> bool {
        self.cure == Cure::None && matches!(self.kind, ErrorKind::Rejected | ErrorKind::Corrupt)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.kind, failure.message);
        match failure.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// What an error reply means; no text where the server's own is the best there is.
fn judge(code: &str, detail: &str) -> (ErrorKind, Cure, Option<&'static str>) {
    use ErrorKind::{Corrupt, Rejected, Unavailable};
    let target = || detail.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned();
    match code {
        "NOSCRIPT" => (Unavailable, Cure::Load, Some("does not keep scripts long enough to run them")),
        "MOVED" => {
            (Unavailable, Cure::Moved(target()), Some("serves a part of the keys only: it is a node of a cluster"))
        }
        "ASK" => (Unavailable, Cure::Ask(target()), Some("is handing over the keys to another node")),
        "TRYAGAIN" => (Unavailable, Cure::Wait, Some("is handing over the keys to another node")),
        "CLUSTERDOWN" => {
            (Unavailable, Cure::Wait, Some("says that the cluster is down: a part of the slots is served by no node"))
        }
        "LOADING" => (Unavailable, Cure::Wait, Some("is still loading its data")),
        "BUSY" => (Unavailable, Cure::Wait, Some("is busy with a script")),
        "MASTERDOWN" => (Unavailable, Cure::Wait, Some("is a replica that has lost its primary")),
        "READONLY" => (Unavailable, Cure::Wait, Some("is a read-only replica; connect to the primary")),
        "OOM" => (Unavailable, Cure::None, Some("is out of memory; raise its `maxmemory` or make room")),
        "MISCONF" => (Unavailable, Cure::None, Some("takes no writes, because it cannot save its data; see its log")),
        "NOREPLICAS" => (Unavailable, Cure::None, Some("takes no writes, because it has too few replicas")),
        "NOAUTH" => (Rejected, Cure::None, Some("wants a password; give it in the URL or to the builder")),
        "WRONGPASS" => (Rejected, Cure::None, Some("does not take this user name and password")),
        "DENIED" => {
            (Rejected, Cure::None, Some("is in protected mode; give it a password, or bind it to loopback only"))
        }
        "WRONGTYPE" => (
            Corrupt,
            Cure::None,
            Some("holds a value of another type under a key of this store; did another program write it?"),
        ),
        "ERR" if detail.contains("max number of clients") => {
            (Unavailable, Cure::Wait, Some("has no connection left; raise its `maxclients` or use fewer"))
        }
        "ERR" if wrapped(detail).is_some() => judge(wrapped(detail).unwrap_or_default(), ""),
        "ERR" if detail.contains("WRONGTYPE ") => judge("WRONGTYPE", ""),
        "ERR" if detail.contains("invalid bulk length") => {
            (Rejected, Cure::None, Some("takes no value of this size; see its `proto-max-bulk-len`"))
        }
        _ => (Rejected, Cure::None, None),
    }
}

/// The code of the error that ended a script, where the server wraps it: behind `ERR` where the script raised
/// it again, and amid a text before 7.0.
fn wrapped(detail: &str) -> Option<&'static str> {
    let raised = detail.split_ascii_whitespace().next().unwrap_or_default().trim_start_matches('-');
    ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "BUSY"]
        .into_iter()
        .find(|code| raised == *code || detail.contains(&format!("-{code} ")))
}

/// What to do when one end speaks TLS and the other does not, or the certificate is not trusted.
fn tls_hint(error: &RedisError) -> Option<&'static str> {
    let text = error.to_string();
    if text.contains("UnknownIssuer") {
        Some("nobody that is trusted here signed its certificate: give the authority's to `ca_file`")
    } else if text.contains("invalid peer certificate") {
        Some("its certificate is not valid for this address")
    } else if text.contains("InvalidContentType") {
        Some("if it has no TLS, use `redis://`")
    } else if error.kind() == redis::ErrorKind::Parse {
        Some("if it has TLS, use `rediss://`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_a_script_is_found_in_what_the_server_says() {
        let told = [
            ("OOM", "command not allowed when used memory > 'maxmemory'."),
            ("ERR", "OOM command not allowed when used memory > 'maxmemory'. script: 20, on @user_script:404."),
            ("ERR", "Error running script (call to f_20): @user_script:1: -OOM command not allowed"),
            ("ERR", "READONLY You can't write against a read only replica. script: 20, on @user_script:1."),
            ("ERR", "-MISCONF Redis is configured to save RDB snapshots, but it is unable to persist on disk."),
        ];
        for (code, detail) in told {
            assert_eq!(judge(code, detail).0, ErrorKind::Unavailable, "{code} {detail}");
        }
        for detail in ["unknown command 'BUSY'", "value is OOM", ""] {
            assert_eq!(judge("ERR", detail).0, ErrorKind::Rejected, "{detail}");
        }
    }
}
