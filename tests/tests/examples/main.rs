//! The example applications: `users_store` on several stores, `person_api` as a process that is asked over the network.

mod client;
mod requests;
mod service;
#[allow(unreachable_pub, clippy::pedantic, reason = "it is an example's")]
#[path = "../../../examples/users_store/users.rs"]
mod users;
mod users_store;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Trial> = users_store::trials().into_iter().chain(requests::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
