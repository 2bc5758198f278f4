//! Steps with a name and a time.

use std::time::{Duration, Instant};

use xtask::{Error, Result};

use crate::interrupt;

/// The steps that were taken, how long each took, and which failed.
#[derive(Default)]
pub(crate) struct Steps(Vec<(String, Duration, Result<()>)>);

impl Steps {
    /// Takes a step. One that fails does not keep the next from being taken, but an interrupt does.
    pub(crate) fn take(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        interrupt::check()?;
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        interrupt::check()?;
        if let Err(error) = &result {
            eprintln!("xtask: {error}");
        }
        self.0.push((name.to_owned(), start.elapsed(), result));
        Ok(())
    }

    /// Prints the steps; an error that names those that failed.
    pub(crate) fn finish(self) -> Result<()> {
        let mut failed = Vec::new();
        for (name, time, result) in &self.0 {
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            println!("  {:>7.1} s  {verdict:<6}  {name}", time.as_secs_f64());
            if let Err(error) = result {
                failed.push(format!("{name}: {error}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("\n       "))) }
    }
}
