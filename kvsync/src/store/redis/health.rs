//! Asks every server how it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Value, cmd};

use super::facts::Facts;
use super::node::Node;
use super::sentinel::Sentinel;
use super::servers::Servers;
use super::{Inner, check};
use crate::store::{Health, Status};

/// What one server reports.
struct Told {
    status: Status,
    details: Vec<String>,
    /// The life that its memory hangs on.
    life: Option<String>,
}

/// Asks every server, all of them within the deadline.
pub(super) fn health(store: &Inner, deadline: Duration) -> Health {
    if let Err(closed) = store.open() {
        return Health::new(Status::Down, vec![crate::Error::from(closed).to_string()]);
    }
    let deadline = crate::clock::from_now(deadline);
    let nodes = store.servers.nodes();
    // Threads, because one server that hangs must not hide the others.
    let (told, watch) = std::thread::scope(|scope| {
        let watch = match &store.servers {
            Servers::Sentinel(sentinel) => Some(scope.spawn(move || watch(sentinel, deadline))),
            Servers::One(_) | Servers::Cluster(_) => None,
        };
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || ask(store, node, deadline))).collect();
        let lost = || Told::down("the check of a redis server ended in a panic".to_owned());
        let told: Vec<Told> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect();
        (told, watch.map(|thread| thread.join().unwrap_or_else(|_| lost())))
    });
    let down = told.iter().filter(|told| told.status == Status::Down).count();
    let worst = told.iter().map(|told| told.status).max().unwrap_or(Status::Down);
    // While one node of a cluster answers, a part of the keys can be read.
    let status = if down > 0 && down < told.len() { Status::Degraded } else { worst };
    let lives: Option<Vec<String>> = told.iter().map(|told| told.life.clone()).collect();
    let status = watch.as_ref().map_or(status, |watch| status.max(watch.status));
    let health = Health::new(status, told.into_iter().chain(watch).flat_map(|told| told.details).collect());
    if down > 0 {
        // Another node may have taken over; the next question goes to that one.
        let _ = store.servers.refresh(None, deadline, &store.settings);
    }
    match lives {
        Some(lives) if !lives.is_empty() => health.with_lives(lives),
        // Of a server that does not answer it cannot be told whether it is the one that it was.
        _ => health,
    }
}

fn ask(store: &Inner, node: &Arc<Node>, deadline: Instant) -> Told {
    let setting = |name: &str| cmd("CONFIG").arg("GET").arg(name).take();
    let mut questions = vec![cmd("INFO"), setting("appendfsync"), setting("save"), setting("min-replicas-to-write")];
    // In a cluster the question belongs to a node of its own.
    questions.push(if store.is_cluster() { cmd("CLUSTER").arg("INFO").take() } else { check::question(store) });
    let answers = match node.ask(&questions, deadline) {
        Ok(answers) => answers,
        Err(failure) => return Told::down(crate::Error::from(failure).to_string()),
    };
    let mut told = Told { status: Status::Up, details: Vec::new(), life: None };
    let mut facts = Facts::default();
    let mut secret = None;
    for (question, answer) in (0..).zip(answers) {
        let of_config = (1..4).contains(&question);
        if question == 4 && !store.is_cluster() {
            // Of a server that knows no script of ours, or has no time for one, nothing is known.
            let lacking = match &answer {
                Value::Array(missing) => check::lacking(store, missing),
                Value::ServerError(error) if error.code() == "NOPERM" => Some(check::advice(store)),
                _ => None,
            };
            if let Some(what) = lacking {
                told.found(Status::Degraded, what);
            }
            continue;
        }
        match answer {
            Value::BulkString(text) => facts.learn(&String::from_utf8_lossy(&text)),
            Value::VerbatimString { text, .. } => facts.learn(&text),
            Value::Array(pairs) => facts.configured(&pairs),
            Value::Map(pairs) => {
                facts.configured(&pairs.into_iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>());
            }
            Value::ServerError(error) if of_config => secret = Some(error.code().to_owned()),
            Value::ServerError(error) => {
                let what = format!("redis at {} does not say how it is: {}", node.address, error.code());
                told.details.push(what);
            }
            _ => told.found(Status::Degraded, format!("redis at {} answered with something else", node.address)),
        }
    }
    let evicted = facts.number("evicted_keys").map(|now| (now, node.newly_evicted(facts.get("run_id"), now)));
    facts.judge(&node.address, evicted, secret.as_deref(), &mut |status, what| told.found(status, what));
    // A server that does not say which of its lives this is has a name all the same, so that the mark
    // that is left in the store is looked for.
    told.life = (told.status != Status::Down).then(|| match &store.servers {
        // One that was replaced and came back has been given the memory of another, whatever it kept.
        Servers::Sentinel(_) => facts.run(&node.address),
        Servers::One(_) | Servers::Cluster(_) => facts.life(&node.address),
    });
    told
}

/// What the sentinels say.
fn watch(sentinel: &Sentinel, deadline: Instant) -> Told {
    let watchers = sentinel.watchers();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |node: &Arc<Node>| {
            sentinel.named_by(node, deadline).map_err(|failure| crate::Error::from(failure).to_string())
        };
        let threads: Vec<_> = watchers.iter().map(|node| scope.spawn(move || ask(node))).collect();
        let lost = || Err("the check of a sentinel ended in a panic".to_owned());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let name = &sentinel.name;
    let what = format!(
        "the master `{name}` may be replaced by its sentinels: what it acknowledged last, and no replica has, is \
         forgotten then, and tables are dirty until they are mended"
    );
    let mut told = Told { status: Status::Up, details: vec![what], life: None };
    let knowing = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    for (node, answer) in watchers.iter().zip(answers) {
        match answer {
            Ok(Some(_)) => {}
            Ok(None) => told.details.push(format!("the sentinel at {} knows no master `{name}`", node.address)),
            Err(why) => told.details.push(format!("a sentinel is not there: {why}")),
        }
    }
    if knowing == 0 {
        told.found(Status::Degraded, format!("no sentinel knows who `{name}` is: a failover would not be followed"));
    }
    told
}

impl Told {
    fn down(why: String) -> Self {
        Self { status: Status::Down, details: vec![why], life: None }
    }

    fn found(&mut self, status: Status, what: String) {
        self.status = self.status.max(status);
        self.details.push(what);
    }
}
