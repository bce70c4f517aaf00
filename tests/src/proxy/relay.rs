//! One connection through a proxy.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::ftp::Control;
use super::{Fault, Shared, State, answer};

const BUFFER: usize = 64 * 1024;
/// One in so many bytes is changed.
const CORRUPT_EVERY: u64 = 1024;
/// What a changed byte differs in.
const CORRUPT_BITS: u8 = 0x15;
/// The pause after each byte of a trickle.
const TRICKLE: Duration = Duration::from_secs(1);

/// How a connection ends.
enum End {
    /// One side has said all it had to say.
    Said,
    /// Both are to be closed, the client in order.
    Close,
    /// Both are to be reset.
    Reset,
}

impl From<io::Error> for End {
    /// A side that breaks off breaks the other off.
    fn from(_: io::Error) -> Self {
        Self::Reset
    }
}

/// Serves one client until either side, or a fault, ends the connection.
pub(super) async fn relay(
    shared: Arc<Shared>,
    mut state: watch::Receiver<State>,
    mut client: TcpStream,
    upstream: u16,
    speaks_ftp: bool,
) {
    let (led_to, era) = loop {
        let State { fault, era, .. } = *state.borrow_and_update();
        match fault {
            Some(Fault::Refuse | Fault::Reset) => return reset(&client),
            Some(Fault::Answer { status, retry_after }) => {
                tokio::select! {
                    biased;
                    _changed = state.changed() => {}
                    _ended = answer::serve(&mut client, status, retry_after, &shared.answered) => {}
                }
                return;
            }
            Some(Fault::Silence) => {
                if state.changed().await.is_err() {
                    return;
                }
            }
            Some(Fault::Elsewhere { port }) => break (port, era),
            _ => break (upstream, era),
        }
    };
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, led_to)).await else {
        return reset(&client);
    };
    // As on a wire: nothing waits for more.
    let _only_slower = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let is_unanswered = AtomicBool::new(false);
        let (up, down) = (
            Direction {
                taken: &shared.taken,
                is_unanswered: &is_unanswered,
                down: None,
            },
            Direction {
                taken: &shared.taken,
                is_unanswered: &is_unanswered,
                down: Some(Down {
                    control: speaks_ftp.then(|| Control::new(Arc::clone(&shared), state.clone())),
                }),
            },
        );
        let mut up = std::pin::pin!(pump(from_client, to_server, state.clone(), era, up));
        let mut down = std::pin::pin!(pump(from_server, to_client, state.clone(), era, down));
        tokio::select! {
            end = &mut up => match end {
                End::Said => down.await,
                end => end,
            },
            end = &mut down => match end {
                End::Said => up.await,
                end => end,
            },
        }
    };
    match end {
        End::Said => {}
        End::Close => close(client, state).await,
        End::Reset => {
            reset(&client);
            reset(&server);
        }
    }
}

/// One direction of a connection.
struct Direction<'a> {
    /// How many bytes of all clients have reached the server.
    taken: &'a watch::Sender<u64>,
    /// Whether a request was made that is not to be answered.
    is_unanswered: &'a AtomicBool,
    /// `None`: it leads to the server.
    down: Option<Down>,
}

/// What is done to the direction from the server alone.
struct Down {
    control: Option<Control>,
}

/// Carries bytes in one direction, as far as the fault that is set lets them pass. The connection was made in the era
/// `made`.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    made: u64,
    direction: Direction<'_>,
) -> End {
    let Direction {
        taken,
        is_unanswered,
        mut down,
    } = direction;
    let mut buffer = vec![0; BUFFER];
    let (mut era, mut passed) = (made, 0_u64);
    // One that led elsewhere must not go on afterwards.
    let led_elsewhere = matches!(state.borrow().fault, Some(Fault::Elsewhere { .. }));
    loop {
        let now = *state.borrow_and_update();
        if now.era != era {
            (era, passed) = (now.era, 0);
        }
        let room = match now.fault {
            Some(Fault::Refuse | Fault::Reset) => return End::Reset,
            Some(Fault::Answer { .. }) => return End::Close,
            Some(Fault::Elsewhere { .. }) if now.era != made => return End::Close,
            _ if led_elsewhere && now.era != made => return End::Close,
            Some(Fault::Silence) => 0,
            Some(Fault::Unanswered { .. }) if down.is_some() && is_unanswered.load(Ordering::SeqCst) => 0,
            fault if !matches!(fault, Some(Fault::Unanswered { .. })) && is_unanswered.load(Ordering::SeqCst) => {
                return End::Reset;
            }
            Some(Fault::Stall { after }) if down.is_some() => after - passed.min(after),
            Some(Fault::Cut { after }) if down.is_some() => match after - passed.min(after) {
                0 => return End::Close,
                room => room,
            },
            Some(Fault::Trickle) if down.is_some() => 1,
            Some(Fault::Takes { bytes }) if down.is_none() => bytes - (*taken.borrow() - now.taken).min(bytes),
            _ => u64::MAX,
        };
        let room = usize::try_from(room).unwrap_or(BUFFER).min(BUFFER);
        let step = async {
            if room == 0 {
                std::future::pending().await
            } else {
                from.read(&mut buffer[..room]).await
            }
        };
        let count = tokio::select! {
            biased;
            changed = state.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return End::Reset,
            },
            count = step => match count {
                Ok(count) => count,
                Err(error) => return error.into(),
            },
        };
        if count == 0 {
            return to.shutdown().await.map_or_else(End::from, |()| End::Said);
        }
        if let (Some(Fault::Late { by }), Some(_)) = (now.fault, &down) {
            // This is what the fault is, and ends with it.
            let _changed_or_over = tokio::time::timeout(by, state.clone().changed()).await;
        }
        let bytes = &mut buffer[..count];
        if let (Some(Fault::Corrupt { after }), Some(_)) = (now.fault, &down) {
            for (at, byte) in (passed..).zip(bytes.iter_mut()) {
                if at >= after && at % CORRUPT_EVERY == 0 {
                    *byte ^= CORRUPT_BITS;
                }
            }
        }
        passed += count as u64;
        if let Some(Fault::Unanswered { request }) = now.fault {
            if down.is_none() && bytes.windows(request.len()).any(|piece| piece == request) {
                is_unanswered.store(true, Ordering::SeqCst);
            } else if down.is_some() && is_unanswered.load(Ordering::SeqCst) {
                // The server was quick.
                continue;
            }
        }
        let written = match down.as_mut().and_then(|down| down.control.as_mut()) {
            Some(control) => to.write_all(&control.rewrite(bytes)).await,
            None => to.write_all(bytes).await,
        };
        if let Err(error) = written {
            return error.into();
        }
        if down.is_none() {
            taken.send_modify(|taken| *taken += count as u64);
        }
        if down.is_some() && now.fault == Some(Fault::Trickle) {
            // This is what the fault is, and ends with it.
            let _changed_or_over = tokio::time::timeout(TRICKLE, state.clone().changed()).await;
        }
    }
}

/// Makes the kernel send RST when the connection is dropped.
fn reset(stream: &TcpStream) {
    // A connection that is gone already needs none.
    let _gone = stream.set_zero_linger();
}

/// Closes the way to the client in order: bytes from it that nobody has read would make the kernel send RST.
async fn close(mut client: TcpStream, mut state: watch::Receiver<State>) {
    if client.shutdown().await.is_err() {
        return;
    }
    state.mark_unchanged();
    let mut buffer = vec![0; BUFFER];
    let drain = async { while matches!(client.read(&mut buffer).await, Ok(1..)) {} };
    tokio::select! {
        () = drain => {}
        _changed = state.changed() => {}
    }
}
