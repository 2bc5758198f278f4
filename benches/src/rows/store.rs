//! From COMMIT to stored in Redis, against pipelines by hand.

use kvsync::capture::Database;
use kvsync::store::redis::RedisStore;

use crate::by_hand::{ClusterSets, Entries, Scripts, Sets};
use crate::clock::Clock;
use crate::models::{Account, User, user};
use crate::options::Options;
use crate::ratio::Turns;
use crate::synced::Synced;
use crate::table::{Figure, Goal};
use crate::{Result, servers};

const ROWS: u16 = 20_000;

/// One key a model.
pub(crate) fn one_key(options: &Options) -> Result<Vec<Figure>> {
    let mut ours = Synced::start(RedisStore::connect(servers::redis()?)?, ROWS.into(), Database::model::<Account>)?;
    ours.once(ROWS.into())?;
    let client = redis::Client::open(servers::redis()?)?;
    let keys = || (1..=ROWS).map(|id| format!("account:id:{id}"));
    let entries = || -> Result<Entries> { Entries::of(&mut client.get_connection()?, keys()) };
    let mut script = Scripts::load(client.get_connection()?, entries()?)?;
    let mut sets = Sets { conn: client.get_connection()?, entries: entries()? };
    let to_script = turns(options).measure(&mut ours, &mut script)?;
    let to_sets = turns(options).measure(&mut ours, &mut sets)?;
    Ok(vec![
        to_script.speeds("rows/s, commit to Redis, one key ÷ pipeline of the same script", Goal::AtLeast(0.9)),
        to_sets.speeds("rows/s, commit to Redis, one key ÷ pipeline of SET", Goal::AtLeast(0.5)),
    ])
}

/// Three keys a model, one of which never changes.
pub(crate) fn three_keys(options: &Options) -> Result<Vec<Figure>> {
    let mut ours = Synced::start(RedisStore::connect(servers::redis()?)?, ROWS.into(), Database::model::<User>)?;
    ours.once(ROWS.into())?;
    let client = redis::Client::open(servers::redis()?)?;
    let entries = Entries::of(&mut client.get_connection()?, user_keys())?;
    let mut sets = Sets { conn: client.get_connection()?, entries };
    let rounds = turns(options).measure(&mut ours, &mut sets)?;
    Ok(vec![rounds.speeds("rows/s, commit to Redis, three keys ÷ pipeline of three SETs", Goal::AtLeast(0.5))])
}

/// The same on a cluster of three.
pub(crate) fn cluster(options: &Options) -> Result<Vec<Figure>> {
    let nodes = servers::redis_cluster()?;
    let store = RedisStore::cluster(&nodes)?;
    let mut ours = Synced::start(store, ROWS.into(), Database::model::<User>)?;
    ours.once(ROWS.into())?;
    let client = redis::cluster::ClusterClient::new(nodes)?;
    let entries = Entries::of(&mut client.get_connection()?, user_keys())?;
    let mut sets = ClusterSets { conn: client.get_connection()?, entries };
    let rounds = turns(options).measure(&mut ours, &mut sets)?;
    Ok(vec![rounds.speeds("rows/s, commit to a cluster of 3, three keys ÷ pipeline of three SETs", Goal::Reported)])
}

fn turns(options: &Options) -> Turns {
    Turns { clock: Clock::Wall, rounds: options.rounds(15), each: 2, operations: ROWS.into() }
}

fn user_keys() -> impl Iterator<Item = String> {
    (0..ROWS).flat_map(|number| {
        let user = user(i32::from(number));
        let (id, uuid) = (i32::from(number) + 1, user.uuid);
        [format!("user:id:{id}"), format!("user:uuid:{uuid}"), format!("user:composite:{id}_{uuid}")]
    })
}
