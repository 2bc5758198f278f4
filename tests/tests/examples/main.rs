//! The example applications: `users_store` on several stores, `person_api` as a process that is asked over the network,
//! `publisher` and `consumer` as two processes with a broker between them.

mod client;
mod process;
mod requests;
mod service;
mod two_processes;
#[allow(unreachable_pub, clippy::pedantic, reason = "it is an example's")]
#[path = "../../../examples/two_processes/user.rs"]
mod user;
#[allow(unreachable_pub, clippy::pedantic, reason = "it is an example's")]
#[path = "../../../examples/users_store/users.rs"]
mod users;
mod users_store;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Trial> =
        users_store::trials().into_iter().chain(requests::trials()).chain(two_processes::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
