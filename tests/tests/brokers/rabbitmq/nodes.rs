//! The nodes that trials need beside the shared one. To start one takes seconds: there are three at most.

use std::ops::Deref;
use std::sync::OnceLock;

use kvsync_tests::Tested;
use kvsync_tests::servers::{RabbitMq, RabbitMqOptions, RabbitMqUser};
use parking_lot::{Condvar, Mutex};

/// The password of everybody but `guest`.
pub(super) const PASSWORD: &str = "hidden-word";

/// One that speaks TLS only, takes small messages only, and knows users with few rights. Nobody stops it.
pub(super) fn strict() -> Tested<&'static RabbitMq> {
    static NODE: OnceLock<Result<RabbitMq, String>> = OnceLock::new();
    let user = |name: &str, [configure, write, read]: [&str; 3]| RabbitMqUser {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    let node = NODE.get_or_init(|| {
        let users = vec![
            user("declares", ["^kvsync", "^kvsync", "^kvsync"]),
            user("publishes", ["^kvsync$", "^kvsync$", "^$"]),
            user("only_publishes", ["^$", "^kvsync$", "^$"]),
            user("only_consumes", ["^$", r"^kvsync\.(dead|retry)$", "^kvsync$"]),
            user("nobody", ["^$", "^$", "^$"]),
        ];
        let settings = "max_message_size = 4096".to_owned();
        RabbitMq::start(&RabbitMqOptions { tls: true, users, settings }).map_err(|error| error.to_string())
    });
    node.as_ref().map_err(|why| why.clone().into())
}

/// One that its holder alone uses, and may do anything to.
pub(super) struct Lent(Option<RabbitMq>);

/// As many as trials run at a time on a small machine.
const MOST: usize = 2;

struct Spare {
    lent: usize,
    nodes: Vec<RabbitMq>,
}

static SPARE: Mutex<Spare> = Mutex::new(Spare { lent: 0, nodes: Vec::new() });
static BACK: Condvar = Condvar::new();

/// Waits until one is free; it runs.
pub(super) fn lend() -> Tested<Lent> {
    let mut spare = SPARE.lock();
    while spare.lent == MOST {
        BACK.wait(&mut spare);
    }
    spare.lent += 1;
    let mut lent = Lent(spare.nodes.pop());
    drop(spare);
    match &lent.0 {
        Some(node) if node.pid().is_some() => node.resume()?,
        Some(node) => node.restart()?,
        None => lent.0 = Some(RabbitMq::start(&RabbitMqOptions::default())?),
    }
    Ok(lent)
}

impl Deref for Lent {
    type Target = RabbitMq;

    fn deref(&self) -> &RabbitMq {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Who knows what a trial that panicked has left.
        let node = self.0.take().filter(|_| !std::thread::panicking());
        let mut spare = SPARE.lock();
        spare.lent -= 1;
        spare.nodes.extend(node);
        drop(spare);
        BACK.notify_one();
    }
}
