//! What fuzzers and property tests feed with bytes of others: one function for each place where such bytes
//! are read. Each may refuse what it is given, and panics only where kvsync is wrong.
//!
//! Not under semantic versioning.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::change::Action;
#[cfg(feature = "bson")]
use crate::codec::Bson;
#[cfg(feature = "json")]
use crate::codec::Json;
use crate::codec::{Codec, MessagePack};
use crate::envelope::{Body, Envelope, Head, State, Value};
use crate::error::Result;
use crate::key::{Key, KeyWriter, Scope};
use crate::model::Model;
use crate::record::{Content, Delta, Form, Order, Record, Terms, Write};
use crate::transport::message::About;
use crate::transport::{ChangeMessage, MessageFormat};
use crate::version::Version;

/// Reads SQL text; its first byte says whose it is. Returns how many bytes the lexer looked at: in
/// proportion to the text, whatever stands in it.
#[must_use]
pub fn statement(data: &[u8]) -> usize {
    let (postgres, text) = data.split_first().map_or((false, data), |(first, text)| (first % 2 == 1, text));
    crate::capture::fuzzing::statement(&String::from_utf8_lossy(text), postgres)
}

pub use crate::capture::fuzzing::Seen;

/// What the statements of a text are taken for; or, not as `batch`, what its first is.
#[must_use]
pub fn seen(sql: &str, postgres: bool, batch: bool) -> Vec<Seen> {
    crate::capture::fuzzing::seen(sql, postgres, batch)
}

/// Reads a stored entry as readers and writers do, and writes over it.
pub fn envelope(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(envelope) = Envelope::parse(&bytes) else { return };
    if let Ok(Body::Model { fields, bytes, .. }) = envelope.body() {
        assert!(fields.len() + bytes.len() <= data.len(), "a body is a part of its entry");
    }
    let written = Envelope::encode(&envelope.head, envelope.ledger.as_deref(), &envelope.value);
    let again = Envelope::parse(&written).ok();
    let parts = |envelope: &Envelope| (envelope.head, envelope.ledger.clone(), envelope.value.clone());
    assert_eq!(again.as_ref().map(parts), Some(parts(&envelope)), "what was read is written so that it reads the same");
    for order in [Order::Slot, Order::Register] {
        let head = Head { version: envelope.head.version, state: State::Tombstone, expires_at: 1 };
        let write = Write { key: Key::new("k"), head, value: Value::none(), order };
        if let Some(over) = Record::overwrite(Some(&envelope), &write) {
            let over = Envelope::parse(&over).ok();
            assert_eq!(over.and_then(|over| over.ledger), envelope.ledger, "a slot's writer keeps a ledger");
        }
    }
    merge(envelope);
}

/// Reads the ledger of a record.
pub fn ledger(data: &[u8]) {
    for state in [State::Value, State::Unknown, State::Tombstone] {
        let head = Head { version: Version::new(1, 1, 1), state, expires_at: 0 };
        let value = Value::model(0, &[1, 2], b"\x80");
        merge(Envelope { head, ledger: Some(Bytes::copy_from_slice(data)), value });
    }
}

/// Whatever record an entry holds, it reads the same once it is written, and takes a change.
fn merge(envelope: Envelope) {
    let Ok(mut record) = Record::from_envelope(envelope) else { return };
    let stored = |record: &Record| Envelope::parse(&record.encode()).and_then(Record::from_envelope).ok();
    assert_eq!(stored(&record).as_ref(), Some(&record), "a record that was read is written so that it reads the same");
    let home = Key::new("home");
    let terms = Terms { now: 1, left: 2, dead: 3 };
    let version = record.version.max(record.mark).next();
    let content = Content::Put { value: Value::none(), expires_at: 0, keys: record.live.clone() };
    record.merge(&Delta { home: home.clone(), version, content, gone: Vec::new() }, &terms);
    let released: Vec<(Key, Version)> = record.dirty.clone().into_iter().collect();
    let writes = record.project(&home, &terms);
    assert_eq!(writes.len(), record.live.len() + record.dirty.len(), "every key is written");
    record.confirm(&released);
    assert!(record.dirty.is_empty(), "what was released is forgotten");
    assert_eq!(
        stored(&record).as_ref(),
        Some(&record),
        "a record that was merged is written so that it reads the same"
    );
}

/// Makes a key of two parts and of a scope: the first byte says what stands between the parts, the first
/// zero byte where the second begins. What the parts were can be told from the key.
pub fn key(data: &[u8]) {
    const STOPS: [char; 8] = [':', '_', '-', '/', 'a', '0', 'é', '\u{1f511}'];
    let (first, rest) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let stop = STOPS.get(usize::from(first) % STOPS.len()).copied().unwrap_or(':');
    let text = String::from_utf8_lossy(rest);
    let (one, other) = text.split_once('\0').unwrap_or((&text, ""));
    let mut writer = KeyWriter::default();
    writer.part(&one, Some(stop));
    writer.literal(stop.encode_utf8(&mut [0; 4]));
    writer.part(&other, None);
    let key = writer.finish();
    let text = key.as_ref().map_or("", Key::as_str);
    let (parts, rest) = plain(text, Some(stop));
    assert_eq!((parts.as_str(), plain(rest, None).0.as_str()), (one, other), "the parts can be told from the key");
    let scope = Scope::named(one);
    let scoped = Key::new(other).within(&scope);
    let (name, rest) = plain(scoped.as_str().strip_prefix('@').unwrap_or_default(), Some(':'));
    assert_eq!((name.as_str(), rest), (one, other), "the scope can be told from the key");
}

/// A part without its escapes, up to the character that ends it, and what stands behind that.
fn plain(key: &str, stop: Option<char>) -> (String, &str) {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.chars();
    while let Some(next) = rest.next() {
        if next == '%' {
            let digits = rest.as_str().get(..2).unwrap_or_default();
            bytes.extend(u8::from_str_radix(digits, 16));
            rest = rest.as_str().get(2..).unwrap_or_default().chars();
        } else if Some(next) == stop {
            break;
        } else {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    (String::from_utf8_lossy(&bytes).into_owned(), rest.as_str())
}

/// A model with a field of each shape.
#[derive(Serialize, Deserialize)]
struct Sample {
    id: i64,
    name: String,
    #[serde(default)]
    raw: Option<Vec<u8>>,
    #[serde(default)]
    lists: Vec<Vec<String>>,
    #[serde(default)]
    map: BTreeMap<String, f64>,
}

/// Decodes a model; the first byte says in which codec.
pub fn model(data: &[u8]) {
    let (codec, bytes) = data.split_first().map_or((0, data), |(first, bytes)| (first % 3, bytes));
    match codec {
        0 => decode::<MessagePack>(bytes),
        #[cfg(feature = "json")]
        1 => decode::<Json>(bytes),
        #[cfg(feature = "bson")]
        2 => decode::<Bson>(bytes),
        _ => {}
    }
}

fn decode<C: Codec>(bytes: &[u8]) {
    let Ok(model) = C::decode::<Sample>(bytes) else { return };
    // Not a number has no form in JSON.
    let Ok(written) = C::encode(&model) else { return };
    let again = C::decode::<Sample>(&written).and_then(|model| C::encode(&model));
    assert!(
        again.is_ok_and(|again| again == written) || C::NAME == "JSON" && model.map.values().any(|n| !n.is_finite()),
        "a model that was read is written so that it reads the same"
    );
}

/// Reads a message of a broker: in JSON where it begins so.
pub fn message(data: &[u8]) {
    let Ok(message) = ChangeMessage::decode(None, data) else { return };
    let formats = [
        MessageFormat::MessagePack,
        #[cfg(feature = "json")]
        MessageFormat::Json,
    ];
    for format in formats {
        let written = message.encode(format, usize::MAX);
        let again = written.and_then(|written| ChangeMessage::decode(Some(written.content_type), &written.body));
        assert_eq!(again.ok().as_ref(), Some(&message), "a message that was read is written so that it reads the same");
    }
    assert!(message.keys().len() + message.gone().len() <= data.len(), "a key is a part of its message");
    drop(message.into_form(&Terms { now: 1, left: 2, dead: 3 }));
}

/// Messages of a broker that are whole: of a row with a record, of a deletion, and of keys without a record.
fn messages() -> Vec<Vec<u8>> {
    let (home, version) = (Key::new("user:id:7"), Version::new(1, 2, 3));
    let value = Value::model(0, &[1, 2, 3], b"\x81\xa2id\x07");
    let listed = |key: &str, pointer| crate::record::Listed { key: Key::new(key), pointer };
    let keys = vec![listed("user:email:a", true), listed("user:uuid:b", false)];
    let put = Content::Put { value: value.clone(), expires_at: 7, keys };
    let row = |content, gone| Form::Row(Delta { home: home.clone(), version, content, gone });
    let write = |key: &str, state, value: &Value| {
        let head = Head { version, state, expires_at: 0 };
        Write { key: Key::new(key), head, value: value.clone(), order: Order::Register }
    };
    let registers = vec![
        write("session:id:7", State::Value, &value),
        write("session:token:t", State::Value, &Value::pointer(&Key::new("session:id:7"))),
        write("session:token:u", State::Tombstone, &Value::none()),
        write("session:token:v", State::Unknown, &Value::none()),
    ];
    let forms = [
        (Action::Insert, row(put, Vec::new()), None),
        (Action::Delete, row(Content::Delete, vec![(Key::new("user:uuid:b"), Version::new(1, 2, 2))]), Some(value)),
        (Action::Reread, row(Content::Unknown, Vec::new()), None),
        (Action::Upsert, Form::Registers(registers), None),
    ];
    let about = |action, last| About {
        database: "main".into(),
        table: "users".into(),
        model: "User".into(),
        scope: Scope::named("tenant"),
        action,
        primary_key: "7".to_owned(),
        home: home.clone(),
        version,
        captured_at: UNIX_EPOCH,
        last,
        json: None,
        nonce: 0,
    };
    let mut messages = Vec::new();
    for (action, form, last) in forms {
        let message = ChangeMessage { about: about(action, last), form };
        messages.extend(message.encode(MessageFormat::MessagePack, usize::MAX).map(|sent| sent.body.to_vec()));
        #[cfg(feature = "json")]
        messages.extend(message.encode(MessageFormat::Json, usize::MAX).map(|sent| sent.body.to_vec()));
    }
    messages
}

/// Reads the content of a row of an outbox.
pub fn outbox(data: &[u8]) {
    if let Ok(body) = outbox_body(data) {
        assert!(body.len() + 4 <= data.len(), "a body is a part of its content");
    }
}

/// The body in the content of a row of an outbox.
///
/// # Errors
///
/// As the relay meets them.
pub fn outbox_body(data: &[u8]) -> Result<&[u8]> {
    crate::capture::OutboxContent::parse(data).map(|content| content.body)
}

/// The content of a row of an outbox.
///
/// # Errors
///
/// As capture meets them.
pub fn outbox_content(row: &dyn Model) -> Result<Vec<u8>> {
    crate::capture::encode_outbox(row)
}

/// One of the functions above, and bytes that it reads.
pub type Seed = (fn(&[u8]), Vec<u8>);

/// Entries, ledgers and models that are whole, to be mutated.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    let sample = Sample {
        id: -7,
        name: "ann".to_owned(),
        raw: Some(vec![0, 255]),
        lists: vec![vec!["a".to_owned(), String::new()], Vec::new()],
        map: BTreeMap::from([("x".to_owned(), 0.5)]),
    };
    let packed = MessagePack::encode(&sample).unwrap_or_default();
    let bodies = [
        Some(MessagePack::encode(&sample).unwrap_or_default()),
        #[cfg(feature = "json")]
        Some(Json::encode(&sample).unwrap_or_default()),
        #[cfg(not(feature = "json"))]
        None,
        #[cfg(feature = "bson")]
        Some(Bson::encode(&sample).unwrap_or_default()),
        #[cfg(not(feature = "bson"))]
        None,
    ];
    for (codec, body) in (0_u8..).zip(bodies) {
        let Some(body) = body else { continue };
        seeds.push((envelope, entry(None, &Value::model(codec, &[1, 2, 3], &body))));
        seeds.push((model, [vec![codec], body].concat()));
    }
    seeds.push((envelope, entry(None, &Value::pointer(&Key::new("user:id:7")))));
    seeds.push((envelope, entry(None, &Value::none())));
    let listed = |key: &str, pointer| crate::record::Listed { key: Key::new(key), pointer };
    let record = Record {
        version: Version::new(1, 2, 3),
        alive: true,
        live: vec![listed("user:email:a", true), listed("user:uuid:b", false)],
        dirty: BTreeMap::from([(Key::new("user:uuid:old"), Version::new(1, 2, 2))]),
        value: Value::model(0, &[1, 2, 3], &packed),
        ..Record::new()
    };
    let stored = record.encode();
    if let Some(bytes) = Envelope::parse(&stored).ok().and_then(|envelope| envelope.ledger) {
        seeds.push((ledger, bytes.to_vec()));
    }
    seeds.push((envelope, stored.to_vec()));
    seeds.extend(messages().into_iter().map(|body| (message as fn(&[u8]), body)));
    seeds
}

fn entry(ledger: Option<&[u8]>, value: &Value) -> Vec<u8> {
    let head = Head { version: Version::new(1, 2, 3), state: State::Value, expires_at: 4 };
    Envelope::encode(&head, ledger, value).to_vec()
}
