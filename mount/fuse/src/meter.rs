//! What the kernel asked, and what became of it, counted by operation.
//!
//! Owned by whoever mounts, so that the counts go on when a mount is made anew. Always true: each request that crosses over to
//! the file system is counted once when it comes and once when it has been answered; what the adaptor answers without asking
//! the file system (what would change something, extended attributes) is not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fuser::Errno;
use manifold_vfs::{ByWord, Histogram, HistogramPicture};

/// How many operations are told apart: as many as FUSE has.
const OPERATIONS_MAX: usize = 48;
/// How many errors of one operation are told apart.
const ERRORS_MAX: usize = 24;

/// Counts the requests of the kernel. Share it behind an `Arc`.
#[derive(Debug, Default)]
pub struct Meter {
    operations: ByWord<OfOperation, OPERATIONS_MAX>,
    left_to_kernel: AtomicU64,
}

#[derive(Debug, Default)]
struct OfOperation {
    begun: AtomicU64,
    waited: AtomicU64,
    took: Histogram,
    failed: ByWord<AtomicU64, ERRORS_MAX>,
}

/// What became of the kernel's requests for one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationFacts {
    /// The operation, as FUSE calls it.
    pub operation: &'static str,
    /// How many came.
    pub begun: u64,
    /// How many of them could not be answered at once: they waited for a source or a disk.
    pub waited: u64,
    /// How long those took that were answered, whatever the answer was.
    pub took: HistogramPicture,
    /// How many were answered with an error, by its name. A name that is not there is `ENOENT`, also where the kernel is told
    /// so without an error.
    pub failed: Vec<(&'static str, u64)>,
}

/// What became of a request: the kernel's number for what went wrong.
pub(crate) type Outcome = Result<(), Errno>;

/// A request that is being answered on the thread on which it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    operation: &'static str,
    since: Instant,
}

/// A request that waits in a task. If that is dropped, the request has been answered with EIO.
#[derive(Debug)]
pub(crate) struct Waits {
    meter: Arc<Meter>,
    begun: Begun,
    outcome: Outcome,
}

impl Meter {
    /// Says what became of all requests so far, in the order of the operations' names.
    pub fn operations(&self) -> Vec<OperationFacts> {
        let facts = self.operations.iter().map(|(operation, of)| {
            // What has ended is looked at first, so that it is never more than what has come.
            let (took, failed) = (of.took.picture(), of.failed.counts());
            let waited = of.waited.load(Ordering::Relaxed);
            let begun = of.begun.load(Ordering::Relaxed);
            OperationFacts {
                operation,
                begun,
                waited,
                took,
                failed,
            }
        });
        let mut facts: Vec<_> = facts.filter(|facts| facts.begun > 0).collect();
        facts.sort_unstable_by_key(|facts| facts.operation);
        facts
    }

    /// Says how many files were opened that the kernel reads by itself. Those reads are not counted here: they never come.
    pub fn left_to_kernel(&self) -> u64 {
        self.left_to_kernel.load(Ordering::Relaxed)
    }

    pub(crate) fn leave_to_kernel(&self) {
        self.left_to_kernel.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has come.
    pub(crate) fn begin(&self, operation: &'static str) -> Begun {
        self.operations.of(operation).begun.fetch_add(1, Ordering::Relaxed);
        Begun {
            operation,
            since: Instant::now(),
        }
    }

    /// Counts that a request was answered.
    pub(crate) fn end(&self, begun: Begun, outcome: Outcome) {
        let of = self.operations.of(begun.operation);
        of.took.observe(begun.since.elapsed());
        if let Err(errno) = outcome {
            of.failed.count(name(errno));
        }
    }

    /// Counts a request that has to wait, and has it counted when its task ends.
    pub(crate) fn wait(self: &Arc<Self>, begun: Begun) -> Waits {
        self.operations
            .of(begun.operation)
            .waited
            .fetch_add(1, Ordering::Relaxed);
        Waits {
            meter: Arc::clone(self),
            begun,
            outcome: Err(Errno::EIO),
        }
    }
}

impl OperationFacts {
    /// Says how many are being answered.
    pub fn in_flight(&self) -> u64 {
        self.begun.saturating_sub(self.took.count())
    }
}

impl Waits {
    /// Takes note of the answer.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.meter.end(self.begun, self.outcome);
    }
}

/// Names an error as `errno(3)` does.
fn name(errno: Errno) -> &'static str {
    const NAMES: [(Errno, &str); 28] = [
        (Errno::ENOENT, "ENOENT"),
        (Errno::ESTALE, "ESTALE"),
        (Errno::ETIMEDOUT, "ETIMEDOUT"),
        (Errno::EHOSTUNREACH, "EHOSTUNREACH"),
        (Errno::EIO, "EIO"),
        (Errno::EACCES, "EACCES"),
        (Errno::EPERM, "EPERM"),
        (Errno::EROFS, "EROFS"),
        (Errno::EOPNOTSUPP, "EOPNOTSUPP"),
        (Errno::EXDEV, "EXDEV"),
        (Errno::ENOSPC, "ENOSPC"),
        (Errno::EDQUOT, "EDQUOT"),
        (Errno::ENOTDIR, "ENOTDIR"),
        (Errno::EISDIR, "EISDIR"),
        (Errno::EINVAL, "EINVAL"),
        (Errno::ENAMETOOLONG, "ENAMETOOLONG"),
        (Errno::EBADF, "EBADF"),
        (Errno::ENODATA, "ENODATA"),
        (Errno::EAGAIN, "EAGAIN"),
        (Errno::EINTR, "EINTR"),
        (Errno::ENOSYS, "ENOSYS"),
        (Errno::EEXIST, "EEXIST"),
        (Errno::ENOTEMPTY, "ENOTEMPTY"),
        (Errno::EBUSY, "EBUSY"),
        (Errno::EMLINK, "EMLINK"),
        (Errno::EFBIG, "EFBIG"),
        (Errno::ELOOP, "ELOOP"),
        (Errno::ERANGE, "ERANGE"),
    ];
    let found = NAMES.iter().find(|(known, _)| *known == errno);
    found.map_or("other", |(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_when_they_come_and_by_what_became_of_them() {
        let meter = Arc::new(Meter::default());
        let begun = meter.begin("read");
        meter.end(begun, Ok(()));
        let begun = meter.begin("read");
        let mut waits = meter.wait(begun);
        let facts = meter.operations();
        assert_eq!((facts[0].begun, facts[0].waited, facts[0].in_flight()), (2, 1, 1));
        waits.answered(Err(Errno::ETIMEDOUT));
        drop(waits);
        let begun = meter.begin("lookup");
        drop(meter.wait(begun));
        let facts = meter.operations();
        let shown = facts
            .iter()
            .map(|it| (it.operation, it.begun, it.in_flight(), &it.failed[..]));
        let expected: [(_, _, _, &[(&str, u64)]); 2] =
            [("lookup", 1, 0, &[("EIO", 1)]), ("read", 2, 0, &[("ETIMEDOUT", 1)])];
        assert!(shown.eq(expected), "{facts:?}");
    }

    #[test]
    fn an_error_has_its_own_name_where_it_is_known() {
        assert_eq!(name(Errno::EHOSTUNREACH), "EHOSTUNREACH");
        assert_eq!(name(Errno::ENOTBLK), "other");
    }
}
