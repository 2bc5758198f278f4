//! Any bytes as a token of a subject, and back.
//!
//! A subject of NATS is made of tokens with dots between them. Bytes other than letters, digits, `-`, `_` and `/` are
//! `=` and two hexadecimal digits, and nothing at all is a lone `=`: no two pieces share a token.

use std::fmt::Write as _;

/// Appends the token that stands for a piece.
pub(crate) fn push_token(subject: &mut String, piece: &[u8]) {
    if piece.is_empty() {
        subject.push('=');
    }
    for byte in piece {
        if byte.is_ascii_alphanumeric() || b"-_/".contains(byte) {
            subject.push(char::from(*byte));
        } else {
            // A `String` takes whatever is written.
            let _ = write!(subject, "={byte:02X}");
        }
    }
}

/// Appends what a token stands for; nothing for one that is not ours.
pub(crate) fn push_piece(piece: &mut Vec<u8>, token: &str) -> Option<()> {
    if token == "=" {
        return Some(());
    }
    let mut rest = token.as_bytes();
    if rest.is_empty() {
        return None;
    }
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte == b'=' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            piece.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            piece.push(*byte);
        }
    }
    Some(())
}
