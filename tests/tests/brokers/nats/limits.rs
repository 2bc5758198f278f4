//! What a stream and a queue take, and what they let through twice.

use std::time::Duration;

use kvsync::ErrorKind;
use kvsync::transport::{Arrival, Broker, Status, Subscription};
use kvsync_tests::Tested;
use kvsync_tests::nats::{api, count, kept, put};
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::{LONG, until};
use nkeys::KeyPair;

use super::checks::{MOMENT, drain, hasty, message, patient, publish, publishing, refused, server, take};

/// A stream as kvsync makes it, and as somebody made it before.
fn make(server: &Nats, settings: &str) -> Tested {
    let config = format!(
        r#"{{"name":"kvsync","subjects":["kvsync.*.*"],"storage":"file","retention":"limits","num_replicas":1{settings}}}"#
    );
    api(server.port(), "STREAM.CREATE.kvsync", &config).map(drop)
}

pub(super) fn a_copy_that_comes_too_late_is_delivered_once_more() -> Tested {
    let server = server()?;
    make(&server, r#","duplicate_window":100000000"#)?;
    let builder = patient(&server);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    until("the server has forgotten the first", || {
        publish(&broker, &[message("users", "one")]).is_ok()
            && count(server.port(), "kvsync").is_ok_and(|kept| kept == 2)
    });
    let taken = take(&queue, 2)?;
    assert!(taken.iter().all(|arrival| arrival.body().as_ref() == b"one" && arrival.redelivered() == 0));
    Arrival::ack_all(taken);
    Ok(())
}

pub(super) fn what_was_dead_and_is_put_back_is_not_swallowed() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    publish(&broker, &[message("users", "one")])?;
    for letters in 1..=3 {
        take(&queue, 1)?.remove(0).dead("unknown");
        until("it is kept", || count(server.port(), "kvsync-dead").is_ok_and(|kept| kept == letters));
        let letter = kept(server.port(), "kvsync-dead")?.pop().ok_or("no letter")?;
        // As somebody does with a client: with its headers, long before the server forgets any id.
        let other = |line: &&str| !line.starts_with("Nats-Expected-Stream");
        let headers: String = letter.headers.split_inclusive("\r\n").filter(other).collect();
        let told = put(server.port(), "kvsync.users.update", &headers, &letter.body)?;
        assert!(!told.contains("error") && !told.contains("duplicate"), "{told}");
    }
    assert_eq!(drain(&queue, 1)?.len(), 1);
    Ok(())
}

pub(super) fn a_message_that_the_stream_finds_too_large_is_rejected_alone() -> Tested {
    let server = server()?;
    make(&server, r#","max_msg_size":1000"#)?;
    let builder = patient(&server);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    let large = "x".repeat(5000);
    let answers = broker.publish(&[message("users", "one"), message("users", &large), message("users", "two")]);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    refused(answers[1].clone(), ErrorKind::Rejected, "as large as this");
    assert_eq!(drain(&queue, 2)?.len(), 2);
    Ok(())
}

pub(super) fn too_many_that_are_held_hold_up_the_queue() -> Tested {
    let server = server()?;
    let builder = patient(&server).max_ack_pending(5);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    let sent: Vec<_> = (0..8).map(|number| message("users", &number.to_string())).collect();
    publish(&broker, &sent)?;
    let mut held = take(&queue, 5)?;
    assert!(queue.receive(5, MOMENT)?.is_empty());
    let health = queue.health(LONG);
    assert!(health.status == Status::Degraded && health.to_string().contains("gives nothing more"), "{health}");
    Arrival::ack_all(held.split_off(2));
    assert_eq!(drain(&queue, 3)?.len(), 3);
    Ok(())
}

pub(super) fn a_token_and_an_nkey_let_in() -> Tested {
    let (ours, theirs) = (KeyPair::new_user(), KeyPair::new_user());
    let start = |settings: String| Nats::start(&NatsOptions { settings, ..NatsOptions::default() });
    let of_token = start("authorization { token: secret }".to_owned())?;
    let of_key = start(format!("authorization {{ users = [ {{ nkey: {} }} ] }}", ours.public_key()))?;
    for (right, wrong) in [
        (hasty(&of_token).token("secret"), hasty(&of_token).token("guess")),
        (hasty(&of_key).nkey(ours.seed()?), hasty(&of_key).nkey(theirs.seed()?)),
    ] {
        let queue = right.queue("one")?;
        publishing(&right.broker()?)?;
        assert_eq!(drain(&queue, 1)?.len(), 1);
        refused(publishing(&wrong.broker()?), ErrorKind::Config, "does not take this user, token or key");
        refused(wrong.queue("one")?.receive(1, MOMENT), ErrorKind::Config, "does not take this user, token or key");
    }
    Ok(())
}

pub(super) fn what_another_stream_would_take_is_not_confirmed() -> Tested {
    let server = server()?;
    let (broker, queue) = (hasty(&server).broker()?, hasty(&server).queue("one")?);
    publishing(&broker)?;
    assert_eq!(drain(&queue, 1)?.len(), 1);
    queue.close()?;
    api(server.port(), "STREAM.DELETE.kvsync", "")?;
    let thief = r#"{"name":"thief","subjects":["kvsync.*.*"],"storage":"file","retention":"limits","num_replicas":1}"#;
    api(server.port(), "STREAM.CREATE.thief", thief)?;
    until("what is there is told", || {
        let answer = broker.publish(&[message("users", "two")]).remove(0);
        answer.expect_err("it was confirmed, and no queue has it").kind() == ErrorKind::Config
    });
    api(server.port(), "STREAM.DELETE.thief", "")?;
    let queue = patient(&server).queue("one")?;
    until("it is kept when that is gone", || publish(&broker, &[message("users", "three")]).is_ok());
    assert_eq!(drain(&queue, 1)?.len(), 1);
    Ok(())
}

pub(super) fn what_is_held_is_given_back_at_once_when_its_queue_closes() -> Tested {
    let server = server()?;
    let builder = patient(&server).ack_wait(Duration::from_hours(1));
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    let sent: Vec<_> = (0..4).map(|number| message("users", &number.to_string())).collect();
    publish(&broker, &sent)?;
    let held = take(&queue, 4)?;
    queue.close()?;
    drop(held);
    let again = builder.queue("one")?;
    assert_eq!(drain(&again, 4)?.len(), 4);
    Ok(())
}

pub(super) fn a_bound_in_bytes_is_refused_where_the_server_would_forget() -> Tested {
    let server = server()?;
    let made = hasty(&server).max_bytes(1_000_000).queue("one")?.receive(1, MOMENT);
    if server.log().contains("Version:  2.9.") {
        refused(made, ErrorKind::Config, "bound it by `max_messages`");
    } else {
        assert!(made?.is_empty());
    }
    Ok(())
}
