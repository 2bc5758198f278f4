//! Routing keys: `<table>.<action>`.

use std::fmt::Write as _;

/// The longest routing key that the protocol knows, in bytes.
const LONGEST: usize = 255;
/// What is left of a name that is cut: `%` and sixteen digits follow.
const DIGEST: usize = 17;

/// The routing key of a change: the table, escaped by [`routing_word`], a dot, and the action. A key that would be
/// longer than 255 bytes has its table cut and ends in `%` and a digest of it, before the dot.
#[must_use]
pub fn routing_key(table: &str, action: &str) -> String {
    let (mut word, action) = (routing_word(table), routing_word(action));
    let room = LONGEST.saturating_sub(action.len() + 1);
    if word.len() > room {
        let digest = digest(table.as_bytes());
        word.truncate(room.saturating_sub(DIGEST));
        // Not in the midst of an escape, which would then be another character.
        let end = word.len();
        if let Some(cut) = word.rfind('%').filter(|at| at + 3 > end) {
            word.truncate(cut);
        }
        // Writing into a string cannot fail.
        let _ = write!(word, "%{digest:016x}");
    }
    format!("{word}.{action}")
}

/// A name as one word of a routing key: letters, digits, `-` and `_` of ASCII stay, every other byte is `%` and two
/// hexadecimal digits; an empty name is `%`. So `public.users` is `public%2Eusers`, and a binding to `public%2Eusers.*`
/// wants all of its changes.
#[must_use]
pub fn routing_word(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    name.bytes().fold(String::with_capacity(name.len()), |mut word, byte| {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            word.push(char::from(byte));
        } else {
            let _ = write!(word, "%{byte:02X}");
        }
        word
    })
}

/// FNV-1a, which other languages have, too.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_words_whatever_the_names_are() {
        for (table, key) in [
            ("users", "users.update"),
            ("public.users", "public%2Eusers.update"),
            ("#", "%23.update"),
            ("", "%.update"),
            ("a%b", "a%25b.update"),
            ("ż", "%C5%BC.update"),
        ] {
            assert_eq!(routing_key(table, "update"), key);
        }
    }

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        for length in 200..300 {
            for letter in ["x", "ż", "."] {
                let (one, other) = (letter.repeat(length), letter.repeat(length) + "y");
                let (one, other) = (routing_key(&one, "delete"), routing_key(&other, "delete"));
                assert!(one.len() <= LONGEST && other.len() <= LONGEST);
                assert_ne!(one, other);
                assert_eq!(one.matches('.').count(), 1);
            }
        }
    }
}
