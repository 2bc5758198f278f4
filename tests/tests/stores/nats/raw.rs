//! The protocol of NATS, as far as it takes to be another client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use kvsync_tests::Tested;
use kvsync_tests::servers::Nats;

/// Asks a server something and returns its answer.
pub(super) fn ask(server: &Nats, subject: &str, question: &str) -> Tested<String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let length = question.len();
    write!(
        &stream,
        "CONNECT {{\"verbose\":false}}\r\nSUB answers 1\r\nPUB {subject} answers {length}\r\n{question}\r\n"
    )?;
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 || line.starts_with("-ERR") {
            return Err(format!("the server said: {line}").into());
        }
        if line.starts_with("MSG") {
            let length: usize = line.trim_end().rsplit(' ').next().ok_or("no length")?.parse()?;
            let mut answer = vec![0; length];
            answers.read_exact(&mut answer)?;
            return Ok(String::from_utf8(answer)?);
        }
    }
}

/// Makes a bucket with these settings beside those that a bucket needs.
pub(super) fn bucket(server: &Nats, name: &str, settings: &str) -> Tested {
    let config = format!(
        r#"{{"name":"KV_{name}","subjects":["$KV.{name}.>"],"retention":"limits","storage":"file","num_replicas":1,
            "allow_rollup_hdrs":true,"deny_delete":true{settings}}}"#
    );
    let answer = ask(server, &format!("$JS.API.STREAM.CREATE.KV_{name}"), &config)?;
    if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
}

/// How many entries a bucket has, marks of removed ones included.
pub(super) fn entries(server: &Nats, name: &str) -> Tested<u64> {
    let info = ask(server, &format!("$JS.API.STREAM.INFO.KV_{name}"), "")?;
    let info: serde_json::Value = serde_json::from_str(&info)?;
    Ok(info["state"]["messages"].as_u64().ok_or("no state")?)
}
