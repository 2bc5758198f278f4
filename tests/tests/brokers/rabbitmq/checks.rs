//! What the server says no to, and what stands on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvsync::transport::conformance::Topic as _;
use kvsync::transport::rabbitmq::{RabbitMq, routing_key};
use kvsync::transport::{Arrival, Broker, Message, Subscription};
use kvsync::{Error, ErrorKind};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env, wait};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::{Place, name, nodes, place, raw};

pub(super) fn message(table: &str, body: impl Into<Bytes>) -> Message {
    let (body, content_type) = (body.into(), "application/x-test");
    Message { table: Arc::from(table), action: "update", id: "an id".into(), content_type, body }
}

pub(super) fn only(answers: Vec<Result<(), Error>>) -> Tested<Result<(), Error>> {
    let [answer] = <[_; 1]>::try_from(answers).map_err(|answers| format!("{answers:?}"))?;
    Ok(answer)
}

fn refused(broker: &dyn Broker) -> Tested<Error> {
    only(broker.publish(&[message("users", "refused")]))?.err().ok_or_else(|| "it was published".into())
}

/// Receives until each of these has arrived.
pub(super) fn arrive(queue: &dyn Subscription, bodies: &[&'static str]) {
    let mut missing: BTreeSet<Bytes> = bodies.iter().map(|body| Bytes::from_static(body.as_bytes())).collect();
    wait::until("all have arrived", || {
        let arrivals = queue.receive(10, Duration::from_millis(100)).unwrap_or_default();
        for arrival in &arrivals {
            missing.remove(arrival.body());
        }
        Arrival::ack_all(arrivals);
        missing.is_empty()
    });
}

/// Why nothing is received.
fn trouble(queue: &dyn Subscription) -> Error {
    let mut found = None;
    wait::until("the trouble is told", || {
        found = queue.receive(1, Duration::from_millis(50)).err();
        found.is_some()
    });
    found.unwrap()
}

/// The server closes the channel for it, and with it whatever was on its way.
pub(super) fn a_message_that_the_server_finds_too_large_is_rejected_alone() -> Tested {
    let server = nodes::strict()?;
    let ca = server.ca().ok_or("no authority")?;
    let topic = place(&server.url(), |builder| builder.ca_file(ca));
    let (broker, queue) = (topic.broker(), topic.subscribe());
    let sent = [message("users", "before"), message("users", vec![0; 5000]), message("users", "behind")];
    let answers = broker.publish(&sent);
    let [Ok(()), Err(refused), Ok(())] = answers.as_slice() else { return Err(format!("{answers:?}").into()) };
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    arrive(&*queue, &["before", "behind"]);
    Ok(())
}

/// Passwords that are wrong, rights that are missing, and a virtual host that is not there: each is told, and no password
/// is. The rights that the documentation names are enough, and no more than needed.
pub(super) fn rights_are_those_that_the_documentation_names() -> Tested {
    let server = nodes::strict()?;
    let ca = server.ca().ok_or("no authority")?;
    let of = |user: &str, password: &str| {
        let builder = RabbitMq::builder([server.url_of(user, password)]).ca_file(ca);
        builder.connect_timeout(LONG).confirm_timeout(LONG).retry_for(Duration::ZERO)
    };
    let mine = |user: &str| of(user, nodes::PASSWORD);

    // Nothing stands yet: whoever only looks says so.
    let missing = refused(&mine("only_publishes").without_queue().check_only().broker()?)?;
    assert_eq!(missing.kind(), ErrorKind::Config, "{missing}");
    assert!(missing.to_string().contains("the exchange `kvsync`"), "{missing}");
    // One that declares no queue makes the exchange, and nobody receives.
    let unrouted = refused(&mine("publishes").without_queue().broker()?)?;
    assert_eq!(unrouted.kind(), ErrorKind::Unavailable, "{unrouted}");
    let missing = trouble(&mine("only_consumes").check_only().subscription()?);
    assert_eq!(missing.kind(), ErrorKind::Config, "{missing}");

    let queue = mine("declares").subscription()?;
    assert!(queue.receive(1, Duration::ZERO).is_ok());
    wait::until("all stands", || queue.health(LONG).status == kvsync::transport::Status::Up);
    let broker = mine("only_publishes").without_queue().check_only().broker()?;
    only(broker.publish(&[message("users", "one")]))??;
    arrive(&queue, &["one"]);
    queue.close()?;

    let narrow = mine("only_consumes").check_only().subscription()?;
    only(broker.publish(&[message("users", "two")]))??;
    let two = narrow.receive(1, LONG)?.pop().ok_or("nothing arrived")?;
    // Nothing is declared to wait in, so that it is held for its time.
    two.again(Duration::from_millis(50));
    let two = narrow.receive(1, LONG)?.pop().ok_or("nothing arrived")?;
    two.dead("as a test");
    wait::until("the dead letter is kept", || narrow.backlog().is_ok_and(|holds| holds.dead == 1));

    for (builder, what) in [
        (of("declares", "wrong-word"), "wrong password"),
        (mine("nobody"), "no rights"),
        (mine("only_publishes"), "no right to declare"),
        (
            RabbitMq::builder([format!("{}/nowhere", server.url_of("declares", nodes::PASSWORD))]).ca_file(ca),
            "no such virtual host",
        ),
    ] {
        let (broker, queue) = (builder.clone().broker()?, builder.subscription()?);
        let (one, other) = (refused(&broker)?, trouble(&queue));
        let told = format!("{one} {one:?} {other} {other:?} {broker:?} {queue:?} {}", broker.health(LONG));
        assert_eq!((one.kind(), other.kind()), (ErrorKind::Config, ErrorKind::Config), "{what}: {told}");
        assert!(!told.contains("hidden-word") && !told.contains("wrong-word"), "{what}: {told}");
    }
    Ok(())
}

/// A queue that stands with other settings is refused, and taken as it is by whoever only looks.
pub(super) fn a_queue_of_another_kind_is_refused_unless_it_is_only_looked_at() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, |builder| builder.retry_for(Duration::ZERO));
    let queue = topic.name.clone();
    raw::with(&url, async |channel| {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await?;
        Ok(())
    })?;
    let error = refused(&*topic.broker())?;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains(&format!("the queue `{queue}`")), "{error}");
    assert_eq!(trouble(&*topic.subscribe()).kind(), ErrorKind::Config);
    // What else is needed stands by now, but for the binding; that is the operator's.
    let looks = topic.builder.clone().check_only();
    let unbound = refused(&looks.clone().broker()?)?;
    assert_eq!(unbound.kind(), ErrorKind::Unavailable, "{unbound}");
    assert!(looks.subscription()?.health(LONG).status == kvsync::transport::Status::Up);
    Ok(())
}

/// What stands in the queues outlives the server: properties, headers, and what waits.
pub(super) fn messages_are_persistent_and_say_what_they_are() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, |builder| builder);
    only(topic.broker().publish(&[message("public.users", "kept")]))??;
    let queue = topic.subscribe();
    queue.receive(1, LONG)?.pop().ok_or("nothing arrived")?.dead("for later");
    let dead = format!("{}.dead", topic.name);
    let mut kept = Vec::new();
    wait::until("the dead letter is kept", || {
        kept = raw::peek(&url, &dead).unwrap();
        !kept.is_empty()
    });
    let letter = kept.pop().ok_or("no letter")?;
    let properties = &letter.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.message_id().as_ref().map(ToString::to_string).as_deref(), Some("an id"));
    assert_eq!(properties.content_type().as_ref().map(ToString::to_string).as_deref(), Some("application/x-test"));
    assert!(properties.timestamp().is_some_and(|seconds| seconds > 1_600_000_000));
    assert_eq!(letter.text("x-kvsync-routing-key"), routing_key("public.users", "update"));
    assert_eq!(letter.text("x-kvsync-queue"), topic.name);
    Ok(())
}

/// Others publish to the queue, too: with headers that fill a frame, without any, and as another user's.
pub(super) fn messages_of_others_arrive_and_can_be_put_aside() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, |builder| builder);
    let queue = topic.subscribe();
    wait::until("the queue stands", || queue.health(LONG).status == kvsync::transport::Status::Up);
    let mut headers = FieldTable::default();
    for number in 0..100 {
        headers.insert(format!("x-{number}").into(), AMQPValue::LongString("long ".repeat(230).into()));
    }
    headers.insert("x-kvsync-redelivered".into(), AMQPValue::LongString("not a number".into()));
    let strange =
        BasicProperties::default().with_headers(headers).with_expiration("3600000".into()).with_user_id("guest".into());
    for properties in [BasicProperties::default(), strange] {
        let sent = properties.clone();
        raw::with(&url, async |channel| {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let confirm = channel.basic_publish(topic.name.as_str().into(), "".into(), options, b"other", sent).await?;
            assert!(confirm.await?.is_ack());
            Ok(())
        })?;
        let other = queue.receive(1, LONG)?.pop().ok_or("nothing arrived")?;
        assert_eq!((other.redelivered(), other.content_type()), (0, None));
        other.again(Duration::from_millis(20));
        let again = queue.receive(1, LONG)?.pop().ok_or("nothing came back")?;
        assert!(again.redelivered() > 0);
        again.dead("a stranger");
    }
    wait::until("both are kept", || queue.backlog().is_ok_and(|holds| holds.dead == 2));
    Ok(())
}

/// What waits is on the server: it outlives its consumer and a crash of the server.
pub(super) fn what_waits_outlives_its_consumer_and_the_server() -> Tested {
    let server = nodes::lend()?;
    let topic = place(&server.url(), |builder| builder);
    only(topic.broker().publish(&[message("users", "waits")]))??;
    let queue = topic.subscribe();
    queue.receive(1, LONG)?.pop().ok_or("nothing arrived")?.again(Duration::from_secs(2));
    queue.close()?;
    server.restart()?;
    let queue = topic.subscribe();
    arrive(&*queue, &["waits"]);
    Ok(())
}

/// A queue wants the tables that it was told to want.
pub(super) fn a_queue_receives_the_tables_that_it_wants() -> Tested {
    let url = env::rabbitmq_url()?;
    let all = place(&url, |builder| builder);
    let some = all.builder.clone().queue(name()).tables(["public.users"]).subscription()?;
    wait::until("both queues stand", || {
        [&*all.subscribe() as &dyn Subscription, &some]
            .iter()
            .all(|queue| queue.health(LONG).status == kvsync::transport::Status::Up)
    });
    let broker = all.broker();
    for sent in [message("public", "one"), message("public.users", "two"), message("users", "three")] {
        only(broker.publish(&[sent]))??;
    }
    arrive(&*all.subscribe(), &["one", "two", "three"]);
    let arrived = some.receive(10, LONG)?;
    assert_eq!(arrived.iter().map(|arrival| &arrival.body()[..]).collect::<Vec<_>>(), [b"two"]);
    Arrival::ack_all(arrived);
    assert_eq!(some.backlog()?.waiting, 0);
    Ok(())
}

/// An authority of one's own is trusted when it is named, and only then.
pub(super) fn tls_with_an_authority_of_ones_own() -> Tested {
    let server = nodes::strict()?;
    let ca = server.ca().ok_or("no authority")?;
    let trusting = place(&server.url(), |builder| builder.ca_file(ca));
    only(trusting.broker().publish(&[message("users", "secret")]))??;
    arrive(&*trusting.subscribe(), &["secret"]);
    let strict = place(&server.url(), |builder| builder.retry_for(Duration::ZERO));
    let error = refused(&*strict.broker())?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    Ok(())
}

/// As the server itself tells: what outlives it, of which kind it is, where it is bound.
pub(super) fn what_is_declared_is_what_the_documentation_says() -> Tested {
    let server = nodes::strict()?;
    let ca = server.ca().ok_or("no authority")?;
    let topic = place(&server.url(), |builder| builder.ca_file(ca).max_messages(7).tables(["public.users"]));
    let Place { name, .. } = &topic;
    only(topic.broker().publish(&[message("public.users", "one")]))??;
    topic.subscribe().receive(1, LONG)?.pop().ok_or("nothing arrived")?.again(Duration::from_millis(50));
    arrive(&*topic.subscribe(), &["one"]);
    let told = |kind: &str, name: &str, what: &str| {
        let module = if kind == "queue" { "rabbit_amqqueue" } else { "rabbit_exchange" };
        let told = server.evaluate(&format!(
            "{{ok, It}} = {module}:lookup(rabbit_misc:r(<<\"/\">>, {kind}, <<\"{name}\">>)), \
             lists:flatten(io_lib:format(\"~0p\", [{module}:info(It, {what})]))."
        ))?;
        Tested::Ok(told.replace('\\', ""))
    };
    for (exchange, of) in [(name.clone(), "topic"), (format!("{name}.dead"), "direct")] {
        let told = told("exchange", &exchange, "[type, durable, auto_delete]")?;
        assert_eq!(told, format!("\"[{{type,{of}}},{{durable,true}},{{auto_delete,false}}]\""));
    }
    let limits = [
        ("", "{<<\"x-delivery-limit\">>,unsignedint,2147483647}"),
        ("", "{<<\"x-max-length\">>,long,7}"),
        ("", "{<<\"x-overflow\">>,longstr,<<\"reject-publish\">>}"),
        (".dead", "{<<\"x-queue-type\">>,longstr,<<\"quorum\">>}"),
    ];
    for (behind, argument) in limits {
        let told = told("queue", &format!("{name}{behind}"), "[durable, auto_delete, type, arguments]")?;
        assert!(told.contains("{durable,true},{auto_delete,false},{type,quorum}"), "{told}");
        assert!(told.contains(argument), "{argument} is not of {told}");
    }
    let bound = server.evaluate(&format!(
        "[binary_to_list(element(3, B)) || B <- rabbit_binding:list_for_destination(\
         rabbit_misc:r(<<\"/\">>, queue, <<\"{name}\">>)), element(4, element(2, B)) == <<\"{name}\">>]."
    ))?;
    assert_eq!(bound, "[\"public%2Eusers.*\"]");
    Ok(())
}

/// What is not sent yet waits in the queue, where others may take it.
pub(super) fn no_more_is_sent_than_the_prefetch() -> Tested {
    let url = env::rabbitmq_url()?;
    let topic = place(&url, |builder| builder.prefetch(5));
    let sent: Vec<Message> = (0..20).map(|number| message("users", format!("{number}"))).collect();
    assert!(topic.broker().publish(&sent).iter().all(Result::is_ok));
    let queue = topic.subscribe();
    let held = queue.receive(20, LONG)?;
    let waits = || {
        raw::with(&url, async |channel| {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(topic.name.as_str().into(), passive, FieldTable::default()).await?;
            Ok(found.message_count())
        })
    };
    wait::until("five are sent", || waits().unwrap() == 15);
    let other = topic.subscribe();
    assert!(other.receive(20, LONG)?.len() <= 5);
    drop(held);
    Ok(())
}
