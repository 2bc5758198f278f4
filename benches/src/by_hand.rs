//! The other side where rows are synced: a program that has the keys and the bytes, and writes them by pipelines.

use redis::cluster::{ClusterConnection, ClusterPipeline};
use redis::{Connection, Pipeline};

use crate::Result;
use crate::ratio::Side;

/// Commands of one pipeline; measured, more gain nothing.
const COMMANDS: usize = 1000;
/// Entries of one call of the script, as many as kvsync puts into one.
const ENTRIES: usize = 128;
/// Where the version stands in an entry.
const VERSION: std::ops::Range<usize> = 4..20;

/// What a program by hand writes: keys of its own, with the bytes that kvsync stored.
#[derive(Default)]
pub(crate) struct Entries {
    entries: Vec<(String, Vec<u8>)>,
}

impl Entries {
    /// Reads what stands under these keys of kvsync's.
    pub(crate) fn of(conn: &mut dyn redis::ConnectionLike, keys: impl Iterator<Item = String>) -> Result<Self> {
        let mut entries = Vec::new();
        for key in keys {
            let bytes: Option<Vec<u8>> = redis::cmd("GET").arg(format!("kvsync:{key}")).query(conn)?;
            let bytes = bytes.ok_or_else(|| format!("nothing is stored under `{key}`"))?;
            entries.push((format!("byhand:{key}"), bytes));
        }
        Ok(Self { entries })
    }

    /// Raises the version of each, so that none is refused.
    fn age(&mut self) {
        for (_, bytes) in &mut self.entries {
            let Some(version) = bytes.get_mut(VERSION) else { continue };
            for byte in version.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }
}

/// SETs in pipelines on one connection.
pub(crate) struct Sets {
    pub(crate) conn: Connection,
    pub(crate) entries: Entries,
}

impl Side for Sets {
    fn run(&mut self, _: usize) -> Result {
        for chunk in self.entries.entries.chunks(COMMANDS) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for (key, bytes) in chunk {
                pipeline.set(key, bytes).ignore();
            }
            pipeline.query::<()>(&mut self.conn)?;
        }
        Ok(())
    }
}

/// SETs in pipelines on a cluster.
pub(crate) struct ClusterSets {
    pub(crate) conn: ClusterConnection,
    pub(crate) entries: Entries,
}

impl Side for ClusterSets {
    fn run(&mut self, _: usize) -> Result {
        for chunk in self.entries.entries.chunks(COMMANDS) {
            let mut pipeline = ClusterPipeline::with_capacity(chunk.len());
            for (key, bytes) in chunk {
                pipeline.set(key, bytes).ignore();
            }
            pipeline.query::<()>(&mut self.conn)?;
        }
        Ok(())
    }
}

/// The script by which kvsync writes entries that stand alone, in pipelines on one connection.
pub(crate) struct Scripts {
    conn: Connection,
    entries: Entries,
    hash: String,
}

impl Scripts {
    pub(crate) fn load(mut conn: Connection, entries: Entries) -> Result<Self> {
        let text = concat!(
            include_str!("../../kvsync/src/store/redis/lua/write.lua"),
            include_str!("../../kvsync/src/store/redis/lua/write_many.lua")
        );
        let hash = redis::cmd("SCRIPT").arg("LOAD").arg(text).query(&mut conn)?;
        Ok(Self { conn, entries, hash })
    }
}

impl Side for Scripts {
    fn prepare(&mut self, _: usize) -> Result {
        self.entries.age();
        Ok(())
    }

    fn run(&mut self, _: usize) -> Result {
        for chunk in self.entries.entries.chunks(COMMANDS) {
            let mut pipeline = Pipeline::new();
            for call in chunk.chunks(ENTRIES) {
                pipeline.cmd("EVALSHA").arg(&self.hash).arg(call.len());
                for (key, _) in call {
                    pipeline.arg(key);
                }
                // Entries that stand alone, at no particular time, kept for no longer, none of which ends, and small ones.
                pipeline.arg("r").arg(0).arg(0).arg(0).arg(1);
                for (_, bytes) in call {
                    pipeline.arg(bytes);
                }
            }
            let lost: Vec<Vec<u32>> = pipeline.query(&mut self.conn)?;
            if lost.iter().any(|lost| !lost.is_empty()) {
                return Err("the script refused an entry that is newer".into());
            }
        }
        Ok(())
    }
}
