//! `GET /metrics` over HTTP, for a Prometheus on this machine: one request a connection, and nothing else.
//!
//! Written by hand, since that is all of HTTP that it takes. Always true: the address is one of this machine alone, and so is the host that is
//! asked for, or a web page could have a browser read this under a name that leads here; connections, bytes and times have
//! bounds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::failure::{Failure, Result};

/// The most connections at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8;
/// The longest request, in bytes, with whatever comes along with it.
const REQUEST_MAX: usize = 8 << 10;
/// The pause after a connection could not be accepted: short of descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To ask.
    request: Duration,
    /// To read the answer.
    answer: Duration,
    /// To hang up behind it.
    farewell: Duration,
}

const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    farewell: Duration::from_secs(1),
};

/// What is listened on.
#[derive(Debug)]
pub(crate) struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    patience: Patience,
}

impl HttpServer {
    /// Listens on an address of this machine alone.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot listen on {address} for metrics: {error}"))
                .hint("name another address in the setting metrics.listen, or none")
        };
        if !address.ip().is_loopback() {
            return Err(failed(io::Error::other("it is not an address of this machine alone")));
        }
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            patience: PATIENCE,
        })
    }

    /// Gives the address, with the port that the system has chosen where none was named.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with what `metrics` gives, until it is dropped.
    pub(crate) async fn serve<M, T>(&self, metrics: M)
    where
        M: Fn() -> T + Clone + Send + 'static,
        T: Future<Output = Result<String>> + Send,
    {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (metrics, patience) = (metrics.clone(), self.patience);
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = converse(stream, metrics, patience).await {
                            tracing::debug!(%error, "a connection for metrics broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse<M, T>(mut stream: TcpStream, metrics: M, patience: Patience) -> io::Result<()>
where
    M: Fn() -> T,
    T: Future<Output = Result<String>>,
{
    let asked = match timeout(patience.request, read_request(&mut stream)).await {
        Ok(head) => match head? {
            Head::Whole(head) => judge(&head),
            Head::TooLong => Err(Refusal::TOO_LONG),
            Head::HungUp => return Ok(()),
        },
        Err(_) => Err(Refusal::TOO_SLOW),
    };
    let answer = match asked {
        Ok(()) => match metrics().await {
            Ok(text) => response("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", &text),
            Err(failure) => {
                tracing::warn!("metrics could not be gathered: {}", failure.message());
                Refusal::FAILED.response()
            }
        },
        Err(refusal) => refusal.response(),
    };
    let written = timeout(patience.answer, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    });
    match written.await {
        Ok(written) => written?,
        Err(_) => return Ok(()),
    }
    // With anything unread, closing would throw away what is still on its way to the other side.
    let mut rest = [0; 1024];
    let drained = async {
        for _ in 0..REQUEST_MAX / rest.len() {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok(())
    };
    timeout(patience.farewell, drained).await.unwrap_or(Ok(()))
}

/// What came of a request.
enum Head {
    Whole(Vec<u8>),
    TooLong,
    HungUp,
}

/// Reads up to the empty line that ends the head of a request.
async fn read_request(stream: &mut TcpStream) -> io::Result<Head> {
    let mut head = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    loop {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(Head::HungUp);
        }
        // The end may lie across two parts.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&part[..read]);
        if head.len() > REQUEST_MAX {
            return Ok(Head::TooLong);
        }
        if let Some(end) = head[from..].windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(from + end);
            return Ok(Head::Whole(head));
        }
    }
}

/// Why a request is not answered with metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: &'static str,
    /// A header of its own, with its line end.
    header: &'static str,
    words: &'static str,
}

impl Refusal {
    const NONSENSE: Self = Self::new("400 Bad Request", "this is no request of HTTP/1.1");
    const HOST: Self = Self::new("403 Forbidden", "ask for localhost, or the address itself");
    const PATH: Self = Self::new("404 Not Found", "there is only /metrics");
    const METHOD: Self = Self {
        header: "Allow: GET\r\n",
        ..Self::new("405 Method Not Allowed", "there is only GET")
    };
    const TOO_SLOW: Self = Self::new("408 Request Timeout", "the request took too long");
    const TOO_LONG: Self = Self::new("431 Request Header Fields Too Large", "the request is too long");
    const FAILED: Self = Self::new(
        "500 Internal Server Error",
        "the metrics cannot be gathered; the log tells why",
    );

    const fn new(status: &'static str, words: &'static str) -> Self {
        Self {
            status,
            header: "",
            words,
        }
    }

    fn response(self) -> String {
        let words = format!("{}\n", self.words);
        response(self.status, "text/plain; charset=utf-8", self.header, &words)
    }
}

fn response(status: &str, kind: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n{header}\r\n{body}"
    )
}

/// Looks at the head of a request, without the empty line at its end.
fn judge(head: &[u8]) -> Result<(), Refusal> {
    let head = std::str::from_utf8(head).map_err(|_| Refusal::NONSENSE)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::NONSENSE);
    };
    let mut host = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refusal::NONSENSE)?;
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Refusal::NONSENSE);
        }
        // Two of them could mean two things to two readers.
        if name.eq_ignore_ascii_case("host") && host.replace(value.trim_matches([' ', '\t'])).is_some() {
            return Err(Refusal::NONSENSE);
        }
    }
    if !is_this_machine(host.ok_or(Refusal::NONSENSE)?) {
        return Err(Refusal::HOST);
    }
    if target.split('?').next() != Some("/metrics") {
        return Err(Refusal::PATH);
    }
    if method != "GET" {
        return Err(Refusal::METHOD);
    }
    Ok(())
}

/// Tells whether a `Host` names this machine by what no name server has a say in.
fn is_this_machine(host: &str) -> bool {
    let is_port = |port: &str| port.chars().all(|c| c.is_ascii_digit());
    if let Some(bracketed) = host.strip_prefix('[') {
        let Some((address, rest)) = bracketed.split_once(']') else {
            return false;
        };
        let is_rest = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return is_rest
            && address
                .parse()
                .is_ok_and(|address: std::net::Ipv6Addr| address.is_loopback());
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_loopback = name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_port(port) && (is_loopback || name.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: &str = "127.0.0.1:0";

    async fn with_server<T>(patience: Patience, talk: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let mut server = HttpServer::bind(ANY_PORT.parse().expect("an address"))
            .await
            .expect("it can listen");
        server.patience = patience;
        let metrics = || async { Ok("manifold_test 1\n".to_owned()) };
        tokio::select! {
            () = server.serve(metrics) => unreachable!("it serves for ever"),
            done = talk(server.address()) => done,
        }
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers and hangs up");
        answer
    }

    #[tokio::test]
    async fn only_get_of_metrics_by_a_name_of_this_machine_is_answered() {
        with_server(PATIENCE, async |address| {
            let local = |line: &str| format!("{line} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
            let host = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost:{host}\r\n\r\n");
            let long = format!(
                "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                "x".repeat(REQUEST_MAX)
            );
            let many: [(String, &str); 25] = [
                (local("GET /metrics"), "200"),
                (local("GET /metrics?name=a"), "200"),
                (host("localhost"), "200"),
                (host(" LocalHost:9469 "), "200"),
                (host(" [::1]:80"), "200"),
                (host(" 127.5.5.5"), "200"),
                (host(" metrics.example.org"), "403"),
                (host(" localhost.example.org"), "403"),
                (host(" 127.0.0.1.example.org:9469"), "403"),
                (host(" 192.168.1.1:9469"), "403"),
                (host(" [::1].example.org"), "403"),
                (host(" [::ffff:1.2.3.4]"), "403"),
                (host(" localhost:80:80"), "403"),
                (host(""), "403"),
                (host(" localhost\r\nHost: example.org"), "400"),
                (host(" localhost\r\n folded"), "400"),
                (host(" localhost\r\nHost : localhost"), "400"),
                ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "400"),
                ("GET /metrics HTTP/2\r\nHost: localhost\r\n\r\n".to_owned(), "400"),
                ("hello\r\n\r\n".to_owned(), "400"),
                (local("GET /"), "404"),
                (local("POST /other"), "404"),
                (local("POST /metrics") + "a body", "405"),
                (local("HEAD /metrics"), "405"),
                (long, "431"),
            ];
            for (request, status) in many {
                let answer = ask(address, request.as_bytes()).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{request}: {answer}"
                );
                let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
                assert!(
                    head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                    "{head}"
                );
                assert_eq!(body == "manifold_test 1\n", status == "200", "{body}");
                assert_eq!(head.contains("\r\nAllow: GET"), status == "405", "{head}");
            }
            let garbled = ask(address, b"GET /metrics\xff\r\n\r\nand more").await;
            assert!(garbled.starts_with("HTTP/1.1 400 "), "{garbled}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_may_come_in_pieces() {
        with_server(PATIENCE, async |address| {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" {
                stream.write_all(&[*byte]).await.expect("it reads");
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("it answers");
            assert!(answer.ends_with("\r\n\r\nmanifold_test 1\n"), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn who_says_nothing_is_sent_away_and_those_who_wait_are_answered_then() {
        let short = Patience {
            request: Duration::from_millis(50),
            ..PATIENCE
        };
        with_server(short, async |address| {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                silent.push(TcpStream::connect(address).await.expect("it listens"));
            }
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
            assert!(ask(address, request.as_bytes()).await.contains(" 200 "));
            for mut stream in silent {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("it answers");
                assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_or_that_is_taken_is_refused() {
        let taken = HttpServer::bind(ANY_PORT.parse().expect("an address"))
            .await
            .expect("it can listen");
        for address in ["0.0.0.0:0".parse().expect("an address"), taken.address()] {
            let failure = HttpServer::bind(address).await.expect_err("it is refused");
            assert!(failure.message().contains("for metrics") && failure.hints()[0].contains("metrics.listen"));
        }
    }
}
