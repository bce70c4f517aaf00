//! Rows of the journal that become durable together: whoever gets the writer first puts the rows of all who wait for it,
//! in one transaction with one wait for the disk.
//!
//! Always true: a row that is refused is refused to its own caller alone; and a caller that is answered without an error
//! has its row on the disk.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Store, When};
use crate::Change;
use crate::edit::Edit;
use crate::edit::staged::Staging;
use crate::error::{Error, Result};

/// The rows that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Together(Mutex<Vec<Arc<Wish>>>);

#[derive(Debug)]
struct Wish {
    staging: Staging,
    outcome: Mutex<Option<Outcome>>,
}

#[derive(Debug)]
enum Outcome {
    Settled(Result<Vec<Change>>),
    /// The transaction failed, and somebody else has got the error.
    TryAlone,
}

impl Store {
    /// Puts a row of the journal. Durable when it returns.
    pub(crate) fn stage_durably(&self, staging: Staging) -> Result<Vec<Change>> {
        self.check_room()?;
        let outcome = Mutex::new(None);
        let wish = Arc::new(Wish { staging, outcome });
        self.together.0.lock().push(Arc::clone(&wish));
        let before = self.vain_attempts();
        let mut writer = self.writer.lock();
        match wish.outcome.lock().take() {
            Some(Outcome::Settled(result)) => return result,
            Some(Outcome::TryAlone) => {
                self.check_open_since(&writer, before)?;
                let result = self.write_locked(&mut writer, When::Now, |edit| edit.stage(&wish.staging));
                return self.mend(&mut writer, result).map(|((), changes)| changes);
            }
            None => {}
        }
        let waiting = std::mem::take(&mut *self.together.0.lock());
        let result = self.write_locked(&mut writer, When::Now, |edit| stage_all(edit, &waiting));
        let result = self.mend(&mut writer, result);
        let mut own = None;
        let (mut settled, error) = match result {
            Ok((settled, _)) => (settled.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        for other in &waiting {
            let outcome = settled.next().map_or(Outcome::TryAlone, Outcome::Settled);
            if Arc::ptr_eq(other, &wish) {
                own = Some(outcome);
            } else {
                *other.outcome.lock() = Some(outcome);
            }
        }
        match (own, error) {
            (Some(Outcome::Settled(result)), _) => result,
            (_, Some(error)) => Err(error),
            (_, None) => Err(Error::damaged("a row of the journal was lost on its way")),
        }
    }
}

/// Puts all rows, and gives what became of each. An error means that none was put.
fn stage_all(edit: &mut Edit<'_>, waiting: &[Arc<Wish>]) -> Result<Vec<Result<Vec<Change>>>> {
    let mut settled = Vec::with_capacity(waiting.len());
    for wish in waiting {
        let before = edit.changes.len();
        match edit.stage(&wish.staging) {
            Ok(()) => settled.push(Ok(edit.changes[before..].to_vec())),
            // Refused before anything was changed.
            Err(error @ (Error::NoEntry(_) | Error::Refused { .. })) => settled.push(Err(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{Catalog, EntryId, Kind, NewChild, NewSource, Options, SeenAttributes};

    const AT_ONCE: usize = 24;

    fn new_file(name: &str) -> NewChild {
        let seen = SeenAttributes {
            kind: Kind::File,
            size: 0,
            modified_ns: 0,
            changed_ns: 0,
            created_ns: None,
            mode: 0o600,
            owner: None,
            links: 1,
            device: 0,
            version: Box::default(),
            identity: None,
        };
        NewChild {
            name: name.as_bytes().into(),
            raw_name: None,
            seen,
            adopt: None,
        }
    }

    #[test]
    fn rows_that_wait_at_the_same_time_share_one_durable_commit_and_refusals_are_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.redb"), Options::default()).unwrap();
        let new = NewSource {
            name: "s".into(),
            attach: b"/s".to_vec(),
            spec: String::new(),
            options: String::new(),
        };
        let root = catalog.add_source(new).unwrap().root;
        let names = (0..AT_ONCE).map(|number| new_file(&number.to_string()));
        let ids: Vec<_> = names
            .map(|child| catalog.follow_created(root, child, None).unwrap().0)
            .collect();
        let before = catalog.durable_commits();
        let (go_on, told) = mpsc::channel::<()>();
        let (began, holds) = mpsc::channel();
        std::thread::scope(|scope| {
            let store = catalog.store();
            // Somebody has the writer until all others wait for it.
            scope.spawn(move || {
                store.write(When::Soon, |_| {
                    began.send(()).unwrap();
                    told.recv().unwrap();
                    Ok(())
                })
            });
            holds.recv().unwrap();
            let stagers: Vec<_> = ids
                .iter()
                .map(|id| scope.spawn(|| catalog.stage(*id, &id.0.to_le_bytes(), None, true)))
                .collect();
            let refused = scope.spawn(|| catalog.stage(EntryId(1 << 40), b"x", None, true));
            while store.together.0.lock().len() <= AT_ONCE {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            for stager in stagers {
                assert_eq!(stager.join().unwrap().unwrap(), []);
            }
            assert!(matches!(refused.join().unwrap(), Err(Error::NoEntry(_))));
        });
        assert_eq!(catalog.durable_commits() - before, 1);
        let rows: Vec<_> = ids.iter().map(|id| (*id, id.0.to_le_bytes().to_vec())).collect();
        assert_eq!(catalog.staged_all().unwrap(), rows);
        catalog.examine().unwrap();
    }
}
