//! Who changes names in a union, and who counts on them: a directory gets its new name at one member after the other, and what is made in it
//! meanwhile must neither be left behind nor bring the old name back at a further member.
//!
//! Always true:
//! - while a name is changed, the directory that it is in keeps its own names, and that of each above it, at all members;
//! - each comes in the order in which they asked, and is held up by those alone who change a name on the way, or one that is the same;
//! - who has a turn asks for no other, so that no two wait for each other; and a turn is waited for no longer than half of the deadline.

use std::sync::Arc;
use std::time::Instant;

use manifold_catalog::EntryId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Merged;
use crate::Error;
use crate::error::Cause;
use crate::vfs::Core;

/// The names that lead to something from the union's root.
type Path = Vec<Box<[u8]>>;

/// All that change names, and that wait for it.
#[derive(Debug, Default)]
pub(super) struct Turns {
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
struct Wish {
    union: EntryId,
    /// Directories that are to keep their names.
    stay: Vec<Path>,
    /// What is made, renamed or removed.
    change: Vec<Path>,
}

/// A turn that somebody has, or waits for; it ends when it is dropped.
#[must_use = "names may change when this is dropped"]
#[derive(Debug)]
pub(super) struct Turn<'a> {
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
    fn ask(&self, wish: Wish) -> Turn<'_> {
        let mut asked = self.asked.lock();
        asked.last += 1;
        let number = asked.last;
        asked.wishes.push((number, wish));
        Turn { turns: self, number }
    }
}

impl Turn<'_> {
    /// Tells whether nobody who asked before is in the way.
    fn is_due(&self) -> bool {
        let asked = self.turns.asked.lock();
        let before = asked.wishes.iter().take_while(|(number, _)| *number != self.number);
        let own = asked.wishes.iter().find(|(number, _)| *number == self.number);
        own.is_some_and(|(_, own)| !before.into_iter().any(|(_, other)| own.is_against(other)))
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

impl Core {
    /// Waits until names may be changed in directories of one union, and gives these as they are then, with all their parts listed.
    pub(super) async fn in_turn(
        self: &Arc<Self>,
        names: &[(EntryId, &[u8])],
    ) -> Result<(Vec<Merged>, Turn<'_>), Error> {
        let until = Instant::now() + self.settings.metadata_deadline;
        loop {
            let mut before = Vec::with_capacity(names.len());
            for (directory, _) in names {
                before.push(self.list_parts(*directory).await?);
            }
            let union = before.first().ok_or(Error::InvalidArgument)?.union.root;
            if before.iter().any(|merged| merged.union.root != union) {
                return Err(Error::CrossSource);
            }
            let changed = |(merged, (_, name)): (&Merged, &(EntryId, &[u8]))| {
                [&merged.names[..], &[Box::<[u8]>::from(*name)]].concat()
            };
            let turn = self.unions.turns.ask(Wish {
                union,
                stay: before.iter().map(|merged| merged.names.clone()).collect(),
                change: before.iter().zip(names).map(changed).collect(),
            });
            if !turn.is_due() {
                let patience = self.settings.metadata_deadline / 2;
                let due = tokio::time::timeout(patience, turn.until_due()).await;
                due.map_err(|_elapsed| {
                    let after = patience.as_secs_f32();
                    Error::TimedOut(Cause::new(format!(
                        "another change of these names in a union has not ended within {after} s"
                    )))
                })?;
            }
            let mut now = Vec::with_capacity(names.len());
            for (directory, _) in names {
                now.push(self.merged(*directory)?.ok_or(Error::Stale)?);
            }
            let mut is_known = true;
            for (now, before) in now.iter().zip(&before) {
                is_known &= now.union.root == union && now.names == before.names;
                is_known &= self.unlisted_parts(now)?.is_empty();
            }
            if is_known {
                return Ok((now, turn));
            }
            // Meanwhile they have got other names.
            drop(turn);
            if Instant::now() >= until {
                return Err(self.too_late());
            }
        }
    }
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
            union: EntryId(1),
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
            union: EntryId(2),
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
