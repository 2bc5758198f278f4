//! Every broker keeps the contract: one table of cases, run over each of them.
//!
//! A trial is a broker and a case. A broker whose server is missing is a failure.

mod broken;
mod nats;
mod rabbitmq;
mod taker;

use std::sync::Arc;

use kvsync::transport::conformance::{self, Harness, Verdict};
use libtest_mimic::{Arguments, Failed, Trial};

/// A broker, and how it is made; an error says why it cannot be.
type Broker = (&'static str, Result<Arc<dyn Harness>, String>);

/// Every broker of this crate. A new one is one line here.
fn brokers() -> Vec<Broker> {
    vec![nats::broker(), rabbitmq::broker()]
}

fn main() {
    if nats::child() || rabbitmq::child() {
        return;
    }
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = brokers().into_iter().flat_map(conforms).collect();
    trials.extend(broken::trials());
    trials.extend(nats::trials());
    trials.extend(rabbitmq::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// One trial for each case.
fn conforms((name, broker): Broker) -> Vec<Trial> {
    let harness = match broker {
        Ok(harness) => harness,
        Err(missing) => return vec![Trial::test(name, || Err(Failed::from(missing)))],
    };
    let of = |case: &'static conformance::Case| {
        let harness = Arc::clone(&harness);
        Trial::test(format!("{name}::{}", case.name), move || match case.run(&*harness) {
            Verdict::Passed => Ok(()),
            Verdict::NotApplicable(why) => {
                println!("{name}::{} does not apply: {why}", case.name);
                Ok(())
            }
            Verdict::Failed(why) => Err(Failed::from(why)),
        })
    };
    conformance::cases().map(of).collect()
}
