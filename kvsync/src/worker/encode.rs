use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use crate::change::{Change, Row, Unknown};
use crate::clock::{millis, whole_millis};
use crate::envelope::{Head, State, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::{Model, Schema, Ttl, guarded};
use crate::record::{Content, Delta, Form, Listed, Order, Terms, Write, register};
use crate::store::Capabilities;
use crate::transport::MessageFormat;
use crate::version::Version;

/// What an envelope and a ledger may add to a row's bytes, keys apart.
const OVERHEAD: usize = 128;

/// A change that was encoded, and the keys that had to be left out because the store cannot hold them.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) form: Form,
    pub(crate) left_out: Vec<(Key, Arc<Error>)>,
}

/// Turns changes into what one store takes.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) store: Arc<str>,
    pub(crate) capabilities: Capabilities,
    pub(crate) default_ttl: Option<Ttl>,
    /// The form in which changes are published; nothing where they are written.
    pub(crate) publishes: Option<MessageFormat>,
    /// Where rows become bytes, before these are copied to where they stay.
    pub(crate) room: RefCell<Vec<u8>>,
}

impl Encoder {
    /// The form of a change whose row is known. A panic of the model's code is an error like any other.
    pub(crate) fn certain(&self, change: &Change, terms: &Terms) -> Result<Encoded> {
        self.certain_at(change, &home_of(change)?, terms)
    }

    /// The same where the key that names the change's row is at hand.
    pub(crate) fn certain_at(&self, change: &Change, home: &Key, terms: &Terms) -> Result<Encoded> {
        guarded(change.schema, || match &change.row {
            Row::Live(row) => self.put(change, home, &**row),
            Row::Hidden(row) => Ok(self.delete(change, home, &**row, false, terms)),
            Row::Deleted { row, live } => Ok(self.delete(change, home, &**row, *live, terms)),
            Row::Absent(unknown) => {
                Ok(Encoded { form: absent_form(change, home, unknown, terms), left_out: Vec::new() })
            }
            Row::Unknown(unknown) => {
                let form = unknown_form(
                    change.schema,
                    &change.scope,
                    unknown.primary_key.home(),
                    change.version,
                    &unknown.kept,
                    terms,
                );
                Ok(Encoded { form, left_out: Vec::new() })
            }
        })?
    }

    fn put(&self, change: &Change, home: &Key, row: &dyn Model) -> Result<Encoded> {
        let schema = change.schema;
        let value = self.value(row)?;
        let expires_at = self.expires_at(schema, home, change.captured_at);
        let mut left_out = Vec::new();
        let mut keys = Vec::with_capacity(schema.keys.len());
        for (key, pointer) in keys_of(schema, row, &change.scope) {
            if self.capabilities.takes(&key) {
                keys.push(Listed { key, pointer });
            } else {
                let error = self.too_large("the key", &key, key.as_str().len(), self.capabilities.max_key);
                left_out.push((key, Arc::new(error)));
            }
        }
        let size =
            value.as_bytes().len() + OVERHEAD + keys.iter().map(|listed| listed.key.as_str().len() + 5).sum::<usize>();
        if size > self.capabilities.max_value {
            return Err(self.too_large("the entry of", home, size, self.capabilities.max_value));
        }
        if schema.has_mutable_key() {
            let content = Content::Put { value, expires_at, keys };
            let delta = Delta { home: home.clone(), version: change.version, content, gone: Vec::new() };
            return Ok(Encoded { form: Form::Row(delta), left_out });
        }
        let head = Head { version: change.version, state: State::Value, expires_at };
        // A row without a record is pointed to by the key made of its primary key, where it has one.
        let primary = || Some(row.key(schema.primary?)?.within(&change.scope));
        let write = |listed: Listed| {
            let primary = if listed.pointer { primary() } else { None };
            let value = match &primary {
                Some(primary) if *primary != listed.key => Value::pointer(primary),
                _ => value.clone(),
            };
            Write { key: listed.key, head, value, order: Order::Register }
        };
        Ok(Encoded { form: Form::Registers(keys.into_iter().map(write).collect()), left_out })
    }

    /// The bytes of a row.
    pub(super) fn value(&self, row: &dyn Model) -> Result<Value> {
        let mut room = self.room.borrow_mut();
        room.clear();
        row.encode(&mut room)?;
        Ok(Value::model(row.codec(), row.schema().fields, &room))
    }

    fn delete(&self, change: &Change, home: &Key, row: &dyn Model, gone: bool, terms: &Terms) -> Encoded {
        let keys = keys_of(change.schema, row, &change.scope).map(|(key, _)| key);
        // What the store cannot hold was never written there.
        let keys = keys.filter(|key| self.capabilities.takes(key));
        let form = if change.schema.has_mutable_key() {
            let gone = if gone { keys.map(|key| (key, change.version)).collect() } else { Vec::new() };
            Form::Row(Delta { home: home.clone(), version: change.version, content: Content::Delete, gone })
        } else {
            Form::Registers(keys.map(|key| register(key, change.version, State::Tombstone, terms)).collect())
        };
        Encoded { form, left_out: Vec::new() }
    }

    /// When the entry ends. Chance is drawn from the home key: so a row's record, its copies and every
    /// repetition agree, and a later change never ends sooner than an earlier one.
    fn expires_at(&self, schema: &Schema, home: &Key, captured_at: SystemTime) -> u64 {
        let Some(ttl) = schema.ttl.or(self.default_ttl) else { return 0 };
        let mut hasher = DefaultHasher::new();
        home.hash(&mut hasher);
        #[allow(clippy::cast_precision_loss, reason = "a share needs no more precision")]
        let share = hasher.finish() as f64 / u64::MAX as f64;
        let lifetime = ttl.lifetime.mul_f64(1.0 - ttl.jitter.clamp(0.0, 1.0) * share);
        millis(captured_at).saturating_add(whole_millis(lifetime)).max(1)
    }

    fn too_large(&self, what: &str, key: &Key, size: usize, most: usize) -> Error {
        Error::new(
            ErrorKind::Rejected,
            format!("{what} `{key}` takes {size} bytes, {} holds at most {most}; make the model narrower", self.store),
        )
    }
}

/// The form of a row that was written, with what content is not known.
pub(crate) fn unknown_form(
    schema: &Schema,
    scope: &Scope,
    home: &Key,
    version: Version,
    kept: &[Key],
    terms: &Terms,
) -> Form {
    if schema.has_mutable_key() {
        let home = home.clone().within(scope);
        return Form::Row(Delta { home, version, content: Content::Unknown, gone: Vec::new() });
    }
    Form::Registers(
        kept.iter().map(|key| register(key.clone().within(scope), version, State::Unknown, terms)).collect(),
    )
}

/// The form of a row that is not there. Of keys without a record only the one made of the primary key is
/// certain to be the row's own. The others may have another tenant by now: their readers are sent to the
/// database.
fn absent_form(change: &Change, home: &Key, unknown: &Unknown, terms: &Terms) -> Form {
    if change.schema.has_mutable_key() {
        let home = home.clone();
        return Form::Row(Delta { home, version: change.version, content: Content::Delete, gone: Vec::new() });
    }
    let own = change.schema.home().map(|_| register(home.clone(), change.version, State::Tombstone, terms));
    let kept = unknown.kept.iter().map(|key| key.clone().within(&change.scope)).filter(|key| key != home);
    let kept = kept.map(|key| register(key, change.version, State::Unknown, terms));
    Form::Registers(own.into_iter().chain(kept).collect())
}

/// What is left of a change when its content is let go of, though the model's code may panic.
pub(crate) fn unknown_of(change: &Change) -> Result<Unknown> {
    let mut unknown = guarded(change.schema, || change.row.unknown())?;
    // The key made of the primary key is known even where the others are not.
    let home = unknown.primary_key.home();
    if !change.schema.has_mutable_key() && change.schema.home().is_some() && !unknown.kept.contains(home) {
        unknown.kept.push(home.clone());
    }
    Ok(unknown)
}

/// The key that names the change's row, though the model's code may panic.
pub(crate) fn home_of(change: &Change) -> Result<Key> {
    guarded(change.schema, || change.home())
}

/// The keys that a change is about, each with its name, the record's first.
pub(crate) fn named_keys(change: &Change) -> Vec<(Option<&'static str>, Key)> {
    let schema = change.schema;
    let name = |index: usize| schema.keys.get(index).map(|spec| spec.name);
    let keys = guarded(schema, || {
        let home = schema.has_mutable_key().then(|| (schema.home().and_then(name), change.home()));
        let others: Vec<_> = match &change.row {
            Row::Live(row) | Row::Hidden(row) | Row::Deleted { row, .. } => (0..schema.keys.len())
                .filter(|index| home.is_none() || schema.home() != Some(*index))
                .filter_map(|index| Some((name(index), row.key(index)?.within(&change.scope))))
                .collect(),
            Row::Unknown(unknown) | Row::Absent(unknown) => {
                unknown.kept.iter().map(|key| (None, key.clone().within(&change.scope))).collect()
            }
        };
        home.into_iter().chain(others).collect()
    });
    keys.unwrap_or_default()
}

/// The keys of a row beside its record's, and whether each is a pointer.
fn keys_of<'a>(schema: &'a Schema, row: &'a dyn Model, scope: &'a Scope) -> impl Iterator<Item = (Key, bool)> + 'a {
    let home = if schema.has_mutable_key() { schema.home() } else { None };
    let specs = schema.keys.iter().enumerate().filter(move |(index, _)| Some(*index) != home);
    specs.filter_map(move |(index, spec)| Some((row.key(index)?.within(scope), spec.pointer)))
}
