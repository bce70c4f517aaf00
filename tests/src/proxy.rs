//! A relay on a port of its own that stands between the program under test and a real server, and fails on cue.
//!
//! What it is told to do holds for every connection, those that are open already too, from the moment that
//! [`Proxy::fail`] returns until [`Proxy::heal`]: no byte passes by a fault that is set. Where a connection outlives the
//! fault (it only stood still), it goes on as if nothing had happened, as after a network that was away for a while.
//!
//! The passive data connections of FTP pass through ports of the proxy's own, under the same faults.

mod answer;
mod ftp;
mod relay;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::network::Namespace;
use crate::servers::Port;

/// How a proxy fails. Bytes are those from the server to its client on one connection, counted from the moment that the
/// fault was set or the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens on the port, and open connections are reset.
    Refuse,
    /// Connections are accepted, and nothing is said in either direction.
    Silence,
    /// Nothing comes after so many bytes.
    Stall {
        /// How many bytes come.
        after: u64,
    },
    /// One byte comes each second.
    Trickle,
    /// Every connection is reset (RST).
    Reset,
    /// The connection is closed (FIN) after so many bytes.
    Cut {
        /// How many bytes come.
        after: u64,
    },
    /// Of each kilobyte after so many bytes, one byte is another.
    Corrupt {
        /// How many bytes come as they are.
        after: u64,
    },
    /// What the server says comes so much later, piece by piece: each waits until the one before it has passed.
    Late {
        /// How much later.
        by: Duration,
    },
    /// What a client says reaches the server, but from the first piece on in which these bytes stand, nothing that the server
    /// says on that connection comes back. It is reset when the fault ends.
    Unanswered {
        /// What begins a request of that kind.
        request: &'static [u8],
    },
    /// Of what clients say, no more than so many bytes reach the server, on all connections together.
    Takes {
        /// How many bytes.
        bytes: u64,
    },
    /// New connections lead to another server, on this loopback port; open ones are closed.
    Elsewhere {
        /// The port.
        port: u16,
    },
    /// Every HTTP request is answered with a status in the server's place; other connections are closed.
    Answer {
        /// The status.
        status: u16,
        /// What the answer says of when to come again, in seconds.
        retry_after: Option<u32>,
    },
}

/// The fault that is set now, how many were set before it, and how many bytes clients had said by then.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    fault: Option<Fault>,
    era: u64,
    taken: u64,
}

/// What the connections of one proxy share.
struct Shared {
    /// Where a listener of the proxy belongs; port 0 for one that is free.
    place: Place,
    upstream: u16,
    /// Whether the control connections of FTP are to be understood.
    speaks_ftp: bool,
    answered: AtomicU64,
    /// How many bytes of clients have reached the server.
    taken: watch::Sender<u64>,
    /// The last era that the listener knows of.
    listening: Mutex<u64>,
    listening_changed: Condvar,
}

/// Where the proxy listens.
#[derive(Clone)]
enum Place {
    Loopback,
    Within(Arc<Namespace>),
}

impl Place {
    fn address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Within(namespace) => namespace.inside(),
        }
    }

    fn bind(&self, port: u16) -> io::Result<TcpListener> {
        let address = (self.address(), port);
        let listener = match self {
            Self::Loopback => TcpListener::bind(address)?,
            Self::Within(namespace) => namespace.enter(|| TcpListener::bind(address))?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// A relay to one server. It ends, with all its connections, when this value is dropped.
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Relays from a free loopback port to the loopback port `upstream`.
    pub fn start(upstream: u16) -> Self {
        Self::start_at(Place::Loopback, upstream, false)
    }

    /// Relays for an FTP server.
    pub fn start_ftp(upstream: u16) -> Self {
        Self::start_at(Place::Loopback, upstream, true)
    }

    /// Relays from an address in a network namespace, as if the server stood behind a network of its own.
    pub fn start_within(namespace: &Arc<Namespace>, upstream: u16, speaks_ftp: bool) -> Self {
        Self::start_at(Place::Within(Arc::clone(namespace)), upstream, speaks_ftp)
    }

    fn start_at(place: Place, upstream: u16, speaks_ftp: bool) -> Self {
        let port = Port::take();
        let shared = Arc::new(Shared {
            place,
            upstream,
            speaks_ftp,
            answered: AtomicU64::new(0),
            taken: watch::Sender::new(0),
            listening: Mutex::new(0),
            listening_changed: Condvar::new(),
        });
        let state = watch::Sender::new(State::default());
        let number = port.number();
        // Bound before the first caller is told of it.
        let listener = shared.place.bind(number).expect("listen on a free port");
        runtime().spawn(listen(Arc::clone(&shared), state.subscribe(), number, listener));
        Self { port, shared, state }
    }

    /// Gives the address that the server seems to have.
    pub fn address(&self) -> SocketAddr {
        (self.shared.place.address(), self.port.number()).into()
    }

    /// Gives the server's own loopback port.
    pub fn upstream(&self) -> u16 {
        self.shared.upstream
    }

    /// Fails from now on, in this way.
    pub fn fail(&self, fault: Fault) {
        self.set(Some(fault));
    }

    /// Relays as it should from now on.
    pub fn heal(&self) {
        self.set(None);
    }

    /// Says how many requests were answered in the server's place.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Says how many bytes of clients have reached the server.
    pub fn taken(&self) -> u64 {
        *self.shared.taken.borrow()
    }

    /// Waits until so many have, since the start.
    pub fn until_taken(&self, bytes: u64) {
        let mut taken = self.shared.taken.subscribe();
        let enough = runtime().block_on(taken.wait_for(|taken| *taken >= bytes));
        enough.expect("invariant: the proxy counts as long as it lives");
    }

    fn set(&self, fault: Option<Fault>) {
        let mut era = 0;
        let taken = self.taken();
        self.state.send_modify(|state| {
            state.fault = fault;
            state.taken = taken;
            state.era += 1;
            era = state.era;
        });
        let listening = self.shared.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let _known = self
            .shared
            .listening_changed
            .wait_while(listening, |known| *known < era)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// The runtime of all proxies of this process.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("start a runtime")
    })
}

/// Accepts connections while the fault that is set lets it listen.
async fn listen(shared: Arc<Shared>, mut state: watch::Receiver<State>, port: u16, first: TcpListener) {
    let mut listener = Some(tokio::net::TcpListener::from_std(first).expect("register a listener"));
    loop {
        let now = *state.borrow_and_update();
        if now.fault == Some(Fault::Refuse) {
            listener = None;
        } else if listener.is_none() {
            let bound = shared.place.bind(port).expect("listen on the port again");
            listener = Some(tokio::net::TcpListener::from_std(bound).expect("register a listener"));
        }
        *shared.listening.lock().unwrap_or_else(PoisonError::into_inner) = now.era;
        shared.listening_changed.notify_all();
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() {
                return;
            },
            client = accepted => {
                // One that has gone already is no connection.
                if let Ok((client, _)) = client {
                    tokio::spawn(relay::relay(Arc::clone(&shared), state.clone(), client, shared.upstream, shared.speaks_ftp));
                }
            }
        }
    }
}
