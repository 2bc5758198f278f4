//! The protocol of NATS, as far as it takes to be another client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::Tested;

/// How long an answer may take. Whoever asks meanwhile asks again.
const ANSWER: Duration = Duration::from_secs(30);

/// What another client hears on a subject.
pub struct Heard {
    answers: BufReader<TcpStream>,
}

/// A message that is kept in a stream.
pub struct Kept {
    /// Its subject.
    pub subject: String,
    /// Its headers, as they are on the wire.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// Listens on a subject of the server on this port.
///
/// # Errors
/// When the server cannot be reached.
pub fn listen(port: u16, subject: &str) -> Tested<Heard> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    write!(&stream, "CONNECT {{\"verbose\":false}}\r\nSUB {subject} 1\r\nPING\r\n")?;
    // The answer says that the server knows the subscription.
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        if answers.read_line(&mut line)? == 0 || line.starts_with("-ERR") {
            return Err(format!("the server said: {line}").into());
        }
    }
    Ok(Heard { answers })
}

impl Heard {
    /// The next message without headers, as text; waits for it.
    ///
    /// # Errors
    /// When the server ends the connection or complains.
    pub fn hear(&mut self) -> Tested<String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 || line.starts_with("-ERR") {
                return Err(format!("the server said: {line}").into());
            }
            if line.starts_with("MSG") {
                let length: usize = line.trim_end().rsplit(' ').next().ok_or("no length")?.parse()?;
                let mut answer = vec![0; length];
                self.answers.read_exact(&mut answer)?;
                return Ok(String::from_utf8(answer)?);
            }
            if line.starts_with("PING") {
                self.answers.get_ref().write_all(b"PONG\r\n")?;
            }
        }
    }
}

/// Asks a server something and returns its answer.
///
/// # Errors
/// When the server cannot be reached or complains.
pub fn ask(port: u16, subject: &str, question: &str) -> Tested<String> {
    let inbox = inbox();
    let mut heard = listen(port, &inbox)?;
    // A cluster without a leader answers nothing.
    heard.answers.get_ref().set_read_timeout(Some(ANSWER))?;
    let length = question.len();
    write!(heard.answers.get_ref(), "PUB {subject} {inbox} {length}\r\n{question}\r\n")?;
    heard.hear()
}

/// Publishes a message with these headers, as they are on the wire, and returns what the stream answers.
///
/// # Errors
/// When the server cannot be reached or complains.
pub fn put(port: u16, subject: &str, headers: &str, body: &[u8]) -> Tested<String> {
    let inbox = inbox();
    let mut heard = listen(port, &inbox)?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (fore, length) = (headers.len(), headers.len() + body.len());
    write!(
        &stream,
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB {subject} {inbox} {fore} {length}\r\n{headers}"
    )?;
    (&stream).write_all(body)?;
    (&stream).write_all(b"\r\n")?;
    heard.hear()
}

/// Asks the API of JetStream, and fails for an answer that is an error.
///
/// # Errors
/// As [`ask`], and when the answer is an error.
pub fn api(port: u16, call: &str, question: &str) -> Tested<Value> {
    let answer: Value = serde_json::from_str(&ask(port, &format!("$JS.API.{call}"), question)?)?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(error.to_string().into()),
    }
}

/// How many messages a stream has.
///
/// # Errors
/// As [`api`].
pub fn count(port: u16, stream: &str) -> Tested<u64> {
    let info = api(port, &format!("STREAM.INFO.{stream}"), "")?;
    number(&info, "/state/messages")
}

/// The messages that a stream keeps.
///
/// # Errors
/// As [`api`].
pub fn kept(port: u16, stream: &str) -> Tested<Vec<Kept>> {
    let info = api(port, &format!("STREAM.INFO.{stream}"), "")?;
    let (first, last) = (number(&info, "/state/first_seq")?, number(&info, "/state/last_seq")?);
    let mut kept = Vec::new();
    for sequence in first.max(1)..=last {
        let found = api(port, &format!("STREAM.MSG.GET.{stream}"), &format!("{{\"seq\":{sequence}}}"))?;
        let text = |name: &str| found.pointer(name).and_then(Value::as_str).unwrap_or_default();
        kept.push(Kept {
            subject: text("/message/subject").to_owned(),
            headers: String::from_utf8(base64(text("/message/hdrs")))?,
            body: base64(text("/message/data")),
        });
    }
    Ok(kept)
}

/// Where an answer is heard, and no other: many ask the same server.
fn inbox() -> String {
    format!("_INBOX.{:x}", rand::random::<u64>())
}

fn number(answer: &Value, name: &str) -> Tested<u64> {
    Ok(answer.pointer(name).and_then(Value::as_u64).ok_or_else(|| format!("no {name} in {answer}"))?)
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        bits = (bits << 6) | u32::try_from(digit).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    bytes
}
