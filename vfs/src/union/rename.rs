//! Renaming within a union: each member renames what it has, so that nothing is copied and nothing is refused for being elsewhere.
//!
//! Always true:
//! - what has the new name in the end is what had the old one, whichever member has it;
//! - of what is replaced, only the version that is known goes, as in a rename within one source, and that is asked before the first step;
//! - what can be taken back is done first, and a rename that failed has been taken back as far as nothing was replaced by it.

use std::sync::Arc;

use futures::future::join_all;
use manifold_backends::local::RenameMode;
use manifold_catalog::{EntryId, Kind};

use super::change::like_the_first;
use super::{Found, Merged, Renaming};
use crate::change::{Half, Removal};
use crate::vfs::Core;
use crate::{Answer, Error};

type Name = Box<[u8]>;

/// What one member renames.
struct Step {
    from: EntryId,
    to: EntryId,
    /// Whether it replaces something there.
    replaces: bool,
}

/// Ends what is said of a rename under way.
struct UnderWay<'a>(&'a Core, Option<Renaming>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut renaming = self.0.unions.renaming.lock();
        if let Some(place) = self
            .1
            .take()
            .and_then(|own| renaming.iter().position(|one| *one == own))
        {
            renaming.remove(place);
        }
    }
}

impl Core {
    /// Renames something within a union.
    pub(crate) fn rename_joined(
        self: &Arc<Self>,
        (from, name): (EntryId, Name),
        (to, new_name): (EntryId, Name),
        mode: RenameMode,
    ) -> Answer<()> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let (merged, _turn) = core.in_turn(&[(from, &name), (to, &new_name)]).await?;
            let (from, to) = (&merged[0], &merged[1]);
            let moved = like_the_first(&core.named(from, &name)?)?;
            let there = core.named(to, &new_name)?;
            if mode == RenameMode::Exchange {
                return core.exchange(&moved, &there, (&name, &new_name)).await;
            }
            if from.id == to.id && name == new_name {
                return Ok(());
            }
            if mode == RenameMode::NoReplace && !there.is_empty() {
                return Err(Error::Exists);
            }
            let is_directory = moved[0].1.kind == Kind::Directory;
            let replaced = if there.is_empty() {
                Vec::new()
            } else {
                like_the_first(&there)?
            };
            if let Some((_, first)) = replaced.first() {
                match (is_directory, first.kind == Kind::Directory) {
                    (true, false) => return Err(Error::NotADirectory),
                    (false, true) => return Err(Error::IsADirectory),
                    (true, true) => core.is_empty(first.id).await?,
                    (false, false) => {}
                }
            }
            // Something hidden, of another kind than what is shown, would be in the way.
            let hidden = |(member, _): &&Found| {
                there.iter().any(|it| it.0 == *member) && !replaced.iter().any(|it| it.0 == *member)
            };
            if moved.iter().any(|it| hidden(&it)) {
                return Err(if is_directory {
                    Error::NotADirectory
                } else {
                    Error::IsADirectory
                });
            }
            let all: Vec<_> = moved.iter().chain(&replaced).collect();
            core.may_all_change(&all).await?;
            core.rename_all((from, &name), (to, &new_name), (&moved, &replaced), mode)
                .await
        })
    }

    /// Renames at each member that has it, and removes what else has the new name.
    async fn rename_all(
        self: &Arc<Self>,
        (from, name): (&Merged, &Name),
        (to, new_name): (&Merged, &Name),
        (moved, replaced): (&[Found], &[Found]),
        mode: RenameMode,
    ) -> Result<(), Error> {
        let mut steps = Vec::with_capacity(moved.len());
        for (member, entry) in moved {
            let Some(member) = *member else {
                return Err(Error::Busy);
            };
            steps.push(Step {
                from: entry.parent,
                to: self.branch_at(to, member).await?,
                replaces: replaced.iter().any(|it| it.0 == Some(member)),
            });
        }
        let is_directory = moved.iter().any(|(_, entry)| entry.kind == Kind::Directory);
        let left = |it: &&Found| !moved.iter().any(|moved| moved.0 == it.0);
        let left: Vec<_> = replaced.iter().filter(left).collect();
        if steps.len() + left.len() > 1 {
            self.may_be_replaced(replaced).await?;
        }
        let _under_way = self.begin_renaming(is_directory && steps.len() > 1, (from, name), (to, new_name));
        // What is hidden goes before anything is replaced, and what is shown when something has its place.
        let is_shown = |it: &Found| replaced.first().is_some_and(|first| first.0 == it.0);
        let (shown, hidden): (Vec<_>, Vec<_>) = left.into_iter().partition(|it| is_shown(it));
        let (replacing, free): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step.replaces);
        let mut done = Vec::with_capacity(steps.len());
        let change = async {
            self.take_steps(&free, (name, new_name), mode, &mut done).await?;
            self.give_way(&hidden, new_name, is_directory).await?;
            self.take_steps(&replacing, (name, new_name), mode, &mut done).await?;
            self.give_way(&shown, new_name, is_directory).await
        };
        let changed = change.await;
        if changed.is_err() {
            self.take_back(&done, name, new_name).await;
        }
        changed
    }

    /// Makes sure, before anything is done, that what remote members have of what is replaced is the version that is known here.
    async fn may_be_replaced(self: &Arc<Self>, replaced: &[Found]) -> Result<(), Error> {
        let is_asked = |(_, entry): &&Found| {
            let half = self.half_of_source(entry.source);
            entry.kind != Kind::Directory && matches!(half, Ok(Half::Remote))
        };
        let asked = replaced.iter().filter(is_asked);
        let asked = join_all(asked.map(|(_, entry)| self.may_give_way(entry))).await;
        asked.into_iter().collect()
    }

    async fn take_steps<'a>(
        self: &Arc<Self>,
        steps: &[&'a Step],
        (name, new_name): (&Name, &Name),
        mode: RenameMode,
        done: &mut Vec<&'a Step>,
    ) -> Result<(), Error> {
        for step in steps {
            let renamed = self.rename_in((step.from, name), (step.to, new_name), mode);
            renamed.wait().await?;
            done.push(step);
        }
        Ok(())
    }

    /// Removes what has the new name at members that have nothing to rename.
    async fn give_way(self: &Arc<Self>, left: &[&Found], new_name: &Name, is_directory: bool) -> Result<(), Error> {
        for (_, entry) in left {
            let removed = self.remove_in(entry.parent, new_name, is_directory, Removal::GivesWay);
            removed.wait().await?;
        }
        Ok(())
    }

    /// Has the parts of a directory found by both names while some have the one and some the other.
    fn begin_renaming(
        &self,
        is_needed: bool,
        (from, name): (&Merged, &Name),
        (to, new_name): (&Merged, &Name),
    ) -> UnderWay<'_> {
        let one = is_needed.then(|| Renaming {
            union: from.union.root,
            from: [&from.names[..], std::slice::from_ref(name)].concat(),
            to: [&to.names[..], std::slice::from_ref(new_name)].concat(),
        });
        self.unions.renaming.lock().extend(one.clone());
        UnderWay(self, one)
    }

    /// Gives what was renamed its old name again.
    async fn take_back(self: &Arc<Self>, done: &[&Step], name: &Name, new_name: &Name) {
        for step in done.iter().rev().filter(|step| !step.replaces) {
            let back = self.rename_in((step.to, new_name), (step.from, name), RenameMode::NoReplace);
            if let Err(error) = back.wait().await {
                let (name, new_name) = (name.escape_ascii(), new_name.escape_ascii());
                tracing::error!(%name, %new_name, %error, "a member of a union has renamed what others could not, and cannot take it back");
            }
        }
    }

    /// Exchanges two names, which the same members must have.
    async fn exchange(self: &Arc<Self>, one: &[Found], other: &[Found], names: (&Name, &Name)) -> Result<(), Error> {
        if other.is_empty() {
            return Err(Error::NotFound);
        }
        let members = |found: &[Found]| found.iter().map(|(member, _)| *member).collect::<Vec<_>>();
        if members(one) != members(other) || other.iter().any(|(_, entry)| entry.attach_point) {
            return Err(Error::InvalidArgument);
        }
        let all: Vec<_> = one.iter().chain(other).collect();
        self.may_all_change(&all).await?;
        let mut done: Vec<(EntryId, EntryId)> = Vec::with_capacity(one.len());
        for ((_, one), (_, other)) in one.iter().zip(other) {
            let exchange = |(one, other)| self.rename_in((one, names.0), (other, names.1), RenameMode::Exchange);
            let parents = (one.parent, other.parent);
            if let Err(error) = exchange(parents).wait().await {
                for parents in done.into_iter().rev() {
                    if let Err(error) = exchange(parents).wait().await {
                        tracing::error!(%error, "an exchange of names in a union is done in part, and cannot be taken back");
                    }
                }
                return Err(error);
            }
            done.push(parents);
        }
        Ok(())
    }
}
