//! HTTP answers in a server's place.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest head of a request.
const HEAD_MAX: usize = 64 * 1024;

/// Answers each request of one connection with a status and an empty body, until the client goes.
pub(super) async fn serve(
    client: &mut TcpStream,
    status: u16,
    retry_after: Option<u32>,
    answered: &AtomicU64,
) -> io::Result<()> {
    let mut answer = format!("HTTP/1.1 {status} On Purpose\r\nContent-Length: 0\r\n");
    if let Some(seconds) = retry_after {
        write!(answer, "Retry-After: {seconds}\r\n").expect("a string takes all");
    }
    answer.push_str("\r\n");
    let mut received = Vec::new();
    loop {
        let Some(end) = find_end(&received) else {
            if received.len() > HEAD_MAX || client.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let mut rest = body_length(&received[..end]).saturating_sub(received.len() - end);
        let mut waste = vec![0; 4096];
        while rest > 0 {
            let count = client.read(&mut waste).await?;
            if count == 0 {
                return Ok(());
            }
            rest -= count.min(rest);
        }
        let whole = (end + body_length(&received[..end])).min(received.len());
        received.drain(..whole);
        answered.fetch_add(1, Ordering::Relaxed);
        client.write_all(answer.as_bytes()).await?;
    }
}

/// Finds where a head ends.
fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads how long the body after a head is. No client of the tests sends chunks to a source that it only reads.
fn body_length(head: &[u8]) -> usize {
    String::from_utf8_lossy(head)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
