//! The benchmarks: one table of ratios, each of two sides that were measured by turns in one run.
//!
//! `cargo xtask bench` starts the servers, builds this in release mode and runs it.

mod by_hand;
mod clock;
mod models;
mod options;
mod pin;
mod ratio;
mod rows;
mod servers;
mod statements;
mod synced;
mod table;

use std::process::ExitCode;

use self::options::{Options, Request};
use self::table::Table;

/// Any failure ends its row, and the run with an exit code of 1.
type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let outcome = Request::parse(std::env::args().skip(1)).and_then(|request| match request {
        Request::Help => {
            println!("{}", options::help(rows::ALL));
            Ok(true)
        }
        Request::Child(name) => rows::run_child(&name).map(|()| true),
        Request::Run(options) => run(&options),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", table::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that were asked for; false when one of them failed.
fn run(options: &Options) -> Result<bool> {
    let wanted: Vec<_> = rows::ALL.iter().filter(|row| options.wants(row.name)).collect();
    if wanted.is_empty() {
        return Err(format!("no row is called that; there are {}", rows::names()).into());
    }
    let mut table = Table::default();
    for (index, row) in wanted.iter().enumerate() {
        eprintln!("[{}/{}] {}", index + 1, wanted.len(), row.name);
        match (row.run)(options) {
            Ok(figures) => table.figures(row.name, figures),
            Err(error) => table.failure(row.name, &*error),
        }
    }
    println!("{table}");
    Ok(table.is_whole())
}
