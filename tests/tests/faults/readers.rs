//! Readers of bytes that are not cached.

use std::thread;
use std::time::{Duration, Instant};

use manifold_tests::estate::Site;

/// The end of all patience of a reader. Each request of the kernel ends with its deadline of 4 s, and the kernel makes two
/// for a page that could not be had: ahead of the reader, and then for him. The second is answered at once where the first has
/// taken half of that or longer. The rest is for a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(9);
/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// How a read ended.
pub(crate) struct Answer {
    pub(crate) told: Result<(), i32>,
    pub(crate) after: Duration,
}

/// Reads a file of a site once.
pub(crate) fn read_of(site: &Site, number: usize) -> Answer {
    let begun = Instant::now();
    let told = site.read(number);
    Answer {
        told,
        after: begun.elapsed(),
    }
}

/// Reads a file of a site until it can be read, or for so long, and gives how long that took.
pub(crate) fn recovery_of(site: &Site, number: usize, patience: Duration) -> Duration {
    let begun = Instant::now();
    while site.read(number).is_err() && begun.elapsed() < patience {
        thread::sleep(AGAIN);
    }
    begun.elapsed()
}
