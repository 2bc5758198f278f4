//! What a broker will not take.

use super::ground::{Checked, bodies, check, drain, message, messages, publish};
use super::{Case, Run, Topic};
use crate::error::{ErrorKind, failure_text};
use crate::transport::Broker;

pub(super) const CASES: &[Case] = &[
    Case { name: "what_is_too_large_is_rejected_and_nothing_else", run: Run::Topic(too_large) },
    Case { name: "a_full_queue_is_an_error_and_loses_nothing", run: Run::Bounded(full) },
    Case { name: "what_nobody_would_receive_is_an_error", run: Run::Unrouted(unrouted) },
    Case { name: "who_may_not_publish_is_told_and_no_message_is_to_blame", run: Run::Forbidden(forbidden) },
];

/// How many messages the queue of such a case takes, about.
pub(super) const ROOM: u64 = 20;
/// How many batches may go beyond that: a server may be late to notice.
const BATCHES: usize = 200;

fn too_large(topic: &dyn Topic) -> Checked {
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = [message("before"), message(vec![7; broker.max_body() + 1]), message("behind"), message("the last")];
    let answers = broker.publish(&sent);
    let [Ok(()), Err(refused), Ok(()), Ok(())] = answers.as_slice() else {
        return Err(format!("the second of four is too large, and the answers are {answers:?}"));
    };
    check!(refused.kind() == ErrorKind::Rejected, "too large is {}", failure_text(refused));
    drain(&*queue, &[sent[0].body.clone(), sent[2].body.clone(), sent[3].body.clone()].into())
}

/// Publishes until it is full, then drains: what was confirmed arrives, and there is room again.
fn full(topic: &dyn Topic) -> Checked {
    let broker = topic.broker();
    let mut confirmed = std::collections::BTreeSet::new();
    let mut refused = None;
    for batch in 0..BATCHES {
        let sent = messages(&format!("full {batch}"), 10);
        for (message, answer) in sent.into_iter().zip(broker.publish(&messages(&format!("full {batch}"), 10))) {
            match answer {
                Ok(()) => drop(confirmed.insert(message.body)),
                Err(error) => refused = Some(error),
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let Some(error) = refused else { return Err(format!("{} messages, and never full", confirmed.len())) };
    check!(error.kind() == ErrorKind::Unavailable, "a full queue is {}", failure_text(&error));
    let queue = topic.subscribe();
    drain(&*queue, &confirmed)?;
    let after = messages("after", 1);
    super::ground::until("there is room again", || publish(&*broker, &after).is_ok())?;
    drain(&*queue, &bodies(&after))
}

fn unrouted(broker: &dyn Broker) -> Checked {
    for answer in broker.publish(&messages("nobody", 3)) {
        match answer {
            Ok(()) => return Err("nobody would receive it, and it was confirmed".to_owned()),
            Err(error) => {
                let kind = error.kind();
                check!(kind == ErrorKind::Unavailable, "what nobody would receive is {}", failure_text(&error));
            }
        }
    }
    Ok(())
}

/// A publisher who is refused must not give up its messages: somebody will grant the right.
fn forbidden(broker: &dyn Broker) -> Checked {
    for answer in broker.publish(&messages("forbidden", 3)) {
        match answer {
            Ok(()) => return Err("it was forbidden, and confirmed".to_owned()),
            Err(error) => {
                check!(error.kind() == ErrorKind::Config, "what is forbidden is {}", failure_text(&error));
            }
        }
    }
    Ok(())
}
