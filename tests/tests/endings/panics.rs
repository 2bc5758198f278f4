//! The code of a model panics, wherever kvsync calls it: rows that do not make it panic are synced, and all
//! goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::backend::Backend;
use diesel::connection::SimpleConnection;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel_migrations::MigrationHarness;
use kvsync::capture::{Database, SyncConnection};
use kvsync::codec::{Codec, MessagePack};
use kvsync::report::Report;
use kvsync::store::MemoryStore;
use kvsync::{Builder, KeyPart, KvSync, PartWriter, Syncable};
use kvsync_tests::Tested;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LONG, open, until};

diesel::table! {
    words (id) {
        id -> Integer,
        word -> Text,
    }
}

diesel::table! {
    names (name) {
        name -> Text,
        size -> Integer,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Deserialize, Serialize, Syncable)]
#[diesel(table_name = words)]
#[sync(codec = Touchy)]
#[sync_key(name = "id", fmt = "word:id:<id>")]
#[sync_key(name = "word", fmt = "word:is:<word>")]
struct Word {
    id: i32,
    word: Panicky,
}

/// The primary key itself is what panics.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Deserialize, Serialize, Syncable)]
#[diesel(table_name = names, primary_key(name))]
#[sync_key(name = "name", fmt = "name:is:<name>")]
#[sync_key(name = "size", fmt = "name:of:<size>")]
struct Name {
    name: Panicky,
    size: i32,
}

/// A text that panics in the place that it names, while [`TOUCHY`] is set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
struct Panicky(String);

static TOUCHY: AtomicBool = AtomicBool::new(false);

const PLACES: [&str; 6] = ["from_sql", "serialize", "deserialize", "key", "encode", "decode"];

impl Panicky {
    fn at(&self, place: &str) {
        assert!(!(TOUCHY.load(Ordering::Relaxed) && self.0 == place), "the model would rather not");
    }
}

impl FromSql<Text, Sqlite> for Panicky {
    fn from_sql(bytes: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let text = Self(FromSql::<Text, Sqlite>::from_sql(bytes)?);
        text.at("from_sql");
        Ok(text)
    }
}

impl ToSql<Text, Sqlite> for Panicky {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_str());
        Ok(IsNull::No)
    }
}

impl Serialize for Panicky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at("serialize");
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Panicky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Self(String::deserialize(deserializer)?);
        text.at("deserialize");
        Ok(text)
    }
}

impl KeyPart for Panicky {
    fn write(&self, part: &mut PartWriter<'_>) {
        self.at("key");
        part.text(&self.0);
    }
}

/// A codec that does what no codec may.
struct Touchy;

impl Codec for Touchy {
    const ID: u8 = 99;
    const NAME: &'static str = "touchy";

    fn encode<T: Serialize>(model: &T) -> kvsync::Result<Vec<u8>> {
        let bytes = MessagePack::encode(model)?;
        touch(&bytes, "encode");
        Ok(bytes)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> kvsync::Result<T> {
        touch(bytes, "decode");
        MessagePack::decode(bytes)
    }
}

fn touch(bytes: &[u8], place: &str) {
    let named = bytes.windows(place.len()).any(|window| window == place.as_bytes());
    assert!(!(TOUCHY.load(Ordering::Relaxed) && named), "the codec would rather not");
}

struct House {
    kv: KvSync,
    path: String,
    _dir: tempfile::TempDir,
}

impl House {
    fn new(
        database: impl FnOnce(Database<Sqlite>) -> Database<Sqlite>,
        build: impl FnOnce(Builder) -> Builder,
    ) -> Tested<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("app.db").to_string_lossy().into_owned();
        let own = path.clone();
        let made = "CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
                    CREATE TABLE names (name TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL UNIQUE);";
        open(&path)?.batch_execute(made)?;
        let database = database(Database::<Sqlite>::new("main", move || open(&own)));
        let kv = build(KvSync::builder().store(MemoryStore::new()).database(database)).build()?;
        Ok(Self { kv, path, _dir: dir })
    }

    fn connect(&self) -> Tested<SyncConnection<SqliteConnection>> {
        Ok(self.kv.connect::<Sqlite>("main")?)
    }

    /// Writes a word for each place that panics, and one between any two; each statement succeeds.
    fn write(&self) -> Tested {
        let mut conn = self.connect()?;
        conn.transaction(|conn| {
            for (id, word) in (0..).zip(texts()) {
                // In savepoints, because what unwinds through one would leave it open.
                conn.transaction(|conn| {
                    let word = words::word.eq(word);
                    diesel::insert_into(words::table).values((words::id.eq(id), word)).execute(conn)
                })?;
            }
            QueryResult::Ok(())
        })?;
        for (size, name) in (0..).zip(texts()) {
            diesel::insert_into(names::table)
                .values((names::name.eq(name), names::size.eq(size)))
                .execute(&mut conn)?;
            diesel::update(names::table.find(Panicky(texts()[0].clone())))
                .set(names::size.eq(100))
                .execute(&mut conn)?;
        }
        Ok(())
    }

    /// What does not panic is there; what does is not, or as the database has it; and all threads end.
    fn ends_well(self) -> Tested {
        let until = Instant::now() + LONG;
        // What was given up is no longer waited for, and says so by name.
        while let Err(error) = self.kv.flush(Duration::from_millis(100)) {
            assert!(Instant::now() < until, "{error} {:?}", self.kv.health(LONG));
        }
        for (id, text) in (0..).zip(texts()) {
            let found = Word::lookup_by_id(&self.kv, id)?;
            let named = Name::lookup_by_name(&self.kv, Panicky(text.clone()))?;
            if !PLACES.contains(&text.as_str()) {
                let (word, name) = (Panicky(text.clone()), Panicky(text));
                assert_eq!(found.found(), Some(Word { id, word }));
                assert_eq!(named.found(), Some(Name { name, size: if id == 0 { 100 } else { id } }));
            }
        }
        let ended = self.kv.shutdown(LONG);
        assert_eq!((ended.threads, ended.left, ended.unsettled), (0, 0, 0), "{ended:?}");
        Ok(())
    }
}

/// Each place that panics, and a harmless word on either side.
fn texts() -> Vec<String> {
    let around = PLACES.iter().flat_map(|place| [format!("before {}", place.len()), (*place).to_owned()]);
    around.enumerate().map(|(at, text)| if at % 2 == 0 { format!("{at}") } else { text }).chain(["z".into()]).collect()
}

fn whole(database: Database<Sqlite>) -> Database<Sqlite> {
    database.model::<Word>().model::<Name>()
}

fn by_key(database: Database<Sqlite>) -> Database<Sqlite> {
    database.model_by_key::<Word>().model_by_key::<Name>()
}

/// While rows are captured, encoded and written.
pub(super) fn of_what_is_written() -> Tested {
    let house = House::new(whole, |builder| builder)?;
    TOUCHY.store(true, Ordering::Relaxed);
    house.write()?;
    // Readers may panic in their own code, on their own thread.
    TOUCHY.store(false, Ordering::Relaxed);
    house.ends_well()
}

/// While workers read rows again.
pub(super) fn of_what_is_read_again() -> Tested {
    let (panicked, reports) = std::sync::mpsc::channel();
    let tell = move |report: &Report| panicked.send(report.to_string()).unwrap_or_default();
    let house = House::new(by_key, |builder| builder.on_report(tell))?;
    TOUCHY.store(true, Ordering::Relaxed);
    house.write()?;
    // Until every row was tried.
    let last = Word { id: 12, word: Panicky("z".into()) };
    let until = Instant::now() + LONG;
    while Word::fetch_by_id(&house.kv, last.id)?.as_ref() != Some(&last) {
        assert!(Instant::now() < until, "{:?}", reports.try_iter().collect::<Vec<_>>());
        thread::yield_now();
    }
    TOUCHY.store(false, Ordering::Relaxed);
    house.ends_well()
}

/// While rows go through an outbox.
pub(super) fn of_what_is_in_an_outbox() -> Tested {
    let house = House::new(|database| whole(database).outbox(), |builder| builder)?;
    open(&house.path)?.run_pending_migrations(kvsync::capture::outbox::migrations())?;
    TOUCHY.store(true, Ordering::Relaxed);
    house.write()?;
    TOUCHY.store(false, Ordering::Relaxed);
    house.ends_well()
}

/// While a table is filled in, compared, mended, and compared again and again.
pub(super) fn of_what_is_compared() -> Tested {
    let house = House::new(whole, |builder| builder)?;
    house.write()?;
    house.kv.flush(LONG)?;
    TOUCHY.store(true, Ordering::Relaxed);
    let quickly = Duration::from_millis(1);
    for page in [1, 100] {
        let filled = [house.kv.backfill::<Word>(), house.kv.backfill::<Name>()];
        for filled in filled {
            let filled = filled.rows_per_page(page).run()?;
            assert_eq!(filled.rows, 13, "{filled:?}");
        }
        let verified = house.kv.verify_all().page(page).in_flight(quickly).run()?;
        assert!(verified.unreadable > 0, "{verified}");
        house.kv.repair_all().page(page).in_flight(quickly).run()?;
    }
    let verifier = house.kv.verifier().rate(u32::MAX).in_flight(quickly).start()?;
    until("two rounds", || verifier.report().rounds >= 2);
    drop(verifier);
    assert_eq!(house.kv.health(LONG).pipeline.restarts, 0);
    TOUCHY.store(false, Ordering::Relaxed);
    let repaired = house.kv.repair_all().in_flight(quickly).run()?;
    assert!(house.kv.verify_all().in_flight(quickly).run()?.is_clean(), "{repaired:?}");
    house.ends_well()
}
