//! What operators and servers do to those who are connected, and that both sides come back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kvsync::ErrorKind;
use kvsync::transport::conformance::Topic as _;
use kvsync::transport::{Arrival, Broker, Message, Status, Subscription, failure_text};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env, log, wait};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use parking_lot::Mutex;

use super::checks::{arrive, message, only};
use super::{Place, nodes, place, raw, soon};

/// How often something is deleted while messages flow.
const ROUNDS: usize = 3;

/// Publishes until it is confirmed, whatever is said before.
fn publish(broker: &dyn Broker, message: &Message) {
    wait::until("it is published", || only(broker.publish(std::slice::from_ref(message))).unwrap().is_ok());
}

/// Publishes and receives without a pause, meanwhile something is done each round: what is published afterwards arrives.
fn under_traffic(topic: &Place, mut trouble: impl FnMut() -> Tested) -> Tested {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &message("users", "first"));
    arrive(&*queue, &["first"]);
    let (over, seen) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Acquire) {
                let sent: Vec<Message> = (0..5).map(|at| message("users", format!("{number} {at}"))).collect();
                // What is in a queue that is deleted is gone, and some of it is not confirmed.
                drop(broker.publish(&sent));
                number += 1;
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let arrivals = queue.receive(100, Duration::from_millis(50)).unwrap_or_default();
                seen.lock().extend(arrivals.iter().map(|arrival| arrival.body().clone()));
                Arrival::ack_all(arrivals);
            }
        });
        let rounds = || {
            for round in 0..ROUNDS {
                trouble()?;
                let mark = Bytes::from(format!("after trouble {round}"));
                publish(&*topic.broker(), &message("users", mark.clone()));
                wait::until("what was published afterwards arrives", || seen.lock().contains(&mark));
            }
            Ok(())
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        over.store(true, Ordering::Release);
        answer.unwrap_or_else(|_| Err("it never came back".into()))
    })
}

/// With its messages, as operators do; whoever publishes or consumes declares it again.
pub(super) fn a_queue_that_is_deleted_is_declared_again() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, soon);
    under_traffic(&topic, || {
        raw::with(&url, async |channel| {
            channel.queue_delete(topic.name.as_str().into(), QueueDeleteOptions::default()).await?;
            Ok(())
        })
    })
}

/// Nothing is in flight that would show it: the server tells the consumer, or the consumer hears nothing. A question that
/// is asked just then may stay without an answer, so it is given up soon.
pub(super) fn a_consumer_of_a_queue_that_is_deleted_begins_anew() -> Tested {
    let url = env::rabbitmq_url()?;
    let log = log::of_operators();
    let topic = place(&url, |builder| soon(builder).heartbeat(Duration::from_secs(2)));
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &message("users", "first"));
    arrive(&*queue, &["first"]);
    for body in ["one", "two", "three"] {
        raw::with(&url, async |channel| {
            channel.queue_delete(topic.name.as_str().into(), QueueDeleteOptions::default()).await?;
            Ok(())
        })?;
        publish(&*broker, &message("users", body));
        arrive(&*queue, &[body]);
    }
    // Whoever declared it anew had seen it before.
    assert!(!log.lines(&[&format!("the queue {} was deleted", topic.name), "repair"]).is_empty(), "{}", log.text());
    Ok(())
}

/// A queue that does not take a message may just be about to be there: it is sent again a few times, and no more, since
/// other queues get each copy.
pub(super) fn what_a_queue_does_not_take_is_sent_again_a_few_times() -> Tested {
    const FULL: u64 = 3;
    let url = env::rabbitmq_url()?;
    let topic = place(&url, |builder| builder.retry_for(LONG).max_messages(FULL));
    let broker = topic.broker();
    let any = |number: usize| message("users", number.to_string());
    let is_full = (0..1000).any(|number| only(broker.publish(&[any(number)])).unwrap().is_err());
    assert!(is_full, "it never was full");
    let other = topic.builder.clone().queue(format!("{}.other", topic.name)).bindings(["orders.*"]);
    let declares = other.max_messages(1000).broker()?;
    wait::until("the other queue is there", || declares.health(LONG).status == Status::Up);
    let refused = only(broker.publish(&[message("orders", "again")]))?.unwrap_err();
    assert!(failure_text(&refused).ends_with("basic.nack"), "{refused}");
    let other = format!("{}.other", topic.name);
    wait::until("the other queue has each copy", || raw::peek(&url, &other).is_ok_and(|copies| copies.len() == 4));
    raw::forget(&url, &other)
}

/// A server that forgets a consumer without a word, as 3.10.8 may when the consumer's queue is deleted and declared again.
pub(super) fn a_consumer_that_hears_nothing_begins_anew() -> Tested {
    let node = nodes::lend()?;
    let topic = place(&node.url(), |builder| builder.heartbeat(Duration::from_secs(1)));
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &message("users", "before"));
    arrive(&*queue, &["before"]);
    let forgotten = node.evaluate(&format!(
        "Name = list_to_atom(\"%2F_{}\"), \
         {{ok, {{_, Known}}, _}} = ra:local_query({{Name, node()}}, fun rabbit_fifo:query_consumers/1), \
         [element(1, ra:process_command({{Name, node()}}, rabbit_fifo:make_checkout(Id, cancel, #{{}}))) \
          || Id <- maps:keys(Known)].",
        topic.name
    ))?;
    assert_eq!(forgotten, "[ok]");
    publish(&*broker, &message("users", "after"));
    arrive(&*queue, &["after"]);
    Ok(())
}

/// With all of its bindings.
pub(super) fn an_exchange_that_is_deleted_is_declared_again() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, soon);
    under_traffic(&topic, || {
        raw::with(&url, async |channel| {
            channel.exchange_delete(topic.name.as_str().into(), ExchangeDeleteOptions::default()).await?;
            Ok(())
        })
    })
}

pub(super) fn connections_that_an_operator_closes_are_made_again() -> Tested {
    let node = nodes::lend()?;
    let topic = place(&node.url(), soon);
    under_traffic(&topic, || {
        let close = "[rabbit_networking:close_connection(Pid, \"a test\") || Pid <- rabbit_networking:connections()].";
        node.evaluate(close)?;
        Ok(())
    })
}

/// The server stops to read from those that publish. Others go on.
pub(super) fn an_alarm_is_told_and_does_not_stop_consumers() -> Tested {
    let node = nodes::lend()?;
    let topic = place(&node.url(), soon);
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &message("users", "before"));
    node.evaluate("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")?;
    wait::until("the alarm is told", || {
        // The server may confirm some before it has noticed.
        let answer = only(broker.publish(&[message("users", "during")])).unwrap();
        assert!(answer.as_ref().err().is_none_or(kvsync::Error::is_retryable), "{answer:?}");
        answer.is_err() && broker.health(LONG).to_string().contains("alarm")
    });
    assert_eq!(broker.health(LONG).status, Status::Down);
    // From now on nothing is sent.
    let answer = only(broker.publish(&[message("users", "later")]))?;
    assert!(answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable), "{answer:?}");
    arrive(&*queue, &["before"]);
    assert_eq!(queue.health(LONG).status, Status::Up);
    node.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")?;
    publish(&*broker, &message("users", "after"));
    arrive(&*queue, &["after"]);
    wait::until("it is up again", || broker.health(LONG).status == Status::Up);
    Ok(())
}

/// The server closes the channel of whoever holds a message for longer than `consumer_timeout`.
pub(super) fn what_is_held_for_too_long_comes_again() -> Tested {
    let node = nodes::lend()?;
    let topic = place(&node.url(), |builder| builder);
    node.evaluate(
        "application:set_env(rabbit, consumer_timeout, 300), application:set_env(rabbit, channel_tick_interval, 100).",
    )?;
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &message("users", "held"));
    let mut held = Vec::new();
    wait::until("it comes again", || {
        match queue.receive(1, Duration::from_millis(50)) {
            Ok(arrivals) => held.extend(arrivals),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        held.iter().any(|arrival| arrival.redelivered() > 0)
    });
    let restored = "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, channel_tick_interval, 60000).";
    node.evaluate(restored)?;
    // Acknowledgements of what was held on a channel that is gone say nothing; that of the newest may.
    Arrival::ack_all(held);
    arrive_and_leave_nothing(&*queue);
    Ok(())
}

fn arrive_and_leave_nothing(queue: &dyn Subscription) {
    wait::until("nothing is left", || {
        Arrival::ack_all(queue.receive(10, Duration::from_millis(50)).unwrap_or_default());
        queue.backlog().is_ok_and(|holds| holds.waiting == 0)
    });
}
