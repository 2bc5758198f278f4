//! The stored bytes: one MessagePack array with its head at fixed offsets.
//!
//! ```text
//! offset  0  98                 an array of eight
//!         1  layout             1
//!         2  c4 10              a byte string of 16:
//!         4  version            epoch (4), timeline (4), sequence (8), big-endian
//!        20  state              0 value, 1 unknown, 2 tombstone
//!        21  cf                 an unsigned integer of 8 bytes:
//!        22  expires at         milliseconds since the Unix epoch, 0 for never
//!        30  ledger             c0 (nil), or c6 and a length of 4 bytes and the ledger of a row's record
//!         .  codec              0 MessagePack, 1 JSON, 2 BSON, 3 pointer, 64 to 127 a user's own; nil without a body
//!         .  fields             a byte string: 4 bytes for each field of the model, ascending; nil without a body
//!         .  body               the model: with MessagePack as it is, otherwise a byte string;
//!                               a pointer's home key as a string; nil
//! ```
//!
//! Layout, offsets and the meaning of the head are frozen. Another layout has another number.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::version::Version;

/// The layout that this version of kvsync writes and reads.
pub const LAYOUT: u8 = 1;
/// Where the version begins.
pub const VERSION_AT: usize = 4;
/// Where the state stands.
pub const STATE_AT: usize = 20;
/// Where the eight bytes of the expiry begin.
pub const EXPIRES_AT: usize = 22;
/// Where the ledger begins.
pub const LEDGER_AT: usize = 30;
/// The codec number of MessagePack, whose bytes stand in the envelope as they are.
const MESSAGEPACK: u8 = 0;
/// The codec number of a body that is the home key of the row.
pub const POINTER: u8 = 3;

const ARRAY_OF_EIGHT: u8 = 0x98;
const NIL: u8 = 0xc0;
const BIN8: u8 = 0xc4;
const BIN32: u8 = 0xc6;
const UINT64: u8 = 0xcf;

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// A row's bytes, or a pointer to them.
    Value = 0,
    /// A row stands here, but what it holds now is not known: readers ask the database.
    Unknown = 1,
    /// No row stands here.
    Tombstone = 2,
}

impl State {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Value),
            1 => Some(Self::Unknown),
            2 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// The fixed part of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The version of what stands here.
    pub version: Version,
    /// What stands here.
    pub state: State,
    /// When it ends, in milliseconds since the Unix epoch; 0 is never.
    pub expires_at: u64,
}

impl Head {
    /// Whether it has ended by `now`, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }
}

/// The part of an envelope that stores copy and never look into: codec, fields and body.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Bytes);

impl Value {
    /// No body.
    #[must_use]
    pub fn none() -> Self {
        Self(Bytes::from_static(&[NIL, NIL, NIL]))
    }

    /// A model's bytes in this codec.
    #[must_use]
    pub fn model(codec: u8, fields: &[u32], body: &[u8]) -> Self {
        let mut out = Vec::with_capacity(body.len() + fields.len() * 4 + 12);
        out.push(codec & 0x7f);
        write_bin_head(&mut out, fields.len() * 4);
        for field in fields {
            out.extend_from_slice(&field.to_be_bytes());
        }
        if codec != MESSAGEPACK {
            write_bin_head(&mut out, body.len());
        }
        out.extend_from_slice(body);
        Self(out.into())
    }

    /// A pointer to the record of a row.
    #[must_use]
    pub fn pointer(home: &Key) -> Self {
        let mut out = Vec::with_capacity(home.as_str().len() + 8);
        out.extend_from_slice(&[POINTER, NIL, 0xdb]);
        out.extend_from_slice(&length(home.as_str().len()));
        out.extend_from_slice(home.as_str().as_bytes());
        Self(out.into())
    }

    /// The bytes as they stand in an envelope.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What it holds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when codec, fields and body are not what kvsync writes.
    pub fn body(&self) -> Result<Body<'_>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "the body of this entry is damaged");
        let (&codec, rest) = self.0.split_first().ok_or_else(corrupt)?;
        if codec == NIL {
            return Ok(Body::None);
        }
        if codec == POINTER {
            let home = rest.strip_prefix(&[NIL, 0xdb]).and_then(|rest| sized::<4>(rest)).ok_or_else(corrupt)?;
            return match home {
                (home, []) => {
                    std::str::from_utf8(home).map(Body::Pointer).map_err(|error| corrupt().with_source(error))
                }
                _ => Err(corrupt()),
            };
        }
        let (fields, rest) = read_bin(rest).ok_or_else(corrupt)?;
        let bytes = if codec == MESSAGEPACK {
            rest
        } else {
            match read_bin(rest).ok_or_else(corrupt)? {
                (bytes, []) => bytes,
                _ => return Err(corrupt()),
            }
        };
        Ok(Body::Model { codec, fields, bytes })
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

/// What an envelope holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// A model's bytes, the codec they are in, and the hashes of its fields.
    Model {
        /// The codec's number.
        codec: u8,
        /// Four bytes for each field, ascending.
        fields: &'a [u8],
        /// The model in its codec.
        bytes: &'a [u8],
    },
    /// The home key of the row, within its scope and before the store's prefix.
    Pointer(&'a str),
}

/// An envelope, read in place.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Its fixed part.
    pub head: Head,
    /// The ledger, when this is a row's record.
    pub ledger: Option<Bytes>,
    /// Codec, fields and body.
    pub value: Value,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] for bytes that are no envelope, [`ErrorKind::UnknownLayout`] for a
    /// layout that this version does not know.
    pub fn parse(bytes: &Bytes) -> Result<Self> {
        let corrupt =
            || Error::new(ErrorKind::Corrupt, "these bytes are no kvsync envelope; did another program write here?");
        let (&[ARRAY_OF_EIGHT, layout], _) = bytes.split_first_chunk().ok_or_else(corrupt)? else {
            return Err(corrupt());
        };
        if layout != LAYOUT {
            return Err(Error::new(
                ErrorKind::UnknownLayout,
                format!("the entry has layout {layout}, this kvsync reads {LAYOUT}; update the reader"),
            ));
        }
        let version = bytes.get(VERSION_AT..STATE_AT).and_then(|slice| slice.try_into().ok()).ok_or_else(corrupt)?;
        let state = bytes.get(STATE_AT).and_then(|byte| State::from_byte(*byte)).ok_or_else(corrupt)?;
        let expires_at =
            bytes.get(EXPIRES_AT..LEDGER_AT).and_then(|slice| slice.try_into().ok()).ok_or_else(corrupt)?;
        let head = Head { version: Version::from_bytes(version), state, expires_at: u64::from_be_bytes(expires_at) };
        let (ledger, value_at) = match bytes.get(LEDGER_AT) {
            Some(&NIL) => (None, LEDGER_AT + 1),
            Some(&BIN32) => {
                let begin = LEDGER_AT + 5;
                let len =
                    bytes.get(LEDGER_AT + 1..begin).and_then(|slice| slice.try_into().ok()).ok_or_else(corrupt)?;
                let end = usize::try_from(u32::from_be_bytes(len)).ok().and_then(|len| begin.checked_add(len));
                let end = end.filter(|end| *end <= bytes.len()).ok_or_else(corrupt)?;
                (Some(bytes.slice(begin..end)), end)
            }
            _ => return Err(corrupt()),
        };
        if bytes.len() < value_at + 3 {
            return Err(corrupt());
        }
        Ok(Self { head, ledger, value: Value(bytes.slice(value_at..)) })
    }

    /// The bytes of an envelope.
    #[must_use]
    pub fn encode(head: &Head, ledger: Option<&[u8]>, value: &Value) -> Bytes {
        let ledger_len = ledger.map_or(1, |ledger| 5 + ledger.len());
        let mut out = Vec::with_capacity(LEDGER_AT + ledger_len + value.0.len());
        out.extend_from_slice(&[ARRAY_OF_EIGHT, LAYOUT, BIN8, 16]);
        out.extend_from_slice(head.version.as_bytes());
        out.extend_from_slice(&[head.state as u8, UINT64]);
        out.extend_from_slice(&head.expires_at.to_be_bytes());
        match ledger {
            None => out.push(NIL),
            Some(ledger) => {
                out.push(BIN32);
                out.extend_from_slice(&length(ledger.len()));
                out.extend_from_slice(ledger);
            }
        }
        out.extend_from_slice(&value.0);
        out.into()
    }

    /// What it holds.
    ///
    /// # Errors
    ///
    /// As [`Value::body`].
    pub fn body(&self) -> Result<Body<'_>> {
        self.value.body()
    }
}

/// A length as MessagePack writes it. What is longer than 4 GiB no store takes, so it is cut there.
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// What stands before a byte string of this length.
fn write_bin_head(out: &mut Vec<u8>, len: usize) {
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[BIN8, len]);
    } else {
        out.push(BIN32);
        out.extend_from_slice(&length(len));
    }
}

fn read_bin(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.split_first()? {
        (&BIN8, rest) => sized::<1>(rest),
        (&BIN32, rest) => sized::<4>(rest),
        _ => None,
    }
}

/// Splits off as many bytes as the big-endian length of `N` bytes says.
fn sized<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<N>()?;
    let len = len.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { version: Version::new(1, 2, 3), state: State::Value, expires_at: 4 }
    }

    #[test]
    fn it_is_one_messagepack_array() {
        let body = rmp_serde::to_vec_named(&("a", 1)).unwrap_or_default();
        let bytes = Envelope::encode(&head(), Some(b"ledger"), &Value::model(0, &[5, 6], &body));
        let mut rest = &bytes[..];
        let value: Vec<serde::de::IgnoredAny> = rmp_serde::from_read(&mut rest).unwrap_or_default();
        assert_eq!((value.len(), rest.len()), (8, 0));
    }

    #[test]
    fn what_was_written_is_read() -> Result<()> {
        let fields = [1, 2, 3, 4, 5, 6, 7, 8];
        for (value, body) in [
            (Value::none(), Body::None),
            (
                Value::model(0, &[0x0102_0304, 0x0506_0708], b"\x81\xa1a\x01"),
                Body::Model { codec: 0, fields: &fields, bytes: b"\x81\xa1a\x01" },
            ),
            (Value::model(1, &[], &[b'x'; 300]), Body::Model { codec: 1, fields: &[], bytes: &[b'x'; 300] }),
            (Value::pointer(&Key::new("user:id:1")), Body::Pointer("user:id:1")),
        ] {
            for ledger in [None, Some(&b"ledger"[..])] {
                let envelope = Envelope::parse(&Envelope::encode(&head(), ledger, &value))?;
                assert_eq!((envelope.head, envelope.ledger.as_deref()), (head(), ledger));
                assert_eq!(envelope.body()?, body);
            }
        }
        Ok(())
    }

    #[test]
    fn no_cut_and_no_layout_is_misread() {
        let whole = Envelope::encode(&head(), Some(b"ledger"), &Value::model(1, &[1], b"{}"));
        for len in 0..whole.len() {
            let cut = Envelope::parse(&whole.slice(..len));
            assert!(cut.and_then(|envelope| envelope.body().map(|_| ())).is_err(), "cut at {len}");
        }
        let mut other = whole.to_vec();
        other[1] = 2;
        assert_eq!(Envelope::parse(&other.into()).map_err(|error| error.kind()).err(), Some(ErrorKind::UnknownLayout));
        assert_eq!(
            Envelope::parse(&Bytes::from_static(b"{\"id\":1}")).map_err(|error| error.kind()).err(),
            Some(ErrorKind::Corrupt)
        );
    }
}
