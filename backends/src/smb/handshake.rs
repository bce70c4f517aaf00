//! The first exchange of a connection, mended.
//!
//! The crate `smb2` offers ciphers, but does not set the flag that says that it can encrypt (MS-SMB2 2.2.3,
//! `SMB2_GLOBAL_CAP_ENCRYPTION`). Windows does not mind; Samba takes the client at its word and then refuses it where
//! encryption is demanded. So the flag is set here, on the way to the socket. The keys of SMB 3.1.1 are derived from a hash
//! over what both sides said; that hash is made again over what was really sent.
//!
//! Always true: after the first message in each direction, everything passes through untouched.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use smb2::client::connection::Connection;
use smb2::crypto::kdf::PreauthHasher;
use smb2::transport::{ReceiveProgress, TransportReceive, TransportSend};
use tokio::time::timeout;

use super::failure::Failure;
use super::frames::Frames;
use super::settings::Settings;
use crate::ErrorKind;
use crate::socket::Vigil;

/// Where the capabilities stand in a NEGOTIATE request: after the header, the size of the structure, the number of
/// dialects, the security mode and a reserved word (MS-SMB2 2.2.3).
const CAPABILITIES_AT: usize = smb2::msg::header::Header::SIZE + 8;

/// `SMB2_GLOBAL_CAP_ENCRYPTION`, which lies in the first byte.
const CAN_ENCRYPT: u8 = 0x40;

/// Connects and negotiates the dialect. The connection is not logged in yet. Gives its socket too, for as long as it lives.
pub(super) async fn connect(settings: &Settings) -> Result<(Connection, Weak<Frames>), Failure> {
    let limit = settings.connect_timeout;
    let connecting = Frames::connect(&settings.address, Vigil::of(settings.request_timeout));
    let socket = match timeout(limit, connecting).await {
        Ok(Ok(socket)) => Arc::new(socket),
        Ok(Err(error)) => {
            return Err(Failure::lost(
                ErrorKind::Unreachable,
                format!("no connection to {}: {error}", settings.address),
            ));
        }
        Err(_elapsed) => {
            let text = format!("no connection within {limit:.0?}; check that an SMB server answers there");
            return Err(Failure::lost(ErrorKind::TimedOut, text));
        }
    };
    let line = Arc::downgrade(&socket);
    let wire = Arc::new(Wire {
        socket,
        said: Mutex::new(Said::default()),
    });
    let (sender, receiver) = (Half(Arc::clone(&wire)), Half(Arc::clone(&wire)));
    let mut connection = Connection::from_transport(Box::new(sender), Box::new(receiver), settings.host());
    connection.set_response_timeout(Some(settings.request_timeout));
    connection.set_send_timeout(Some(settings.request_timeout));
    // What a person stores is compressed already.
    connection.set_compression_requested(false);
    connection.negotiate().await?;
    let (request, answer) = {
        let mut said = wire.said.lock();
        (said.by_us.take(), said.by_server.take())
    };
    let (Some(request), Some(answer)) = (request, answer) else {
        return Err(Failure::lost(
            ErrorKind::Nonsense,
            "the connection was negotiated without a word",
        ));
    };
    connection.with_preauth_hasher_mut(|hasher| {
        *hasher = PreauthHasher::new();
        hasher.update(&request);
        hasher.update(&answer);
    });
    Ok((connection, line))
}

/// A socket, and the first message in each direction.
struct Wire {
    socket: Arc<Frames>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    begun: bool,
    answered: bool,
    by_us: Option<Vec<u8>>,
    by_server: Option<Vec<u8>>,
}

/// The sending or the receiving half.
struct Half(Arc<Wire>);

#[async_trait]
impl TransportSend for Half {
    async fn send(&self, message: &[u8]) -> smb2::Result<()> {
        let first = {
            let mut said = self.0.said.lock();
            (!std::mem::replace(&mut said.begun, true)).then(|| {
                let offer = with_encryption(message);
                said.by_us = Some(offer.clone());
                offer
            })
        };
        self.0.socket.send(first.as_deref().unwrap_or(message)).await
    }
}

#[async_trait]
impl TransportReceive for Half {
    async fn receive(&self) -> smb2::Result<Vec<u8>> {
        let message = self.0.socket.receive().await?;
        let mut said = self.0.said.lock();
        if !std::mem::replace(&mut said.answered, true) {
            said.by_server = Some(message.clone());
        }
        Ok(message)
    }

    fn receive_progress(&self) -> Option<Arc<ReceiveProgress>> {
        self.0.socket.receive_progress()
    }
}

/// Sets the flag in a NEGOTIATE request.
fn with_encryption(request: &[u8]) -> Vec<u8> {
    let mut request = request.to_vec();
    if let Some(capabilities) = request.get_mut(CAPABILITIES_AT) {
        *capabilities |= CAN_ENCRYPT;
    }
    request
}

#[cfg(test)]
mod tests {
    use smb2::msg::header::Header;
    use smb2::msg::negotiate::NegotiateRequest;
    use smb2::pack::{Guid, Pack, ReadCursor, Unpack, WriteCursor};
    use smb2::types::flags::{Capabilities, SecurityMode};
    use smb2::types::{Command, Dialect};

    use super::*;

    #[test]
    fn the_offer_differs_in_nothing_but_the_flag() {
        let request = |capabilities| NegotiateRequest {
            security_mode: SecurityMode::new(SecurityMode::SIGNING_ENABLED),
            capabilities: Capabilities::new(capabilities),
            client_guid: Guid {
                data1: 1,
                data2: 2,
                data3: 3,
                data4: [4; 8],
            },
            dialects: vec![Dialect::Smb2_1, Dialect::Smb3_0],
            negotiate_contexts: Vec::new(),
        };
        let mut cursor = WriteCursor::new();
        Header::new_request(Command::Negotiate).pack(&mut cursor);
        request(Capabilities::LARGE_MTU).pack(&mut cursor);
        let offer = with_encryption(cursor.as_bytes());
        let parsed = NegotiateRequest::unpack(&mut ReadCursor::new(&offer[Header::SIZE..])).expect("a request");
        assert_eq!(parsed, request(Capabilities::LARGE_MTU | Capabilities::ENCRYPTION));
    }
}
