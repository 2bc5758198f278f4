//! The command line.

use xtask::{Error, Result};

/// What `cargo xtask --help` prints.
pub(crate) const HELP: &str = "\
Usage: cargo xtask <task> [-- <arguments>]

Tasks:
  test [-- <arguments>]   start the servers, run every test and example against them, stop them;
                          the arguments go to `cargo test`, and with any the examples are not run:
                            cargo xtask test -- --test stores
                            cargo xtask test -- fetch -- --nocapture
  ci                      what the project's own CI runs: formatting, lints, documentation, feature
                          combinations, then `test`
  servers                 start the servers, print their addresses as `export` lines, wait for Ctrl-C;
                          then, in another terminal with these variables, run single tests by `cargo test`
  bench [-- <arguments>]  start the servers, build the benchmarks in release mode, run them
  torture [<options>]     several processes write while a script of faults runs, then every row and every key is
                          compared; `cargo xtask torture --help` lists the options

The servers are private: free loopback ports, temporary folders, stopped by their own pid at the end, also
on failure and Ctrl-C. They are Redis (TCP, unix socket, TLS), a Redis Cluster of three, and Postgres.
Missing programs are installed by apt-get when root runs this on Debian or Ubuntu; elsewhere the command
that installs them is printed. Nothing is skipped because a server is missing.
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    Ci,
    Test(Vec<String>),
    Servers,
    Bench(Vec<String>),
    Torture(Vec<String>),
}

impl Task {
    /// Reads the arguments that follow the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.into_iter();
        let Some(task) = arguments.next() else { return Err(Error::new("say which task")) };
        let rest: Vec<String> = arguments.collect();
        let asks_for_help = rest.first().is_some_and(|first| matches!(first.as_str(), "--help" | "-h"));
        match task.as_str() {
            "help" | "--help" | "-h" => Ok(Self::Help),
            // It has a help of its own.
            "torture" => Ok(Self::Torture(rest)),
            _ if asks_for_help => Ok(Self::Help),
            "ci" => none(&task, &rest, Self::Ci),
            "servers" => none(&task, &rest, Self::Servers),
            "test" => after_dashes(&task, rest).map(Self::Test),
            "bench" => after_dashes(&task, rest).map(Self::Bench),
            _ => Err(Error::new(format!("there is no task `{task}`"))),
        }
    }
}

fn none(task: &str, rest: &[String], parsed: Task) -> Result<Task> {
    match rest.first() {
        None => Ok(parsed),
        Some(first) => Err(Error::new(format!("`{task}` takes no arguments, but got `{first}`"))),
    }
}

fn after_dashes(task: &str, mut rest: Vec<String>) -> Result<Vec<String>> {
    match rest.first().map(String::as_str) {
        None => Ok(rest),
        Some("--") => Ok(rest.split_off(1)),
        Some(first) => Err(Error::new(format!("put `--` before the arguments of `{task}`: `-- {first}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::Task;

    fn parse(line: &str) -> Result<Task, String> {
        Task::parse(line.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn tasks_are_recognised() {
        assert_eq!(parse("ci"), Ok(Task::Ci));
        assert_eq!(parse("servers"), Ok(Task::Servers));
        assert_eq!(parse("test"), Ok(Task::Test(vec![])));
        assert_eq!(parse("bench --"), Ok(Task::Bench(vec![])));
        assert_eq!(parse("torture --help"), Ok(Task::Torture(vec!["--help".into()])));
        for help in ["help", "--help", "-h", "test --help", "ci -h"] {
            assert_eq!(parse(help), Ok(Task::Help), "{help}");
        }
    }

    #[test]
    fn what_follows_the_dashes_is_passed_on_as_it_is() {
        let expected = ["--test", "stores", "--", "--help"].map(str::to_owned).to_vec();
        assert_eq!(parse("test -- --test stores -- --help"), Ok(Task::Test(expected)));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        assert_eq!(parse(""), Err("say which task".into()));
        assert_eq!(parse("tset"), Err("there is no task `tset`".into()));
        assert_eq!(parse("ci fast"), Err("`ci` takes no arguments, but got `fast`".into()));
        assert_eq!(parse("test stores"), Err("put `--` before the arguments of `test`: `-- stores`".into()));
    }
}
