//! The control connection of FTP: a server's word of where it waits for the data is put right, so that the data comes
//! through the proxy too.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::relay::relay;
use super::{Shared, State};

/// What passes from the server to the client on one control connection.
pub(super) struct Control {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>, state: watch::Receiver<State>) -> Self {
        Self {
            shared,
            state,
            begun: Vec::new(),
        }
    }

    /// Gives the whole lines among what came so far, with the places for data replaced by the proxy's own.
    pub(super) fn rewrite(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.begun.push(byte);
            if byte == b'\n' {
                let line = std::mem::take(&mut self.begun);
                match passive_port(&line) {
                    Some(port) => out.extend_from_slice(self.open(port).as_bytes()),
                    None => out.extend_from_slice(&line),
                }
            }
        }
        out
    }

    /// Opens a port for one data connection, and gives the line that names it.
    fn open(&self, upstream: u16) -> String {
        let listener = self.shared.place.bind(0).expect("listen on a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let listener = TcpListener::from_std(listener).expect("register a listener");
        let (shared, state) = (Arc::clone(&self.shared), self.state.clone());
        let mut next = state.clone();
        next.mark_unchanged();
        tokio::spawn(async move {
            // A client that never comes is forgotten when the next fault is set.
            tokio::select! {
                client = listener.accept() => if let Ok((client, _)) = client {
                    relay(shared, state, client, upstream, false).await;
                },
                _changed = next.changed() => {}
            }
        });
        let host = self
            .shared
            .place
            .address()
            .octets()
            .map(|part| part.to_string())
            .join(",");
        format!("227 Entering Passive Mode ({host},{},{}).\r\n", port >> 8, port & 255)
    }
}

/// Reads the port from `227 … (h1,h2,h3,h4,p1,p2)`; gives `None` for every other line.
fn passive_port(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("227 ")?;
    let (_, numbers) = line.split_once('(')?;
    let (numbers, _) = numbers.split_once(')')?;
    let mut numbers = numbers.split(',').skip(4).map(str::parse::<u8>);
    let (high, low) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(u16::from_be_bytes([high, low]))
}
