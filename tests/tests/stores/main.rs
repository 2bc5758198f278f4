//! Every store keeps the contracts that it names: one table of cases, run over each of them.
//!
//! A trial is a store and a case. A case that asks for what a store does not have is named as such in the
//! matrix at the end ([`matrix`]), and a store whose server is missing is a failure.

mod broken;
mod broken_both;
mod broken_commands;
mod broken_engines;
mod broken_values;
mod commands;
mod dynamodb;
mod embedded;
mod engine;
#[cfg(feature = "foundationdb")]
mod foundationdb;
mod layers;
mod matrix;
mod nats;
mod ordered;
mod random;
mod redis;

use std::sync::Arc;

use kvsync::store::MemoryStore;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use libtest_mimic::{Arguments, Failed, Trial};

use self::matrix::{Case, Matrix};

/// A store, and how it is made; an error says why it cannot be.
type Store = (&'static str, Result<Arc<dyn Harness>, String>);

/// Every store of this crate. A new one is one line here.
fn stores() -> Vec<Store> {
    let mut stores: Vec<Store> = vec![
        ("memory", Ok(Arc::new(Memory))),
        ("embedded", Ok(Arc::new(embedded::Fresh::new(false)))),
        ("embedded_sync", Ok(Arc::new(embedded::Fresh::new(true)))),
        ("ordered", Ok(Arc::new(ordered::Fresh))),
    ];
    stores.extend(nats::stores());
    stores.extend(redis::stores());
    #[cfg(feature = "foundationdb")]
    stores.push(foundationdb::store());
    stores.extend(layers::stores());
    stores.extend(dynamodb::stores());
    stores
}

fn main() {
    if embedded::child() {
        return;
    }
    let (full, arguments): (Vec<String>, Vec<String>) = std::env::args().partition(|argument| argument == "--matrix");
    let arguments = Arguments::from_iter(arguments);
    let matrix = Matrix::default();
    let mut trials: Vec<Trial> = stores().into_iter().flat_map(|store| conforms(store, &matrix)).collect();
    trials.extend(broken::trials());
    trials.extend(broken_both::trials());
    trials.extend(broken_commands::trials());
    trials.extend(broken_engines::trials());
    trials.extend(broken_values::trials());
    trials.extend(embedded::trials());
    trials.extend(dynamodb::trials());
    trials.extend(nats::trials());
    trials.extend(redis::trials());
    trials.extend(ordered::trials());
    trials.extend(layers::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{}", if full.is_empty() { matrix.summary() } else { matrix.full() });
    }
    conclusion.exit();
}

/// One trial for each case.
fn conforms((name, store): Store, matrix: &Matrix) -> Vec<Trial> {
    let harness = match store {
        Ok(harness) => harness,
        Err(missing) => {
            matrix.declare(name, "its_server_is_there");
            matrix.note(name, "its_server_is_there", &Verdict::Failed(missing.clone()));
            return vec![Trial::test(name, || Err(Failed::from(missing)))];
        }
    };
    let of = |case: &'static str, run: Case| {
        matrix.declare(name, case);
        let matrix = matrix.clone();
        Trial::test(format!("{name}::{case}"), move || {
            matrix.note(name, case, &Verdict::Failed("it panicked".into()));
            let verdict = run();
            matrix.note(name, case, &verdict);
            match verdict {
                Verdict::Passed | Verdict::NotApplicable(_) => Ok(()),
                Verdict::Failed(why) => Err(Failed::from(why)),
            }
        })
    };
    let conforms = conformance::cases().map(|case| {
        let harness = Arc::clone(&harness);
        of(case.name, Box::new(move || case.run(&*harness)))
    });
    let more = [random::cases(name, &harness), commands::cases(name, &harness), engine::cases(&harness)];
    conforms.chain(more.into_iter().flatten().map(|(case, run)| of(case, run))).collect()
}

struct Memory;

impl Harness for Memory {
    fn fresh(&self) -> Stores {
        Stores::both(Arc::new(MemoryStore::new()))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}
