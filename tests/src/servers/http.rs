//! The few HTTP requests that fill a server with objects.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Sends one request to a loopback port and gives back the status and the body; `None` when the server hung up.
pub(super) fn request(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let mut head = format!(
        "{method} {target} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes all");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

/// Sends a request that must succeed.
pub(super) fn must(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let (status, answer) =
        request(port, method, target, headers, body).unwrap_or_else(|| panic!("{method} {target}: no answer"));
    let text = String::from_utf8_lossy(&answer);
    assert!((200..300).contains(&status), "{method} {target}: {status} {text}");
    answer
}

/// Percent-encodes all but unreserved characters, and `/` unless `slash` asks for it too.
pub(super) fn encode(raw: &[u8], slash: bool) -> String {
    let mut encoded = String::with_capacity(raw.len());
    for &byte in raw {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'/' if !slash => encoded.push('/'),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes all"),
        }
    }
    encoded
}
