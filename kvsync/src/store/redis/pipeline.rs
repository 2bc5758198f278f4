//! Sends many requests to the servers that answer for them, all at once, and sees to what goes wrong.
//!
//! Each node gets its requests in one go on a connection of its own; all nodes are written to before any
//! is read. Answers are matched to requests by their order on that connection and by nothing else, so a
//! connection that failed in any way is closed with all that may still be under way on it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::cluster_routing::Slot;
use redis::{Value, cmd};

use super::connection::Connection;
use super::error::{Cure, Failure};
use super::node::{Node, Settings};
use super::script;
use super::servers::Servers;
use crate::error::ErrorKind;

/// A packed command.
pub(super) struct Request {
    pub(super) slot: Option<Slot>,
    pub(super) command: Vec<u8>,
    /// Whether it changes anything, so that a lost answer leaves a doubt.
    pub(super) writes: bool,
    /// Whether doing it again would not be the same: it is not sent again once it may have taken effect.
    pub(super) once: bool,
}

/// For how long to go on after failures that may pass.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Only redirections, lost scripts and closed connections are overcome.
    Short,
    /// Everything that may pass is waited for, as long as the settings say.
    Long,
}

/// Rounds that may follow each other without a pause.
const ROUNDS: usize = 4;
/// Commands are sent in pieces of at least this size.
const PIECE: usize = 64 * 1024;

/// Answers each request, in order. Requests may take effect more than once, but for those that say `once`,
/// and a request never takes effect for the last time after a later one of the same slot did.
pub(super) fn run(
    servers: &Servers,
    settings: &Arc<Settings>,
    requests: &[Request],
    patience: Patience,
) -> Vec<Result<Value, Failure>> {
    let begin = Instant::now();
    let give_up = begin
        + match patience {
            Patience::Short => settings.command_timeout,
            Patience::Long => settings.retry_for,
        };
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(500))
        .with_jitter()
        .without_max_times()
        .build();
    let mut tasks: Vec<Task> = (0..requests.len()).map(|_| Task::default()).collect();
    let mut pending: Vec<usize> = (0..requests.len()).collect();
    for round in 1.. {
        let started = Instant::now();
        attempt(servers, requests, &mut tasks, &pending, started + settings.command_timeout);
        let next = sort_out(servers, settings, requests, &mut tasks, &pending);
        if next.again.is_empty() {
            break;
        }
        let refresh = || {
            if next.refresh {
                // Where nobody answers, the next round says so.
                let _ = servers.refresh(Some(started), Instant::now() + settings.command_timeout, settings);
            }
        };
        if next.wait || round >= ROUNDS {
            let pause = pauses.next().unwrap_or_default();
            if matches!(patience, Patience::Short) || Instant::now() + pause >= give_up {
                // For the next call.
                refresh();
                break;
            }
            std::thread::sleep(pause);
        }
        refresh();
        pending = next.again;
    }
    tasks.into_iter().map(Task::finish).collect()
}

/// How far a request has come.
#[derive(Default)]
struct Task {
    answer: Option<Result<Value, Failure>>,
    /// The node that has to be told that it was asked, at the next attempt.
    ask: Option<Arc<Node>>,
    /// Whether it may have taken effect although nobody said so.
    doubt: bool,
}

impl Task {
    fn finish(self) -> Result<Value, Failure> {
        let never = || Failure::new(ErrorKind::Unavailable, Cure::Wait, "redis was not asked in time");
        match self.answer.unwrap_or_else(|| Err(never())) {
            Err(failure) if self.doubt => Err(failure.in_doubt()),
            answer => answer,
        }
    }
}

/// The requests of one attempt that go to one node.
struct Lane {
    node: Arc<Node>,
    requests: Vec<(usize, bool)>,
    connection: Option<Connection>,
}

/// Sends the pending requests once and notes their answers.
fn attempt(servers: &Servers, requests: &[Request], tasks: &mut [Task], pending: &[usize], deadline: Instant) {
    let mut lanes: Vec<Lane> = Vec::new();
    for &index in pending {
        let (Some(request), Some(task)) = (requests.get(index), tasks.get_mut(index)) else { continue };
        let ask = task.ask.take();
        let asking = ask.is_some();
        match ask.map_or_else(|| servers.node(request.slot), Ok) {
            Ok(node) => match lanes.iter_mut().find(|lane| Arc::ptr_eq(&lane.node, &node)) {
                Some(lane) => lane.requests.push((index, asking)),
                None => lanes.push(Lane { node, requests: vec![(index, asking)], connection: None }),
            },
            Err(failure) => task.answer = Some(Err(failure)),
        }
    }
    // To connect may take long, so the nodes that wait for us come first.
    for lane in &mut lanes {
        lane.connection = lane.node.idle();
    }
    lanes.sort_by_key(|lane| lane.connection.is_none());
    for lane in &mut lanes {
        lane.send(requests, tasks, deadline);
    }
    for lane in &mut lanes {
        lane.receive(requests, tasks, deadline);
    }
}

impl Lane {
    fn send(&mut self, requests: &[Request], tasks: &mut [Task], deadline: Instant) {
        let connection = match self.connection.take().map_or_else(|| self.node.open(deadline), Ok) {
            Ok(connection) => connection,
            Err(failure) => return self.fail(0, &broken(failure, false), requests, tasks, false),
        };
        match self.write(connection, requests, deadline) {
            Ok(connection) => self.connection = Some(connection),
            Err((failure, used)) => self.fail(0, &broken(failure, used), requests, tasks, true),
        }
    }

    fn write(
        &self,
        mut connection: Connection,
        requests: &[Request],
        deadline: Instant,
    ) -> Result<Connection, (Failure, bool)> {
        let used = connection.used;
        let mut piece = Vec::new();
        for &(index, asking) in &self.requests {
            if asking {
                cmd("ASKING").write_packed_command(&mut piece);
            }
            if let Some(request) = requests.get(index) {
                piece.extend_from_slice(&request.command);
            }
            if piece.len() >= PIECE {
                connection.send(&piece, &self.node.address, deadline).map_err(|failure| (failure, used))?;
                piece.clear();
            }
        }
        if !piece.is_empty() {
            connection.send(&piece, &self.node.address, deadline).map_err(|failure| (failure, used))?;
        }
        Ok(connection)
    }

    fn receive(&mut self, requests: &[Request], tasks: &mut [Task], deadline: Instant) {
        let Some(mut connection) = self.connection.take() else { return };
        let address = &self.node.address;
        let mut load = false;
        for (position, &(index, asking)) in self.requests.iter().enumerate() {
            let mut answer = if asking { connection.receive(address, deadline) } else { Ok(Value::Nil) };
            if answer.is_ok() {
                answer = connection.receive(address, deadline);
            }
            let answer = match answer {
                Ok(Value::ServerError(error)) => Err(Failure::of_server(&error, address)),
                Ok(value) => Ok(value),
                Err(failure) => {
                    let failure = broken(failure, connection.used);
                    return self.fail(position, &failure, requests, tasks, true);
                }
            };
            load |= matches!(&answer, Err(failure) if failure.cure == Cure::Load);
            if let Some(task) = tasks.get_mut(index) {
                // Whatever came of earlier tries, the server has spoken.
                task.doubt &= matches!(&answer, Err(failure) if failure.cure != Cure::None);
                task.answer = Some(answer);
            }
        }
        match if load { script::load(&mut connection, address, deadline) } else { Ok(()) } {
            Ok(()) => self.node.keep(connection),
            Err(failure) => {
                for (index, _) in &self.requests {
                    if let Some(Task { answer: Some(Err(lost)), .. }) = tasks.get_mut(*index)
                        && lost.cure == Cure::Load
                    {
                        *lost = failure.clone();
                    }
                }
            }
        }
    }

    /// Fails all requests from a position on, and lets go of the connections to the node.
    fn fail(&self, position: usize, failure: &Failure, requests: &[Request], tasks: &mut [Task], sent: bool) {
        self.node.forget();
        for &(index, _) in self.requests.iter().skip(position) {
            if let (Some(request), Some(task)) = (requests.get(index), tasks.get_mut(index)) {
                task.doubt |= sent && request.writes;
                task.answer = Some(Err(failure.clone()));
            }
        }
    }
}

/// The failure of a connection: one that had served before may just have been closed meanwhile, so that
/// a new one helps at once.
fn broken(failure: Failure, used: bool) -> Failure {
    if failure.cure == Cure::Reconnect && !used { failure.with_cure(Cure::Wait) } else { failure }
}

/// What the next round has to do.
#[derive(Default)]
struct Next {
    again: Vec<usize>,
    wait: bool,
    refresh: bool,
}

fn sort_out(
    servers: &Servers,
    settings: &Arc<Settings>,
    requests: &[Request],
    tasks: &mut [Task],
    pending: &[usize],
) -> Next {
    let mut next = Next::default();
    let mut slots = HashSet::new();
    for &index in pending {
        let (Some(request), Some(task)) = (requests.get(index), tasks.get_mut(index)) else { continue };
        let again = !(request.once && task.doubt)
            && match &task.answer {
                Some(Ok(_)) | None => false,
                Some(Err(failure)) => match (&failure.cure, servers) {
                    (Cure::Load, _) => true,
                    (Cure::Reconnect, _) => {
                        next.refresh = true;
                        true
                    }
                    (Cure::Wait, _) => {
                        next.wait = true;
                        next.refresh = true;
                        true
                    }
                    (Cure::None, _) | (Cure::Moved(_) | Cure::Ask(_), Servers::One(_) | Servers::Sentinel(_)) => false,
                    (Cure::Moved(address), Servers::Cluster(cluster)) => {
                        next.refresh = true;
                        if let (Some(node), Some(slot)) = (cluster.at(address, settings), request.slot) {
                            cluster.moved(slot, &node);
                        }
                        true
                    }
                    (Cure::Ask(address), Servers::Cluster(cluster)) => {
                        task.ask = cluster.at(address, settings);
                        true
                    }
                },
            };
        // What stands behind a request that is sent again takes effect again after it, if it may.
        let behind =
            slots.contains(&request.slot) && !(request.once && (task.doubt || matches!(task.answer, Some(Ok(_)))));
        if again || behind {
            slots.insert(request.slot);
            next.again.push(index);
        }
    }
    next
}
