//! The Lua scripts, and how they are called.

use std::sync::LazyLock;
use std::time::Instant;

use redis::{Cmd, Value, cmd};

use super::connection::Connection;
use super::error::Failure;

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// Many changes, each as a whole, on a single server.
    Apply,
    /// One change into the record of its row.
    Merge,
    /// One entry.
    Write,
    /// Many entries, on a single server.
    WriteMany,
    /// Forgets what a record has left.
    Confirm,
    /// Removes an entry that is exactly what it is thought to be.
    Remove,
    /// Raises the epoch.
    Epoch,
    /// Says which rights are missing.
    Rights,
    /// Sets a string that is what it is thought to be.
    SetIfEqual,
    /// Deletes a key of any kind.
    Delete,
    /// Adds a field to a sorted hash.
    ZhAdd,
    /// Removes fields of a sorted hash.
    ZhRem,
    /// The value of a field of a sorted hash.
    ZhGet,
    /// What the scores of a sorted hash say.
    ZhScores,
    /// Adds to the score of a field of a sorted hash.
    ZhIncrBy,
    /// Fields of a sorted hash.
    ZhRange,
    /// Operations that happen as one.
    Atomic,
}

const SCRIPTS: [Script; 17] = [
    Script::Apply,
    Script::Merge,
    Script::Write,
    Script::WriteMany,
    Script::Confirm,
    Script::Remove,
    Script::Epoch,
    Script::Rights,
    Script::SetIfEqual,
    Script::Delete,
    Script::ZhAdd,
    Script::ZhRem,
    Script::ZhGet,
    Script::ZhScores,
    Script::ZhIncrBy,
    Script::ZhRange,
    Script::Atomic,
];

impl Script {
    const fn text(self) -> &'static str {
        match self {
            Self::Apply => concat!(include_str!("lua/record.lua"), include_str!("lua/apply.lua")),
            Self::Merge => concat!(include_str!("lua/record.lua"), include_str!("lua/merge.lua")),
            Self::Write => concat!(include_str!("lua/write.lua"), include_str!("lua/write_one.lua")),
            Self::WriteMany => concat!(include_str!("lua/write.lua"), include_str!("lua/write_many.lua")),
            Self::Confirm => concat!(include_str!("lua/record.lua"), include_str!("lua/confirm.lua")),
            Self::Remove => include_str!("lua/remove.lua"),
            Self::Epoch => include_str!("lua/epoch.lua"),
            Self::Rights => include_str!("lua/rights.lua"),
            Self::SetIfEqual => include_str!("lua/set_if_equal.lua"),
            Self::Delete => include_str!("lua/delete.lua"),
            Self::ZhAdd => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_add.lua")),
            Self::ZhRem => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_rem.lua")),
            Self::ZhGet => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_get.lua")),
            Self::ZhScores => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_scores.lua")),
            Self::ZhIncrBy => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_incr_by.lua")),
            Self::ZhRange => concat!(include_str!("lua/zh.lua"), include_str!("lua/zh_range.lua")),
            Self::Atomic => concat!(include_str!("lua/zh.lua"), include_str!("lua/atomic.lua")),
        }
    }

    /// What the server knows it by, once it was loaded.
    fn hash(self) -> &'static str {
        static HASHES: LazyLock<[String; SCRIPTS.len()]> =
            LazyLock::new(|| SCRIPTS.map(|script| redis::Script::new(script.text()).get_hash().to_owned()));
        HASHES.get(self as usize).map_or("", String::as_str)
    }

    /// A call with this many keys. Append the keys, then the arguments.
    pub(super) fn call(self, keys: usize, size: usize) -> Cmd {
        let mut command = Cmd::with_capacity(keys * 2 + 8, size + 64);
        command.arg("EVALSHA").arg(self.hash()).arg(keys);
        command
    }
}

/// Loads every script into a server that has forgotten them or never knew them.
pub(super) fn load(connection: &mut Connection, address: &str, deadline: Instant) -> Result<(), Failure> {
    let mut commands = Vec::new();
    for script in SCRIPTS {
        cmd("SCRIPT").arg("LOAD").arg(script.text()).write_packed_command(&mut commands);
    }
    connection.send(&commands, address, deadline)?;
    let mut refused = None;
    for _ in SCRIPTS {
        if let Value::ServerError(error) = connection.receive(address, deadline)? {
            refused = Some(Failure::of_server(&error, address));
        }
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_its_own_hash() {
        for (index, script) in SCRIPTS.into_iter().enumerate() {
            assert_eq!(script as usize, index);
            assert_eq!(script.hash(), redis::Script::new(script.text()).get_hash());
        }
    }
}
