//! What is published arrives.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::ground::{Checked, bodies, check, drain, gone, message, messages, one, publish, receive, take};
use super::{Case, Run, Topic};
use crate::transport::Arrival;

pub(super) const CASES: &[Case] = &[
    Case { name: "what_is_confirmed_arrives", run: Run::Topic(arrives) },
    Case { name: "what_was_published_before_anyone_asked_arrives", run: Run::Topic(before) },
    Case { name: "bodies_are_bytes", run: Run::Topic(bytes) },
    Case { name: "a_batch_of_thousands_arrives", run: Run::Topic(thousands) },
    Case { name: "publishing_nothing_does_nothing", run: Run::Topic(nothing) },
    Case { name: "tables_and_actions_of_any_name_arrive", run: Run::Topic(names) },
    Case { name: "the_same_message_twice_is_no_error", run: Run::Topic(twice) },
    Case { name: "two_consumers_share_a_queue", run: Run::Topic(share) },
    Case { name: "several_publishers_and_threads_share_a_topic", run: Run::Topic(publishers) },
    Case { name: "the_backlog_tells_what_waits", run: Run::Topic(backlog) },
    Case { name: "both_are_up", run: Run::Topic(up) },
];

fn arrives(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = message("one");
    publish(&*broker, std::slice::from_ref(&sent))?;
    let arrival = one(&*queue)?;
    check!(arrival.id() == Some(&*sent.id), "another id: {:?}", arrival.id());
    check!(arrival.body().as_ref() == b"one", "another body: {:?}", arrival.body());
    check!(arrival.content_type() == Some("application/vnd.kvsync.test"), "its type: {:?}", arrival.content_type());
    check!(arrival.redelivered() == 0, "it was delivered {} times before", arrival.redelivered());
    arrival.ack();
    gone(&*broker, &*queue, &[Bytes::from("one")].into())
}

fn before(topic: &dyn Topic) -> Checked {
    let sent = messages("before", 10);
    publish(&*topic.broker(), &sent)?;
    drain(&*topic.subscribe(), &bodies(&sent))
}

fn bytes(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let largest = broker.max_body().min(1 << 20);
    let sent = [message(Vec::new()), message(every), message(vec![0; 100_000]), message(vec![0xff; largest])];
    publish(&*broker, &sent)?;
    let arrived = take(&*queue, sent.len())?;
    let found: BTreeSet<Bytes> = arrived.iter().map(|arrival| arrival.body().clone()).collect();
    Arrival::ack_all(arrived);
    check!(found == bodies(&sent), "the bodies changed on their way");
    Ok(())
}

fn thousands(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = messages("many", 3000);
    publish(&*broker, &sent)?;
    drain(&*queue, &bodies(&sent))
}

fn nothing(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &[])?;
    check!(receive(&*queue, 10)?.is_empty(), "something arrived and nothing was published");
    check!(queue.receive(0, super::ground::WAIT).is_ok_and(|none| none.is_empty()), "asked for none, and got some");
    Ok(())
}

/// Names of tables are the users', and may be long and hold what routes.
fn names(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let long = "long".repeat(100);
    let tables = ["public.users", "*", "#", ">", "a b", "zażółć", "$JS", "", "x.*.>", "a%2Eb", &long];
    let of = |(number, table): (usize, &&str)| {
        let mut message = message(format!("table {number}"));
        message.table = (*table).into();
        message.action = "delete";
        message
    };
    let sent: Vec<_> = tables.iter().enumerate().map(of).collect();
    publish(&*broker, &sent)?;
    drain(&*queue, &bodies(&sent))
}

fn twice(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = [message("same"), message("same"), message("another")];
    publish(&*broker, &sent)?;
    publish(&*broker, &sent)?;
    drain(&*queue, &bodies(&sent))
}

fn share(topic: &dyn Topic) -> Checked {
    let (broker, one, other) = (topic.broker(), topic.subscribe(), topic.subscribe());
    let sent = messages("shared", 200);
    publish(&*broker, &sent)?;
    let mut missing = bodies(&sent);
    let mut doubles = 0;
    let deadline = std::time::Instant::now() + super::ground::patience();
    while !missing.is_empty() {
        check!(std::time::Instant::now() < deadline, "{} never arrived", missing.len());
        for queue in [&one, &other] {
            for arrival in receive(&**queue, 10)? {
                doubles += u32::from(!missing.remove(arrival.body()));
                arrival.ack();
            }
        }
    }
    check!(doubles == 0, "{doubles} were delivered to both, and nobody failed");
    one.close().map_err(|error| error.to_string())?;
    gone(&*broker, &*other, &bodies(&sent))
}

fn publishers(topic: &dyn Topic) -> Checked {
    let (shared, queue) = (topic.broker(), topic.subscribe());
    let sent: Vec<Vec<_>> = (0..4).map(|number| messages(&format!("of {number}"), 100)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = sent
            .iter()
            .enumerate()
            .map(|(number, sent)| {
                let broker = if number < 3 { shared.clone() } else { topic.broker() };
                scope.spawn(move || sent.chunks(10).try_for_each(|part| publish(&*broker, part)))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    drain(&*queue, &bodies(&sent.concat()))
}

fn backlog(topic: &dyn Topic) -> Checked {
    let (broker, sent) = (topic.broker(), messages("waits", 5));
    publish(&*broker, &sent)?;
    let queue = topic.subscribe();
    let held = |queue: &dyn crate::transport::Subscription| {
        queue.backlog().map(|backlog| backlog.waiting + backlog.taken).map_err(|error| error.to_string())
    };
    drain(&*queue, &bodies(&sent))?;
    super::ground::until("the backlog is empty when all is acknowledged", || held(&*queue) == Ok(0))?;
    queue.close().map_err(|error| error.to_string())?;
    let later = messages("later", 3);
    publish(&*broker, &later)?;
    let asks = topic.subscribe();
    super::ground::until("the backlog tells of three that wait", || held(&*asks) == Ok(3))?;
    let taken = take(&*asks, 3)?;
    super::ground::until("the backlog tells of three that were taken", || held(&*asks) == Ok(3))?;
    Arrival::ack_all(taken);
    super::ground::until("the backlog is empty again", || held(&*asks) == Ok(0))
}

fn up(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let mut told = String::new();
    let healthy = super::ground::until("both are up", || {
        let (one, other) = (broker.health(super::ground::patience()), queue.health(super::ground::patience()));
        told = format!("{one}; {other}");
        one.status == crate::status::Status::Up && other.status == crate::status::Status::Up
    });
    healthy.map_err(|error| format!("{error}: {told}"))?;
    check!(!broker.name().is_empty() && !queue.name().is_empty(), "they have no names");
    Ok(())
}
