//! DynamoDB's protocol by hand: asked of a server, and answered by one that a test makes up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

/// What a made-up server answers to an operation: a status and a body, or nothing, and it hangs up.
pub(super) type Answer = Option<(u16, Value)>;

/// Asks a server, as nobody in particular.
pub(super) fn ask(url: &str, operation: &str, body: &Value) -> Value {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
         Content-Type: application/x-amz-json-1.0\r\nX-Amz-Date: 20260101T000000Z\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=any/20260101/eu-west-1/dynamodb/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=any\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let (head, body) = read(&mut BufReader::new(stream)).unwrap();
    assert!(head.first().unwrap().contains(" 200 "), "{operation}: {head:?} {body}");
    body
}

/// A server that answers each request by this function; its URL. It ends with the process.
pub(super) fn stub(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || reply(stream, &*answer));
        }
    });
    url
}

fn reply(stream: TcpStream, answer: &dyn Fn(&str, &Value) -> Answer) {
    let mut reader = BufReader::new(stream);
    let Some((head, body)) = read(&mut reader) else { return };
    let target = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-amz-target").then(|| value.trim().to_owned())
    });
    let operation = target.unwrap().rsplit('.').next().unwrap().to_owned();
    let Some((status, body)) = answer(&operation, &body) else { return };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Any\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    // Who asked may be gone.
    let _ = reader.get_mut().write_all((head + &body).as_bytes());
}

/// The lines of the head, and the body.
fn read(reader: &mut BufReader<TcpStream>) -> Option<(Vec<String>, Value)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
