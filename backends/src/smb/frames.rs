//! Messages on a socket: each goes behind its length (MS-SMB2 2.1), and how much of one has come is told while it comes.
//!
//! The transport of the crate `smb2` keeps its socket to itself, and ours is to be watched over ([`Vigil`]).

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use smb2::transport::{ReceiveProgress, TransportReceive, TransportSend};
use tokio::net::TcpStream;

use crate::socket::{self, Vigil};

/// The length before each message, in bytes: a zero, and three of the number.
const HEAD: usize = 4;
/// The longest message, in bytes; servers take 8 MiB at once, and a little around it.
const MESSAGE_MAX: usize = 16 * 1024 * 1024 - 1;

/// A connected socket. One reads from it at a time, and one writes.
pub(super) struct Frames {
    stream: TcpStream,
    progress: Arc<ReceiveProgress>,
}

impl Frames {
    /// Connects to `host:port`.
    pub(super) async fn connect(address: &str, vigil: Vigil) -> io::Result<Self> {
        Ok(Self {
            stream: socket::connect(address, vigil).await?,
            progress: Arc::new(ReceiveProgress::new()),
        })
    }

    /// Changes how long the server may leave unacknowledged what it is sent.
    pub(super) fn allow(&self, unacknowledged: Duration) {
        // It can fail on a socket that is closed, and then matters no more.
        let _closed = socket::set_unacknowledged(&self.stream, unacknowledged);
    }

    async fn fill(&self, buffer: &mut [u8], each: impl Fn(usize)) -> smb2::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer[filled..]) {
                Ok(0) => return Err(smb2::Error::Disconnected),
                Ok(count) => {
                    filled += count;
                    each(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Says that a message is coming until it has come, or nobody waits for the rest.
struct Coming<'a>(&'a ReceiveProgress);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.end_frame();
    }
}

#[async_trait]
impl TransportSend for Frames {
    async fn send(&self, message: &[u8]) -> smb2::Result<()> {
        if message.len() > MESSAGE_MAX {
            let why = format!("a message of {} bytes is too long to be sent", message.len());
            return Err(smb2::Error::InvalidData { message: why });
        }
        let head = (message.len() as u32).to_be_bytes();
        let mut sent = 0;
        while sent < HEAD + message.len() {
            self.stream.writable().await?;
            let left = [
                IoSlice::new(head.get(sent..).unwrap_or_default()),
                IoSlice::new(&message[sent.saturating_sub(HEAD)..]),
            ];
            match self.stream.try_write_vectored(&left) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl TransportReceive for Frames {
    async fn receive(&self) -> smb2::Result<Vec<u8>> {
        let mut head = [0; HEAD];
        self.fill(&mut head, |_| {}).await?;
        let length = u32::from_be_bytes(head) as usize;
        if length > MESSAGE_MAX {
            let why = format!("a message begins with {head:02x?}, which is no length");
            return Err(smb2::Error::InvalidData { message: why });
        }
        let mut message = vec![0; length];
        self.progress.begin_frame(length);
        let _coming = Coming(&self.progress);
        self.fill(&mut message, |count| self.progress.record(count)).await?;
        Ok(message)
    }

    fn receive_progress(&self) -> Option<Arc<ReceiveProgress>> {
        Some(Arc::clone(&self.progress))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Frames, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let vigil = Vigil::of(Duration::from_secs(10));
        let (frames, accepted) = tokio::join!(Frames::connect(&address, vigil), listener.accept());
        (frames.expect("connect"), accepted.expect("accept").0)
    }

    #[tokio::test]
    async fn messages_pass_whole_in_both_directions() {
        let (frames, mut server) = pair().await;
        // More than the buffers of a socket hold.
        let long: Vec<u8> = (0..8 << 20).map(|at: u32| at as u8 ^ (at >> 9) as u8).collect();
        for message in [&long[..], b"short", b""] {
            let mut heard = vec![0; HEAD + message.len()];
            let (sent, read) = tokio::join!(frames.send(message), server.read_exact(&mut heard));
            sent.expect("send");
            read.expect("read");
            assert_eq!(heard[..HEAD], (message.len() as u32).to_be_bytes());
            assert!(heard[HEAD..] == *message);
            let (written, received) = tokio::join!(server.write_all(&heard), frames.receive());
            written.expect("write");
            assert!(received.expect("receive") == message);
        }
    }

    #[tokio::test]
    async fn what_ends_in_the_middle_or_is_no_message_is_an_error() {
        let (frames, mut server) = pair().await;
        server.write_all(&[0, 0, 0, 9, 1, 2]).await.expect("write");
        drop(server);
        let error = frames.receive().await.expect_err("it ended");
        assert!(matches!(error, smb2::Error::Disconnected), "{error}");
        assert_eq!(frames.receive_progress().expect("told").snapshot().frame, None);

        let (frames, mut server) = pair().await;
        server.write_all(b"HTTP/1.1 400").await.expect("write");
        let error = frames.receive().await.expect_err("no message");
        assert!(matches!(error, smb2::Error::InvalidData { .. }), "{error}");
    }
}
