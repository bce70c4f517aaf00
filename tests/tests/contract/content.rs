//! Bodies to be put: known bytes of any length, counted while they are in memory, which may stop on the way.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use manifold_backends::{Attributes, Body, PartLog, Timestamp};
use tokio::sync::watch;

/// Bytes after which content repeats; no power of two, so that a shifted piece shows.
const PERIOD: usize = 64 * 1024 + 7;

/// What happens when a body is read up to a place.
type OnTheWay = Box<dyn Fn() + Send + Sync>;

/// Content made of a seed.
pub(crate) struct Content {
    period: Vec<u8>,
    size: u64,
    in_memory: Arc<AtomicU64>,
    pub(crate) most_in_memory: Arc<AtomicU64>,
    modified: Option<Timestamp>,
    mode: Option<u32>,
    /// From where on nothing is given until it is let go.
    stop: Option<(u64, watch::Receiver<bool>, watch::Sender<bool>)>,
    event: Option<(u64, OnTheWay)>,
    log: Option<Arc<dyn PartLog>>,
}

/// Stops a body on its way.
pub(crate) struct Stop {
    go: watch::Sender<bool>,
    reached: watch::Receiver<bool>,
}

impl Stop {
    /// Waits until the body has been read up to the stop.
    pub(crate) async fn reached(&mut self) {
        self.reached
            .wait_for(|reached| *reached)
            .await
            .expect("the body is there");
    }

    /// Lets the body go on.
    pub(crate) fn go(&self) {
        self.go.send_replace(true);
    }
}

impl Content {
    pub(crate) fn new(size: u64, seed: u64) -> Self {
        let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let period = (0..PERIOD).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Self {
            period: period.collect(),
            size,
            in_memory: Arc::default(),
            most_in_memory: Arc::default(),
            modified: None,
            mode: None,
            stop: None,
            event: None,
            log: None,
        }
    }

    pub(crate) fn modified(self, time: Timestamp) -> Self {
        Self {
            modified: Some(time),
            ..self
        }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self {
            mode: Some(mode),
            ..self
        }
    }

    /// Has it remembered what is sent.
    pub(crate) fn remembered(self, log: Arc<dyn PartLog>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Lets nothing from `at` on be read until the other half says so.
    pub(crate) fn stop_at(self, at: u64) -> (Self, Stop) {
        let (go, wait) = watch::channel(false);
        let (tell, reached) = watch::channel(false);
        let stop = Some((at, wait, tell));
        (Self { stop, ..self }, Stop { go, reached })
    }

    /// Has something happen each time the bytes at `at` are read.
    pub(crate) fn when_read(self, at: u64, event: impl Fn() + Send + Sync + 'static) -> Self {
        let event = Some((at, Box::new(event) as OnTheWay));
        Self { event, ..self }
    }

    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let start = (at % PERIOD as u64) as usize;
            let end = PERIOD.min(start + (range.end - at) as usize);
            bytes.extend_from_slice(&self.period[start..end]);
            at += (end - start) as u64;
        }
        bytes
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        self.bytes(0..self.size)
    }
}

/// Bytes that are counted for as long as anybody holds them.
struct Counted {
    bytes: Vec<u8>,
    in_memory: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Body for Content {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        assert!(
            range.start <= range.end && range.end <= self.size,
            "{range:?} is asked for"
        );
        if let Some((at, wait, reached)) = &self.stop
            && range.end > *at
        {
            reached.send_replace(true);
            let mut wait = wait.clone();
            if wait.wait_for(|go| *go).await.is_err() {
                return Err(io::Error::other("nobody lets it go on"));
            }
        }
        if let Some((at, event)) = &self.event
            && range.contains(at)
        {
            tokio::task::block_in_place(event);
        }
        let bytes = self.bytes(range);
        let now = self.in_memory.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
        self.most_in_memory.fetch_max(now, Ordering::SeqCst);
        Ok(Bytes::from_owner(Counted {
            bytes,
            in_memory: Arc::clone(&self.in_memory),
        }))
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            modified: self.modified,
            mode: self.mode,
        }
    }

    fn parts(&self) -> Option<Arc<dyn PartLog>> {
        self.log.clone()
    }
}
