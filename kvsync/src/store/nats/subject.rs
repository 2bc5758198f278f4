//! Keys as subjects, and back.
//!
//! A key is cut at its colons, and each piece is a token: `user:id:7` is `user.id.7`, so that a prefix up to a colon is
//! a subject that a server can look for. No two keys share a subject.

use crate::nats::{push_piece, push_token};

/// The longest key, in bytes. Escaped it is three times as long, and a server takes no line above 4096 bytes.
pub(super) const MAX_KEY: usize = 1024;
/// The longest prefix of a store, in bytes.
pub(super) const MAX_PREFIX: usize = 64;
/// The longest name of a bucket.
pub(super) const MAX_BUCKET: usize = 128;

/// The subjects of one store within its bucket.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    /// What all of them begin with, with the last dot.
    root: String,
}

impl Subjects {
    pub(super) fn new(bucket: &str, prefix: &str) -> Self {
        let mut root = format!("$KV.{bucket}.");
        push_token(&mut root, prefix.as_bytes());
        root.push('.');
        Self { root }
    }

    /// Where a key of rows stands.
    pub(super) fn row(&self, key: &str) -> String {
        self.of("row.", key.as_bytes())
    }

    /// Where a key of data stands.
    pub(super) fn data(&self, key: &[u8]) -> String {
        self.of("data.", key)
    }

    /// Where the epoch stands.
    pub(super) fn epoch(&self) -> String {
        format!("{}epoch", self.root)
    }

    /// A filter that finds every row whose key begins with this prefix, and others.
    pub(super) fn rows(&self, prefix: &str) -> String {
        match prefix.rsplit_once(':') {
            Some((whole, _)) => format!("{}.>", self.row(whole)),
            None => format!("{}row.>", self.root),
        }
    }

    /// A filter that finds all data.
    pub(super) fn all_data(&self) -> String {
        format!("{}data.>", self.root)
    }

    /// The key of rows that stands at a subject.
    pub(super) fn row_of(&self, subject: &str) -> Option<String> {
        String::from_utf8(self.key_of("row.", subject)?).ok()
    }

    /// The key of data that stands at a subject.
    pub(super) fn data_of(&self, subject: &str) -> Option<Vec<u8>> {
        self.key_of("data.", subject)
    }

    fn of(&self, kind: &str, key: &[u8]) -> String {
        let mut subject = String::with_capacity(self.root.len() + kind.len() + key.len() + 8);
        subject.push_str(&self.root);
        subject.push_str(kind);
        for (place, piece) in key.split(|byte| *byte == b':').enumerate() {
            if place > 0 {
                subject.push('.');
            }
            push_token(&mut subject, piece);
        }
        subject
    }

    fn key_of(&self, kind: &str, subject: &str) -> Option<Vec<u8>> {
        let tokens = subject.strip_prefix(&self.root)?.strip_prefix(kind)?;
        let mut key = Vec::with_capacity(tokens.len());
        for (place, token) in tokens.split('.').enumerate() {
            if place > 0 {
                key.push(b':');
            }
            push_piece(&mut key, token)?;
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subjects() -> Subjects {
        Subjects::new("shop", "eu")
    }

    #[test]
    fn a_key_is_readable_where_nats_allows_it() {
        let subjects = subjects();
        assert_eq!(subjects.row("user:id:7"), "$KV.shop.eu.row.user.id.7");
        assert_eq!(subjects.row(""), "$KV.shop.eu.row.=");
        assert_eq!(subjects.row(":a:"), "$KV.shop.eu.row.=.a.=");
        assert_eq!(subjects.data(b"a.b*>"), "$KV.shop.eu.data.a=2Eb=2A=3E");
        assert_eq!(subjects.rows("user:id:"), "$KV.shop.eu.row.user.id.>");
        assert_eq!(subjects.rows("user:i"), "$KV.shop.eu.row.user.>");
        assert_eq!(subjects.rows(""), "$KV.shop.eu.row.>");
        assert_eq!(Subjects::new("shop", "").epoch(), "$KV.shop.=.epoch");
    }

    #[test]
    fn what_is_not_ours_is_no_key() {
        for subject in ["$KV.shop.eu.row.", "$KV.shop.eu.row.=4", "$KV.shop.eu.row.a..b", "$KV.shop.us.row.a", "x"] {
            assert_eq!(subjects().row_of(subject), None, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in proptest::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,20}") {
            let subjects = subjects();
            prop_assert_eq!(subjects.data_of(&subjects.data(&key)), Some(key));
            prop_assert_eq!(subjects.row_of(&subjects.row(&text)), Some(text));
        }

        #[test]
        fn every_subject_is_one_that_nats_takes(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let subject = subjects().data(&key);
            let fits = |token: &str| {
                !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/=".contains(&byte))
            };
            prop_assert!(subject.split('.').skip(1).all(fits), "{}", subject);
        }

        #[test]
        fn a_filter_finds_what_begins_with_the_prefix(prefix in "[ab:.]{0,6}", rest in "[ab:.]{0,6}") {
            let subjects = subjects();
            let (filter, subject) = (subjects.rows(&prefix), subjects.row(&format!("{prefix}{rest}")));
            let begin = filter.strip_suffix('>').unwrap();
            prop_assert!(subject.len() > begin.len() && subject.starts_with(begin), "{} {}", filter, subject);
        }
    }
}
