//! The DynamoDB that the library starts answers, stops, and is gone.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use xtask::servers::DynamoDb;

type Tested = Result<(), Box<dyn std::error::Error>>;

#[test]
fn it_answers_until_it_is_killed() -> Tested {
    let server = DynamoDb::start()?;
    assert_eq!(server.url(), format!("http://127.0.0.1:{}", server.port()));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))?;
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n\
        Content-Type: application/x-amz-json-1.0\r\nAuthorization: AWS4-HMAC-SHA256 Credential=a/20260101/b/dynamodb/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=c\r\nX-Amz-Date: 20260101T000000Z\r\n\
        Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.contains("TableNames"), "{answer}");
    server.kill()?;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());
    Ok(())
}
