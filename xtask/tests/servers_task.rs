//! `cargo xtask servers` leaves nothing behind, however it ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The running task, and the variables that it printed.
fn start() -> Tested<(Child, HashMap<String, String>)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let mut task = command.arg("servers").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut variables = HashMap::new();
    for line in BufReader::new(task.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        let (name, value) = line.strip_prefix("export ").and_then(|line| line.split_once('=')).ok_or("no export")?;
        variables.insert(name.to_owned(), value.trim_matches('\'').to_owned());
        if name == "KVSYNC_PYTHON" {
            break;
        }
    }
    Ok((task, variables))
}

/// Waits until no server answers and no folder is left.
fn expect_nothing_left(variables: &HashMap<String, String>) {
    let deadline = Instant::now() + Duration::from_mins(5);
    let urls = variables.iter().filter(|(name, _)| name.contains("_URL")).flat_map(|(_, urls)| urls.split(','));
    for port in urls.filter_map(port) {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            assert!(Instant::now() < deadline, "port {port} still answers");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    while Path::new(&variables["KVSYNC_REDIS_TLS_CA"]).exists() {
        assert!(Instant::now() < deadline, "a folder is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn port(url: &str) -> Option<u16> {
    url.rsplit_once(':')?.1.split('/').next()?.parse().ok()
}

#[test]
fn an_interrupted_task_stops_its_servers_before_it_ends() -> Tested {
    let (mut task, variables) = start()?;
    assert_eq!(variables.len(), 10);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port(&variables["KVSYNC_REDIS_URL"]).ok_or("no port")?)).is_ok());
    kill_process(Pid::from_child(&task), Signal::INT)?;
    assert!(task.wait()?.success());
    assert!(!Path::new(&variables["KVSYNC_REDIS_TLS_CA"]).exists());
    expect_nothing_left(&variables);
    Ok(())
}

#[test]
fn the_servers_of_a_killed_task_are_stopped_by_their_watchdogs() -> Tested {
    let (mut task, variables) = start()?;
    task.kill()?;
    task.wait()?;
    expect_nothing_left(&variables);
    Ok(())
}
