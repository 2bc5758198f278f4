//! How a delivery ends, and what happens to one that does not.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::ground::{Checked, bodies, check, drain, gone, message, messages, one, publish, take, until};
use super::{Case, Run, Topic};
use crate::transport::Arrival;

pub(super) const CASES: &[Case] = &[
    Case { name: "what_is_dropped_is_delivered_again", run: Run::Topic(dropped) },
    Case { name: "redeliveries_are_counted", run: Run::Topic(counted) },
    Case { name: "what_is_to_come_later_does_not_come_before", run: Run::Topic(later) },
    Case { name: "one_that_comes_later_holds_up_no_other", run: Run::Topic(beside) },
    Case { name: "what_is_to_come_later_is_in_the_backlog", run: Run::Topic(waits) },
    Case { name: "acknowledgements_in_any_order_are_of_those_named", run: Run::Topic(any_order) },
    Case { name: "a_dead_letter_is_kept_with_its_reason", run: Run::Topic(dead) },
    Case { name: "dead_letters_are_listed_and_stay", run: Run::Topic(listed) },
    Case { name: "dead_letters_are_delivered_again", run: Run::Topic(redriven) },
    Case { name: "what_was_taken_comes_back_when_its_taker_closes", run: Run::Topic(closed) },
    Case { name: "an_end_after_the_close_does_no_harm", run: Run::Topic(late) },
    Case { name: "what_a_killed_consumer_took_comes_back", run: Run::Killed(killed) },
];

fn dropped(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &[message("dropped")])?;
    drop(one(&*queue)?);
    let again = one(&*queue)?;
    check!(again.body().as_ref() == b"dropped", "another came: {:?}", again.body());
    again.ack();
    gone(&*broker, &*queue, &[Bytes::from("dropped")].into())
}

fn counted(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &[message("counted")])?;
    let mut last = None;
    for after in [Duration::ZERO, Duration::from_millis(20), Duration::ZERO, Duration::from_millis(20)] {
        let arrival = one(&*queue)?;
        let count = arrival.redelivered();
        match last {
            None => check!(count == 0, "the first delivery was counted as {count}"),
            Some(last) => check!(count > last, "delivered again, and counted {count} after {last}"),
        }
        last = Some(count);
        arrival.again(after);
    }
    one(&*queue)?.ack();
    Ok(())
}

fn later(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    for after in [Duration::from_millis(30), Duration::from_millis(700), Duration::from_millis(1100)] {
        publish(&*broker, &[message("later")])?;
        let arrival = one(&*queue)?;
        let told = Instant::now();
        arrival.again(after);
        let again = one(&*queue)?;
        check!(told.elapsed() >= after, "it came after {:?}, and not before {after:?} was asked", told.elapsed());
        again.ack();
    }
    gone(&*broker, &*queue, &[Bytes::from("later")].into())
}

fn beside(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &[message("held")])?;
    one(&*queue)?.again(Duration::from_hours(1));
    let sent = messages("beside", 20);
    publish(&*broker, &sent)?;
    drain(&*queue, &bodies(&sent))
}

/// Whoever empties the queue is not done before.
fn waits(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &messages("waits", 2))?;
    take(&*queue, 2)?.into_iter().for_each(|arrival| arrival.again(Duration::from_hours(1)));
    for _ in 0..10 {
        let told = queue.backlog().map_err(|error| error.to_string())?;
        check!(told.waiting + told.taken == 2, "two are to come later, and the backlog is {told:?}");
    }
    Ok(())
}

/// Some are acknowledged, last before first; the others come back, and only they.
fn any_order(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = messages("any", 30);
    publish(&*broker, &sent)?;
    let (mut done, mut left) = (Vec::new(), Vec::new());
    for (number, arrival) in take(&*queue, sent.len())?.into_iter().enumerate() {
        if number % 3 == 0 { left.push(arrival) } else { done.push(arrival) }
    }
    let wanted = left.iter().map(|arrival| arrival.body().clone()).collect();
    let acknowledged = done.iter().map(|arrival| arrival.body().clone()).collect();
    done.reverse();
    Arrival::ack_all(done.split_off(7));
    done.into_iter().for_each(Arrival::ack);
    drop(left);
    let mut missing: std::collections::BTreeSet<Bytes> = wanted;
    for arrival in take(&*queue, missing.len())? {
        check!(missing.remove(arrival.body()), "it was not dropped, and came again: {:?}", arrival.body());
        arrival.ack();
    }
    gone(&*broker, &*queue, &acknowledged)
}

fn dead(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    publish(&*broker, &[message("garbage"), message(vec![0, 159, 146, 150])])?;
    let reason = format!("no message of kvsync: „{}”", "long ".repeat(100));
    for arrival in take(&*queue, 2)? {
        arrival.dead(&reason);
    }
    until("two dead letters are kept", || topic.dead().len() >= 2)?;
    let kept = topic.dead();
    check!(kept.len() == 2, "{} dead letters are kept of 2", kept.len());
    for wanted in [Bytes::from("garbage"), Bytes::from_static(&[0, 159, 146, 150])] {
        let Some(letter) = kept.iter().find(|letter| letter.body == wanted) else {
            return Err(format!("the dead letters are without {wanted:?}"));
        };
        check!(letter.reason == reason, "another reason is kept: {:?}", letter.reason);
    }
    let told = queue.backlog().map_err(|error| error.to_string())?.dead;
    check!(told == 0 || told == 2, "the backlog tells of {told} dead letters, and there are 2");
    gone(&*broker, &*queue, &[Bytes::from("garbage")].into())
}

fn listed(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let list = |most| queue.dead(most).map_err(|error| error.to_string());
    check!(list(10)?.is_empty(), "nothing is dead, and letters are listed");
    let (sent, began) = (messages("dead", 5), SystemTime::now());
    publish(&*broker, &sent)?;
    for arrival in take(&*queue, sent.len())? {
        arrival.dead("by hand");
    }
    until("five dead letters are kept", || topic.dead().len() == 5)?;
    let some = list(2)?;
    check!(some.len() == 2, "{} of 2 are listed", some.len());
    // Twice, and whoever has read them may need a moment to let go of them.
    for _ in 0..2 {
        let mut all = Vec::new();
        until("all are listed", || {
            all = queue.dead(100).unwrap_or_default();
            all.len() == 5
        })?;
        for message in &sent {
            let Some(letter) = all.iter().find(|letter| letter.body == message.body) else {
                return Err(format!("the list is without {:?}", message.body));
            };
            check!(letter.reason == "by hand", "another reason is told: {:?}", letter.reason);
            check!(letter.content_type.as_deref() == Some(message.content_type), "its form is lost: {letter:?}");
            check!(letter.id.as_deref() == Some(&*message.id), "its id is lost: {letter:?}");
            check!(letter.deliveries == 1, "it counts as delivered {} times", letter.deliveries);
            // A server's clock may tell whole seconds.
            let near = |at: SystemTime| at + Duration::from_mins(1) > began;
            check!(letter.at.is_some_and(near), "it was given up at {:?}, and not since {began:?}", letter.at);
        }
    }
    gone(&*broker, &*queue, &bodies(&sent))?;
    until("five dead letters are left", || topic.dead().len() == 5)
}

/// Some first, then the rest; each as it was, as if it had just been published.
fn redriven(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let told = |error: crate::error::Error| error.to_string();
    check!(queue.redrive(10).map_err(told)? == 0, "there are no dead letters, and some were delivered again");
    let sent = messages("dead", 5);
    publish(&*broker, &sent)?;
    for arrival in take(&*queue, sent.len())? {
        arrival.dead("by hand");
    }
    until("five dead letters are kept", || topic.dead().len() == 5)?;
    let first = queue.redrive(2).map_err(told)?;
    check!(first == 2, "{first} of 2 were delivered again");
    until("three dead letters are left", || topic.dead().len() == 3)?;
    let rest = queue.redrive(100).map_err(told)?;
    check!(rest == 3, "{rest} of 3 were delivered again");
    let mut missing = bodies(&sent);
    for arrival in take(&*queue, sent.len())? {
        check!(missing.remove(arrival.body()), "it was not sent, or came twice: {:?}", arrival.body());
        check!(arrival.redelivered() == 0, "it counts as delivered {} times before", arrival.redelivered());
        check!(
            arrival.content_type() == sent.first().map(|one| one.content_type),
            "its form is lost: {:?}",
            arrival.content_type()
        );
        arrival.ack();
    }
    until("no dead letters are left", || topic.dead().is_empty())?;
    gone(&*broker, &*queue, &bodies(&sent))
}

fn closed(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = messages("held", 20);
    publish(&*broker, &sent)?;
    let mut held = take(&*queue, 10)?;
    Arrival::ack_all(held.split_off(5));
    queue.close().map_err(|error| error.to_string())?;
    let after = queue.receive(1, Duration::ZERO);
    check!(after.is_err(), "it was closed, and still answers");
    let wanted: std::collections::BTreeSet<Bytes> = held.iter().map(|arrival| arrival.body().clone()).collect();
    drain(&*topic.subscribe(), &wanted)?;
    drop(held);
    broker.close().map_err(|error| error.to_string())?;
    check!(broker.publish(&[message("closed")]).iter().all(Result::is_err), "it was closed, and still publishes");
    Ok(())
}

fn late(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = messages("late", 4);
    publish(&*broker, &sent)?;
    let mut held = take(&*queue, 4)?.into_iter();
    queue.close().map_err(|error| error.to_string())?;
    drop(queue);
    let (acked, again, dead) = (held.next(), held.next(), held.next());
    acked.into_iter().for_each(Arrival::ack);
    if let (Some(again), Some(dead)) = (again, dead) {
        again.again(Duration::from_secs(1));
        dead.dead("too late");
    }
    drop(held);
    drain(&*topic.subscribe(), &bodies(&sent))
}

fn killed(topic: &dyn Topic) -> Checked<Option<()>> {
    let sent = messages("killed", 20);
    publish(&*topic.broker(), &sent)?;
    let Some(took) = topic.taken_and_killed(10) else { return Ok(None) };
    check!(took.len() == 10, "the other process took {} of 10", took.len());
    drain(&*topic.subscribe(), &bodies(&sent))?;
    Ok(Some(()))
}
