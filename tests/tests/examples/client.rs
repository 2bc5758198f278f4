//! A client of HTTP/1.1: one request on one connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use serde_json::Value;

/// What a server answered.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let of_name = |line: &&str| line.to_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(of_name).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }
}

/// Sends a request with this body and reads the answer; an answer that is not JSON reads as text.
pub fn ask(address: &str, method: &str, path: &str, body: &str) -> Tested<Answer> {
    let mut conn = TcpStream::connect(address)?;
    conn.set_read_timeout(Some(LONG))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    conn.write_all(head.as_bytes())?;
    // A server that refuses a body need not read it to its end.
    let _ = conn.write_all(body.as_bytes());
    let mut answer = Vec::new();
    conn.read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no end of the head")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok(Answer { status, head: head.to_owned(), body })
}
