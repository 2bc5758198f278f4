//! The message: one change of one row, as it travels through a broker.
//!
//! It names its row, its keys and its version, and holds the row's bytes, so that a consumer that does not know the
//! model can apply it. It has two forms, told apart by their content type; both are one map with the same names.
//!
//! | name | what |
//! |---|---|
//! | `kvsync` | the version of this format: 1 |
//! | `database`, `table`, `model` | where the row is from |
//! | `scope` | the prefix of the keys of a tenant or schema, as `@name:`; empty without one |
//! | `action` | `create`, `update`, `upsert`, `delete`, or `reread`: nobody wrote the row just now |
//! | `primary_key` | its parts, separated by `:`; `%` and `:` in a part are percent-encoded |
//! | `home` | the key that names the row, within its scope; begins with `~` where the model declares no such key |
//! | `version` | the change's place among those of its row: 16 bytes that compare as bytes; in JSON 32 hex digits |
//! | `captured_at` | milliseconds since the Unix epoch |
//! | `state` | `live`: the row stands under `keys`; `absent`: under none; `unknown`: readers have to ask the database |
//! | `record` | whether its keys may change, so that stores keep a record of them |
//! | `keys` | a list of `{key, state, version, to}`: see below |
//! | `gone` | the same of keys that the row has certainly left, each with the version that took it |
//! | `expires_at` | when its entries end, in milliseconds since the Unix epoch; 0 is never |
//! | `codec` | of `body`: 0 MessagePack, 1 JSON, 2 BSON, 64 to 127 a user's own; nil without a body |
//! | `fields` | one number for each field of the model, of its name and type; ascending |
//! | `body` | the model as it was written, of a deleted row as it was last; bytes, in JSON as base64 |
//! | `row` | in JSON only: the model's fields as an object; for readers in other languages, kvsync passes over it |
//!
//! Of a key, `state` is `value`, `pointer` (it holds the key of the row's bytes, `to`, in their place), `tombstone` or
//! `unknown`. `version` is there where it is not the message's, `to` where it is not `home`.
//!
//! What is not known of a map is passed over; another format has another number, and is refused by those who do not
//! read it.
//!
//! # What is too large
//!
//! A commit is cut into messages of one row each, so only a row can be larger than the broker takes
//! ([`Broker::max_body`](super::Broker::max_body)). That is 16 MiB in RabbitMQ, which the server's `max_message_size` has to
//! allow and `max_body` of the builder may raise, and 1 MiB in NATS, less 8 KiB for headers: its server's `max_payload`. Of
//! a deleted row its last content is left out then. A row that is written and too large is published as `unknown`: readers ask the
//! database for it until it is written again and fits, its publisher reports it as failed, and whoever waits for its commit
//! is told. With an outbox its row there fails too, and is a dead letter of the outbox in the end. Cure it with a narrower
//! model, or a larger limit of the broker, and write the row again or retry the dead letter.
//!
//! ```json
//! {"kvsync":1,"database":"main","table":"users","model":"User","scope":"","action":"create","primary_key":"7",
//!  "home":"user:id:7","version":"00000000000000000000000000000005","captured_at":1790000000000,"state":"live",
//!  "record":true,"keys":[{"key":"user:email:ann","state":"value"}],"gone":[],"expires_at":0,"codec":0,
//!  "fields":[17,99],"body":"gqJpZAelZW1haWyjYW5u","row":{"id":7,"email":"ann"}}
//! ```

#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::error::Error as _;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use self::wire::Wire;
use super::Message;
use crate::change::Action;
use crate::codec::{Codec, MessagePack};
use crate::envelope::{Body, State, Value};
use crate::error::{Error, ErrorKind, Result, failure_text};
use crate::key::{Key, Scope};
use crate::model::{Syncable, guarded};
use crate::record::{Content, Form, Terms};
use crate::version::Version;

/// The version of the format that this version of kvsync writes and reads.
pub const FORMAT: u32 = 1;

/// The content type of a message in MessagePack.
pub const MESSAGEPACK: &str = "application/vnd.kvsync.change.v1+msgpack";
/// The content type of a message in JSON.
pub const JSON: &str = "application/vnd.kvsync.change.v1+json";
/// What the content types of all versions begin with.
const OURS: &str = "application/vnd.kvsync.change.v";

/// In which form changes are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MessageFormat {
    /// MessagePack with names: small, and read by consumers of every language that has it.
    #[default]
    MessagePack,
    /// JSON that also has the model's fields as an object: more than twice as large.
    #[cfg(feature = "json")]
    Json,
}

/// One change of one row, as it travels through a broker.
///
/// Whoever may publish to a queue may write what it likes into the stores of its consumers: a message is checked
/// for its form, and its content is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMessage {
    pub(crate) about: About,
    pub(crate) form: Form,
}

/// What a change is about, whatever is known of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) database: Arc<str>,
    pub(crate) table: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) action: Action,
    pub(crate) primary_key: String,
    /// Within the scope.
    pub(crate) home: Key,
    pub(crate) version: Version,
    pub(crate) captured_at: SystemTime,
    /// The row's last content, where the form has none.
    pub(crate) last: Option<Value>,
    /// The row's fields as an object, for the form in JSON; never read.
    pub(crate) json: Option<Bytes>,
    /// Told by the broker to those copies that it may drop.
    pub(crate) nonce: u64,
}

impl ChangeMessage {
    /// Reads what was received.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownLayout`] for a format that this version of kvsync does not read, [`ErrorKind::Corrupt`]
    /// for anything else that is no message of kvsync's. Neither is cured by another delivery.
    pub fn decode(content_type: Option<&str>, body: &[u8]) -> Result<Self> {
        match format_of(content_type, body)? {
            Written::MessagePack => read::<MessagePack>(body),
            #[cfg(feature = "json")]
            Written::Json => read::<crate::codec::Json>(body),
            #[cfg(not(feature = "json"))]
            Written::Json => {
                let message = "the message is in JSON; build its consumer with kvsync's feature `json`";
                Err(Error::new(ErrorKind::UnknownLayout, message))
            }
        }
    }

    /// What is published, of at most this many bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`] when it is larger; [`ErrorKind::Codec`] when it has no form.
    pub(crate) fn encode(&self, format: MessageFormat, most: usize) -> Result<Message> {
        let (mut body, content_type) = self.bytes(format)?;
        if body.len() > most && self.about.last.is_some() {
            // Nobody needs it to apply the change.
            let about = About { last: None, json: None, ..self.about.clone() };
            body = Self { about, form: self.form.clone() }.bytes(format)?.0;
        }
        if body.len() > most {
            let (home, size) = (&self.about.home, body.len());
            let message = format!(
                "the change of `{home}` takes {size} bytes, the broker {most}; make the model narrower, or let it take more \
                 (`max_body` of RabbitMQ's builder, `max_payload` of a NATS server)"
            );
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        let About { table, action, version, nonce, .. } = &self.about;
        let id = format!("{version}-{nonce:016x}");
        Ok(Message { table: Arc::clone(table), action: verb(*action), id, content_type, body: body.into() })
    }

    fn bytes(&self, format: MessageFormat) -> Result<(Vec<u8>, &'static str)> {
        let wire = Wire::of(self)?;
        match format {
            MessageFormat::MessagePack => Ok((MessagePack::encode(&wire)?, MESSAGEPACK)),
            #[cfg(feature = "json")]
            MessageFormat::Json => {
                let mut body = crate::codec::Json::encode(&wire)?;
                if let Some(row) = &self.about.json {
                    // Both are whole objects.
                    body.pop();
                    body.extend_from_slice(b",\"row\":");
                    body.extend_from_slice(row);
                    body.push(b'}');
                }
                Ok((body, JSON))
            }
        }
    }

    /// The name of the database that the row is in.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.about.database
    }

    /// The row's table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.about.table
    }

    /// The row's model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.about.model
    }

    /// The scope of the connection that wrote it.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.about.scope
    }

    /// What was done to the row. [`Action::Insert`] is `create` in a message and in what brokers route by.
    #[must_use]
    pub fn action(&self) -> Action {
        self.about.action
    }

    /// The row's primary key: its parts, separated by `:`.
    #[must_use]
    pub fn primary_key(&self) -> &str {
        &self.about.primary_key
    }

    /// The key that names the row, within its scope.
    #[must_use]
    pub fn home(&self) -> &Key {
        &self.about.home
    }

    /// Its place among the changes of its row: a hook that keeps a copy of the row keeps the highest.
    #[must_use]
    pub fn version(&self) -> Version {
        self.about.version
    }

    /// When it was captured.
    #[must_use]
    pub fn captured_at(&self) -> SystemTime {
        self.about.captured_at
    }

    /// Whether the row's content is not known: readers have to ask the database.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match &self.form {
            Form::Row(delta) => matches!(delta.content, Content::Unknown),
            Form::Registers(writes) => writes.iter().any(|write| write.head.state == State::Unknown),
        }
    }

    /// The keys that the row stands under, `home` included where it is one that the model declares; none of a row that
    /// is deleted or not known.
    #[must_use]
    pub fn keys(&self) -> Vec<&Key> {
        match &self.form {
            Form::Row(delta) => match &delta.content {
                Content::Put { keys, .. } => {
                    let own = home_is_declared(delta.home.as_str(), &self.about.scope).then_some(&delta.home);
                    own.into_iter().chain(keys.iter().map(|listed| &listed.key)).collect()
                }
                Content::Delete | Content::Unknown => Vec::new(),
            },
            Form::Registers(writes) => {
                writes.iter().filter(|write| write.head.state == State::Value).map(|write| &write.key).collect()
            }
        }
    }

    /// Keys that the row has certainly left.
    #[must_use]
    pub fn gone(&self) -> Vec<&Key> {
        match &self.form {
            Form::Row(delta) => delta.gone.iter().map(|(key, _)| key).collect(),
            Form::Registers(writes) => {
                writes.iter().filter(|write| write.head.state == State::Tombstone).map(|write| &write.key).collect()
            }
        }
    }

    /// The row as it was written, or as it was last before it was deleted; nothing where the message does not have it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`] when it cannot be read as this model: it was written with other fields or in another
    /// codec, or is damaged.
    pub fn decode_row<M: Syncable>(&self) -> Result<Option<M>> {
        let Some(value) = self.value() else { return Ok(None) };
        let Body::Model { codec, fields, bytes } = value.body()? else { return Ok(None) };
        let (table, model) = (&self.about.table, M::SCHEMA.model);
        let other = |message: String| Err(Error::new(ErrorKind::Codec, message));
        if codec != M::Codec::ID {
            return other(format!(
                "a row of `{table}` was published in another codec than its consumer's `{model}` has"
            ));
        }
        if let Some(lacking) = M::SCHEMA.lacking(fields) {
            return other(format!(
                "a row of `{table}` was published with other fields than its consumer's `{model}` has: it lacks \
                 `{lacking}`, or has it with another type; update publishers before consumers that read more"
            ));
        }
        guarded(M::SCHEMA, || M::Codec::decode(bytes))?.map(Some)
    }

    /// The row's content, in whichever place it is.
    fn value(&self) -> Option<&Value> {
        let has_model = |value: &&Value| matches!(value.body(), Ok(Body::Model { .. }));
        match &self.form {
            Form::Row(delta) => match &delta.content {
                Content::Put { value, .. } => Some(value),
                Content::Delete | Content::Unknown => self.about.last.as_ref(),
            },
            Form::Registers(writes) => {
                writes.iter().map(|write| &write.value).find(has_model).or(self.about.last.as_ref())
            }
        }
    }

    /// What a store takes: entries that only guard are kept from now on.
    pub(crate) fn into_form(self, terms: &Terms) -> (About, Form) {
        let mut form = self.form;
        if let Form::Registers(writes) = &mut form {
            for write in writes.iter_mut().filter(|write| write.head.state != State::Value) {
                write.head.expires_at = terms.now.saturating_add(terms.dead);
            }
        }
        (self.about, form)
    }
}

/// What a change is called in a message.
pub(crate) const fn verb(action: Action) -> &'static str {
    match action {
        Action::Insert => "create",
        Action::Update => "update",
        Action::Upsert => "upsert",
        Action::Delete => "delete",
        Action::Reread => "reread",
    }
}

fn home_is_declared(home: &str, scope: &Scope) -> bool {
    !home.strip_prefix(scope.prefix()).unwrap_or(home).starts_with('~')
}

/// The form of what was received.
enum Written {
    MessagePack,
    Json,
}

fn format_of(content_type: Option<&str>, body: &[u8]) -> Result<Written> {
    let Some(content_type) = content_type else {
        // Some brokers carry no headers of messages that were put back by hand.
        return Ok(if body.first() == Some(&b'{') { Written::Json } else { Written::MessagePack });
    };
    let own = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match own.as_str() {
        MESSAGEPACK => Ok(Written::MessagePack),
        JSON => Ok(Written::Json),
        _ => {
            let shown: String = own.chars().filter(|one| !one.is_control()).take(80).collect();
            Err(if own.starts_with(OURS) {
                let message =
                    format!("a message is of the form `{shown}`, this kvsync reads {FORMAT}; update the consumer");
                Error::new(ErrorKind::UnknownLayout, message)
            } else {
                Error::new(ErrorKind::Corrupt, format!("a message is of the form `{shown}`, which is not kvsync's"))
            })
        }
    }
}

fn read<C: Codec>(body: &[u8]) -> Result<ChangeMessage> {
    let wire = C::decode::<Wire<'static>>(body);
    // Another version may have any other names.
    let version = match &wire {
        Ok(wire) => Some(wire.kvsync),
        Err(_) => C::decode::<wire::Probe>(body).ok().map(|probe| probe.kvsync),
    };
    match (version, wire) {
        (Some(FORMAT), Ok(wire)) => wire.into_message(),
        (Some(version), _) if version != FORMAT => {
            let message =
                format!("a message has the format {version}, this kvsync reads {FORMAT}; update the consumer");
            Err(Error::new(ErrorKind::UnknownLayout, message))
        }
        (_, wire) => {
            // A codec's own words are of models.
            let cause = wire.err().and_then(|error| error.source().map(failure_text));
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            let message = format!("a message is damaged, or was not published by kvsync{cause}");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}
