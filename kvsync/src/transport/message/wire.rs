//! The map that a message is.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::text::{Bin, Ordered};
use super::{About, ChangeMessage, FORMAT, verb};
use crate::change::Action;
use crate::clock::millis;
use crate::envelope::{Body, Head, State, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::record::{Content, Delta, Form, Listed, Order, Write};
use crate::version::Version;

/// The later half of the times that a 64-bit number of milliseconds can tell: no clock shows them.
const LAST: u64 = u64::MAX / 2;

/// What every version of the format has.
#[derive(Deserialize)]
pub(super) struct Probe {
    pub(super) kvsync: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "the map of a message")]
pub(super) struct Wire<'a> {
    pub(super) kvsync: u32,
    database: Cow<'a, str>,
    table: Cow<'a, str>,
    model: Cow<'a, str>,
    #[serde(default)]
    scope: Cow<'a, str>,
    action: Cow<'a, str>,
    primary_key: Cow<'a, str>,
    home: Cow<'a, str>,
    version: Ordered,
    captured_at: u64,
    state: Known,
    record: bool,
    keys: Vec<WireKey<'a>>,
    #[serde(default)]
    gone: Vec<WireKey<'a>>,
    #[serde(default)]
    expires_at: u64,
    codec: Option<u8>,
    #[serde(default)]
    fields: Vec<u32>,
    body: Option<Bin<'a>>,
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Known {
    Live,
    Absent,
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct WireKey<'a> {
    key: Cow<'a, str>,
    state: Stands,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Ordered>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Cow<'a, str>>,
}

/// What is to stand under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stands {
    Value,
    Pointer,
    Tombstone,
    Unknown,
}

impl<'a> Wire<'a> {
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when a value is not what kvsync writes.
    pub(super) fn of(message: &'a ChangeMessage) -> Result<Self> {
        let about = &message.about;
        let other = |version: Version| (version != about.version).then_some(Ordered(version));
        let mut wire = Self {
            kvsync: FORMAT,
            database: Cow::Borrowed(&about.database),
            table: Cow::Borrowed(&about.table),
            model: Cow::Borrowed(&about.model),
            scope: Cow::Borrowed(about.scope.prefix()),
            action: Cow::Borrowed(verb(about.action)),
            primary_key: Cow::Borrowed(&about.primary_key),
            home: Cow::Borrowed(about.home.as_str()),
            version: Ordered(about.version),
            captured_at: millis(about.captured_at),
            state: Known::Absent,
            record: matches!(message.form, Form::Row(_)),
            keys: Vec::new(),
            gone: Vec::new(),
            expires_at: 0,
            codec: None,
            fields: Vec::new(),
            body: None,
        };
        match &message.form {
            Form::Row(delta) => {
                match &delta.content {
                    Content::Put { expires_at, keys, .. } => {
                        (wire.state, wire.expires_at) = (Known::Live, *expires_at);
                        let listed = |listed: &'a Listed| {
                            let state = if listed.pointer { Stands::Pointer } else { Stands::Value };
                            WireKey { key: text(&listed.key), state, version: None, to: None }
                        };
                        wire.keys = keys.iter().map(listed).collect();
                    }
                    Content::Delete => {}
                    Content::Unknown => wire.state = Known::Unknown,
                }
                let gone = |(key, version): &'a (Key, Version)| {
                    let (state, version) = (Stands::Tombstone, other(*version));
                    WireKey { key: text(key), state, version, to: None }
                };
                wire.gone = delta.gone.iter().map(gone).collect();
            }
            Form::Registers(writes) => {
                for write in writes {
                    let (state, to) = match (write.head.state, write.value.body()?) {
                        (State::Value, Body::Pointer(to)) => {
                            (Stands::Pointer, (to != about.home.as_str()).then_some(Cow::Borrowed(to)))
                        }
                        (State::Value, _) => (Stands::Value, None),
                        (State::Unknown, _) => (Stands::Unknown, None),
                        (State::Tombstone, _) => (Stands::Tombstone, None),
                    };
                    match write.head.state {
                        State::Value => (wire.state, wire.expires_at) = (Known::Live, write.head.expires_at),
                        State::Unknown if wire.state == Known::Absent => wire.state = Known::Unknown,
                        State::Unknown | State::Tombstone => {}
                    }
                    let version = other(write.head.version);
                    wire.keys.push(WireKey { key: text(&write.key), state, version, to });
                }
            }
        }
        if let Some(value) = message.value()
            && let Body::Model { codec, fields, bytes } = value.body()?
        {
            let field = |field: &[u8]| field.try_into().map_or(0, u32::from_be_bytes);
            wire.codec = Some(codec);
            wire.fields = fields.chunks_exact(4).map(field).collect();
            wire.body = Some(Bin(Cow::Borrowed(bytes)));
        }
        Ok(wire)
    }

    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when its parts do not fit together.
    pub(super) fn into_message(self) -> Result<ChangeMessage> {
        let wrong = |what: &str| Error::new(ErrorKind::Corrupt, format!("a message is damaged: {what}"));
        let action = match &*self.action {
            "create" => Action::Insert,
            "update" => Action::Update,
            "upsert" => Action::Upsert,
            "delete" => Action::Delete,
            "reread" => Action::Reread,
            _ => return Err(wrong("its action is none of a row's")),
        };
        let all = || self.keys.iter().chain(&self.gone).map(|key| &*key.key).chain([&*self.home]);
        if all().any(|key| key.is_empty() || key.starts_with('!')) {
            return Err(wrong("one of its keys is no row's"));
        }
        let codec = self.codec.filter(|codec| *codec < 128 && *codec != crate::envelope::POINTER);
        let value = match (self.codec, codec, &self.body) {
            (None, _, None) => None,
            (_, Some(codec), Some(Bin(body))) => Some(Value::model(codec, &self.fields, body)),
            _ => return Err(wrong("its body has no codec, or its codec no body")),
        };
        if self.captured_at > LAST {
            return Err(wrong("it was captured at no time"));
        }
        let (home, version) = (Key::new(&*self.home), self.version.0);
        let live = self.state == Known::Live;
        let mut last = None;
        let form = if self.record {
            let states = |key: &WireKey<'_>| matches!(key.state, Stands::Value | Stands::Pointer) && key.to.is_none();
            if !self.keys.iter().all(states) || (!live && !self.keys.is_empty()) {
                return Err(wrong("its keys are not those of such a row"));
            }
            let listed = |key: WireKey<'_>| Listed { key: Key::new(&*key.key), pointer: key.state == Stands::Pointer };
            let content = match (self.state, value) {
                (Known::Live, Some(value)) => {
                    let keys = self.keys.into_iter().map(listed).collect();
                    Content::Put { value, expires_at: self.expires_at, keys }
                }
                (Known::Live, None) => return Err(wrong("it has no content")),
                (Known::Absent, value) => {
                    last = value;
                    Content::Delete
                }
                (Known::Unknown, _) => Content::Unknown,
            };
            let gone = |key: WireKey<'_>| (Key::new(&*key.key), key.version.map_or(version, |of_key| of_key.0));
            let gone = self.gone.into_iter().map(gone).collect();
            Form::Row(Delta { home: home.clone(), version, content, gone })
        } else {
            let (mut writes, expires_at) = (Vec::with_capacity(self.keys.len().min(64)), self.expires_at);
            for key in self.keys {
                let version = key.version.map_or(version, |of_key| of_key.0);
                let (state, of_key, expires_at) = match (key.state, &value) {
                    (Stands::Value, Some(value)) => (State::Value, value.clone(), expires_at),
                    (Stands::Value, None) => return Err(wrong("it has no content")),
                    (Stands::Pointer, _) => {
                        let to = key.to.map_or_else(|| home.clone(), |to| Key::new(&*to));
                        (State::Value, Value::pointer(&to), expires_at)
                    }
                    (Stands::Tombstone, _) => (State::Tombstone, Value::none(), 0),
                    (Stands::Unknown, _) => (State::Unknown, Value::none(), 0),
                };
                let head = Head { version, state, expires_at };
                writes.push(Write { key: Key::new(&*key.key), head, value: of_key, order: Order::Register });
            }
            if !writes.iter().any(|write| write.head.state == State::Value) {
                last = value;
            }
            Form::Registers(writes)
        };
        let scope = Scope::of_prefix(&self.scope).ok_or_else(|| wrong("its scope is none"))?;
        let about = About {
            database: (&*self.database).into(),
            table: (&*self.table).into(),
            model: (&*self.model).into(),
            scope,
            action,
            primary_key: self.primary_key.into_owned(),
            home,
            version,
            captured_at: UNIX_EPOCH + Duration::from_millis(self.captured_at),
            last,
            json: None,
            nonce: 0,
        };
        Ok(ChangeMessage { about, form })
    }
}

fn text(key: &Key) -> Cow<'_, str> {
    Cow::Borrowed(key.as_str())
}
