//! `cargo xtask bench`.

use xtask::Result;

use crate::run::{cargo, succeed};
use crate::suite::Suite;

/// Builds the benchmarks first, so that the servers do not idle, then runs them. The rows on Postgres pin themselves and
/// the server to one processor, as `taskset` would (`benches/src/pin.rs`); others use all.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    succeed(&mut cargo(&["build", "--release", "--package", "kvsync-benches"]))?;
    let suite = Suite::start()?;
    println!("Benchmarks run against:\n{}", suite.describe());
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "kvsync-benches", "--"]);
    succeed(command.args(arguments).envs(suite.variables()))
}
