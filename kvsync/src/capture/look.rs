//! Finds the plan of a statement, fast.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::query_builder::{QueryBuilder, QueryFragment, QueryId};

use super::backend::SyncBackend;
use super::hub::Hub;
use super::plan::{Caching, Planned, plan};

/// The plans of the statements that one connection has seen.
pub(super) struct Plans<DB: SyncBackend> {
    by_type: HashMap<TypeId, Known<DB>, BuildHasherDefault<IdHasher>>,
    by_text: HashMap<Box<str>, Planned<DB>, BuildHasherDefault<TextHasher>>,
}

enum Known<DB: SyncBackend> {
    Planned(Planned<DB>),
    /// The text is not the same for all statements of the type.
    Varies,
}

/// How many texts of statements without a type of their own are remembered: UPDATEs, and INSERTs of
/// columns with defaults. Diesel never caches an UPDATE, since there are as many as there are sets of
/// columns; of most programs there are few.
const TEXTS: usize = 256;

impl<DB: SyncBackend> Default for Plans<DB> {
    fn default() -> Self {
        Self { by_type: HashMap::default(), by_text: HashMap::default() }
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

    fn look_text<T>(&mut self, hub: &Hub<DB>, source: &T) -> QueryResult<Planned<DB>>
    where
        T: QueryFragment<DB>,
    {
        let text = text(source)?;
        if let Some(planned) = self.by_text.get(&*text) {
            return Ok(planned.clone());
        }
        let is_update = type_name::<T>().starts_with("diesel::query_builder::update_statement::");
        if !is_update && !source.is_safe_to_cache_prepared(&DB::default())? {
            return Ok(plan(hub, &text, Caching::Never));
        }
        let known = self.by_text.len();
        // Where the binds of one text may have several types, Diesel has to look at them.
        let cache = IDS.as_flattened().get(known).filter(|_| !DB::TYPED_BINDS);
        let planned = plan(hub, &text, cache.map_or(Caching::Text, |id| Caching::Id(*id)));
        if known < TEXTS {
            self.by_text.insert(text.into(), planned.clone());
        }
        Ok(planned)
    }
}

/// The SQL of a statement.
pub(super) fn text<DB: SyncBackend, T: QueryFragment<DB>>(source: &T) -> QueryResult<String> {
    let mut sql = DB::QueryBuilder::default();
    source.to_sql(&mut sql, &DB::default())?;
    Ok(sql.finish())
}

/// Tells the id of a statement as we run it from that of the caller's.
struct Ours<T: ?Sized>(PhantomData<T>);

/// Ids for the texts that a connection remembers.
const IDS: [[TypeId; 16]; TEXTS / 16] = {
    struct Nth<const HIGH: u8, const LOW: u8>;
    macro_rules! row {
        ($($high:literal)*) => { [$(each!($high: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
    }
    macro_rules! each {
        ($high:literal: $($low:literal)*) => { [$(TypeId::of::<Nth<$high, $low>>()),*] };
    }
    row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
};

/// A type's id is a hash already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Statements are the program's own, so a hash that is fast is enough.
#[derive(Default)]
struct TextHasher(u64);

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        // The low bits are the weak ones, and the ones that a table looks at first.
        self.0.rotate_left(26)
    }
}
