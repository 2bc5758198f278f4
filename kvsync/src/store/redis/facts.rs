//! What a server says of itself, and what follows from it: which of the promises it weakens.

use std::collections::HashMap;

use redis::Value;

use crate::store::Status;

/// What `INFO`, `CLUSTER INFO` and `CONFIG GET` say, by name.
#[derive(Debug, Default)]
pub(super) struct Facts(HashMap<String, String>);

impl Facts {
    /// Takes in the lines of `INFO` or `CLUSTER INFO`.
    pub(super) fn learn(&mut self, text: &str) {
        let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        self.0.extend(lines.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Takes in names and values of `CONFIG GET`, one after the other.
    pub(super) fn configured(&mut self, pairs: &[Value]) {
        for pair in pairs.chunks_exact(2) {
            if let [Value::BulkString(name), Value::BulkString(value)] = pair {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.0.insert(text(name), text(value));
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// A name for the run of the server.
    pub(super) fn run(&self, address: &str) -> String {
        self.get("run_id").map_or_else(|| format!("redis at {address}"), |run| format!("run {run}"))
    }

    /// A name for the life that the server's memory hangs on: its run, unless it keeps every write before
    /// it acknowledges it, and never was a replica that may have lacked some.
    pub(super) fn life(&self, address: &str) -> String {
        let keeps = self.get("aof_enabled") == Some("1") && self.get("appendfsync") == Some("always");
        if !keeps || self.was_replica() { self.run(address) } else { format!("redis at {address}") }
    }

    /// Whether it became a primary while it ran, in place of another.
    fn was_replica(&self) -> bool {
        self.get("master_replid2").is_some_and(|id| id.bytes().any(|byte| byte != b'0'))
    }

    /// Says what is worth knowing. `evicted` are the keys that were evicted since the server was started,
    /// and since it was last asked; `secret` is what it answered when it was asked for its settings and
    /// did not tell.
    pub(super) fn judge(
        &self,
        address: &str,
        evicted: Option<(u64, u64)>,
        secret: Option<&str>,
        found: &mut dyn FnMut(Status, String),
    ) {
        let mut found = |status, what: &str| found(status, format!("redis at {address} {what}"));
        if self.get("role") == Some("slave") {
            found(Status::Down, "is a read-only replica");
        }
        if self.get("loading") == Some("1") {
            found(Status::Down, "is still loading its data");
        }
        if self.get("cluster_state").is_some_and(|state| state != "ok") {
            found(Status::Down, "says that the cluster is down");
        }
        self.judge_memory(evicted, &mut found);
        self.judge_disk(secret, &mut found);
        if self.number("connected_slaves").unwrap_or(0) > 0 && self.number("min-replicas-to-write") == Some(0) {
            let what = "acknowledges writes that no replica has (`min-replicas-to-write 0`): a failover may lose them";
            found(Status::Up, what);
        }
        if self.was_replica() {
            found(Status::Up, "took over from another primary; what that one had not handed on is lost");
        }
    }

    fn judge_memory(&self, evicted: Option<(u64, u64)>, found: &mut impl FnMut(Status, &str)) {
        let policy = self.get("maxmemory_policy").unwrap_or("noeviction");
        let limit = self.number("maxmemory").unwrap_or(0);
        if policy != "noeviction" && limit > 0 {
            let what = if policy.starts_with("volatile-") {
                "forgets entries that have an end when it is full, those first that guard against late writes \
                 (`maxmemory-policy"
            } else {
                "forgets any entry when it is full (`maxmemory-policy"
            };
            let what = format!(
                "{what} {policy}`): a row may then answer under a key that it has left; set it to `noeviction`, or \
                 read with `fetch_strict`"
            );
            found(Status::Degraded, &what);
        }
        if let Some((all @ 1.., new)) = evicted {
            let new = if new > 0 { format!(", {new} of them since it was last asked") } else { String::new() };
            let what =
                format!("has evicted keys ({all} since it was started{new}); fetch strictly, or raise the epoch");
            found(Status::Degraded, &what);
        }
        let used = self.number("used_memory").unwrap_or(0);
        if policy == "noeviction" && limit > 0 && used >= limit {
            found(Status::Degraded, "is out of memory and takes no writes; raise its `maxmemory` or make room");
        }
    }

    fn judge_disk(&self, secret: Option<&str>, found: &mut impl FnMut(Status, &str)) {
        if let Some(code) = secret {
            let what = format!(
                "does not tell its settings (`CONFIG GET`: {code}; `ACL SETUSER .. +config|get` allows it): how often \
                 it writes to disk, and whether it waits for replicas, is not known"
            );
            found(Status::Up, &what);
        }
        let aof = self.get("aof_enabled");
        match (aof, self.get("appendfsync")) {
            (Some("1"), Some("everysec")) => {
                let what = "writes to disk every second: a crash of its machine loses what it acknowledged last";
                found(Status::Up, what);
            }
            (Some("1"), Some("no")) => {
                found(Status::Up, "writes to disk when its system does: a crash of its machine loses what came after");
            }
            _ => {}
        }
        match (aof, self.get("save")) {
            (Some("0"), Some("")) => {
                found(Status::Up, "has no append-only file and no snapshots: all that it holds is lost when it stops");
            }
            (Some("0"), Some(_)) => {
                found(Status::Up, "has no append-only file: what came after its last snapshot is lost when it crashes");
            }
            (Some("0"), None) => {
                found(Status::Up, "has no append-only file: what it acknowledged last is lost when it stops");
            }
            _ => {}
        }
        if self.get("aof_last_write_status") == Some("err") {
            found(Status::Degraded, "cannot write its append-only file");
        }
        if self.get("rdb_last_bgsave_status") == Some("err") {
            found(Status::Degraded, "cannot write its snapshots");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &[&str]) -> Facts {
        let mut facts = Facts::default();
        facts.learn(&lines.join("\r\n"));
        facts
    }

    #[test]
    fn a_run_is_a_life_unless_nothing_is_lost_with_it() {
        let life = |lines: &[&str]| facts(lines).life("a:1");
        assert_eq!(life(&["run_id:x", "aof_enabled:0"]), "run x");
        assert_eq!(life(&["run_id:x", "aof_enabled:1", "appendfsync:everysec"]), "run x");
        assert_eq!(life(&["run_id:x", "aof_enabled:1", "appendfsync:always"]), "redis at a:1");
        let promoted = ["run_id:x", "aof_enabled:1", "appendfsync:always", "master_replid2:00f0"];
        assert_eq!(life(&promoted), "run x");
        assert_eq!(life(&[]), "redis at a:1", "the user may not ask");
    }

    #[test]
    fn a_policy_is_told_by_what_it_forgets() {
        let told = |policy: &str, limit: &str| {
            let mut told = Vec::new();
            let facts = facts(&[&format!("maxmemory_policy:{policy}"), &format!("maxmemory:{limit}")]);
            facts.judge("a:1", Some((0, 0)), None, &mut |status, what| told.push((status, what)));
            told
        };
        assert_eq!(told("noeviction", "100"), []);
        assert_eq!(told("allkeys-lru", "0"), [], "it is never full");
        for (policy, what) in [("allkeys-random", "forgets any entry"), ("volatile-ttl", "those first that guard")] {
            let told = told(policy, "100");
            assert_eq!((told.len(), told[0].0), (1, Status::Degraded));
            assert!(told[0].1.contains(what) && told[0].1.contains(policy), "{told:?}");
        }
    }
}
