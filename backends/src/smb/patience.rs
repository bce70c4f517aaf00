//! How long a server may leave unacknowledged what it is sent: less than a request has, since nothing keeps a kernel from
//! acknowledging, but while it is written to. Then its buffers fill while its disk takes its time, and that is no sign of a
//! path that has gone.

use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;

use super::frames::Frames;
use crate::socket::Vigil;

/// The patience with one connection.
pub(super) struct Patience {
    /// The connection's socket, while there is one.
    line: Weak<Frames>,
    usual: Duration,
    writing: Duration,
    /// Writes under way.
    writes: Mutex<u32>,
}

/// A write under way.
pub(super) struct Writing<'a>(&'a Patience);

impl Patience {
    pub(super) fn with(line: Weak<Frames>, request_timeout: Duration) -> Self {
        Self {
            line,
            usual: Vigil::of(request_timeout).unacknowledged,
            writing: request_timeout * 2,
            writes: Mutex::new(0),
        }
    }

    /// Gives the server its time until the result is dropped.
    pub(super) fn writing(&self) -> Writing<'_> {
        let mut writes = self.writes.lock();
        if *writes == 0 {
            self.allow(self.writing);
        }
        *writes += 1;
        Writing(self)
    }

    fn allow(&self, unacknowledged: Duration) {
        if let Some(line) = self.line.upgrade() {
            line.allow(unacknowledged);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut writes = self.0.writes.lock();
        *writes -= 1;
        if *writes == 0 {
            self.0.allow(self.0.usual);
        }
    }
}
