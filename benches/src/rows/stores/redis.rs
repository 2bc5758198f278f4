use std::hint::black_box;

use bytes::Bytes;
use kvsync::store::redis::RedisStore;
use redis::cluster::{ClusterClient, ClusterConnection, ClusterPipeline};
use redis::{Commands, Connection, ConnectionLike, Pipeline, RedisResult};

use super::sides::{Bare, By, compare};
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::Turns;
use crate::table::{Figure, Goal};
use crate::{Result, servers};

/// One server, against a connection of redis-rs.
pub(crate) fn single(options: &Options) -> Result<Vec<Figure>> {
    let store = RedisStore::connect(servers::redis()?)?;
    let conn = redis::Client::open(servers::redis()?)?.get_connection()?;
    let sets = |conn: &mut Connection, keys: &[String], value: &Bytes| {
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.set(key, &value[..]).ignore();
        }
        pipeline.query(conn)
    };
    compare(&store, &mut Client::load(conn, sets)?, turns(options), &BY)
}

/// A cluster of three, against a cluster connection of redis-rs.
pub(crate) fn cluster(options: &Options) -> Result<Vec<Figure>> {
    let nodes = servers::redis_cluster()?;
    let store = RedisStore::cluster(&nodes)?;
    let conn = ClusterClient::new(nodes)?.get_connection()?;
    let sets = |conn: &mut ClusterConnection, keys: &[String], value: &Bytes| {
        let mut pipeline = ClusterPipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.set(key, &value[..]).ignore();
        }
        pipeline.query(conn)
    };
    compare(&store, &mut Client::load(conn, sets)?, turns(options), &BY)
}

/// The server's work and the way there count; what the client alone costs is told beside.
const BY: By<2> = By { clocks: [Clock::Wall, Clock::Process], goal: Goal::AtLeast(0.95) };

fn turns(options: &Options) -> Turns {
    Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 40 }
}

struct Client<C> {
    conn: C,
    sets: fn(&mut C, &[String], &Bytes) -> RedisResult<()>,
    hash: String,
}

impl<C: ConnectionLike> Client<C> {
    /// With the script by which kvsync writes one entry, on every server.
    fn load(mut conn: C, sets: fn(&mut C, &[String], &Bytes) -> RedisResult<()>) -> Result<Self> {
        let text = concat!(
            include_str!("../../../../kvsync/src/store/redis/lua/write.lua"),
            include_str!("../../../../kvsync/src/store/redis/lua/write_one.lua")
        );
        let hash = redis::cmd("SCRIPT").arg("LOAD").arg(text).query(&mut conn)?;
        Ok(Self { conn, sets, hash })
    }
}

impl<C: ConnectionLike> Bare for Client<C> {
    fn get(&mut self, key: &str) -> Result<bool> {
        let value: Option<Vec<u8>> = self.conn.get(key)?;
        Ok(black_box(value).is_some())
    }

    fn set(&mut self, key: &str, value: &Bytes) -> Result {
        Ok(self.conn.set(key, &value[..])?)
    }

    /// One pipeline.
    fn set_many(&mut self, keys: &[String], value: &Bytes) -> Result {
        Ok((self.sets)(&mut self.conn, keys, value)?)
    }

    /// `EVALSHA` of the same script: an entry that stands alone, at no particular time, kept for no longer.
    fn put_if_newer(&mut self, key: &str, entry: &[u8]) -> Result<bool> {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(1).arg(key).arg("r").arg(0).arg(0).arg(entry);
        Ok(call.query::<u32>(&mut self.conn)? == 1)
    }
}
