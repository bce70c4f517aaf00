//! Names that files have lost to another's version a moment ago: a kernel that was not told of it yet takes such a name for that of
//! the file, also when it renames it, and would show the file under the name that the other's version gets.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Uploads;

/// How long a kernel may take a name for what it was: a notice waits for the requests that hold the directory.
const DOUBTED: Duration = Duration::from_mins(1);
/// How many names are remembered. They are lost one by one, each with an upload.
const NAMES_MAX: usize = 10_000;

/// Names, and when each was lost, the last at the end.
#[derive(Debug, Default)]
pub(super) struct Way(Mutex<VecDeque<(Box<[u8]>, Instant)>>);

impl Uploads {
    /// Takes note that a file is about to lose its name.
    pub(super) fn note_way_made(&self, name: &[u8]) {
        let (mut names, now) = (self.way.0.lock(), Instant::now());
        while names.len() >= NAMES_MAX || names.front().is_some_and(|(_, lost)| *lost + DOUBTED < now) {
            names.pop_front();
        }
        names.push_back((name.into(), now));
    }

    /// Tells whether a file has lost a name, in whatever directory, so short a time ago that a kernel may not know it.
    pub(crate) fn has_made_way(&self, name: &[u8]) -> bool {
        let (names, now) = (self.way.0.lock(), Instant::now());
        let mut lately = names.iter().rev().take_while(|(_, lost)| *lost + DOUBTED >= now);
        lately.any(|(lost, _)| **lost == *name)
    }
}
