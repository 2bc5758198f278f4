//! The NATS servers that the library starts do what their options say.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};

use xtask::servers::{Nats, NatsOptions};

type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What a server says of itself to whoever connects.
fn greeting(server: &Nats) -> Tested<String> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))?).read_line(&mut line)?;
    Ok(line)
}

#[test]
fn a_server_is_killed_and_started_again_on_its_port() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    assert!(greeting(&server)?.contains("\"jetstream\":true"));
    let (url, pid) = (server.url(), server.pid());
    server.kill()?;
    assert!(greeting(&server).is_err());
    server.restart()?;
    assert!(greeting(&server)?.starts_with("INFO"));
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert!(server.storage().exists());
    server.pause()?;
    server.resume()?;
    server.stop()?;
    Ok(())
}

#[test]
fn the_options_reach_the_server() -> Tested {
    let settings = "max_payload: 2048\nserver_name: mine".to_owned();
    let plain = Nats::start(&NatsOptions { without_jetstream: true, settings, ..NatsOptions::default() })?;
    let greeted = greeting(&plain)?;
    assert!(greeted.contains("\"max_payload\":2048") && greeted.contains("\"server_name\":\"mine\""), "{greeted}");
    assert!(!greeted.contains("\"jetstream\":true"), "{greeted}");
    let tls = Nats::start(&NatsOptions { tls: true, ..NatsOptions::default() })?;
    assert!(greeting(&tls)?.contains("\"tls_required\":true"));
    assert!(tls.url().starts_with("tls://") && tls.ca().is_some_and(std::path::Path::exists));
    Ok(())
}

#[test]
fn a_server_that_does_not_start_quotes_its_log() {
    let settings = "max_payload: nonsense".to_owned();
    let error = Nats::start(&NatsOptions { settings, ..NatsOptions::default() }).err();
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("did not start") && message.contains("nats.conf:"), "{message}");
}
