//! Sockets that we make ourselves, and when the system is to take a connection for dead.
//!
//! A server that is slow or stopped has a kernel that acknowledges what it is sent; on a path that has gone nothing is
//! acknowledged, and nobody says so: a machine that slept, a router or packet filter that forgot. So the kernel tells one from
//! the other for us. What a server does not acknowledge for [`Vigil::unacknowledged`] breaks the connection off, early enough
//! for the request to be made again on another within its time; an idle connection, and one on which an answer is waited for,
//! is asked for a sign of life after [`Vigil::quiet`].

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::sockopt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;

/// How long one address of a name has to itself before the next is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// No connection is given up sooner.
const VIGIL_MIN: Duration = Duration::from_secs(1);

/// How long the other end of a connection may be silent in each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vigil {
    /// How long what was sent may go without being acknowledged.
    pub(crate) unacknowledged: Duration,
    /// How long nothing may come before the other end is asked for a sign of life,
    pub(crate) quiet: Duration,
    /// and how long after that.
    pub(crate) again: Duration,
}

impl Vigil {
    /// Watches over connections whose requests have so long. Two thirds of that are left for another try.
    pub(crate) fn of(request_timeout: Duration) -> Self {
        let part = |parts: u32| (request_timeout / parts).max(VIGIL_MIN);
        Self {
            unacknowledged: part(3),
            quiet: part(2),
            again: part(5),
        }
    }

    /// Has the kernel watch over a connection.
    pub(crate) fn keep(self, stream: &TcpStream) -> io::Result<()> {
        sockopt::set_tcp_keepidle(stream, self.quiet)?;
        sockopt::set_tcp_keepintvl(stream, self.again)?;
        sockopt::set_socket_keepalive(stream, true)?;
        set_unacknowledged(stream, self.unacknowledged)
    }
}

/// Changes how long what was sent may go without being acknowledged, or be refused by a server whose buffers are full.
pub(crate) fn set_unacknowledged(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, ms)?)
}

/// Connects to `host:port`, at whichever address of the host answers first. Nothing waits for more to be sent together.
pub(crate) async fn connect(address: &str, vigil: Vigil) -> io::Result<TcpStream> {
    let mut waiting = alternating(lookup_host(address).await?);
    let mut under_way = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let stream = loop {
        match waiting.pop_front() {
            Some(address) => under_way.push(TcpStream::connect(address)),
            None if under_way.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            Some(outcome) = under_way.next() => match outcome {
                Ok(stream) => break stream,
                Err(error) => failed = error,
            },
            () = sleep(STAGGER), if !waiting.is_empty() => {}
        }
    };
    stream.set_nodelay(true)?;
    vigil.keep(&stream)?;
    Ok(stream)
}

/// Orders addresses so that the families take turns, the one that the system prefers first: where one leads nowhere, the other
/// is tried soon.
fn alternating(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let found: Vec<_> = found.collect();
    let prefers_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.is_ipv6() == prefers_v6);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut ordered = VecDeque::new();
    loop {
        let before = ordered.len();
        ordered.extend(preferred.next());
        ordered.extend(others.next());
        if ordered.len() == before {
            ordered.truncate(ADDRESSES_MAX);
            return ordered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_preferred_one_begins() {
        let addresses = |text: &str| -> Vec<SocketAddr> {
            let parse = |it: &str| it.parse().expect("an address");
            text.split(' ').map(parse).collect()
        };
        let found = addresses("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1");
        let ordered = alternating(found.into_iter());
        assert_eq!(ordered, addresses("[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1"));
        let many =
            addresses("1.1.1.1:1 1.1.1.1:2 1.1.1.1:3 1.1.1.1:4 1.1.1.1:5 1.1.1.1:6 1.1.1.1:7 1.1.1.1:8 1.1.1.1:9");
        assert_eq!(alternating(many.clone().into_iter()), many[..ADDRESSES_MAX].to_vec());
        assert_eq!(alternating(std::iter::empty()), []);
    }

    #[tokio::test]
    async fn a_connection_is_watched_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let vigil = Vigil::of(Duration::from_secs(10));
        let stream = connect(&address, vigil).await.expect("connect");
        assert_eq!(sockopt::tcp_user_timeout(&stream).expect("the limit"), 3_333);
        assert!(sockopt::socket_keepalive(&stream).expect("whether it is kept"));
        assert_eq!(sockopt::tcp_keepidle(&stream).expect("a span"), Duration::from_secs(5));
        assert_eq!(sockopt::tcp_keepintvl(&stream).expect("a span"), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_says_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let error = connect(&address, Vigil::of(Duration::ZERO))
            .await
            .expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
