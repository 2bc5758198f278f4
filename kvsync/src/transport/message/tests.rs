use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::envelope::Head;
use crate::record::{Delta, Listed, Order, Write};

fn formats() -> Vec<MessageFormat> {
    vec![
        MessageFormat::MessagePack,
        #[cfg(feature = "json")]
        MessageFormat::Json,
    ]
}

fn version() -> impl Strategy<Value = Version> {
    any::<[u8; 16]>().prop_map(Version::from_bytes)
}

fn key() -> impl Strategy<Value = Key> {
    "[a-z~@:%é]{1,12}".prop_map(Key::new)
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    prop::collection::vec(key(), 0..4)
}

fn value() -> impl Strategy<Value = Value> {
    let codec = prop_oneof![Just(0_u8), Just(1), Just(2), 64..128_u8];
    let body = prop::collection::vec(any::<u8>(), 0..300);
    (codec, prop::collection::vec(any::<u32>(), 0..4), body)
        .prop_map(|(codec, fields, body)| Value::model(codec, &fields, &body))
}

fn row(content: Content, gone: Vec<(Key, Version)>, (home, version): (Key, Version)) -> Form {
    Form::Row(Delta { home, version, content, gone })
}

/// A form with the last content of its row.
fn form(home: Key, version: Version) -> impl Strategy<Value = (Form, Option<Value>)> {
    let named = (home.clone(), version);
    let gone = || {
        (keys(), self::version())
            .prop_map(|(keys, version)| keys.into_iter().map(|key| (key, version)).collect::<Vec<_>>())
    };
    let (put, delete, unknown) = (named.clone(), named.clone(), named);
    prop_oneof![
        (value(), any::<u64>(), prop::collection::vec((key(), any::<bool>()), 0..4), gone()).prop_map(
            move |(value, expires_at, keys, gone)| {
                let keys = keys.into_iter().map(|(key, pointer)| Listed { key, pointer }).collect();
                (row(Content::Put { value, expires_at, keys }, gone, put.clone()), None)
            }
        ),
        (prop::option::of(value()), gone())
            .prop_map(move |(last, gone)| (row(Content::Delete, gone, delete.clone()), last)),
        gone().prop_map(move |gone| (row(Content::Unknown, gone, unknown.clone()), None)),
        (value(), any::<u64>(), prop::collection::vec((key(), 0..4_u8, self::version()), 1..5)).prop_map(
            move |(value, expires_at, keys)| {
                let write = |(key, state, version): (Key, u8, Version)| {
                    let (state, value, expires_at) = match state {
                        0 => (State::Value, value.clone(), expires_at),
                        1 => (State::Value, Value::pointer(&home), expires_at),
                        2 => (State::Tombstone, Value::none(), 0),
                        _ => (State::Unknown, Value::none(), 0),
                    };
                    Write { key, head: Head { version, state, expires_at }, value, order: Order::Register }
                };
                let writes: Vec<Write> = keys.into_iter().map(write).collect();
                let stands = writes.iter().any(|write| write.head.state == State::Value);
                (Form::Registers(writes), (!stands).then(|| value.clone()))
            }
        ),
    ]
}

fn message() -> impl Strategy<Value = ChangeMessage> {
    let action =
        prop::sample::select(&[Action::Insert, Action::Update, Action::Upsert, Action::Delete, Action::Reread]);
    let scope = prop::option::of("[a-z:%]{0,5}").prop_map(|name| name.map_or(Scope::NONE, |name| Scope::named(&name)));
    let named =
        (key(), version()).prop_flat_map(|(home, version)| (Just(home.clone()), Just(version), form(home, version)));
    (action, scope, "[a-z\"\\\\]{0,8}", "[0-9:]{0,6}", any::<u32>(), named).prop_map(
        |(action, scope, text, primary_key, captured_at, (home, version, (form, last)))| {
            let about = About {
                database: text.as_str().into(),
                table: "users".into(),
                model: text.as_str().into(),
                scope,
                action,
                primary_key,
                home,
                version,
                captured_at: UNIX_EPOCH + Duration::from_millis(captured_at.into()),
                last,
                json: None,
                nonce: 0,
            };
            ChangeMessage { about, form }
        },
    )
}

proptest! {
    #[test]
    fn what_was_published_is_received(message in message()) {
        for format in formats() {
            let sent = message.encode(format, usize::MAX)?;
            prop_assert_eq!(&ChangeMessage::decode(Some(sent.content_type), &sent.body)?, &message);
            prop_assert_eq!(&ChangeMessage::decode(None, &sent.body)?, &message, "without a content type");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        for content_type in [None, Some(MESSAGEPACK), Some(JSON)] {
            let _ = ChangeMessage::decode(content_type, &bytes);
        }
    }
}

fn created() -> ChangeMessage {
    let value = Value::model(0, &[17, 99], b"\x82\xa2id\x07\xa5email\xa3ann");
    let content =
        Content::Put { value, expires_at: 0, keys: vec![Listed { key: Key::new("user:email:ann"), pointer: false }] };
    let (home, version) = (Key::new("user:id:7"), Version::new(0, 0, 5));
    let about = About {
        database: "main".into(),
        table: "users".into(),
        model: "User".into(),
        scope: Scope::NONE,
        action: Action::Insert,
        primary_key: "7".into(),
        home: home.clone(),
        version,
        captured_at: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        last: None,
        json: Some(Bytes::from_static(b"{\"id\":7,\"email\":\"ann\"}")),
        nonce: 0,
    };
    ChangeMessage { about, form: row(content, Vec::new(), (home, version)) }
}

#[cfg(feature = "json")]
#[test]
fn its_json_is_as_documented() {
    let documented = include_str!("mod.rs");
    let from = documented.find("//! ```json").unwrap();
    let lines = documented[from..].lines().skip(1).take_while(|line| !line.contains("```"));
    let json: String = lines.map(|line| line.trim_start_matches("//!").trim()).collect();
    let sent = created().encode(MessageFormat::Json, usize::MAX).unwrap();
    assert_eq!(std::str::from_utf8(&sent.body).unwrap(), json);
    assert_eq!((sent.content_type, sent.action, &*sent.table), (JSON, "create", "users"));
}

#[test]
fn what_is_not_a_message_of_this_format_is_refused_with_the_reason() {
    let sent = created().encode(MessageFormat::MessagePack, usize::MAX).unwrap();
    let refused = |content_type: Option<&str>, body: &[u8]| {
        let error = ChangeMessage::decode(content_type, body).unwrap_err();
        assert!(!error.is_retryable());
        (error.kind(), error.to_string())
    };
    let next = "application/vnd.kvsync.change.v2+msgpack";
    assert_eq!(refused(Some(next), &sent.body).0, ErrorKind::UnknownLayout);
    let (kind, text) = refused(Some("text/html; charset=utf-8"), &sent.body);
    assert!(kind == ErrorKind::Corrupt && text.contains("text/html"), "{text}");
    for end in 0..sent.body.len() {
        assert_eq!(refused(Some(MESSAGEPACK), &sent.body[..end]).0, ErrorKind::Corrupt, "cut at {end}");
    }
    let later = MessagePack::encode(&std::collections::BTreeMap::from([("kvsync", 2), ("else", 1)])).unwrap();
    let (kind, text) = refused(Some(MESSAGEPACK), &later);
    assert!(kind == ErrorKind::UnknownLayout && text.contains("format 2"), "{text}");
    // The store's own keys are no row's.
    let mut own = created();
    own.about.home = Key::new("!incarnation");
    let own = own.encode(MessageFormat::MessagePack, usize::MAX).unwrap();
    assert_eq!(refused(Some(MESSAGEPACK), &own.body).0, ErrorKind::Corrupt);
}

#[test]
fn what_a_broker_does_not_take_is_said() {
    let sent = created().encode(MessageFormat::MessagePack, usize::MAX).unwrap();
    assert!(created().encode(MessageFormat::MessagePack, sent.body.len()).is_ok());
    let error = created().encode(MessageFormat::MessagePack, sent.body.len() - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    // The last content of a deleted row is not needed.
    let mut deleted = created();
    deleted.about.last = Some(Value::model(0, &[17, 99], &[0; 500]));
    deleted.form = row(Content::Delete, Vec::new(), (deleted.about.home.clone(), deleted.about.version));
    let sent = deleted.encode(MessageFormat::MessagePack, 400).unwrap();
    assert_eq!(ChangeMessage::decode(Some(MESSAGEPACK), &sent.body).unwrap().about.last, None);
}

/// What was published first in format 1, by the names of its files.
#[cfg(feature = "json")]
fn first() -> [(&'static str, ChangeMessage); 4] {
    let (home, version) = (Key::new("user:id:7"), Version::new(1, 2, 5));
    let of = |action, form| {
        let about = About { action, version, home: home.clone(), json: None, ..created().about };
        ChangeMessage { about, form }
    };
    let value = Value::model(0, &[17, 99], b"\x82\xa2id\x07\xa5email\xa3ann");
    let keys = vec![
        Listed { key: Key::new("@acme:user:email:ann"), pointer: false },
        Listed { key: Key::new("@acme:user:name:ann%3A"), pointer: true },
    ];
    let put = Content::Put { value: value.clone(), expires_at: 1_790_000_600_000, keys };
    let scoped = Key::new("@acme:user:id:7");
    let mut created = of(Action::Insert, row(put, Vec::new(), (scoped.clone(), version)));
    created.about.home = scoped;
    created.about.scope = Scope::named("acme");
    created.about.json = Some(Bytes::from_static(b"{\"id\":7,\"email\":\"ann\"}"));
    let gone = vec![(Key::new("user:email:ann"), version), (Key::new("user:email:old"), Version::new(1, 2, 4))];
    let mut deleted = of(Action::Delete, row(Content::Delete, gone, (home.clone(), version)));
    deleted.about.last = Some(value.clone());
    deleted.about.json = Some(Bytes::from_static(b"{\"id\":7,\"email\":\"ann\"}"));
    let unknown = of(Action::Update, row(Content::Unknown, Vec::new(), (home.clone(), version)));
    let write = |key: &str, state, value: &Value, version| {
        let head = Head { version, state, expires_at: 0 };
        Write { key: Key::new(key), head, value: value.clone(), order: Order::Register }
    };
    let mut registers = of(
        Action::Upsert,
        Form::Registers(vec![
            write("user:id:7", State::Value, &value, version),
            write("user:uuid:b", State::Value, &Value::pointer(&home), version),
            write("user:uuid:c", State::Tombstone, &Value::none(), Version::new(1, 2, 3)),
        ]),
    );
    registers.about.json = Some(Bytes::from_static(b"{\"id\":7,\"email\":\"ann\"}"));
    [("create", created), ("delete", deleted), ("unknown", unknown), ("registers", registers)]
}

/// Readers of today have to read what was published yesterday, and those of yesterday what is published today: a
/// message that changes needs another number of its format.
#[cfg(feature = "json")]
#[test]
fn format_1_is_what_it_was_first() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/transport/message/golden");
    for (name, message) in first() {
        for (format, end) in [(MessageFormat::MessagePack, "msgpack"), (MessageFormat::Json, "json")] {
            let file = golden.join(format!("{name}.{end}"));
            let sent = message.encode(format, usize::MAX).unwrap();
            let first = std::fs::read(&file).unwrap_or_default();
            if first != sent.body {
                let now = std::env::temp_dir().join(format!("kvsync-{name}.{end}"));
                std::fs::write(&now, &sent.body).unwrap();
                panic!("{} is published otherwise now: see {}", file.display(), now.display());
            }
            let mut read = ChangeMessage::decode(Some(sent.content_type), &first).unwrap();
            // No reader of kvsync's reads the row in plain.
            read.about.json.clone_from(&message.about.json);
            assert_eq!(read, message, "{name}.{end}");
        }
    }
}

#[test]
fn what_is_made_to_hurt_is_refused() {
    let refused = |content_type: &str, body: &[u8]| {
        let error = ChangeMessage::decode(Some(content_type), body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    };
    let kvsync = b"\xa6kvsync\x01";
    // Lengths that no message has, of maps, lists, texts and bytes; and what has no end.
    for head in
        [&b"\xdf\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
    {
        refused(MESSAGEPACK, head);
        refused(MESSAGEPACK, &[head, kvsync].concat());
        refused(MESSAGEPACK, &[b"\x82", &kvsync[..], b"\xa4body", head].concat());
        refused(MESSAGEPACK, &[b"\x82", &kvsync[..], b"\xa4keys", head].concat());
    }
    refused(MESSAGEPACK, &vec![0x91; 100_000]);
    refused(JSON, "[".repeat(100_000).as_bytes());
    refused(JSON, format!("{{\"kvsync\":1,\"row\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)).as_bytes());
    refused(JSON, format!("{{\"kvsync\":1{}", "0".repeat(100_000)).as_bytes());
    // A name that is there twice.
    let sent = created().encode(MessageFormat::MessagePack, usize::MAX).unwrap();
    let mut twice = sent.body.to_vec();
    twice[0] += 1;
    twice.extend_from_slice(b"\xa6action\xa6delete");
    refused(MESSAGEPACK, &twice);
    let text = created().about.json.map(|row| String::from_utf8(row.to_vec()).unwrap()).unwrap();
    refused(JSON, format!("{{\"kvsync\":1,\"kvsync\":1,\"row\":{text}}}").as_bytes());
    // Something follows.
    refused(MESSAGEPACK, &[&sent.body[..], b"\x01"].concat());
}
