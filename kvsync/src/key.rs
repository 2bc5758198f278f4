//! Keys: their parts, how parts are escaped, and the scope that goes before them.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::mem;
use std::sync::Arc;

/// A key as it stands in the store, after the store's own prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key with exactly this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This key within a scope.
    #[must_use]
    pub fn within(self, scope: &Scope) -> Self {
        if scope.is_none() { self } else { Self(format!("{}{}", scope.prefix(), self.0).into()) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A tenant or schema whose rows stand apart from all others; part of every key of its rows.
///
/// It is set on the connection that writes and on the handle that reads, and never guessed. Where each tenant has a
/// Postgres schema, the database gives rows their scope
/// ([`Database::scopes`](crate::capture::Database::scopes)).
///
/// The scope is in no column. So where tenants share a table and connections choose the scope, a row does not say
/// whose it is: within a scope, a backfill, a verification, a repair and a bulk would take all rows of the table for
/// that tenant's, and are refused. Where each tenant has a database, say so
/// ([`Database::single_tenant`](crate::capture::Database::single_tenant)), and they work. For tenants that share
/// tables put the tenant's column in each key instead (`user:<tenant_id>:<id>`), and everything works without scopes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Scope(Option<Arc<str>>);

impl Scope {
    /// No scope: keys stand as their formats say.
    pub const NONE: Self = Self(None);

    /// The scope of this name, which is a scope also when it is empty. Its keys begin with `@name:`, where `%` and `:` of the name are escaped.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut key = KeyWriter::default();
        key.literal("@");
        key.part(&name, Some(':'));
        key.literal(":");
        Self(Some(key.text.as_str().into()))
    }

    /// The scope of this [`prefix`](Self::prefix); nothing for text that is no scope's prefix.
    #[must_use]
    pub fn of_prefix(prefix: &str) -> Option<Self> {
        if prefix.is_empty() {
            return Some(Self::NONE);
        }
        let name = prefix.strip_prefix('@')?.strip_suffix(':')?;
        (!name.contains(':')).then(|| Self(Some(prefix.into())))
    }

    /// Whether this is [`Scope::NONE`].
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// What goes before a key of this scope; empty for [`Scope::NONE`].
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({:?})", self.prefix())
    }
}

/// Builds a key from literal text and parts; used by the code that the derive generates.
///
/// Inside a part, `%` and the character that follows the part in the format are percent-encoded. So
/// the first such character behind a part and outside of an escape is the format's own, and distinct
/// parts give distinct keys.
#[derive(Debug)]
pub struct KeyWriter {
    text: String,
    absent: bool,
}

thread_local! {
    /// Where the thread's next key is written, so that it is allocated once, at its full length.
    static ROOM: Cell<String> = const { Cell::new(String::new()) };
}

impl Default for KeyWriter {
    fn default() -> Self {
        // A key that is written while another one is, or as the thread ends, has no room prepared.
        let mut text = ROOM.try_with(Cell::take).unwrap_or_default();
        text.clear();
        Self { text, absent: false }
    }
}

impl Drop for KeyWriter {
    fn drop(&mut self) {
        let text = mem::take(&mut self.text);
        if text.capacity() <= LONG {
            ROOM.try_with(|room| room.set(text)).unwrap_or_default();
        }
    }
}

/// The longest key whose room is kept for the next one.
const LONG: usize = 4096;

impl KeyWriter {
    /// Appends text of the format, as it is.
    pub fn literal(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends a part; `stop` is the character that follows it in the format.
    pub fn part<P: KeyPart + ?Sized>(&mut self, part: &P, stop: Option<char>) {
        part.write(&mut PartWriter { key: self, stop });
    }

    /// The key, or nothing when a part was absent.
    #[must_use]
    pub fn finish(self) -> Option<Key> {
        (!self.absent).then(|| Key::new(self.text.as_str()))
    }
}

/// For the derive: the key, or one that nothing stands under when a part was absent. No format can
/// begin with its `!`.
#[doc(hidden)]
#[must_use]
pub fn key(writer: KeyWriter) -> Key {
    writer.finish().unwrap_or_else(|| Key::new("!absent"))
}

/// For the derive: says that there is no such key.
#[doc(hidden)]
pub fn no_key(writer: &mut KeyWriter) {
    writer.absent = true;
}

/// Where a [`KeyPart`] writes itself, escaped.
#[derive(Debug)]
pub struct PartWriter<'a> {
    key: &'a mut KeyWriter,
    stop: Option<char>,
}

impl PartWriter<'_> {
    /// Appends text of the part. Two values that differ must write different text.
    pub fn text(&mut self, text: &str) {
        if !text.contains(|character| character == '%' || Some(character) == self.stop) {
            return self.key.text.push_str(text);
        }
        for character in text.chars() {
            if character == '%' || Some(character) == self.stop {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a string never fails.
                    write!(self.key.text, "%{byte:02X}").unwrap_or_default();
                }
            } else {
                self.key.text.push(character);
            }
        }
    }

    /// Appends what the value displays as.
    fn display(&mut self, value: impl fmt::Display) {
        // Writing to a key never fails.
        write!(Escaping(self), "{value}").unwrap_or_default();
    }

    /// Says that the value has no place in a key: the row then has no key of this name.
    pub fn absent(&mut self) {
        self.key.absent = true;
    }
}

struct Escaping<'a, 'b>(&'a mut PartWriter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.text(text);
        Ok(())
    }
}

/// A value that can be a part of a key.
///
/// Floats are left out on purpose: their text is not one for one with their value. For a newtype or
/// an enum of your own, derive it, or write it in a line:
///
/// ```
/// struct Email(String);
///
/// impl kvsync::KeyPart for Email {
///     fn write(&self, part: &mut kvsync::PartWriter<'_>) {
///         part.text(&self.0);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a sync key",
    label = "not a key part",
    note = "integers, `bool`, `char`, strings, byte strings, `Option` of these and (feature `uuid`) `Uuid` can",
    note = "for a newtype or an enum of yours, add `#[derive(kvsync::KeyPart)]` or implement `kvsync::KeyPart`"
)]
pub trait KeyPart {
    /// Writes the value's text; different values must write different text.
    fn write(&self, part: &mut PartWriter<'_>);
}

macro_rules! display_parts {
    ($($type:ty)*) => {$(
        impl KeyPart for $type {
            fn write(&self, part: &mut PartWriter<'_>) {
                part.display(self);
            }
        }
    )*};
}

display_parts!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize bool char);

#[cfg(feature = "uuid")]
display_parts!(uuid::Uuid);

impl KeyPart for str {
    fn write(&self, part: &mut PartWriter<'_>) {
        part.text(self);
    }
}

impl KeyPart for String {
    fn write(&self, part: &mut PartWriter<'_>) {
        part.text(self);
    }
}

/// Lower-case hexadecimal.
impl KeyPart for [u8] {
    fn write(&self, part: &mut PartWriter<'_>) {
        for byte in self {
            part.display(format_args!("{byte:02x}"));
        }
    }
}

impl KeyPart for Vec<u8> {
    fn write(&self, part: &mut PartWriter<'_>) {
        self.as_slice().write(part);
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    fn write(&self, part: &mut PartWriter<'_>) {
        self.as_slice().write(part);
    }
}

/// `None` is no key.
impl<P: KeyPart> KeyPart for Option<P> {
    fn write(&self, part: &mut PartWriter<'_>) {
        match self {
            Some(value) => value.write(part),
            None => part.absent(),
        }
    }
}

impl<P: KeyPart + ?Sized> KeyPart for &P {
    fn write(&self, part: &mut PartWriter<'_>) {
        (**self).write(part);
    }
}

impl<P: KeyPart + ?Sized> KeyPart for Box<P> {
    fn write(&self, part: &mut PartWriter<'_>) {
        (**self).write(part);
    }
}

impl<P: KeyPart + ?Sized> KeyPart for Arc<P> {
    fn write(&self, part: &mut PartWriter<'_>) {
        (**self).write(part);
    }
}

impl<P: KeyPart + ToOwned + ?Sized> KeyPart for Cow<'_, P> {
    fn write(&self, part: &mut PartWriter<'_>) {
        (**self).write(part);
    }
}

/// The parts of a key that is chosen by name at run time: one part, or a tuple of up to eight.
pub trait KeyParts {
    /// How many there are.
    const COUNT: usize;
    /// Writes them between the literals of a format, of which there is one more than parts.
    fn write(&self, literals: &[&str], key: &mut KeyWriter);
}

impl<P: KeyPart> KeyParts for P {
    const COUNT: usize = 1;

    fn write(&self, literals: &[&str], key: &mut KeyWriter) {
        write_parts(&[self], literals, key);
    }
}

macro_rules! tuples {
    ($($count:literal: $($part:ident)*;)*) => {$(
        impl<$($part: KeyPart),*> KeyParts for ($($part,)*) {
            const COUNT: usize = $count;

            #[allow(non_snake_case, reason = "the type parameters name the bindings")]
            fn write(&self, literals: &[&str], key: &mut KeyWriter) {
                let ($($part,)*) = self;
                write_parts(&[$($part),*], literals, key);
            }
        }
    )*};
}

tuples! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
}

fn write_parts(parts: &[&dyn KeyPart], literals: &[&str], key: &mut KeyWriter) {
    let (first, rest) = literals.split_first().unwrap_or((&"", &[]));
    key.literal(first);
    for (part, literal) in parts.iter().zip(rest) {
        key.part(*part, literal.chars().next());
        key.literal(literal);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(parts: &[&str], separator: &str) -> Option<Key> {
        let mut key = KeyWriter::default();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                key.literal(separator);
            }
            key.part(part, if index + 1 < parts.len() { separator.chars().next() } else { None });
        }
        key.finish()
    }

    #[test]
    fn a_separator_inside_a_part_is_escaped() {
        assert_eq!(joined(&["a_b", "c"], "_"), Some(Key::new("a%5Fb_c")));
        assert_eq!(joined(&["a", "b_c"], "_"), Some(Key::new("a_b_c")));
        assert_eq!(joined(&["100%", "é"], "é"), Some(Key::new("100%25éé")));
    }

    #[test]
    fn none_is_no_key() {
        let mut key = KeyWriter::default();
        key.part(&None::<String>, None);
        assert_eq!(key.finish(), None);
    }

    #[test]
    fn a_scope_cannot_reach_into_another() {
        let key = |scope: &str| Key::new("user:1").within(&Scope::named(scope));
        assert_eq!(key("eu").as_str(), "@eu:user:1");
        assert_ne!(key("eu:user:1"), Key::new("user:1:user:1").within(&Scope::named("eu")));
    }

    #[test]
    fn a_scope_is_known_by_its_prefix() {
        for scope in [Scope::NONE, Scope::named(""), Scope::named("eu"), Scope::named("a:b%@")] {
            assert_eq!(Scope::of_prefix(scope.prefix()), Some(scope));
        }
        for wrong in ["eu", "@", "@eu", "eu:", "@eu:user:"] {
            assert_eq!(Scope::of_prefix(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn distinct_parts_give_distinct_keys(
            left in prop::collection::vec("[a%_:é-]{0,4}", 3),
            right in prop::collection::vec("[a%_:é-]{0,4}", 3),
            separator in "[_:é-]{1,2}",
        ) {
            let left: Vec<&str> = left.iter().map(String::as_str).collect();
            let right: Vec<&str> = right.iter().map(String::as_str).collect();
            prop_assert_eq!(joined(&left, &separator) == joined(&right, &separator), left == right);
        }
    }
}
