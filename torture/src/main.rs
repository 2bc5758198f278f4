//! Torture: several processes write through kvsync while a script of faults runs, and at the end every row and every key
//! is compared. `cargo xtask torture --help` says how.
//!
//! The conductor starts this program again for each process, with a job in its environment.

mod broker;
mod check;
mod child;
mod conductor;
mod consume;
mod crew;
mod dice;
mod faults;
mod job;
mod models;
mod open;
mod options;
mod repair;
mod script;
mod serve;
mod steps;
mod transport;
mod verdict;
mod view;
mod watch;
mod world;
mod writer;

// Linked for their bundled libraries.
use libsqlite3_sys as _;
use pq_sys as _;

use std::process::ExitCode;

/// What may fail, with a sentence that says why.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    if let Ok(job) = std::env::var(job::JOB) {
        let outcome = serde_json::from_str(&job)
            .map_err(Into::into)
            .and_then(|job: job::Job| if job.consumes().is_some() { consume::run(&job) } else { writer::run(&job) });
        return outcome.map_or_else(|error| failed(&*error, 1), |()| ExitCode::SUCCESS);
    }
    let options = match options::Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("torture: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    if options.script_only {
        conductor::print_script(&options);
        return ExitCode::SUCCESS;
    }
    let world = match conductor::prepare(&options) {
        Ok(world) => world,
        Err(error) => return failed(&*error, 3),
    };
    match conductor::run(&options, &world) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whatever failed then failed because everybody was told to end.
        Err(_) if conductor::is_interrupted() => {
            eprintln!("torture: interrupted; everything that was started is stopped");
            ExitCode::from(130)
        }
        Err(error) => failed(&*error, 1),
    }
}

fn failed(error: &(dyn std::error::Error + Send + Sync), code: u8) -> ExitCode {
    eprintln!("torture: {error}");
    ExitCode::from(code)
}
