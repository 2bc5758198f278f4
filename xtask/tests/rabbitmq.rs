//! The RabbitMQ nodes that the library starts are private, and do what their options say.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use xtask::servers::{RabbitMq, RabbitMqOptions};

type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What a node says to whoever speaks AMQP.
fn greeting(server: &RabbitMq) -> Tested<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    // The type of the frame, its channel, and how long it is.
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut said = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_node_is_killed_and_started_again_on_its_port() -> Tested {
    let server = RabbitMq::start(&RabbitMqOptions::default())?;
    assert!(greeting(&server)?.contains("RabbitMQ"));
    let (url, pid) = (server.url(), server.pid());
    server.kill()?;
    assert!(greeting(&server).is_err());
    server.restart()?;
    assert!(greeting(&server)?.contains("RabbitMQ"));
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert!(server.folder().join("mnesia").exists());
    server.stop()?;
    Ok(())
}

#[test]
fn a_node_that_does_not_start_quotes_its_log() {
    let settings = "max_message_size = nonsense".to_owned();
    let error = RabbitMq::start(&RabbitMqOptions { settings, ..RabbitMqOptions::default() }).err();
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("did not start") && message.contains("failed_to_prepare_configuration"), "{message}");
}
