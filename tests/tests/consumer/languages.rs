//! What programs in other languages read: both forms, as they are published, and as they were published first.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kvsync::KvSync;
use kvsync::transport::{Arrival, MemoryBroker, MessageFormat, Subscription, message};
use kvsync_tests::{Tested, env};
use serde_json::{Value, json};

use crate::rig::{App, user};

/// What Python reads.
fn told(content_type: &str, file: &Path) -> Tested<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumer/read_message.py");
    let said = Command::new(env::python()?).arg(script).arg(content_type).arg(file).output()?;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(serde_json::from_slice(&said.stdout)?)
}

#[test]
fn python_reads_what_is_published_in_both_forms() -> Tested {
    let dir = tempfile::tempdir()?;
    for format in [MessageFormat::MessagePack, MessageFormat::Json] {
        let broker = MemoryBroker::new();
        let queue = broker.queue("all");
        let mut app = App::with(KvSync::builder().broker(broker).message_format(format), false);
        app.insert(&user(1, "a", "ann"));
        app.flush();
        app.rename(1, "b");
        app.flush();
        app.delete(1);
        app.flush();
        let arrivals = queue.receive(9, Duration::ZERO)?;
        let mut read = Vec::new();
        for arrival in &arrivals {
            let file = dir.path().join("message");
            std::fs::write(&file, arrival.body())?;
            read.push(told(arrival.content_type().unwrap_or_default(), &file)?);
        }
        Arrival::ack_all(arrivals);
        let row = |email: &str| json!({"id": 1, "email": email, "name": "ann"});
        let wanted = [("create", row("a"), "user:email:a"), ("update", row("b"), "user:email:b")];
        for ((action, row, key), read) in wanted.iter().zip(&read) {
            assert_eq!((&read["action"], &read["row"], &read["table"]), (&json!(action), row, &json!("users")));
            assert_eq!(
                (&read["primary_key"], &read["keys"], &read["state"]),
                (&json!("1"), &json!([key]), &json!("live"))
            );
        }
        let deleted = &read[2];
        assert_eq!((&deleted["action"], &deleted["state"]), (&json!("delete"), &json!("absent")));
        assert_eq!(
            (&deleted["row"], &deleted["gone"]),
            (&row("b"), &json!(["user:email:b"])),
            "the row as it was last"
        );
        let versions: Vec<&str> = read.iter().filter_map(|one| one["version"].as_str()).collect();
        assert!(versions.is_sorted() && versions.len() == 3, "{versions:?}");
    }
    Ok(())
}

#[test]
fn python_reads_the_first_messages_of_the_format() -> Tested {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kvsync/src/transport/message/golden");
    for name in ["create", "delete", "unknown", "registers"] {
        let packed = told(message::MESSAGEPACK, &golden.join(format!("{name}.msgpack")))?;
        let text = told(message::JSON, &golden.join(format!("{name}.json")))?;
        assert_eq!(packed, text, "{name}");
        assert_eq!((&packed["primary_key"], &packed["table"]), (&json!("7"), &json!("users")), "{name}");
    }
    Ok(())
}
