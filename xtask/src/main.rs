//! `cargo xtask`: the project's tasks. `cargo xtask --help` lists them.

mod arguments;
mod bench;
mod ci;
mod install;
mod interrupt;
mod outcome;
mod run;
mod serve;
mod steps;
mod suite;
mod test;
mod torture;

use std::process::ExitCode;

use arguments::{HELP, Task};
use xtask::Result;

fn main() -> ExitCode {
    let task = match Task::parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("xtask: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match perform(&task) {
        Ok(code) => code,
        Err(_) if interrupt::requested() => {
            eprintln!("xtask: interrupted; the servers are stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: &Task) -> Result<ExitCode> {
    interrupt::listen()?;
    match task {
        Task::Help => print!("{HELP}"),
        Task::Ci => ci::run()?,
        Task::Test(arguments) => test::run(arguments)?,
        Task::Servers => serve::run()?,
        Task::Bench(arguments) => bench::run(arguments)?,
        Task::Torture(arguments) => return torture::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}
