//! Reads that ended a moment ago without their bytes, after a long wait: whoever has waited for those bytes is not made to wait
//! for them anew.
//!
//! A kernel whose reading ahead has failed asks once more for the page that it needs, and so it does in turn for everybody who
//! waited for that page meanwhile: each time the others wait on. Three who read the same file would wait for three deadlines.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_catalog::EntryId;
use tokio::time::Instant;

use super::{Handle, OpenFiles};
use crate::Error;

/// How long what could not be read in time is not asked for again.
const LATE_FOR: Duration = Duration::from_millis(500);

/// What could not be read of an entry.
#[derive(Debug)]
pub(super) struct Late {
    range: Range<u64>,
    error: Error,
    found: Instant,
    /// The last handle that there was then. Whoever has opened the file since has not waited for anything.
    last: Handle,
}

impl OpenFiles {
    /// Takes note that a range of an entry could not be read.
    pub(crate) fn note_late(&self, id: EntryId, range: Range<u64>, error: &Error) {
        let mut entries = self.entries.lock();
        // Nobody has it open any more.
        let Some(entry) = entries.get_mut(&id) else { return };
        let range = match &entry.late {
            // A kernel reads ahead with several requests, all of which are late at once.
            Some(known) if known.found.elapsed() < LATE_FOR => {
                known.range.start.min(range.start)..known.range.end.max(range.end)
            }
            _ => range,
        };
        entry.late = Some(Late {
            range,
            error: error.clone(),
            found: Instant::now(),
            last: Handle(self.next.load(Ordering::Relaxed)),
        });
    }

    /// Gives why some of a range could not be read a moment ago, to a handle that was open then.
    pub(crate) fn was_late(&self, handle: Handle, id: EntryId, range: &Range<u64>) -> Option<Error> {
        let entries = self.entries.lock();
        let late = entries.get(&id)?.late.as_ref()?;
        let touches = late.range.start < range.end && range.start < late.range.end;
        let has_waited = handle.0 <= late.last.0 && late.found.elapsed() < LATE_FOR;
        (touches && has_waited).then(|| late.error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_it_open_has_waited_and_who_opens_it_later_has_not() {
        let (files, id) = (OpenFiles::default(), EntryId(7));
        let opening = files.begin(id);
        files.next.store(2, Ordering::Relaxed);
        files.note_late(id, 0..10, &Error::Stale);
        assert!(files.was_late(Handle(1), id, &(5..20)).is_some());
        assert!(files.was_late(Handle(2), id, &(5..20)).is_some());
        assert!(
            files.was_late(Handle(2), id, &(10..20)).is_none(),
            "nobody has asked for that"
        );
        assert!(files.was_late(Handle(3), id, &(5..20)).is_none(), "it was opened later");
        drop(opening);
        assert!(files.was_late(Handle(2), id, &(5..20)).is_none());
    }
}
