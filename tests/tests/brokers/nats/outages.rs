//! Servers that leave: in good order, and by a crash, alone and in a cluster of three.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kvsync::transport::nats::{Builder, NatsBroker, NatsQueue};
use kvsync::transport::{Arrival, Broker, Message, Status, Subscription};
use kvsync_tests::Tested;
use kvsync_tests::nats::api;
use kvsync_tests::servers::{Nats, NatsCluster, NatsOptions};
use kvsync_tests::wait::{LONG, until};

use super::checks::{MOMENT, message, publish};

/// Publishes and receives while something happens, and shows that all arrived that was confirmed.
struct Traffic {
    broker: NatsBroker,
    queue: NatsQueue,
    over: AtomicBool,
    confirmed: Mutex<BTreeSet<Bytes>>,
    arrived: Mutex<BTreeSet<Bytes>>,
}

impl Traffic {
    fn start(builder: &Builder) -> Tested<Self> {
        let (queue, broker) = (builder.queue("one")?, builder.broker()?);
        until("the stream is made", || publish(&broker, &[message("users", "first")]).is_ok());
        let (confirmed, arrived) = (Mutex::default(), Mutex::default());
        Ok(Self { broker, queue, over: AtomicBool::new(false), confirmed, arrived })
    }

    fn during(&self, happens: impl FnOnce() -> Tested) -> Tested {
        let happened = thread::scope(|scope| {
            scope.spawn(|| self.publish());
            scope.spawn(|| self.receive());
            // Also where it panics.
            let _over = Over(&self.over);
            happens()
        });
        happened?;
        until("all arrives that was confirmed", || {
            self.take();
            self.confirmed.lock().unwrap().is_subset(&self.arrived.lock().unwrap())
        });
        Ok(())
    }

    fn publish(&self) {
        for batch in 0.. {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let sent: Vec<Message> = (0..20).map(|number| message("users", &format!("{batch} {number}"))).collect();
            let answers = self.broker.publish(&sent);
            let kept = sent.into_iter().zip(answers).filter(|(_, answer)| answer.is_ok());
            self.confirmed.lock().unwrap().extend(kept.map(|(message, _)| message.body));
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn receive(&self) {
        while !self.over.load(Ordering::Acquire) {
            self.take();
        }
    }

    fn take(&self) {
        let taken = self.queue.receive(100, MOMENT).unwrap_or_default();
        self.arrived.lock().unwrap().extend(taken.iter().map(|arrival| arrival.body().clone()));
        Arrival::ack_all(taken);
    }

    /// Waits until more is confirmed.
    fn more(&self) {
        let confirmed = || self.confirmed.lock().unwrap().len();
        let before = confirmed();
        until("more is confirmed", || confirmed() > before + 100);
    }
}

/// Ends the traffic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Tells a server to leave in good order, slowly, and waits until it takes no more connections.
fn leaves(server: &Nats) -> Tested {
    let pid = server.pid().ok_or("the server does not run")?.to_string();
    assert!(Command::new("kill").args(["-USR2", &pid]).status()?.success());
    until("it takes nobody in", || TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());
    Ok(())
}

pub(super) fn what_was_confirmed_outlives_a_server_in_lame_duck_mode() -> Tested {
    let settings = "lame_duck_duration: 30s\nlame_duck_grace_period: 1s".to_owned();
    let server = Nats::start(&NatsOptions { settings, ..NatsOptions::default() })?;
    let builder = NatsBroker::builder([server.url()]).connect_timeout(LONG).publish_timeout(Duration::from_secs(3));
    let traffic = Traffic::start(&builder.retry_for(LONG).ack_wait(Duration::from_secs(3)))?;
    traffic.during(|| {
        traffic.more();
        leaves(&server)?;
        server.restart()?;
        traffic.more();
        Ok(())
    })
}

/// The server that leads the stream, as this one has it.
fn leader<'a>(cluster: &'a NatsCluster, asked: &Nats) -> Option<&'a Nats> {
    let told = api(asked.port(), "STREAM.INFO.kvsync", "").ok()?;
    cluster.called(told["cluster"]["leader"].as_str()?)
}

pub(super) fn what_three_servers_confirmed_outlives_those_that_lead() -> Tested {
    let cluster = NatsCluster::start()?;
    let builder = NatsBroker::builder(cluster.urls()).replicas(3).connect_timeout(Duration::from_secs(10));
    let builder = builder.publish_timeout(Duration::from_secs(5)).retry_for(LONG).ack_wait(Duration::from_secs(5));
    let traffic = Traffic::start(&builder)?;
    let up = || traffic.broker.health(LONG).status == Status::Up;
    until("all three are in step", up);
    traffic.during(|| {
        for crashes in [false, true] {
            traffic.more();
            let [first, second, _] = cluster.nodes();
            let lost = leader(&cluster, first).or_else(|| leader(&cluster, second)).ok_or("nobody leads")?;
            if crashes {
                lost.kill()?;
            } else {
                leaves(lost).and_then(|()| Ok(lost.stop()?))?;
            }
            // Who is asked while nobody leads does not answer.
            traffic.more();
            let left = if lost.port() == first.port() { second } else { first };
            until("another leads", || leader(&cluster, left).is_some_and(|other| other.port() != lost.port()));
            lost.restart()?;
            traffic.more();
            until("all three are in step again", up);
        }
        Ok(())
    })
}
