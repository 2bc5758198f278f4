//! Scans by prefix: page after page of `SCAN`, node after node.
//!
//! A cursor of Redis is good for one run of one server, and a slot may move from a node that comes later
//! to one that was done. So our cursor also names the run and, in a cluster, how the slots lay when the
//! scan began. Where either has changed the scan begins again, and keys come twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use redis::{Value, cmd};

use super::error::{Cure, Failure};
use super::node::Node;
use super::servers::Servers;
use super::{Inner, strange};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::store::{Cursor, Page};

pub(super) fn scan(store: &Inner, prefix: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Page> {
    store.open()?;
    let deadline = Instant::now() + store.settings.command_timeout;
    let place = match cursor {
        Some(cursor) => Place::decode(cursor).ok_or_else(not_ours)?,
        None => begin(store, deadline)?,
    };
    let nodes = store.servers.nodes();
    let Some(node) = nodes.iter().find(|node| node.address == place.node) else {
        return Ok(Page { keys: Vec::new(), next: Some(begin(store, deadline)?.encode()) });
    };
    let pattern = format!("{}*", escape(&format!("{}{prefix}", store.prefix)));
    // Small pages cost round trips and spare the server nothing.
    let count = limit.clamp(100, 10_000);
    let scan = cmd("SCAN").arg(&place.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count).take();
    let answers = node.ask(&[cmd("INFO").arg("server").take(), scan], deadline)?;
    let Ok([info, answer]) = <[Value; 2]>::try_from(answers) else { return Err(strange()) };
    let (next, keys) = read(answer, node)?;
    let run = run_of(&info);
    if place.run.as_ref().is_some_and(|known| *known != run) {
        return Ok(Page { keys: Vec::new(), next: Some(begin(store, deadline)?.encode()) });
    }
    let keys = keys.iter().filter_map(|key| own(store, key)).collect();
    let next = if next == "0" {
        if let Some(following) = nodes.iter().find(|other| other.address > place.node) {
            Some(Place::first(&following.address, place.layout))
        } else {
            let again = begin(store, deadline)?;
            (again.layout != place.layout).then_some(again)
        }
    } else {
        Some(Place { cursor: next, run: Some(run), ..place })
    };
    Ok(Page { keys, next: next.map(|place| place.encode()) })
}

/// Where a scan stands.
struct Place {
    /// A number for how the slots lay when the scan began.
    layout: u64,
    node: String,
    /// The run of the server that gave the cursor.
    run: Option<String>,
    cursor: String,
}

impl Place {
    fn first(node: &str, layout: u64) -> Self {
        Self { layout, node: node.to_owned(), run: None, cursor: "0".to_owned() }
    }

    fn encode(&self) -> Cursor {
        let run = self.run.as_deref().unwrap_or_default();
        Cursor(format!("redis\n{:x}\n{}\n{run}\n{}", self.layout, self.node, self.cursor).into_bytes())
    }

    fn decode(cursor: &Cursor) -> Option<Self> {
        let mut lines = std::str::from_utf8(&cursor.0).ok()?.split('\n');
        if lines.next()? != "redis" {
            return None;
        }
        let layout = u64::from_str_radix(lines.next()?, 16).ok()?;
        let (node, run, cursor) = (lines.next()?.to_owned(), lines.next()?, lines.next()?.to_owned());
        cursor.parse::<u64>().ok()?;
        let run = (!run.is_empty()).then(|| run.to_owned());
        lines.next().is_none().then_some(Self { layout, node, run, cursor })
    }
}

/// Where a scan begins. While slots are on their way keys could be missed, and that is an error.
fn begin(store: &Inner, deadline: Instant) -> Result<Place> {
    let mut hasher = DefaultHasher::new();
    if let Servers::Cluster(cluster) = &store.servers {
        cluster.refresh(None, deadline, &store.settings)?;
        for node in store.servers.nodes() {
            let slots = slots_of(&node, deadline)?;
            if slots.contains('[') {
                let message = "slots of the redis cluster are on their way to another node, and a scan could miss \
                               keys; scan again when they have arrived";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            slots.hash(&mut hasher);
        }
    }
    match store.servers.nodes().first() {
        Some(node) => Ok(Place::first(&node.address, hasher.finish())),
        None => Err(Error::new(ErrorKind::Unavailable, "the redis cluster has no node")),
    }
}

/// What a node says of itself: its id, its place in the order of changes of the map, and its slots, those
/// on their way in brackets.
fn slots_of(node: &Arc<Node>, deadline: Instant) -> Result<String> {
    let answer = node.ask(&[cmd("CLUSTER").arg("NODES").take()], deadline)?.pop();
    let text = match answer {
        Some(Value::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Some(Value::VerbatimString { text, .. }) => text,
        Some(Value::ServerError(error)) => return Err(Failure::of_server(&error, &node.address).into()),
        _ => return Err(strange()),
    };
    let own = text.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")));
    let fields: Vec<&str> = own.unwrap_or_default().split(' ').collect();
    let told = fields.first().into_iter().chain(fields.get(6)).chain(fields.get(8..).unwrap_or_default());
    Ok(told.copied().collect::<Vec<_>>().join(" "))
}

/// The answer to `SCAN`: where to go on, and keys.
fn read(answer: Value, node: &Node) -> Result<(String, Vec<Value>)> {
    match answer {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::BulkString(next), Value::Array(keys)]) => {
                Ok((String::from_utf8(next).map_err(|_| strange())?, keys))
            }
            _ => Err(strange()),
        },
        Value::ServerError(error) => {
            let failure = Failure::of_server(&error, &node.address);
            // A cursor that no server ever gave.
            if failure.cure == Cure::None && error.details().is_some_and(|detail| detail.contains("invalid cursor")) {
                return Err(not_ours().with_source(Error::from(failure)));
            }
            Err(failure.into())
        }
        _ => Err(strange()),
    }
}

/// The run of the server, where the user may ask.
fn run_of(info: &Value) -> String {
    let find = |text: &str| text.lines().find_map(|line| line.trim_end().strip_prefix("run_id:").map(str::to_owned));
    match info {
        Value::BulkString(text) => find(&String::from_utf8_lossy(text)),
        Value::VerbatimString { text, .. } => find(text),
        _ => None,
    }
    .unwrap_or_else(|| "unknown".to_owned())
}

/// A key of a row, without the prefix. What begins with `!` is the store's own, with `=` the data's.
fn own(store: &Inner, key: &Value) -> Option<Key> {
    let Value::BulkString(key) = key else { return None };
    let key = std::str::from_utf8(key).ok()?.strip_prefix(&store.prefix)?;
    (!key.starts_with(['!', '='])).then(|| Key::new(key))
}

/// The text as a pattern that finds it and nothing else.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn not_ours() -> Error {
    Error::new(ErrorKind::Rejected, "this cursor is not of this store; begin again without one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_no_other_is_taken() {
        let place = Place { layout: 7, node: "[::1]:6379".into(), run: Some("ab".into()), cursor: "42".into() };
        let again = Place::decode(&place.encode()).unwrap();
        assert_eq!((again.layout, again.node, again.run, again.cursor), (7, place.node, place.run, place.cursor));
        for wrong in ["", "redis", "redis\n0\na\n\nx", "redis\n0\na\n\n1\n2", "other\n0\na\n\n1", "redis\nx\na\n\n1"] {
            assert!(Place::decode(&Cursor(wrong.into())).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_pattern_is_text() {
        assert_eq!(escape("a*[b]?^\\"), "a\\*\\[b\\]\\?\\^\\\\");
    }
}
