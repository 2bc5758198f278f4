//! What the server says no to, and what stands on it.

use std::sync::Arc;

use kvsync::ErrorKind;
use kvsync::transport::conformance::Topic as _;
use kvsync::transport::{Arrival, Message};
use kvsync_tests::servers::{RabbitMq, RabbitMqOptions};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, wait};

use super::place;

pub(super) fn message(table: &str, body: impl Into<bytes::Bytes>) -> Message {
    let (body, content_type) = (body.into(), "application/x-test");
    Message { table: Arc::from(table), action: "update", id: "an id".into(), content_type, body }
}

/// The server closes the channel for it, and with it whatever was on its way.
pub(super) fn a_message_that_the_server_finds_too_large_is_rejected_alone() -> Tested {
    let server =
        RabbitMq::start(&RabbitMqOptions { settings: "max_message_size = 4096".into(), ..Default::default() })?;
    let topic = place(&server.url(), |builder| builder);
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let answers =
        broker.publish(&[message("users", "before"), message("users", vec![0; 5000]), message("users", "behind")]);
    let [Ok(()), Err(refused), Ok(())] = answers.as_slice() else { return Err(format!("{answers:?}").into()) };
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    let mut missing = std::collections::BTreeSet::from(["before", "behind"]);
    wait::until("both others arrive", || {
        let arrivals = queue.receive(10, LONG).unwrap();
        for arrival in &arrivals {
            missing.remove(std::str::from_utf8(arrival.body()).unwrap());
        }
        Arrival::ack_all(arrivals);
        missing.is_empty()
    });
    Ok(())
}
