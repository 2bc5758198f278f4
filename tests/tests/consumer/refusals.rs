//! What a store or a broker says to everything makes no dead letter and loses nothing; what it says to one message holds
//! up no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvsync::record::Terms;
use kvsync::report::{Outcome, Report};
use kvsync::store::{Capabilities, Cursor, MemoryStore, Outcome as Answer, Page, Status, Step, Store, SyncStore};
use kvsync::transport::{Broker, ChangeMessage, Health, MemoryBroker, Message, Subscription};
use kvsync::{Error, ErrorKind, Key, KvSync, Lookup, Result};
use kvsync_tests::Tested;
use kvsync_tests::log::of_operators;
use kvsync_tests::servers::{AclUser, Redis, RedisOptions};
use parking_lot::Mutex;

use crate::rig::{App, LONG, Legs, SHORT, User, consumer, reader, received, until, user};

/// A broker that answers all messages, or those with this word in them, with an error of this kind.
#[derive(Debug, Clone)]
struct Stubborn {
    broker: MemoryBroker,
    refuses: Arc<Mutex<Option<(ErrorKind, &'static str)>>>,
}

impl Stubborn {
    fn new(broker: &MemoryBroker, kind: ErrorKind, word: &'static str) -> Self {
        Self { broker: broker.clone(), refuses: Arc::new(Mutex::new(Some((kind, word)))) }
    }
}

impl Broker for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn max_body(&self) -> usize {
        self.broker.max_body()
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let refuses = *self.refuses.lock();
        let answer = |message: &Message| match refuses {
            Some((kind, word))
                if message.body.windows(word.len().max(1)).any(|part| part.starts_with(word.as_bytes())) =>
            {
                Err(Error::new(kind, "give the user the right to publish"))
            }
            _ => self.broker.publish(std::slice::from_ref(message)).remove(0),
        };
        messages.iter().map(answer).collect()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.broker.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.broker.close()
    }
}

/// An error and its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_broker_that_takes_nothing_is_waited_for() {
    for kind in [ErrorKind::Config, ErrorKind::Unavailable, ErrorKind::UnknownOutcome, ErrorKind::Database] {
        let broker = MemoryBroker::new();
        let queue = broker.queue("all");
        let stubborn = Stubborn::new(&broker, kind, "");
        let mut app = App::publishing(stubborn.clone());
        for id in 0..5 {
            app.insert(&user(id, &format!("e{id}"), "ann"));
        }
        let failed = app.kv.flush(Duration::from_millis(300)).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Deadline);
        let why = told(&failed);
        assert!(why.contains("the right to publish"), "{why}");
        let health = app.kv.health(LONG);
        assert_eq!(health.status, Status::Degraded, "{health}");
        assert!(health.pipeline.brokers[0].failing && health.to_string().contains("the right to publish"), "{health}");
        assert_eq!((health.pipeline.written, health.pipeline.dirty.len()), (0, 0), "{health}");
        *stubborn.refuses.lock() = None;
        app.flush();
        let messages = received(&queue);
        assert!(messages.len() == 5 && !messages.iter().any(ChangeMessage::is_unknown), "{kind:?}: {messages:?}");
        assert_eq!(app.kv.health(LONG).status, Status::Up);
        assert!(
            !app.reports.lock().iter().any(|told| matches!(told, Report::Key(key) if key.outcome == Outcome::Failed))
        );
    }
}

#[test]
fn an_outbox_keeps_what_no_broker_takes() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let stubborn = Stubborn::new(&broker, ErrorKind::Config, "");
    let mut app = App::with(KvSync::builder().broker(stubborn.clone()), true);
    for id in 0..5 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    assert!(app.kv.flush(Duration::from_millis(500)).is_err());
    let depth = app.kv.outbox("main").unwrap().depth().unwrap();
    assert_eq!((depth.pending, depth.dead, depth.delivered), (5, 0, 0));
    assert!(app.kv.health(LONG).to_string().contains("the right to publish"));
    // The process goes, and another one has the rights.
    let next = app.another(KvSync::builder().broker(broker.clone()).outbox_lease(Duration::from_millis(300)), true);
    drop(app);
    next.flush();
    assert_eq!(received(&queue).len(), 5);
    let depth = next.kv.outbox("main").unwrap().depth().unwrap();
    assert_eq!((depth.pending, depth.dead), (0, 0));
}

#[test]
fn in_memory_what_no_broker_takes_is_bounded_and_told_when_it_is_let_go_of() {
    let broker = MemoryBroker::new();
    drop(broker.queue("all"));
    let stubborn = Stubborn::new(&broker, ErrorKind::Config, "");
    let most = 1 << 16;
    let builder = KvSync::builder().broker(stubborn).queue_bytes(most).overflow_block(Duration::ZERO);
    let mut app = App::with(builder, false);
    for id in 0..200 {
        app.insert(&user(id, &format!("e{id}"), &"x".repeat(2000)));
    }
    let health = app.kv.health(LONG);
    let lane = &health.pipeline.brokers[0];
    assert!(lane.queued.bytes <= most && lane.unsettled > 0, "{health}");
    assert!(app.kv.flush(SHORT).is_err());
    let kv = app.kv.clone();
    let ended = kv.shutdown(SHORT);
    assert!(!ended.is_clean(), "{ended:?}");
    let dirty = kv.health(LONG).pipeline.dirty;
    assert!(dirty.iter().any(|table| table.table.as_deref() == Some("users")), "{dirty:?}");
}

#[test]
fn one_message_that_is_refused_holds_up_no_other() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let stubborn = Stubborn::new(&broker, ErrorKind::Rejected, "poison");
    let mut app = App::publishing(stubborn);
    for id in 0..20 {
        app.insert(&user(id, &format!("e{id}"), if id == 7 { "poison" } else { "ann" }));
    }
    app.flush();
    let health = app.kv.health(LONG).to_string();
    assert!(health.contains("went on") && health.contains("the right to publish"), "{health}");
    let messages = received(&queue);
    let told = |id: i32| messages.iter().filter(move |one| one.primary_key() == id.to_string());
    for id in (0..20).filter(|id| *id != 7) {
        assert!(told(id).any(|one| one.decode_row::<User>().unwrap().is_some()), "{id}");
    }
    assert!(told(7).count() > 0 && told(7).all(ChangeMessage::is_unknown));
}

/// A store that refuses all steps, or those on keys with a word in them.
#[derive(Debug)]
struct Refusing {
    store: MemoryStore,
    all: AtomicBool,
    /// Whether those with this word in them.
    word: AtomicBool,
    with: &'static str,
}

impl Refusing {
    fn new(store: MemoryStore, with: &'static str) -> Arc<Self> {
        Arc::new(Self { store, all: AtomicBool::new(false), word: AtomicBool::new(!with.is_empty()), with })
    }
}

impl Store for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.store.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }
}

impl SyncStore for Refusing {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Answer>> {
        let refused = |step: &Step| {
            let word = self.word.load(Ordering::SeqCst) && format!("{step:?}").contains(self.with);
            word || self.all.load(Ordering::SeqCst)
        };
        let one = |step: &Step| {
            if refused(step) {
                return Err(Error::new(ErrorKind::Rejected, "no permission"));
            }
            self.store.execute(std::slice::from_ref(step), terms).remove(0)
        };
        steps.iter().map(one).collect()
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.store.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.store.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.store.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.store.raise_epoch(epoch)
    }
}

#[test]
fn a_store_that_takes_nothing_is_waited_for() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = Refusing::new(MemoryStore::new(), "");
    store.all.store(true, Ordering::SeqCst);
    let consumer = consumer(&queue, Arc::clone(&store), |builder| builder.batch(1));
    for id in 0..30 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    until("health says why", || consumer.health(LONG).to_string().contains("no permission"));
    until("what was taken is back", || queue.backlog().unwrap().waiting == 30);
    // Nothing more is taken while it lasts, so each was delivered once at most.
    let again = consumer.health(LONG).again;
    assert!(again <= 8, "{again} given back by four workers");
    assert_eq!(queue.dead_letters(), []);
    store.all.store(false, Ordering::SeqCst);
    consumer.drain(LONG).unwrap();
    let kv = reader(store.store.clone());
    assert!((0..30).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
    assert_eq!((queue.dead_letters().len(), consumer.health(LONG).status), (0, Status::Up));
}

#[test]
fn what_the_store_refuses_while_it_takes_others_waits_and_is_told_of_once() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = broker.queue("once refused");
    let mut app = App::publishing(broker);
    let store = Refusing::new(MemoryStore::new(), "user:7");
    let consumer = consumer(&queue, Arc::clone(&store), |builder| builder);
    for id in 0..20 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let kv = reader(store.store.clone());
    let others = || (0..20).filter(|id| *id != 7).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some());
    until("the others are there", others);
    // More often than a hook may fail.
    until("it is tried again", || consumer.health(LONG).again > 20);
    let health = consumer.health(LONG);
    let told = |detail: &String| detail.starts_with("the store refuses changes of `users`: no permission; 1 messages");
    assert!(health.status == Status::Degraded && health.details.iter().any(told), "{health}");
    assert!(consumer.drain(SHORT).is_err(), "it waits");
    assert_eq!(queue.dead_letters(), []);
    assert_eq!(log.lines(&["WARN", "once refused in memory"]).len(), 1);
    store.word.store(false, Ordering::SeqCst);
    consumer.drain(LONG).unwrap();
    assert_eq!(User::fetch_by_id(&kv, 7).unwrap().map(|user| user.id), Some(7));
    assert_eq!(consumer.health(LONG).status, Status::Up, "{}", consumer.health(LONG));
    assert_eq!(log.lines(&["INFO", "once refused in memory", "it is over"]).len(), 1);
}

/// Rights that are taken away and given back, in Redis itself.
#[test]
fn a_redis_that_takes_nothing_makes_no_dead_letters() -> Tested {
    let acl = AclUser { name: "app".into(), password: "pw".into(), keys: "kvsync:*".into() };
    let server = Redis::start(RedisOptions { user: Some(acl), ..RedisOptions::default() })?;
    let rights = "ACL SETUSER app reset on >pw ~kvsync:* +@read +@write +@scripting +@connection +info";
    let say = |words: &str| server.cli(&words.split(' ').collect::<Vec<_>>());
    say(rights)?;
    let store = kvsync_tests::redis::patient([server.url()]).connect()?;
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let consumer = consumer(&queue, store.clone(), |builder| builder.batch(5));
    let kv = reader(store);
    let (mut next, mut rows) = (0, Vec::new());
    for taken in [
        &["ACL SETUSER app -@write"][..],
        &["ACL SETUSER app -@scripting"],
        &["ACL SETUSER app resetkeys"],
        &["ACL SETUSER app resetpass >other", "CLIENT KILL USER app"],
        &["REPLICAOF 127.0.0.1 1"],
    ] {
        taken.iter().try_for_each(|words| say(words).map(drop))?;
        for id in next..next + 20 {
            app.insert(&user(id, &format!("e{id}"), "ann"));
            rows.push(id);
        }
        next += 20;
        app.flush();
        until("it is noticed", || consumer.health(LONG).status != Status::Up);
        until("health says why", || {
            consumer.health(LONG).details.iter().any(|detail| detail.starts_with("the store does not take changes"))
        });
        say("REPLICAOF NO ONE")?;
        say(rights)?;
        consumer.drain(LONG)?;
        assert_eq!(queue.dead_letters(), [], "after {taken:?}");
        for id in &rows {
            assert!(User::fetch_by_id(&kv, *id)?.is_some(), "{id} after {taken:?}");
        }
    }
    Ok(())
}

/// A right for the keys of one table is missing.
#[test]
fn a_redis_that_takes_no_users_makes_no_dead_letters() -> Tested {
    let acl = AclUser { name: "app".into(), password: "pw".into(), keys: "kvsync:*".into() };
    let server = Redis::start(RedisOptions { user: Some(acl), ..RedisOptions::default() })?;
    let store = kvsync_tests::redis::patient([server.url()]).connect()?;
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~kvsync:!*"])?;
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    (0..5).for_each(|id| app.insert(&user(id, &format!("e{id}"), "ann")));
    app.flush();
    let told =
        |detail: &String| detail.starts_with("the store refuses changes of `users`") && detail.contains("NOPERM");
    until("health names the table", || consumer.health(LONG).details.iter().any(told));
    until("each was tried often", || consumer.health(LONG).again > 50);
    assert_eq!(queue.dead_letters(), []);
    server.cli(&["ACL", "SETUSER", "app", "~kvsync:*"])?;
    consumer.drain(LONG)?;
    let kv = reader(store);
    assert!((0..5).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
    assert_eq!(queue.dead_letters(), []);
    Ok(())
}

/// A value of another program under one of the keys is of one message alone.
#[test]
fn a_key_of_another_type_is_a_dead_letter_at_once() -> Tested {
    let server = Redis::start(RedisOptions::default())?;
    server.cli(&["LPUSH", "kvsync:user:7", "x"])?;
    let store = kvsync_tests::redis::patient([server.url()]).connect()?;
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    for id in 5..10 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    consumer.drain(LONG)?;
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("another type"), "{dead:?}");
    assert_eq!(consumer.health(LONG).again, 0);
    let kv = reader(store);
    assert!([5, 6, 8, 9].iter().all(|id| User::fetch_by_id(&kv, *id).unwrap().is_some()));
    Ok(())
}

#[test]
fn a_row_larger_than_the_store_takes_is_unknown_there() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, Legs(store.clone()), |builder| builder);
    app.insert(&user(1, "a", &"x".repeat(5000)));
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!((queue.dead_letters().len(), consumer.health(LONG).again), (1, 0));
    assert!(matches!(User::lookup_by_id(&reader(store), 1).unwrap(), Lookup::Unknown(_)));
}
