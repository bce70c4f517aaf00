//! Renaming a file, or anything else but a directory, from one folder of this machine to another that lies on the same file system: the disk does it, and nothing is
//! copied.

use std::sync::Arc;

use manifold_backends::ErrorKind;
use manifold_backends::local::{LocalBackend, Place, RenameMode};
use manifold_catalog::{Across, Keep};

use super::Crossing;
use crate::Error;
use crate::change::Paths;
use crate::change::follow::{Loss, kind_of, seen_attributes};
use crate::change::local::{done, found};
use crate::vfs::Core;

impl Core {
    /// Has the disk rename it; false where it cannot, since the two folders are reached by different mounts.
    pub(super) async fn rename_beside(
        self: &Arc<Self>,
        crossing: &Arc<Crossing>,
        from: &LocalBackend,
        to: &LocalBackend,
    ) -> Result<bool, Error> {
        let _names = self.lock_crossing(crossing).await?;
        let (core, crossing) = (Arc::clone(self), Arc::clone(crossing));
        let (from, to) = (from.clone(), to.clone());
        let renamed = self.blocking(move || {
            let _change = core.catalog.begin_change(&crossing.directories());
            let sources = [(crossing.former.0, Paths::Change), (crossing.to_source, Paths::Change)];
            core.with_paths_of_both(sources, || core.rename_between(&crossing, &from, &to))
        });
        renamed.await
    }

    fn rename_between(&self, crossing: &Crossing, from: &LocalBackend, to: &LocalBackend) -> Result<bool, Error> {
        self.is_as_planned(crossing)?;
        let place = Place {
            directory: self.path_of(crossing.from.parent)?,
            name: crossing.former.1.name().to_vec(),
        };
        let new_place = self.place_in_folder(crossing)?;
        let held = found(from.hold(&place.path())).inspect_err(|_| self.look_into(crossing.from.parent))?;
        let seen = done(held.metadata())?;
        // Its other names would stay where they are.
        self.note_more_names(crossing.former.0, &seen);
        if kind_of(seen.kind) != crossing.from.kind || seen.links > 1 {
            return Err(Error::CrossSource);
        }
        let mode = if crossing.only_new {
            RenameMode::NoReplace
        } else {
            RenameMode::Replace
        };
        // For those who have it open, and for those who have just looked it up.
        let keep = crossing.over.is_some();
        let renamed = match from.rename_into(&place, to, &new_place, mode, keep) {
            Err(error) if error.kind() == ErrorKind::CrossDevice => return Ok(false),
            renamed => found(renamed)?,
        };
        let at_ns = renamed.to.changed.map_or(0, |it| it.0);
        if let (Some(over), Some(before)) = (&crossing.over, &renamed.replaced) {
            self.lost_name(over, before, renamed.held.as_ref(), at_ns, Loss::Replaced)?;
        }
        let across = Across {
            from: (crossing.from.parent, &crossing.from.name),
            to: (crossing.to_directory, &crossing.to_name),
            raw_name: (*new_place.name != *crossing.to_name).then(|| new_place.name.as_slice().into()),
            seen: seen_attributes(&renamed.object),
            same_bytes: true,
            keeps: false,
            keep: Keep::default(),
            attributes: Vec::new(),
            left: None,
            staged: None,
            staged_bytes: None,
            at_ns,
        };
        self.follow(|catalog| Ok(((), catalog.follow_across(&across)?)))?;
        self.follow_directory(crossing.from.parent, &renamed.from);
        self.follow_directory(crossing.to_directory, &renamed.to);
        Ok(true)
    }
}
