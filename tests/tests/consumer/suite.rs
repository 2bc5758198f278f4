//! The broker in memory passes the suite of brokers, so what it shows of others is true.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvsync::transport::conformance::{Dead, Harness, Own, Topic, Verdict, run};
use kvsync::transport::{Broker, MemoryBroker, Subscription};
use kvsync_tests::wait::LONG;

struct Memory;

struct OneTopic(MemoryBroker);

fn topic(capacity: usize) -> Arc<dyn Topic> {
    let broker = MemoryBroker::with_limits(1 << 20, capacity);
    drop(broker.queue("all"));
    Arc::new(OneTopic(broker))
}

impl Harness for Memory {
    fn patience(&self) -> Duration {
        LONG
    }

    fn fresh(&self) -> Arc<dyn Topic> {
        topic(usize::MAX)
    }

    fn bounded(&self, most: u64) -> Option<Arc<dyn Topic>> {
        Some(topic(usize::try_from(most).unwrap()))
    }

    fn unrouted(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(MemoryBroker::new()))
    }

    fn forbidden(&self) -> Option<Arc<dyn Broker>> {
        None
    }

    fn own(&self) -> Option<Box<dyn Own>> {
        None
    }
}

impl Topic for OneTopic {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    fn subscribe(&self) -> Arc<dyn Subscription> {
        Arc::new(self.0.queue("all"))
    }

    fn dead(&self) -> Vec<Dead> {
        let dead = self.0.queue("all").dead_letters().into_iter();
        dead.map(|one| Dead { body: one.message.body, reason: one.reason }).collect()
    }

    fn taken_and_killed(&self, _: usize) -> Option<Vec<Bytes>> {
        None
    }
}

#[test]
fn it_passes() {
    let verdicts = run(&Memory);
    let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let passed = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Passed).count();
    assert!(passed > 15, "{passed} of {}", verdicts.len());
}
