//! Who changes names, and who counts on them: while a directory gets another name, at a source that takes its time for it or at one member of
//! a union after the other, what is done in it must neither be told that it is not there, nor be left behind under the old name.
//!
//! Always true:
//! - while a name is changed, the directory that it is in keeps its own name, and so does each above it;
//! - each comes in the order in which they asked, and is held up by those alone who change a name on the way, or one that is the same;
//! - who has a turn in a union asks for turns at sources, and who has one at sources asks for no other, so that no two wait for each other;
//!   and a turn is waited for no longer than the deadline, and by who changes a name than half of it.

use std::time::Duration;

use manifold_catalog::{Catalog, EntryId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Error;
use crate::error::Cause;

/// The names that lead to something from the root of the tree, or of the union.
pub(crate) type Path = Vec<Box<[u8]>>;

/// All that change names, and that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// In the order in which they asked. There are no more than requests.
    asked: Mutex<Asked>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    wishes: Vec<(u64, Wish)>,
}

/// What somebody does to names.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The root of the union; `None`: sources are asked for it.
    pub(crate) union: Option<EntryId>,
    /// Directories that are to keep their names.
    pub(crate) stay: Vec<Path>,
    /// What is made, renamed or removed.
    pub(crate) change: Vec<Path>,
}

/// A turn that somebody has, or waits for; it ends when it is dropped.
#[must_use = "names may change when this is dropped"]
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Wish {
    fn is_against(&self, other: &Self) -> bool {
        let leads = |above: &Path, to: &Path| to.starts_with(above);
        let any = |ones: &[Path], others: &[Path], are: &dyn Fn(&Path, &Path) -> bool| {
            ones.iter().any(|one| others.iter().any(|other| are(one, other)))
        };
        self.union == other.union
            && (any(&self.change, &other.stay, &leads)
                || any(&other.change, &self.stay, &leads)
                || any(&self.change, &other.change, &|one, other| {
                    leads(one, other) || leads(other, one)
                }))
    }
}

impl Turns {
    /// Waits until names may be changed in directories of the tree, which have the names then that they had when it was asked for.
    ///
    /// # Errors
    /// [`Error::TimedOut`]: it was not so in time; [`Error::Stale`]: a directory is gone.
    pub(crate) async fn of_sources(
        &self,
        catalog: &Catalog,
        names: &[(EntryId, Option<&[u8]>)],
        patience: Duration,
    ) -> Result<Turn<'_>, Error> {
        let until = tokio::time::Instant::now() + patience;
        let find = || {
            let paths = names.iter().map(|(directory, _)| path_of(catalog, *directory));
            paths.collect::<Result<Vec<Path>, Error>>()
        };
        let mut stay = find()?;
        loop {
            let changed = |(directory, (_, name)): (&Path, &(EntryId, Option<&[u8]>))| {
                name.map(|name| [&directory[..], &[Box::<[u8]>::from(name)]].concat())
            };
            let turn = self.ask(Wish {
                union: None,
                change: stay.iter().zip(names).filter_map(changed).collect(),
                stay: stay.clone(),
            });
            turn.until_due_within(until.saturating_duration_since(tokio::time::Instant::now()))
                .await?;
            let now = find()?;
            if now == stay {
                return Ok(turn);
            }
            // Meanwhile they have got other names.
            stay = now;
        }
    }

    /// Waits until neither a directory nor one above it is getting another name, and keeps them from it. `None`: it is gone.
    ///
    /// # Errors
    /// [`Error::TimedOut`]: it was not so in time.
    pub(crate) async fn stay(
        &self,
        catalog: &Catalog,
        directory: EntryId,
        patience: Duration,
    ) -> Result<Option<Turn<'_>>, Error> {
        match self.of_sources(catalog, &[(directory, None)], patience).await {
            Err(Error::Stale) => Ok(None),
            turn => turn.map(Some),
        }
    }

    /// Gets in the queue.
    pub(crate) fn ask(&self, wish: Wish) -> Turn<'_> {
        let mut asked = self.asked.lock();
        asked.last += 1;
        let number = asked.last;
        asked.wishes.push((number, wish));
        Turn { turns: self, number }
    }
}

impl Turn<'_> {
    /// Tells whether nobody who asked before is in the way.
    pub(crate) fn is_due(&self) -> bool {
        let asked = self.turns.asked.lock();
        let before = asked.wishes.iter().take_while(|(number, _)| *number != self.number);
        let own = asked.wishes.iter().find(|(number, _)| *number == self.number);
        own.is_some_and(|(_, own)| !before.into_iter().any(|(_, other)| own.is_against(other)))
    }

    /// Waits until nobody who asked before is in the way, but no longer than `patience`.
    ///
    /// # Errors
    /// [`Error::TimedOut`]: it was not so in time.
    pub(crate) async fn until_due_within(&self, patience: Duration) -> Result<(), Error> {
        if self.is_due() {
            return Ok(());
        }
        let due = tokio::time::timeout(patience, self.until_due()).await;
        due.map_err(|_elapsed| {
            let after = patience.as_secs_f32();
            Error::TimedOut(Cause::new(format!(
                "another change of these names, or of one above them, has not ended within {after} s"
            )))
        })
    }

    async fn until_due(&self) {
        loop {
            let ended = self.turns.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Before it is looked, so that no end is missed.
            ended.as_mut().enable();
            if self.is_due() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns
            .asked
            .lock()
            .wishes
            .retain(|(number, _)| *number != self.number);
        self.turns.ended.notify_waiters();
    }
}

fn path_of(catalog: &Catalog, directory: EntryId) -> Result<Path, Error> {
    let path = catalog
        .tree_path(directory)
        .map_err(Error::from_catalog)?
        .ok_or(Error::Stale)?;
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    Ok(names.map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<Path> {
        let names = |path: &&str| path.split('/').map(|name| name.as_bytes().into()).collect();
        paths.iter().map(names).collect()
    }

    fn wish(stay: &[&str], change: &[&str]) -> Wish {
        Wish {
            union: Some(EntryId(1)),
            stay: paths(stay),
            change: paths(change),
        }
    }

    #[test]
    fn only_a_name_on_the_way_and_the_same_name_are_in_the_way() {
        let made = wish(&["d/e"], &["d/e/new"]);
        for (other, is_in_the_way) in [
            (wish(&["d"], &["d/e", "d/f"]), true),
            (wish(&["x"], &["x/y", "d"]), true),
            (wish(&["d/e"], &["d/e/new"]), true),
            (wish(&["d/e"], &["d/e/other"]), false),
            (wish(&["d"], &["d/else"]), false),
            (wish(&["d/e/new"], &["d/e/new/beneath"]), true),
            (wish(&["d/e/old"], &["d/e/old/beneath"]), false),
        ] {
            assert_eq!(made.is_against(&other), is_in_the_way, "{other:?}");
            assert_eq!(other.is_against(&made), is_in_the_way, "{other:?}");
        }
        let elsewhere = Wish {
            union: Some(EntryId(2)),
            ..wish(&["d"], &["d/e"])
        };
        assert!(!made.is_against(&elsewhere));
    }

    #[tokio::test]
    async fn each_comes_in_the_order_in_which_they_asked() {
        let turns = Turns::default();
        let making = turns.ask(wish(&["d"], &["d/new"]));
        let renaming = turns.ask(wish(&["x"], &["d", "e"]));
        let later = turns.ask(wish(&["d"], &["d/newer"]));
        let elsewhere = turns.ask(wish(&["x"], &["x/y"]));
        assert!(making.is_due() && elsewhere.is_due());
        assert!(!renaming.is_due() && !later.is_due(), "a rename is not waited for ever");
        let mut until_renaming = Box::pin(renaming.until_due());
        assert!(futures::poll!(&mut until_renaming).is_pending());
        drop(making);
        until_renaming.await;
        assert!(!later.is_due());
        drop(renaming);
        later.until_due().await;
        drop((later, elsewhere));
        assert!(turns.asked.lock().wishes.is_empty());
    }
}
