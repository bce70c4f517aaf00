//! Which directories were looked at lately: those are kept fresh, where no watch tells of changes.
//!
//! Always true: the memory of it has a bound, and so has what is asked of a source for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_backends::Coverage;
use manifold_catalog::{EntryId, SourceId};
use parking_lot::Mutex;

use crate::vfs::Core;

/// How long after the last look a directory is kept fresh. Whoever answers looks by itself must ask again before that.
pub const KEPT_FRESH: Duration = Duration::from_mins(10);

/// How many directories are remembered.
const DIRECTORIES_MAX: usize = 1_024;
/// How often they are gone through.
const EVERY: Duration = Duration::from_secs(1);
/// How many are listed again each time.
const LISTINGS_MAX: usize = 16;

/// The directories that were looked at lately.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: HashMap<EntryId, (SourceId, Instant)>,
    gone_through: Option<Instant>,
}

impl Recent {
    /// Takes note of a look.
    pub(crate) fn note(&self, directory: EntryId, source: SourceId, now: Instant) {
        let looked = &mut self.state.lock().looked;
        if looked.len() >= DIRECTORIES_MAX && !looked.contains_key(&directory) {
            let oldest = looked.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id);
            oldest.and_then(|oldest| looked.remove(&oldest));
        }
        looked.insert(directory, (source, now));
    }

    /// Gives those that were looked at lately, if it is time.
    fn due(&self, now: Instant) -> Vec<(EntryId, SourceId)> {
        let mut state = self.state.lock();
        if state.gone_through.is_some_and(|at| now < at + EVERY) {
            return Vec::new();
        }
        state.gone_through = Some(now);
        state.looked.retain(|_, (_, at)| now < *at + KEPT_FRESH);
        state.looked.iter().map(|(id, (source, _))| (*id, *source)).collect()
    }
}

impl Core {
    /// Has directories listed again that were looked at lately and are stale.
    pub(crate) fn keep_recent_fresh(self: &Arc<Self>) {
        let mut left = LISTINGS_MAX;
        for (directory, source) in self.recent.due(Instant::now()) {
            let is_watched = match self.indexer.coverage(source) {
                Some(Coverage::Whole { standing }) => standing,
                Some(Coverage::Directories { short_of, .. }) => short_of.is_none(),
                Some(Coverage::OwnChangesOnly) | None => false,
            };
            if is_watched {
                continue;
            }
            if self
                .indexer
                .refresh_directory_if_stale(directory, self.refresh_of(source))
            {
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: SourceId = SourceId(1);

    #[test]
    fn a_directory_is_kept_fresh_for_a_while_after_the_last_look() {
        let (recent, start) = (Recent::default(), Instant::now());
        recent.note(EntryId(1), SOURCE, start);
        recent.note(EntryId(2), SOURCE, start + KEPT_FRESH / 2);
        assert_eq!(recent.due(start + EVERY).len(), 2);
        assert_eq!(recent.due(start + EVERY), [], "it is not time yet");
        assert_eq!(recent.due(start + KEPT_FRESH), [(EntryId(2), SOURCE)]);
    }

    #[test]
    fn the_longest_not_looked_at_is_forgotten_first() {
        let (recent, start) = (Recent::default(), Instant::now());
        for number in 0..=DIRECTORIES_MAX as u64 {
            recent.note(EntryId(number), SOURCE, start + Duration::from_micros(number));
        }
        let due = recent.due(start + EVERY);
        assert_eq!(due.len(), DIRECTORIES_MAX);
        assert!(!due.contains(&(EntryId(0), SOURCE)));
    }
}
