//! The dead letters of a queue, for people and for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::outbox::age;
use super::tell::Told;
use crate::error::without_passwords;
use crate::transport::message::verb;
use crate::transport::{ChangeMessage, DeadMessage};

/// What `--dead` says of them, asked for so many.
pub(super) fn list(letters: &[DeadMessage], most: u32) -> Told {
    let mut lines: Vec<String> = letters.iter().map(line).collect();
    let more = u32::try_from(letters.len()).unwrap_or(u32::MAX) >= most;
    if letters.is_empty() {
        lines.push("there are no dead letters".to_owned());
    } else if more {
        lines.push(format!("there may be more than these {most}; see `--dead MOST`"));
    }
    let all: Vec<Value> = letters.iter().map(fields).collect();
    Told::new(json!({ "dead_letters": all }), lines, letters.is_empty())
}

/// The change that it tells of, if it is a message of kvsync's.
fn change(letter: &DeadMessage) -> Option<ChangeMessage> {
    ChangeMessage::decode(letter.content_type.as_deref(), &letter.body).ok()
}

fn line(letter: &DeadMessage) -> String {
    let DeadMessage { body, content_type, id, reason, deliveries, at } = letter;
    let what = match change(letter) {
        Some(change) => {
            let (action, table, key) = (verb(change.action()), change.table(), change.primary_key());
            format!("{action} of {table} {key} at {}", change.version())
        }
        None => format!("{} bytes of {}", body.len(), content_type.as_deref().unwrap_or("no known form")),
    };
    let when = at.map(|at| format!(", {} ago", rounded(age(at)))).unwrap_or_default();
    let id = id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
    format!("{what}{when}, {deliveries} deliveries{id}: {}", without_passwords(reason))
}

fn fields(letter: &DeadMessage) -> Value {
    let mut fields = Map::new();
    if let Some(change) = change(letter) {
        for (name, value) in [
            ("database", change.database()),
            ("table", change.table()),
            ("model", change.model()),
            ("action", verb(change.action())),
            ("primary_key", change.primary_key()),
            ("version", &change.version().to_string()),
        ] {
            fields.insert(name.to_owned(), value.into());
        }
        fields.insert("captured_seconds".to_owned(), age(change.captured_at()).as_secs_f64().into());
    }
    let own = json!({
        "id": letter.id,
        "deliveries": letter.deliveries,
        "age_seconds": letter.at.map(|at| age(at).as_secs_f64()),
        "content_type": letter.content_type,
        "bytes": letter.body.len(),
        "reason": without_passwords(&letter.reason),
    });
    if let Value::Object(own) = own {
        fields.extend(own);
    }
    Value::Object(fields)
}

/// A time in its largest unit.
fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 days")] {
            assert_eq!(rounded(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_is_no_message_of_ours_is_told_by_its_bytes() {
        let letter = DeadMessage {
            body: "garbage".into(),
            content_type: Some("text/html".to_owned()),
            reason: "redis://app:secret@host is away".to_owned(),
            deliveries: 3,
            ..DeadMessage::default()
        };
        assert_eq!(line(&letter), "7 bytes of text/html, 3 deliveries: redis://***@host is away");
    }
}
