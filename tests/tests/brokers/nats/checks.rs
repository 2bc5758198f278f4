//! Streams, queues and rights: what they have to be, what is made of them, and what is said when it cannot be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvsync::ErrorKind;
use kvsync::transport::nats::{Builder, NatsBroker};
use kvsync::transport::{Arrival, Broker, Message, Status, Subscription};
use kvsync_tests::nats::{api, ask, count, kept, listen};
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, log};

pub(super) const MOMENT: Duration = Duration::from_millis(50);

pub(super) fn server() -> Tested<Nats> {
    Ok(Nats::start(&NatsOptions::default())?)
}

/// For servers that are there.
pub(super) fn patient(server: &Nats) -> Builder {
    NatsBroker::builder([server.url()]).connect_timeout(LONG).publish_timeout(LONG).retry_for(LONG)
}

/// For what is refused: it is not tried for long.
pub(super) fn hasty(server: &Nats) -> Builder {
    patient(server).retry_for(MOMENT)
}

pub(super) fn message(table: &str, body: &str) -> Message {
    let content_type = "application/vnd.kvsync.test";
    Message {
        table: Arc::from(table),
        action: "update",
        id: body.to_owned(),
        content_type,
        body: body.to_owned().into(),
    }
}

pub(super) fn publish(broker: &dyn Broker, messages: &[Message]) -> Tested {
    for answer in broker.publish(messages) {
        answer?;
    }
    Ok(())
}

/// Takes this many.
pub(super) fn take(queue: &dyn Subscription, count: usize) -> Tested<Vec<Arrival>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let more = queue.receive(count - taken.len(), LONG)?;
        assert!(!more.is_empty(), "{} of {count} came", taken.len());
        taken.extend(more);
    }
    Ok(taken)
}

/// Takes and acknowledges this many.
pub(super) fn drain(queue: &dyn Subscription, count: usize) -> Tested<BTreeSet<Bytes>> {
    let taken = take(queue, count)?;
    let bodies = taken.iter().map(|arrival| arrival.body().clone()).collect();
    Arrival::ack_all(taken);
    Ok(bodies)
}

/// The call fails with this kind, and the message says this.
pub(super) fn refused<T>(made: kvsync::Result<T>, kind: ErrorKind, says: &str) {
    let Err(error) = made else { panic!("it was not refused, and should say: {says}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "`{says}` is not in: {error}");
}

pub(super) fn publishing(broker: &dyn Broker) -> kvsync::Result<()> {
    broker.publish(&[message("users", "one")]).remove(0)
}

pub(super) fn every_queue_gets_everything_and_what_all_have_acknowledged_goes() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, one, other) = (builder.broker()?, builder.queue("one")?, builder.queue("other")?);
    let sent: Vec<Message> = (0..100).map(|number| message("users", &format!("row {number}"))).collect();
    publish(&broker, &sent)?;
    let all: BTreeSet<Bytes> = sent.iter().map(|message| message.body.clone()).collect();
    assert_eq!(drain(&one, 100)?, all);
    until("the first queue is empty", || one.backlog().is_ok_and(|left| left.waiting + left.taken == 0));
    assert_eq!(count(server.port(), "kvsync")?, 100, "the other queue still needs them");
    assert_eq!(other.backlog()?.waiting, 100);
    assert_eq!(drain(&other, 100)?, all);
    until("nothing is left", || count(server.port(), "kvsync").is_ok_and(|left| left == 0));
    // One that is made later gets what is left, and that is nothing.
    let late = builder.queue("late")?;
    publish(&broker, &[message("users", "new")])?;
    assert_eq!(drain(&late, 1)?, BTreeSet::from(["new".into()]));
    Ok(())
}

pub(super) fn dead_letters_are_delivered_again_to_their_own_queue_alone() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, one, other) = (builder.broker()?, builder.queue("one")?, builder.queue("other")?);
    let sent: Vec<Message> = (0..50).map(|number| message("users", &format!("row {number}"))).collect();
    publish(&broker, &sent)?;
    let all: BTreeSet<Bytes> = sent.iter().map(|message| message.body.clone()).collect();
    let mut left = 50;
    while left > 0 {
        for arrival in one.receive(left, LONG)? {
            left -= 1;
            arrival.dead("by hand");
        }
    }
    assert_eq!(drain(&other, 50)?, all);
    until("all are dead", || one.backlog().is_ok_and(|left| left.dead == 50));
    assert_eq!(other.redrive(100)?, 0, "they are of another queue");
    assert_eq!(one.redrive(100)?, 50);
    assert_eq!(drain(&one, 50)?, all);
    publish(&broker, &[message("users", "new")])?;
    assert_eq!(drain(&other, 1)?, BTreeSet::from(["new".into()]), "it was told once");
    assert_eq!(drain(&one, 1)?, BTreeSet::from(["new".into()]));
    until("nothing is left", || count(server.port(), "kvsync").is_ok_and(|left| left == 0));
    Ok(())
}

/// Whoever comes second finds letters gone, and is no worse off for it.
pub(super) fn two_that_deliver_dead_letters_again_are_not_in_each_others_way() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, one, same) = (builder.broker()?, builder.queue("one")?, builder.queue("one")?);
    let sent: Vec<Message> = (0..50).map(|number| message("users", &format!("row {number}"))).collect();
    publish(&broker, &sent)?;
    take(&one, 50)?.into_iter().for_each(|arrival| arrival.dead("by hand"));
    until("all are dead", || one.backlog().is_ok_and(|left| left.dead == 50));
    let counts = std::thread::scope(|scope| {
        let threads = [&one, &same].map(|queue| scope.spawn(|| queue.redrive(100)));
        threads.map(|thread| thread.join().unwrap())
    });
    let [first, second] = counts;
    assert!(first? + second? >= 50);
    assert_eq!(one.backlog()?.dead, 0);
    let all: BTreeSet<Bytes> = sent.iter().map(|message| message.body.clone()).collect();
    assert_eq!(drain(&one, 50)?, all);
    Ok(())
}

pub(super) fn what_nobody_would_receive_is_not_confirmed() -> Tested {
    let server = server()?;
    let builder = hasty(&server);
    let broker = builder.broker()?;
    refused(publishing(&broker), ErrorKind::Unavailable, "nobody would receive it");
    let health = broker.health(LONG);
    assert!(health.status == Status::Degraded && health.to_string().contains("no queue"), "{health}");
    let users = builder.clone().tables(["users"]).queue("users")?;
    let answers = broker.publish(&[message("users", "user"), message("orders", "order")]);
    assert!(answers[0].is_ok(), "{answers:?}");
    refused(answers[1].clone(), ErrorKind::Unavailable, "`kvsync.orders.update`");
    assert_eq!(drain(&users, 1)?, BTreeSet::from(["user".into()]));
    // Who waits for the first queue is not held up.
    std::thread::scope(|scope| {
        let patient = patient(&server);
        let waits = scope.spawn(move || publish(&patient.broker()?, &[message("orders", "order")]));
        let orders = builder.tables(["orders"]).queue("orders")?;
        assert_eq!(drain(&orders, 1)?, BTreeSet::from(["order".into()]));
        waits.join().unwrap()
    })
}

pub(super) fn a_queue_of_one_table_gets_no_other_and_holds_back_no_other() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, users) = (builder.broker()?, builder.clone().tables(["app.users"]).queue("users")?);
    let all = builder.queue("all")?;
    publish(&broker, &[message("app.users", "user"), message("orders", "order"), message("app.users", "another")])?;
    assert_eq!(drain(&users, 2)?, BTreeSet::from(["user".into(), "another".into()]));
    assert_eq!(drain(&all, 3)?.len(), 3);
    until("what it does not want is gone, too", || count(server.port(), "kvsync").is_ok_and(|left| left == 0));
    refused(builder.queue("users")?.receive(1, MOMENT), ErrorKind::Config, "other tables");
    let both = builder.tables(["users", "orders"]).queue("both")?;
    match both.receive(1, MOMENT) {
        // Servers since 2.10.
        Ok(_) => publish(&broker, &[message("orders", "order two")]).and_then(|()| drain(&both, 1).map(drop)),
        Err(error) => {
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("2.10"), "{error}");
            Ok(())
        }
    }
}

pub(super) fn nothing_is_made_where_it_is_only_checked() -> Tested {
    let server = server()?;
    let careful = hasty(&server).check_only();
    let (broker, queue) = (careful.broker()?, careful.queue("one")?);
    refused(publishing(&broker), ErrorKind::Config, "the stream kvsync is not there");
    refused(queue.receive(1, MOMENT), ErrorKind::Config, "the stream kvsync is not there");
    assert!(api(server.port(), "STREAM.INFO.kvsync", "").is_err(), "it was made");
    assert_eq!(broker.health(LONG).status, Status::Down);
    patient(&server).queue("another")?.close()?;
    publishing(&broker)?;
    until("the queue is missed", || {
        queue.receive(1, MOMENT).is_err_and(|error| error.to_string().contains("queue one"))
    });
    patient(&server).queue("one")?.close()?;
    until("the queue is found", || queue.receive(1, MOMENT).is_ok());
    publish(&broker, &[message("users", "two")])?;
    // The other queue has not acknowledged the first.
    assert_eq!(drain(&queue, 2)?, BTreeSet::from(["one".into(), "two".into()]));
    Ok(())
}

pub(super) fn a_stream_in_which_messages_are_lost_is_refused() -> Tested {
    let server = server()?;
    let make = |stream: &str, settings: &str| {
        let config =
            format!(r#"{{"name":"{stream}","subjects":["{stream}.*.*"],"storage":"file","num_replicas":1{settings}}}"#);
        api(server.port(), &format!("STREAM.CREATE.{stream}"), &config)
    };
    for (stream, settings, says) in [
        ("interest", r#","retention":"interest""#, "retention"),
        ("queue", r#","retention":"workqueue""#, "retention"),
        ("last", r#","retention":"limits","max_msgs_per_subject":1"#, "max_msgs_per_subject"),
        ("rolling", r#","retention":"limits","max_bytes":100000,"discard":"old""#, "discard"),
        ("silent", r#","retention":"limits","no_ack":true"#, "no_ack"),
    ] {
        make(stream, settings)?;
        let of = hasty(&server).stream(stream).prefix(stream);
        refused(publishing(&of.broker()?), ErrorKind::Config, says);
        refused(of.queue("one")?.receive(1, MOMENT), ErrorKind::Config, says);
        refused(publishing(&of.prefix("another").broker()?), ErrorKind::Config, "not of this prefix");
    }
    make("ours", r#","retention":"limits""#)?;
    api(
        server.port(),
        "CONSUMER.DURABLE.CREATE.ours.dropping",
        r#"{"stream_name":"ours","config":{"durable_name":"dropping","ack_policy":"explicit","max_deliver":2}}"#,
    )?;
    let of = hasty(&server).stream("ours").prefix("ours");
    publishing(&of.broker()?)?;
    refused(of.queue("dropping")?.receive(1, MOMENT), ErrorKind::Config, "max_deliver");
    Ok(())
}

pub(super) fn what_cannot_be_a_name_is_refused_at_once() -> Tested {
    let builder = NatsBroker::builder(["nats://127.0.0.1:1"]);
    // Nothing is connected to.
    builder.broker()?;
    refused(builder.clone().stream("a.b").broker(), ErrorKind::Config, "no name of a stream");
    refused(builder.clone().prefix("a..b").broker(), ErrorKind::Config, "no prefix");
    refused(builder.queue("a b"), ErrorKind::Config, "no name of a queue");
    refused(builder.publish_timeout(Duration::ZERO).broker(), ErrorKind::Config, "cannot be zero");
    refused(NatsBroker::builder(["http://user:hunter2@x"]).broker(), ErrorKind::Config, "no nats URL");
    refused(NatsBroker::builder([""; 0]).broker(), ErrorKind::Config, "one server");
    Ok(())
}

pub(super) fn a_copy_of_a_message_is_kept_once() -> Tested {
    let server = server()?;
    let builder = patient(&server).max_age(Duration::from_hours(1));
    let (broker, _queue) = (builder.broker()?, builder.queue("one")?);
    let sent = [message("users", "one"), message("users", "two"), message("users", "one")];
    publish(&broker, &sent)?;
    publish(&broker, &sent)?;
    assert_eq!(count(server.port(), "kvsync")?, 2);
    let kept = kept(server.port(), "kvsync")?;
    assert_eq!(kept[0].subject, "kvsync.users.update");
    assert!(kept[0].headers.contains("Content-Type: application/vnd.kvsync.test"), "{}", kept[0].headers);
    Ok(())
}

pub(super) fn a_dead_letter_says_what_it_was() -> Tested {
    let server = server()?;
    let builder = patient(&server);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    publish(&broker, &[message("users", "ours")])?;
    // Anyone may write to the stream, without headers, of any size.
    let foreign = "x".repeat(1024 * 1024 - 10);
    ask(server.port(), "kvsync.users.foreign", &foreign)?;
    for arrival in take(&queue, 2)? {
        arrival.dead("not a\r\nmessage");
    }
    until("both are kept", || count(server.port(), "kvsync-dead").is_ok_and(|count| count == 2));
    assert_eq!(queue.backlog()?.dead, 2);
    assert!(queue.health(LONG).to_string().contains("2 dead letters"), "{}", queue.health(LONG));
    let letters = kept(server.port(), "kvsync-dead")?;
    let of = |subject: &str| letters.iter().find(|letter| letter.subject == subject).ok_or("no such letter");
    let ours = of("kvsync.dead.one.users.update")?;
    assert_eq!(ours.body, b"ours");
    for says in [
        "Kvsync-Reason: not a  message\r\n",
        "Kvsync-Queue: one\r\n",
        "Kvsync-Subject: kvsync.users.update\r\n",
        "Kvsync-Deliveries: 1\r\n",
        "Kvsync-Message-Id: ours\r\n",
        "Content-Type: application/vnd.kvsync.test\r\n",
    ] {
        assert!(ours.headers.contains(says), "`{says}` is not in: {}", ours.headers);
    }
    let theirs = of("kvsync.dead.one.users.foreign")?;
    assert!(theirs.headers.contains(&format!("Kvsync-Bytes: {}", foreign.len())), "{}", theirs.headers);
    assert!(theirs.body.len() > 1_000_000 && theirs.body.iter().all(|byte| *byte == b'x'), "{}", theirs.body.len());
    until("they are no longer in the stream", || count(server.port(), "kvsync").is_ok_and(|count| count == 0));
    Ok(())
}

pub(super) fn a_dead_letter_that_cannot_be_kept_is_no_end_of_its_message() -> Tested {
    let (log, server) = (log::of_operators(), server()?);
    let full = r#"{"name":"kvsync-dead","subjects":["kvsync.dead.*.*.*"],"retention":"limits","storage":"file",
        "num_replicas":1,"max_msgs":1,"discard":"new"}"#;
    api(server.port(), "STREAM.CREATE.kvsync-dead", full)?;
    let builder = patient(&server);
    let (broker, queue) = (builder.broker()?, builder.queue("unkept")?);
    publish(&broker, &[message("users", "one"), message("users", "two")])?;
    for arrival in take(&queue, 2)? {
        arrival.dead("unknown");
    }
    let told = || queue.health(LONG).details.iter().any(|detail| detail.starts_with("dead letters cannot be kept: "));
    until("health says so", told);
    let again = take(&queue, 1)?.remove(0);
    assert!(again.redelivered() > 0 && count(server.port(), "kvsync-dead")? == 1);
    api(server.port(), "STREAM.DELETE.kvsync-dead", "")?;
    again.dead("unknown");
    until("it is kept when there is room", || count(server.port(), "kvsync-dead").is_ok_and(|count| count == 1));
    until("health says no more", || !told());
    for (level, words) in [("WARN", "cannot be kept"), ("INFO", "are kept again")] {
        let told = log.lines(&[level, "dead letters of nats queue unkept", words]);
        assert_eq!(told.len(), 1, "{level} {words}: {told:?}");
    }
    Ok(())
}

pub(super) fn more_time_is_asked_for_what_is_held() -> Tested {
    let server = server()?;
    let builder = patient(&server).ack_wait(Duration::from_secs(3));
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    let mut told = listen(server.port(), "$JS.ACK.kvsync.one.>")?;
    publish(&broker, &[message("users", "one")])?;
    let held = take(&queue, 1)?;
    assert_eq!(told.hear()?, "+WPI");
    assert_eq!(told.hear()?, "+WPI");
    drop(held);
    while told.hear()? != "-NAK" {}
    take(&queue, 1)?.remove(0).again(Duration::from_secs(1));
    while told.hear()? != r#"-NAK {"delay":1000000000}"# {}
    take(&queue, 1)?.remove(0).ack();
    while told.hear()? != "+ACK" {}
    Ok(())
}

pub(super) fn a_stream_or_queue_that_is_removed_is_made_again() -> Tested {
    let (log, server) = (log::of_operators(), server()?);
    let (broker, queue) = (hasty(&server).broker()?, hasty(&server).queue("one")?);
    publish(&broker, &[message("users", "one")])?;
    assert_eq!(drain(&queue, 1)?.len(), 1);
    for (removes, number) in [("CONSUMER.DELETE.kvsync.one", 0..), ("STREAM.DELETE.kvsync", 1000..)] {
        api(server.port(), removes, "")?;
        let mut number = number;
        // What is published in the moment after a queue was removed goes with it.
        until("it is made again", || {
            let sent = number.next().map(|number: u64| message("users", &number.to_string()));
            let answers = broker.publish(sent.as_slice());
            answers.iter().all(Result::is_ok) && queue.receive(1, MOMENT).is_ok_and(|taken| !taken.is_empty())
        });
    }
    for removed in ["=the queue one of the stream kvsync was removed", "=the stream kvsync was removed"] {
        assert!(!log.lines(&[removed, "repair"]).is_empty(), "{}", log.text());
    }
    Ok(())
}

/// Who publishes first makes the queues that it is told of, also later.
pub(super) fn a_publisher_makes_the_queues_that_it_names() -> Tested {
    let server = server()?;
    let builder = hasty(&server);
    let broker = builder.clone().with_queue("early").broker()?;
    publish(&broker, &[message("users", "before any consumer")])?;
    api(server.port(), "CONSUMER.DELETE.kvsync.early", "")?;
    until("it is made again", || {
        drop(broker.publish(&[message("users", "again")]));
        api(server.port(), "CONSUMER.INFO.kvsync.early", "").is_ok()
    });
    assert_eq!(drain(&builder.queue("early")?, 2)?, BTreeSet::from(["before any consumer".into(), "again".into()]));
    let looks = builder.check_only().with_queue("none").broker()?;
    refused(publishing(&looks), ErrorKind::Config, "the queue none");
    Ok(())
}

/// Whoever fills a store in again for nothing stops to believe the log.
pub(super) fn what_many_threads_make_for_the_first_time_was_not_removed() -> Tested {
    let (log, server) = (log::of_operators(), server()?);
    for round in 0..20 {
        let stream = format!("first-{round}");
        let broker = patient(&server).stream(&stream).prefix(&stream).with_queue("first").broker()?;
        let threads = [0; 8];
        std::thread::scope(|scope| {
            let all = threads.map(|_| scope.spawn(|| publishing(&broker)));
            all.into_iter().try_for_each(|one| one.join().unwrap())
        })?;
        let alarms = log.lines(&[&stream, "was removed"]);
        assert!(alarms.is_empty(), "{alarms:?}");
    }
    Ok(())
}

pub(super) fn rights_are_as_documented_and_the_lack_of_them_is_told() -> Tested {
    let settings = r#"authorization { users = [
        { user: maker, password: secret }
        { user: publisher, password: secret, permissions: {
            publish: ["kvsync.*.*", "$JS.API.STREAM.INFO.kvsync", "$JS.API.CONSUMER.LIST.kvsync"], subscribe: ["_INBOX.>"]
        } }
        { user: consumer, password: secret, permissions: {
            publish: [
                "kvsync.dead.>", "$JS.API.STREAM.INFO.kvsync", "$JS.API.STREAM.INFO.kvsync-dead",
                "$JS.API.CONSUMER.INFO.kvsync.*", "$JS.API.CONSUMER.NAMES.kvsync",
                "$JS.API.CONSUMER.MSG.NEXT.kvsync.one", "$JS.API.STREAM.MSG.DELETE.kvsync", "$JS.API.STREAM.PURGE.kvsync", "$JS.ACK.kvsync.one.>"
            ], subscribe: ["_INBOX.>"]
        } }
        { user: nobody, password: secret, permissions: { publish: { deny: ["kvsync.>", "$JS.API.CONSUMER.>"] } } }
        { user: mute, password: secret, permissions: { publish: { deny: ["$JS.ACK.>"] } } }
        { user: deaf, password: secret, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { settings: settings.into(), ..NatsOptions::default() })?;
    let of = |user: &str| hasty(&server).user_and_password(user, "secret");
    refused(publishing(&hasty(&server).broker()?), ErrorKind::Config, "does not take this user");
    let wrong = hasty(&server).token("wrong").queue("one")?;
    refused(wrong.receive(1, MOMENT), ErrorKind::Config, "does not take this user");
    assert_eq!(wrong.health(LONG).status, Status::Down);

    of("maker").queue("one")?.close()?;
    let (broker, queue) = (of("publisher").check_only().broker()?, of("consumer").check_only().queue("one")?);
    publish(&broker, &[message("users", "one"), message("users", "two")])?;
    let mut taken = take(&queue, 2)?;
    taken.remove(0).dead("reason");
    taken.remove(0).ack();
    let maker = of("maker").queue("one")?;
    until("nothing is left, and the dead letter is kept", || {
        let health = maker.health(LONG).to_string();
        health.contains("has 0 messages") && health.contains("1 dead letters")
    });
    assert_eq!((broker.health(LONG).status, queue.health(LONG).status), (Status::Up, Status::Up));

    refused(publishing(&of("nobody").broker()?), ErrorKind::Config, "Permissions Violation for Publish");
    refused(of("nobody").queue("one")?.receive(1, MOMENT), ErrorKind::Config, "Permissions Violation for Publish");
    // Who cannot tell how messages ended gets none.
    publish(&broker, &[message("users", "three")])?;
    refused(of("mute").queue("one")?.receive(1, MOMENT), ErrorKind::Config, "$JS.ACK.kvsync.one.");
    refused(publishing(&of("deaf").broker()?), ErrorKind::Config, "`inbox_prefix`");
    assert_eq!(drain(&queue, 1)?, BTreeSet::from(["three".into()]));
    Ok(())
}

pub(super) fn tls_with_an_authority_of_ones_own() -> Tested {
    let server = Nats::start(&NatsOptions { tls: true, ..NatsOptions::default() })?;
    let builder = hasty(&server).ca_file(server.ca().ok_or("no authority")?);
    let (broker, queue) = (builder.broker()?, builder.queue("one")?);
    publishing(&broker)?;
    assert_eq!(drain(&queue, 1)?.len(), 1);
    refused(publishing(&hasty(&server).broker()?), ErrorKind::Config, "certificate");
    Ok(())
}

/// Whether nobody listens or a network is cut is in what the system said.
pub(super) fn a_server_that_is_not_there_is_told_with_the_cause() -> Tested {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let broker = NatsBroker::builder([format!("nats://127.0.0.1:{port}")]).broker()?;
    let health = broker.health(LONG);
    assert!(health.status == Status::Down && health.to_string().contains("refused"), "{health}");
    Ok(())
}

pub(super) fn a_server_without_jetstream_is_told() -> Tested {
    let without = Nats::start(&NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
    refused(publishing(&hasty(&without).broker()?), ErrorKind::Config, "nats-server -js");
    Ok(())
}

pub(super) fn nothing_is_lost_and_nothing_stays_when_servers_are_killed() -> Tested {
    let server = server()?;
    let builder = patient(&server).ack_wait(Duration::from_secs(2));
    let (broker, one, other) = (builder.broker()?, builder.queue("one")?, builder.queue("other")?);
    for round in 0..3 {
        let sent: Vec<Message> = (0..200).map(|number| message("users", &format!("{round} {number}"))).collect();
        publish(&broker, &sent)?;
        // Some are acknowledged and some are held when it ends, out of order.
        let held = take(&one, 200)?;
        let (even, odd): (Vec<_>, Vec<_>) = held.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
        Arrival::ack_all(even.into_iter().map(|(_, arrival)| arrival).collect());
        drain(&other, 100)?;
        server.kill()?;
        server.restart()?;
        let mut missing: BTreeSet<Bytes> = odd.iter().map(|(_, arrival)| arrival.body().clone()).collect();
        drop(odd);
        until("what was held comes again", || {
            let taken = one.receive(100, MOMENT).unwrap_or_default();
            missing.retain(|body| !taken.iter().any(|arrival| arrival.body() == body));
            Arrival::ack_all(taken);
            missing.is_empty()
        });
        until("both queues are empty", || {
            [&one, &other].into_iter().all(|queue| {
                Arrival::ack_all(queue.receive(100, MOMENT).unwrap_or_default());
                queue.backlog().is_ok_and(|left| left.waiting + left.taken == 0)
            })
        });
    }
    until("nothing is left", || count(server.port(), "kvsync").is_ok_and(|left| left == 0));
    Ok(())
}
