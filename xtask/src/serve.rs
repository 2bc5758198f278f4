//! `cargo xtask servers`.

use std::thread::sleep;
use std::time::Duration;

use xtask::Result;

use crate::interrupt;
use crate::suite::Suite;

/// Starts the servers, prints where they are, and waits for Ctrl-C.
pub(crate) fn run() -> Result<()> {
    let suite = Suite::start()?;
    for (name, value) in suite.variables() {
        println!("export {name}='{value}'");
    }
    eprintln!("\nRunning:\n{}\nCtrl-C stops them.", suite.describe());
    while !interrupt::requested() {
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
