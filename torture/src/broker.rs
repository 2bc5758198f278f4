//! The broker of a run, and how it is made to fail.

use std::thread;
use std::time::{Duration, Instant};

use xtask::servers::{Nats, NatsOptions, Process, Proxy, RabbitMq, RabbitMqOptions};

use crate::Outcome;
use crate::options::Transport;
use crate::transport::{Side, TransportAt};

/// How long it may take until nothing is left in any queue that was empty for its consumers.
const EMPTY: Duration = Duration::from_mins(1);

/// The queues that are not empty, and how much they hold. What queues tell of themselves otherwise is seconds old.
const HELD: &str = "lists:filter(fun({_, Held}) -> Held > 0 end, [begin {ok, {_, Held}, _} = \
    ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1), \
    {binary_to_list(element(4, amqqueue:get_name(Queue))), Held} end || Queue <- rabbit_amqqueue:list(<<\"/\">>)]).";

/// A real broker, behind a network for each side.
pub(crate) struct Broker {
    server: Server,
    pub(crate) publishers: Proxy,
    pub(crate) consumers: Proxy,
}

enum Server {
    RabbitMq(Box<RabbitMq>),
    Nats(Box<Nats>),
}

impl Broker {
    /// Starts it, and makes the queue.
    pub(crate) fn start(transport: Transport) -> Outcome<Self> {
        let (server, port) = match transport {
            Transport::RabbitMq => {
                let server = RabbitMq::start(&RabbitMqOptions::default())?;
                let port = server.port();
                (Server::RabbitMq(Box::new(server)), port)
            }
            Transport::Nats => {
                let server = Nats::start(&NatsOptions::default())?;
                let port = server.port();
                (Server::Nats(Box::new(server)), port)
            }
        };
        let broker = Self { server, publishers: Proxy::start(port)?, consumers: Proxy::start(port)? };
        broker.at(Side::Consumers).declare()?;
        // Nobody deletes a queue, so that none is declared once faults begin.
        if let Server::RabbitMq(server) = &broker.server {
            server.settle()?;
        }
        Ok(broker)
    }

    /// Where one side finds it.
    pub(crate) fn at(&self, side: Side) -> TransportAt {
        let proxy = match side {
            Side::Publishers => &self.publishers,
            Side::Consumers => &self.consumers,
        };
        match &self.server {
            Server::RabbitMq(server) => TransportAt::RabbitMq(proxy.url(&server.url())),
            Server::Nats(server) => TransportAt::Nats(proxy.url(&server.url())),
        }
    }

    pub(crate) fn process(&self) -> &Process {
        match &self.server {
            Server::RabbitMq(server) => server,
            Server::Nats(server) => server,
        }
    }

    /// Closes connections, as an operator does: every one, or with NATS all but one.
    pub(crate) fn close_connections(&self) -> Outcome {
        match &self.server {
            Server::RabbitMq(server) => {
                server.evaluate("rabbit_networking:close_all_connections(<<\"an operator wants it\">>).")?;
            }
            Server::Nats(server) => server.close_connections()?,
        }
        Ok(())
    }

    /// What its queues still hold, those for retries and dead letters included, once everybody is quiet: asked past the
    /// library, since RabbitMQ tells clients nothing of what others have taken. NATS does, and consumers have asked.
    pub(crate) fn left(&self) -> Outcome<Option<String>> {
        let Server::RabbitMq(server) = &self.server else { return Ok(None) };
        let deadline = Instant::now() + EMPTY;
        loop {
            let left = server.evaluate(HELD)?;
            if left == "[]" {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Ok(Some(left));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}
