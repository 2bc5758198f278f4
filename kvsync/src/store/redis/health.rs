//! What Redis says of itself.

use std::time::{Duration, Instant};

use redis::{Value, cmd};

use super::Inner;
use super::node::Node;
use crate::store::{Health, Status};

/// Asks every server, all of them within the deadline.
pub(super) fn health(store: &Inner, deadline: Duration) -> Health {
    let deadline = Instant::now() + deadline;
    let nodes = store.servers.nodes();
    // Threads, because one server that hangs must not hide the others.
    let reports: Vec<(Status, Vec<String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || report(store, node, deadline))).collect();
        let lost = || (Status::Down, vec!["the check of a redis server ended in a panic".to_owned()]);
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let down = reports.iter().filter(|(status, _)| *status == Status::Down).count();
    let worst = reports.iter().map(|(status, _)| *status).max().unwrap_or(Status::Down);
    // While one node of a cluster answers, a part of the keys can be read.
    let status = if down > 0 && down < reports.len() { Status::Degraded } else { worst };
    Health::new(status, reports.into_iter().flat_map(|(_, details)| details).collect())
}

fn report(store: &Inner, node: &Node, deadline: Instant) -> (Status, Vec<String>) {
    let address = &node.address;
    let mut questions = vec![cmd("INFO")];
    if store.is_cluster() {
        questions.push(cmd("CLUSTER").arg("INFO").take());
    }
    let answers = match node.ask(&questions, deadline) {
        Ok(answers) => answers,
        Err(failure) => return (Status::Down, vec![crate::Error::from(failure).to_string()]),
    };
    let mut status = Status::Up;
    let mut details = Vec::new();
    let mut found = |so: Status, what: String| {
        status = status.max(so);
        details.push(what);
    };
    for answer in answers {
        match answer {
            Value::BulkString(text) => judge(&String::from_utf8_lossy(&text), address, &mut found),
            Value::VerbatimString { text, .. } => judge(&text, address, &mut found),
            Value::ServerError(error) => {
                found(Status::Up, format!("redis at {address} does not say how it is: {}", error.code()));
            }
            _ => found(Status::Degraded, format!("redis at {address} answered `INFO` with something else")),
        }
    }
    (status, details)
}

/// Reads the lines of `INFO` and `CLUSTER INFO`.
fn judge(text: &str, address: &str, found: &mut impl FnMut(Status, String)) {
    let get = |name: &str| {
        text.lines().find_map(|line| line.trim_end().split_once(':').filter(|(key, _)| *key == name)).map(|pair| pair.1)
    };
    if get("role") == Some("slave") {
        found(Status::Down, format!("redis at {address} is a read-only replica"));
    }
    if get("loading") == Some("1") {
        found(Status::Down, format!("redis at {address} is still loading its data"));
    }
    if get("cluster_state").is_some_and(|state| state != "ok") {
        found(Status::Down, format!("redis at {address} says that the cluster is down"));
    }
    if let (Some(policy), Some(limit)) = (get("maxmemory_policy"), get("maxmemory"))
        && policy != "noeviction"
        && limit != "0"
    {
        let what = format!(
            "redis at {address} forgets entries when it is full (`maxmemory-policy {policy}`): a row may then answer \
             under a key that it has left; set it to `noeviction`, or read with `fetch_strict`"
        );
        found(Status::Degraded, what);
    }
    if get("evicted_keys").is_some_and(|keys| keys != "0") {
        found(Status::Degraded, format!("redis at {address} has evicted keys; fetch strictly, or raise the epoch"));
    }
    if get("aof_enabled") == Some("0") {
        let what = "has no append-only file: what it acknowledged last is lost when it stops";
        found(Status::Up, format!("redis at {address} {what}"));
    }
    if get("aof_last_write_status").is_some_and(|status| status == "err") {
        found(Status::Degraded, format!("redis at {address} cannot write its append-only file"));
    }
}
