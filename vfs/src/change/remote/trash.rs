//! The trash of a remote source: what is removed there goes to a folder of the source, from where it can be put back.
//!
//! The place says all there is to know, so that nothing else has to be kept: what was `a/b` until it was removed on 3 May
//! 2025 is `.manifold-trash/2025-05-03/a/b`, or, where something has that name already, `.manifold-trash/2025-05-03.2/a/b`.
//!
//! Always true:
//! - a file is in its place or in the trash, and nothing in the trash is replaced;
//! - what is removed from the trash is gone, and so is what its source never had.

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_catalog::{Entry, EntryId, Kind};

use super::Target;
use super::names::new_child;
use crate::Error;
use crate::change::Site;
use crate::error::Cause;
use crate::upload::conflict;
use crate::vfs::Core;

/// The folder, in the root of the source.
const FOLDER: &[u8] = b".manifold-trash";
/// How many files of one path can be removed on one day.
const TRIES: u32 = 1_000;

/// A directory on the way to the place of something in the trash.
struct Step {
    /// What it is called in the tree,
    name: Box<[u8]>,
    /// and at the source.
    raw_name: Vec<u8>,
}

impl Step {
    fn plain(name: &[u8]) -> Self {
        Self {
            name: name.into(),
            raw_name: name.to_vec(),
        }
    }
}

impl Core {
    /// Tells whether a file that is about to be removed goes to the trash.
    pub(super) fn goes_to_trash(&self, target: &Target, entry: &Entry) -> Result<bool, Error> {
        if !self.writable()?.has_trash(target.source) {
            return Ok(false);
        }
        let is_in_it = target.path.as_bytes().split(|byte| *byte == b'/').next() == Some(FOLDER);
        let stands_here_alone = self
            .staged_entry(entry.id)
            .is_some_and(|file| file.expected().is_none() && !file.was_sent());
        Ok(!is_in_it && !stands_here_alone)
    }

    /// Tells whether the source has anything where a held file lies that has not gone to the trash.
    pub(super) async fn is_at_source(&self, target: &Target, is_alone: bool) -> Result<bool, Error> {
        let looking = target.backend.stat(&target.path);
        match self.ask_within(self.removal_patience(is_alone), target, looking).await {
            Ok(there) => Ok(!there.is_absent()),
            // Others have put a file where its directory was.
            Err(Error::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says why a file stays that the trash has not taken and that its source has.
    pub(super) fn not_taken(&self, entry: &Entry, refused: Error) -> Error {
        self.look_into(entry.parent);
        match refused {
            // Somebody has put it back.
            Error::NotFound => Error::Busy,
            refused => refused,
        }
    }

    /// Moves a file to the trash.
    pub(super) async fn move_to_trash(self: &Arc<Self>, target: Target, entry: Entry) -> Result<(), Error> {
        let sources = self.catalog.sources().map_err(Error::from_catalog)?;
        let source = sources.into_iter().find(|source| source.id == target.source);
        let root = source.ok_or(Error::Stale)?.root;
        let day = conflict::day(self.writable()?.now_ns());
        let above = self.above(root, &target, &entry)?;
        // Behind what was removed before, so that the last of the day is the last.
        let first = self.last_of_day(root, &day, &above, &entry.name)?.saturating_add(1);
        for attempt in first..first.saturating_add(TRIES) {
            let folder = match attempt {
                1 => day.clone(),
                _ => format!("{day}.{attempt}"),
            };
            let steps = [Step::plain(FOLDER), Step::plain(folder.as_bytes())];
            let place = Site {
                directory: root,
                parent: root,
                source: target.source,
                path: ObjectPath::root(),
            };
            let entered = self.enter_all(place, steps.iter().chain(&above));
            // The other half is for the file itself, so that the request ends in time.
            let Ok(entered) = tokio::time::timeout(self.settings.data_deadline / 2, entered).await else {
                return Err(Error::TimedOut(Cause::new("the trash could not be made ready in time")));
            };
            // A file that was removed before may have the name of a directory of this one.
            let Some(site) = entered? else { continue };
            let taken = self.catalog.lookup(site.directory, &entry.name);
            if taken.map_err(Error::from_catalog)?.is_some() {
                continue;
            }
            let source = self.remote_target_of(entry.id)?;
            match self.move_aside(entry.clone(), source, &site).await {
                // It is not known here yet.
                Err(Error::Exists) => {}
                Err(Error::CrossSource) => {
                    return Err(Error::Unsupported(Cause::new(
                        "its source cannot rename files, so that nothing can go to a trash; set trash=false",
                    )));
                }
                done => return done,
            }
        }
        Err(Error::Exists)
    }

    /// Gives the number of the last folder of a day in which something of a path lies, or in the place of what leads to it, as far as is known;
    /// 0 if none does.
    fn last_of_day(&self, root: EntryId, day: &str, above: &[Step], name: &[u8]) -> Result<u32, Error> {
        let lookup = |directory, name: &[u8]| self.catalog.lookup(directory, name).map_err(Error::from_catalog);
        let Some(trash) = lookup(root, FOLDER)? else {
            return Ok(0);
        };
        let mut last = 0;
        for page in self.catalog.child_pages(trash.id) {
            for folder in page.map_err(Error::from_catalog)? {
                let number = match folder.name.strip_prefix(day.as_bytes()) {
                    Some(b"") => 1,
                    Some([b'.', number @ ..]) => {
                        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
                        number.unwrap_or(0)
                    }
                    _ => 0,
                };
                if number <= last {
                    continue;
                }
                let mut at = Some(folder);
                for name in above.iter().map(|step| &*step.name).chain([name]) {
                    at = match at {
                        Some(at) if at.kind == Kind::Directory => lookup(at.id, name)?,
                        // A file has the name of a directory of this one.
                        at => at,
                    };
                }
                if at.is_some() {
                    last = number;
                }
            }
        }
        Ok(last)
    }

    /// Lists the directories that lead from the source's root to an entry.
    fn above(&self, root: EntryId, target: &Target, entry: &Entry) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        let (mut id, mut path) = (entry.parent, target.path.parent());
        while id != root {
            let directory = self.entry_of(id)?;
            steps.push(Step {
                name: directory.name.clone(),
                raw_name: path.name().to_vec(),
            });
            (id, path) = (directory.parent, path.parent());
        }
        steps.reverse();
        Ok(steps)
    }

    /// Goes into one directory after the other. `None` if something else has the name of one.
    async fn enter_all(
        self: &Arc<Self>,
        mut site: Site,
        steps: impl Iterator<Item = &Step>,
    ) -> Result<Option<Site>, Error> {
        for step in steps {
            match self.enter(&site, step).await? {
                Some(next) => site = next,
                None => return Ok(None),
            }
        }
        Ok(Some(site))
    }

    /// Goes into a directory, which is made if it is not there. `None` if something else has its name.
    async fn enter(self: &Arc<Self>, site: &Site, step: &Step) -> Result<Option<Site>, Error> {
        let known = || {
            self.catalog
                .lookup(site.directory, &step.name)
                .map_err(Error::from_catalog)
        };
        let mut entry = known()?;
        if entry.is_none() {
            match self.make_step(site, step).await {
                // Somebody else has made it, or it was never listed.
                Err(Error::Exists) => self.indexer.list_now(site.directory).await.map_err(Error::from_index)?,
                made => made?,
            }
            entry = known()?;
        }
        let entry = entry.ok_or(Error::Stale)?;
        Ok((entry.kind == Kind::Directory).then(|| Site {
            directory: entry.id,
            parent: site.directory,
            source: site.source,
            path: site.path.join(&step.raw_name),
        }))
    }

    async fn make_step(self: &Arc<Self>, site: &Site, step: &Step) -> Result<(), Error> {
        let path = site.path.join(&step.raw_name);
        let target = self.remote_target(site.source, path.as_bytes().to_vec())?;
        let guard = self.catalog.begin_change(&[site.directory]);
        let metadata = self.ask(&target, target.backend.create_directory(&target.path)).await?;
        let at = self.writable()?.now_ns();
        let child = new_child(&step.name, step.raw_name.clone(), &metadata);
        let (core, directory) = (Arc::clone(self), site.directory);
        self.blocking(move || {
            // Nobody has asked for it by name, so that the kernel is to be told.
            let followed = core.catalog.follow_created(directory, child, Some(at));
            drop(guard);
            followed.map(drop).map_err(Error::from_catalog)
        })
        .await
    }
}
