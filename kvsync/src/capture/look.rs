//! Finds the plan of a statement, fast.

use std::any::{TypeId, type_name};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::query_builder::{QueryBuilder, QueryFragment, QueryId};

use super::backend::SyncBackend;
use super::hub::Hub;
use super::plan::{Caching, Planned, plan};
use super::slot::SLOTS;

/// The plans of the statements that one connection has seen.
pub(super) struct Plans<DB: SyncBackend> {
    by_type: HashMap<TypeId, Known<DB>, Hashed>,
    by_text: HashMap<u64, Remembered<DB>, Hashed>,
    /// The texts that were seen once.
    seen: HashSet<u64, Hashed>,
}

enum Known<DB: SyncBackend> {
    Planned(Planned<DB>),
    /// The text is not the same for all statements of the type.
    Varies,
}

struct Remembered<DB: SyncBackend> {
    text: Box<str>,
    planned: Planned<DB>,
}

/// How many texts that were seen once are kept in mind.
const SEEN: usize = 4096;

impl<DB: SyncBackend> Default for Plans<DB> {
    fn default() -> Self {
        Self { by_type: HashMap::default(), by_text: HashMap::default(), seen: HashSet::default() }
    }
}

impl<DB: SyncBackend> Plans<DB> {
    /// What is done with this statement.
    pub(super) fn look<T>(&mut self, hub: &Hub<DB>, source: &T) -> QueryResult<Planned<DB>>
    where
        T: QueryFragment<DB> + QueryId,
    {
        // Most statements are these. The name is not promised to stay; if it changes, this costs time only.
        if type_name::<T>().starts_with("diesel::query_builder::select_statement::") {
            return Ok(Planned::Pass);
        }
        let Some(id) = T::query_id() else { return self.look_text(hub, source) };
        match self.by_type.get(&id) {
            Some(Known::Planned(planned)) => return Ok(planned.clone()),
            Some(Known::Varies) => return self.look_text(hub, source),
            None => {}
        }
        if !source.is_safe_to_cache_prepared(&DB::default())? {
            self.by_type.insert(id, Known::Varies);
            return self.look_text(hub, source);
        }
        let planned = plan(hub, &text(source)?, Caching::Id(TypeId::of::<Ours<T::QueryId>>()));
        self.by_type.insert(id, Known::Planned(planned.clone()));
        Ok(planned)
    }

    /// Diesel prepares an UPDATE, and an INSERT of a derived `Insertable`, anew each time: their text
    /// depends on which fields are set. Of most programs there are few such texts, and they come again
    /// and again; so those that come twice are remembered, as long as there is room.
    fn look_text<T>(&mut self, hub: &Hub<DB>, source: &T) -> QueryResult<Planned<DB>>
    where
        T: QueryFragment<DB>,
    {
        // Diesel's builder begins without room and grows a dozen times; blanks in front make it begin with some.
        let mut sql = DB::QueryBuilder::default();
        sql.push_sql(ROOM);
        source.to_sql(&mut sql, &DB::default())?;
        let sql = sql.finish();
        let text = sql.get(ROOM.len()..).unwrap_or_default();
        if !is_built::<T>() {
            let cached = source.is_safe_to_cache_prepared(&DB::default())?;
            return Ok(plan(hub, text, if cached { Caching::Text } else { Caching::Never }));
        }
        let hash = hash(text);
        match self.by_text.get(&hash) {
            Some(known) if *known.text == *text => return Ok(known.planned.clone()),
            // Another text has the same hash.
            Some(_) => return Ok(plan(hub, text, Caching::Never)),
            None => {}
        }
        if self.seen.len() >= SEEN {
            self.seen.clear();
        }
        let slot = if self.seen.insert(hash) { None } else { SLOTS.get(self.by_text.len()) };
        let Some(slot) = slot else { return Ok(plan(hub, text, Caching::Never)) };
        let planned = plan(hub, text, if DB::TYPED_BINDS { Caching::Text } else { Caching::Id(*slot) });
        self.by_text.insert(hash, Remembered { text: text.into(), planned: planned.clone() });
        Ok(planned)
    }
}

/// About as long as most statements.
const ROOM: &str = "                                                                                                                                ";

/// Whether the statement was built by Diesel: then its values are binds, and no part of its text.
fn is_built<T>() -> bool {
    let name = type_name::<T>().strip_prefix("diesel::query_builder::").unwrap_or_default();
    ["insert_statement::", "update_statement::", "delete_statement::"].iter().any(|module| name.starts_with(module))
}

/// The SQL of a statement.
pub(super) fn text<DB: SyncBackend, T: QueryFragment<DB>>(source: &T) -> QueryResult<String> {
    let mut sql = DB::QueryBuilder::default();
    source.to_sql(&mut sql, &DB::default())?;
    Ok(sql.finish())
}

/// A hash that is fast and no more: what it finds is compared.
fn hash(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    let mixed = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    // The low bits are the weak ones, and the ones that a table looks at first.
    words.chain(rest).fold(0_u64, mixed).rotate_left(26)
}

/// Tells the id of a statement as we run it from that of the caller's.
struct Ours<T: ?Sized>(PhantomData<T>);

/// For keys that are hashes already.
type Hashed = BuildHasherDefault<Same>;

#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
